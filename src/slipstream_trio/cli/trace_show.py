"""`slipstream trace show`: the history of connections, as lines."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..trace import Recorded
from ..trace.follow import follow
from ..trace.plain import plain
from ..trace.read import sources
from ..trace.selection import Glance, grouped, look
from ..trace.view import NO_PAYLOAD
from .output import Output
from .reading import SELECTING, Notices, add_reading_arguments, quiet_pipe, selection_of
from .status import OK, UsageError
from .timeline import Timeline

DESCRIPTION: Final = """\
Shows what happened on connections: every message with its direction, topic,
event and how long it took to handle, the client's operations from call to
outcome, and what happened once. Lines are cut at the terminal's width, and
whole in pipes. The recording is read as a stream, so `| head` answers at once.
Several recordings are put in order of time."""
EPILOG: Final = f"""\
reading a line:
  1.2041 3f2a → push  room:lobby  new_msg  31 µs
  seconds since the first record, the connection, → to the server, ← from it,
  · on this side, what it is, the topic, the event, how it went, its time.

{SELECTING}

examples:
  slipstream trace show trace.jsonl
  slipstream trace show trace.jsonl --topic 'room:*' --errors
  slipstream trace show trace.jsonl --connection 3f2a --since 2m --until 150
  slipstream trace show trace.jsonl --follow
  slipstream trace show trace.jsonl --json | jq 'select(.took > 1e7)'"""

POLL: Final = 0.1  # seconds between two looks at a file that is followed


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_reading_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on with what is recorded from now on, until Ctrl-C")
    parser.add_argument("--clock", action="store_true", help="the time of day (UTC) instead of seconds")
    parser.add_argument("--whole", action="store_true", help="each line: repeats and outages are not put together")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--plain", action="store_true", help="whole lines without colour, on a terminal too")
    form.add_argument("--json", action="store_true", help="an object a line; durations are nanoseconds")


def run(options: Namespace) -> int:
    """Show it."""
    if options.follow and len(options.paths) > 1:
        raise UsageError("--follow goes with one file")
    found = [] if options.follow else sources(options.paths)
    with quiet_pipe():
        show, note = _json_lines() if options.json else _timeline(options)
        notices = Notices(note)
        if options.follow:
            return _follow(options, show, notices)
        recordings = [source.records(told=notices.told) for source in found]
        chosen = False
        fold = not (options.whole or options.json or options.kinds)
        glances = look(recordings, selection_of(options), fold=fold)
        for glance in grouped(glances) if fold else glances:
            chosen = True
            show(glance)
        if not chosen:
            note("no record was chosen")
    return OK


def _follow(options: Namespace, show: Callable[[Glance], None], notices: Notices) -> int:
    """Show what is there and what comes, until the user has had enough."""
    path = options.paths[0]
    try:
        for glance in look([_followed(path, notices)], selection_of(options), held=0):
            show(glance)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # after the ^C
    return OK


def _followed(path: str, notices: Notices) -> Iterator[Recorded]:
    for entry in follow(path, wait=_wait):
        if isinstance(entry, Recorded):
            yield entry
        else:
            notices.told(Path(path), entry)


def _wait() -> bool:
    sys.stdout.flush()
    time.sleep(POLL)
    return True


def _timeline(options: Namespace) -> tuple[Callable[[Glance], None], Callable[[str], None]]:
    timeline = Timeline(Output.of(sys.stdout, plain=options.plain), clock=options.clock, recorded=True)
    timeline.head()
    return timeline.line, timeline.note


def _json_lines() -> tuple[Callable[[Glance], None], Callable[[str], None]]:
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return lambda glance: print(encode(as_dict(glance))), lambda text: print(f"slipstream: {text}", file=sys.stderr)


def as_dict(glance: Glance) -> dict[str, Any]:
    """Return a line as JSON values; what it does not have is left out."""
    line, origin = glance.line, glance.record.origin
    names = ("span_id", "direction", "what", "topic", "event", "status", "ref", "note", "took", "waited")
    told: dict[str, Any] = {
        "line": getattr(glance.record, "line", None),
        "time": datetime.fromtimestamp(glance.at / 1e9, UTC).isoformat(),
        "socket_id": origin.socket_id,
        "connection_id": origin.connection_id,
        "trace_id": origin.trace_id,
        **{name: getattr(line, name) for name in names},
        "failed": line.mood == "bad",
    }
    told = {key: value for key, value in told.items() if value not in ("", None) and (key != "waited" or value)}
    if line.payload is not NO_PAYLOAD:
        told["payload"] = plain(line.payload)
    return told
