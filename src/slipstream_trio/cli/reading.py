"""Options and helpers of the commands that look at recordings: files, choice of records, reading."""

import gc
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import attrs
from attrs import Factory, define

from ..trace import Checker, End, Entry, Header, Missing, Progress
from ..trace.read import Source, Told
from ..trace.selection import Glance, Moment, Selection, look

SELECTING: Final = """\
choosing records: ids by their beginnings; topics, events and kinds with the
wildcards * and ?; each option can be repeated, and matches any of its values.
  --since 12.5   seconds after the first record; also 300ms, 2m, 1h
  --since 14:05  the time of day (UTC); also 2026-01-31T14:05:00+01:00
  --kind push    the text of the column `what`: push, reply, message, broadcast,
                 joined, heartbeat, gap, reconnect, dropped, 'client *', …"""

MOST: Final = 20  # so many kinds of notices are in a summary
RARELY: Final = 200_000  # objects that are made between two collections
WIDTH: Final = 30  # of a progress bar, in characters


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on the standard error that shows how far a file has been read, where that is a terminal."""

    def __init__(self) -> None:
        self._shown = False

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def show(self, progress: Progress) -> None:
        if not sys.stderr.isatty():
            return
        part = progress.done / progress.size if progress.size else 1.0
        bar = "#" * round(part * WIDTH)
        text = f"\r{bar:-<{WIDTH}} {part:4.0%}  {progress.lines:,} lines of {progress.path}\x1b[K"
        print(text, end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def add_paths(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a recording, plain or gzip; rotated files are found")


def add_reading_arguments(parser: ArgumentParser) -> None:
    add_paths(parser)
    parser.epilog = f"{SELECTING}\n\n{parser.epilog}"
    group = parser.add_argument_group("choosing records")
    for name, metavar, which in (
        *(("connection", "ID", "of this connection"), ("trace", "ID", "of this trace")),
        *(("topic", "GLOB", "about this topic: 'room:*'"), ("event", "GLOB", "about this event")),
        ("kind", "GLOB", "of this kind"),
    ):
        group.add_argument(f"--{name}", dest=f"{name}s", action="append", default=[], metavar=metavar, help=which)
    group.add_argument("--since", type=_moment, metavar="WHEN", help="not what was over before")
    group.add_argument("--until", type=_moment, metavar="WHEN", help="not what began after")
    group.add_argument("--slower", type=_duration, metavar="TIME", help="spans of at least this duration: 10ms")
    group.add_argument("--errors", action="store_true", help="only what went wrong")


def selection_of(options: Namespace) -> Selection:
    return Selection(**{name: getattr(options, name) for name in attrs.fields_dict(Selection)})


def glances(options: Namespace, found: Sequence[Source], told: Told) -> Iterator[Glance]:
    """Give what the options choose of recordings, with a bar while they are read."""
    with ProgressBar() as bar:
        yield from look([source.records(told=told, progress=bar.show) for source in found], selection_of(options))


def _moment(text: str) -> Moment:
    try:
        return Moment.parse(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not a time: write 12.5 (seconds), 300ms, 2m, 14:05:30 or 2026-01-31T14:05:30"
        ) from None


def _duration(text: str) -> int:
    moment = _moment(text)
    if moment.since != "start":
        raise ArgumentTypeError(f"{text!r} is not a duration: write 10ms or 1.5s")
    return moment.nanoseconds


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Collect cycles rarely: thousands of lines are held, and none is in a cycle, but each would be looked at often."""
    before = gc.get_threshold()
    gc.set_threshold(RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@define
class Notices:
    """Missing records and unreadable lines of recordings; `say` gets each at once."""

    say: Callable[[str], object] = lambda _: None
    _checkers: dict[str, Checker] = Factory(dict)
    _recording: dict[Path, str] = Factory(dict)
    _found: Counter[str] = Factory(Counter)

    def told(self, path: Path, entry: Entry) -> None:
        """Take in an entry other than a record."""
        if isinstance(entry, Header):
            self._recording[path] = entry.recording
        elif isinstance(entry, End) or (isinstance(entry, Missing) and entry.reason == "began_before"):
            return
        for flaw in self._checkers.setdefault(self._recording[path], Checker()).feed(str(path), entry):
            if flaw.problem in self._found or len(self._found) < MOST:
                self._found[flaw.problem] += 1
            self.say(str(flaw))

    def summary(self) -> list[str]:
        return [f"{problem} ({count:,} times)" if count > 1 else problem for problem, count in self._found.items()]
