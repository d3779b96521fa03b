"""The choice of records of a recording: by id, topic, event, time, and outcome."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from fnmatch import translate
from heapq import merge
from operator import itemgetter
from typing import Any, Final, Literal

from attrs import define, evolve, field, frozen

from ..lean import lean
from ..telemetry import Record
from .history import HELD, History
from .text import brief, duration, nanoseconds
from .view import NO_PAYLOAD, Line

__all__ = ["EVERYTHING", "Glance", "Moment", "Selection", "grouped", "look"]

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
            return cls(nanoseconds(float(found[1]) * UNITS[found[2]]), "start")
        since: Literal["epoch", "midnight"] = "midnight"
        try:
            moment = datetime.combine(date(1970, 1, 1), time.fromisoformat(text))
        except ValueError:
            since, moment = "epoch", datetime.fromisoformat(text)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return cls(round(aware.timestamp() * 1e6) * 1_000, since)

    def after(self, first: int) -> int:
        """Return it in nanoseconds since the epoch, for a recording whose first record is of `first`."""
        day = 86_400_000_000_000
        return self.nanoseconds + {"epoch": 0, "midnight": first // day * day, "start": first}[self.since]


def _globs(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(pattern)) for pattern in patterns)


@frozen(kw_only=True)
class Selection:
    """A choice of records; empty or None options do not restrict.

    Attributes:
        connections: connection_ids, or their beginnings.
        traces: trace_ids, likewise.
        topics: topics, with the wildcards `*`, `?` and `[…]`.
        events: events on them, likewise.
        kinds: the kinds of lines, as `Line.what` has it, likewise.
        since: what was over earlier is left out.
        until: what began later is left out.
        errors: only what went wrong.
        slower: only spans that took so long at least, in nanoseconds.
    """

    connections: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    traces: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    topics: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    events: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    kinds: tuple[re.Pattern[str], ...] = field(default=(), converter=_globs)
    since: Moment | None = None
    until: Moment | None = None
    errors: bool = False
    slower: int | None = None

    def chooses(self, record: Record, line: Line) -> bool:
        """Tell whether a record, which has this line, is chosen, whenever it happened."""
        begins = ((record.origin.connection_id, self.connections), (record.origin.trace_id, self.traces))
        matches = ((line.topic, self.topics), (line.event, self.events), (line.what, self.kinds))
        return (
            all((text or "").startswith(prefixes) for text, prefixes in begins if prefixes)
            and all(any(glob.match(text) for glob in globs) for text, globs in matches if globs)
            and (not self.errors or line.mood == "bad")
            and (self.slower is None or (line.took or 0) >= self.slower)
        )


Alike = tuple[str, ...]
EVERYTHING: Final = Selection()
ALONE: Final = set[str]()  # the topics of a line that waits behind a group
TOGETHER: Final = 5_000_000_000  # nanoseconds between two lines that are put together


@frozen
class Glance:
    """A record that is looked at.

    Attributes:
        at: when it happened, in nanoseconds since the epoch: of a span, when it began.
        elapsed: the nanoseconds since the first record, chosen or not.
        line: its text.
        record: the record itself.
    """

    at: int
    elapsed: int
    line: Line
    record: Record

    @property
    def end(self) -> int:
        """When it was over; a connection's end is told apart from its beginning, and happened at its own time."""
        took = self.line.took
        return self.at + took if took and self.record.name[1:3] != ("connection", "connect") else self.at

    @property
    def lasted(self) -> int | None:
        """How long it took, in nanoseconds; of a gap and of an attempt to come, how long these last."""
        details = self.record.details()
        if self.line.took is None and "delay" in details:
            return nanoseconds(details["delay"])
        if self.line.what == "gap" and "since" in details:
            return max(0, nanoseconds((details["until"] - details["since"]).total_seconds()))
        return self.line.took


glance: Final[Any] = lean(Glance)


def look(
    recordings: Iterable[Iterable[Record]], selection: Selection = EVERYTHING, *, held: int = HELD, fold: bool = False
) -> Iterator[Glance]:
    """Look at the records of recordings, put in order of time; few are held in memory.

    Parameters:
        recordings: each in its own order.
        selection: the choice of records.
        held: the most lines that wait for one that began before them, and is not over; 0 gives each at its end.
        fold: put what tells of a lost connection, and of the attempts until there is another, into one line.

    Yields:
        Records that have a line: not the starts of spans, whose stops say everything, save that of a connection. Starts
        whose stops are not there are unfinished.
    """
    histories = [History(recording, held, fold=fold) for recording in recordings]
    first = min((history.first for history in histories if history.first is not None), default=0)
    since = selection.since.after(first) if selection.since else None
    until = selection.until.after(first) if selection.until else None
    every = selection == EVERYTHING
    for at, _, line, record in merge(*(each.lines() for each in histories), key=itemgetter(0)):
        if until is not None and at > until:
            return
        if not (every or selection.chooses(record, line)):
            continue
        found: Glance = glance(at, at - first, line, record)
        if since is None or found.end >= since:
            yield found


def grouped(glances: Iterable[Glance]) -> Iterator[Glance]:
    """Put together what went wrong in the same way on a socket, several times within a few seconds."""
    waiting: deque[_Group] = deque()
    groups: dict[Alike, _Group] = {}
    for glance in glances:
        line, now = glance.line, glance.at
        if line.mood == "bad":
            payload = "" if line.payload is NO_PAYLOAD else brief(line.payload)
            alike = glance.record.origin.socket_id, line.what, line.event, line.status, payload
            group = groups.get(alike)
            if group is not None and now - group.last <= TOGETHER:
                group.count, group.last = group.count + 1, now
                group.topics.add(line.topic)
                continue
            groups[alike] = group = _Group(glance, now, alike, {line.topic})
            waiting.append(group)
        else:
            waiting.append(_Group(glance, now, None, ALONE))
        while waiting:
            first = waiting[0]
            if first.alike is not None:
                if now - first.last <= TOGETHER and len(waiting) <= HELD:
                    break
                if groups[first.alike] is first:
                    del groups[first.alike]
            yield waiting.popleft().told()
    yield from (each.told() for each in waiting)


@define
class _Group:
    """Lines that say the same, by the first of them; of one that waits behind such, that line alone."""

    glance: Glance
    last: int
    alike: Alike | None
    topics: set[str]
    count: int = 1

    def told(self) -> Glance:
        if self.count == 1:
            return self.glance
        line = self.glance.line
        topic = line.topic if len(self.topics) == 1 else f"{len(self.topics)} topics"
        note = f"{self.count:,} × in {duration(self.last - self.glance.at)}: {line.note}"
        return evolve(self.glance, line=evolve(line, topic=topic, note=note))
