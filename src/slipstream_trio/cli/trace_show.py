"""Shows what happened on connections, line by line.

There is every message with its direction, topic, event and how long it took to
handle, the client's operations from call to outcome, and what happened once.
Lines are cut at the terminal's width, and whole in pipes. The recording is read
as a stream, so `| head` answers at once. Several recordings are put in order of
time.

reading a line:
  1.2041 3f2a → push  room:lobby  new_msg  31 µs
  seconds since the first record, the connection, → to the server, ← from it,
  · on this side, what it is, the topic, the event, how it went, its time.

examples:
  slipstream trace show trace.jsonl
  slipstream trace show trace.jsonl --topic 'room:*' --errors
  slipstream trace show trace.jsonl --connection 3f2a --since 2m --until 150
  slipstream trace show trace.jsonl --follow
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..trace import Recorded
from ..trace.read import follow, sources
from ..trace.selection import grouped, look
from .output import Output
from .reading import Notices, add_reading_arguments, rarely_collected, selection_of
from .status import OK, UsageError
from .timeline import Timeline

ENOUGH: Final = OK
POLL: Final = 0.1  # seconds between two looks at a file that is followed


def add_arguments(parser: ArgumentParser) -> None:
    add_reading_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on with what is recorded from now on, until Ctrl-C")
    parser.add_argument("--clock", action="store_true", help="the time of day (UTC) instead of seconds")
    parser.add_argument("--whole", action="store_true", help="each line: repeats and outages are not put together")
    parser.add_argument("--plain", action="store_true", help="whole lines without colour, on a terminal too")


def run(options: Namespace) -> int:
    if options.follow and len(options.paths) > 1:
        raise UsageError("--follow goes with one file")
    found = [] if options.follow else sources(options.paths)
    with rarely_collected():
        timeline = Timeline(Output.of(sys.stdout, plain=options.plain), clock=options.clock, recorded=True)
        timeline.head()
        notices = Notices(timeline.note)
        if options.follow:
            return _follow(options, timeline, notices)
        recordings = [source.records(told=notices.told) for source in found]
        chosen = False
        fold = not (options.whole or options.kinds)
        glances = look(recordings, selection_of(options), fold=fold)
        for glance in grouped(glances) if fold else glances:
            chosen = True
            timeline.line(glance)
        if not chosen:
            timeline.note("no record was chosen")
    return OK


def _follow(options: Namespace, timeline: Timeline, notices: Notices) -> int:
    """Show what is there and what comes, until the user has had enough."""
    path = options.paths[0]

    def wait() -> bool:
        sys.stdout.flush()
        time.sleep(POLL)
        return True

    def records() -> Iterator[Recorded]:
        for entry in follow(path, wait=wait):
            if isinstance(entry, Recorded):
                yield entry
            else:
                notices.told(Path(path), entry)

    try:
        for glance in look([records()], selection_of(options), held=0):
            timeline.line(glance)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # after the ^C
    return OK
