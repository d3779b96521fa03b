"""The choice of records of a recording: by id, topic, event, time, and outcome."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from fnmatch import translate
from heapq import merge
from operator import itemgetter
from typing import Final, Literal

from attrs import field, frozen

from ..telemetry import Record
from .clock import WallClock
from .verify import span_id_of
from .view import Line, describe, describe_unfinished

__all__ = ["EVERYTHING", "Glance", "Moment", "Selection", "look"]

UNITS: Final = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|)")


@frozen
class Moment:
    """A point in time: absolute, on the day of the recording, or so long after its first record.

    Attributes:
        nanoseconds: since the epoch, since midnight (UTC), or since the first record.
        since: the reference of the time.
    """

    nanoseconds: int
    since: Literal["epoch", "midnight", "start"]

    @classmethod
    def parse(cls, text: str) -> "Moment":
        """Read a moment: "12.5", "300ms", "2m", "12:30:05", "2026-01-31T12:30:05"; UTC where no offset is given.

        Raises:
            ValueError: another form.
        """
        if found := SPAN.fullmatch(text.strip()):
            return cls(round(float(found[1]) * UNITS[found[2]] * 1e9), "start")
        try:
            at = time.fromisoformat(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
        else:
            moment = datetime.combine(date(1970, 1, 1), at)
            return cls(_nanoseconds(moment), "midnight")
        return cls(_nanoseconds(moment), "epoch")

    def after(self, first: int) -> int:
        """Return it in nanoseconds since the epoch, for a recording whose first record is of `first`."""
        day = 86_400_000_000_000
        return self.nanoseconds + {"epoch": 0, "midnight": first // day * day, "start": first}[self.since]


def _nanoseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1e6) * 1_000


def _globs(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(pattern)) for pattern in patterns)


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen(kw_only=True)
class Selection:
    """A choice of records; empty or None options do not restrict.

    Attributes:
        connections: connection_ids, or their beginnings.
        traces: trace_ids, likewise.
        topics: topics, with the wildcards `*`, `?` and `[…]`.
        events: events on them, likewise.
        kinds: the kinds of lines, as `Line.what` has it, likewise.
        since: earlier records are left out.
        until: later records are left out.
        errors: only what went wrong.
        slower: only spans that took so long at least, in nanoseconds.
    """

    connections: tuple[str, ...] = field(default=(), converter=_strings)
    traces: tuple[str, ...] = field(default=(), converter=_strings)
    topics: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    events: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    kinds: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    since: Moment | None = None
    until: Moment | None = None
    errors: bool = False
    slower: int | None = None

    def takes(self, record: Record, line: Line) -> bool:
        """Tell whether a record is looked at, whenever it happened."""
        return (
            _begins(record.origin.connection_id, self.connections)
            and _begins(record.origin.trace_id, self.traces)
            and _matches(line.topic, self.topics)
            and _matches(line.event, self.events)
            and _matches(line.what, self.kinds)
            and (not self.errors or line.mood == "bad")
            and (self.slower is None or (line.took or 0) >= self.slower)
        )


EVERYTHING: Final = Selection()

_Told = tuple[int, Line, Record]
"""When a record was emitted, what it says, and the record."""


def _begins(identifier: str | None, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or (identifier is not None and identifier.startswith(prefixes))


def _matches(text: str, globs: tuple[re.Pattern[str], ...]) -> bool:
    return not globs or any(glob.match(text) for glob in globs)


@frozen
class Glance:
    """A record that is looked at.

    Attributes:
        at: when it was emitted, in nanoseconds since the epoch.
        elapsed: the nanoseconds since the first record, chosen or not.
        line: its text.
        record: the record itself.
    """

    at: int
    elapsed: int
    line: Line
    record: Record


def look(recordings: Iterable[Iterable[Record]], selection: Selection = EVERYTHING) -> Iterator[Glance]:
    """Look at the records of recordings, those of several put in order of time; none is held in memory.

    Parameters:
        recordings: each in its own order.
        selection: the choice of records.

    Yields:
        Records that have a line: not the starts of spans, whose stops say everything, save that of a connection. Starts
        whose stops are not there come last.
    """
    first = since = until = None
    for at, line, record in _told(tuple(recordings)):
        if first is None:
            first = at
            since = selection.since.after(at) if selection.since else None
            until = selection.until.after(at) if selection.until else None
        if until is not None and at > until:
            return
        if (since is None or at >= since) and selection.takes(record, line):
            yield Glance(at, at - first, line, record)


def _told(recordings: tuple[Iterable[Record], ...]) -> Iterator[_Told]:
    if len(recordings) == 1:
        return _lines(recordings[0])
    return merge(*map(_lines, recordings), key=itemgetter(0))


def _lines(records: Iterable[Record]) -> Iterator[_Told]:
    clock = WallClock()
    unfinished: dict[str, tuple[int, Record]] = {}
    for record in records:
        line = describe(record)
        if line is not None:
            unfinished.pop(line.span_id, None)
            yield clock.at(record), line, record
        elif (span_id := span_id_of(record)) is not None:
            unfinished[span_id] = (clock.at(record), record)
    for at, record in unfinished.values():
        yield at, describe_unfinished(record), record
