"""The records of a recording as lines in order of time, with what no record tells: silences, and outages as a whole."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from typing import Final

from attrs import define, evolve

from ..protocol import FrameReceived, JoinTopic, LeaveTopic, SendHeartbeat, TransportClosed
from ..telemetry import EventName, HandleStop, Record
from .read import WallClock
from .schema import Recorded
from .text import many
from .view import Line, describe, describe_unfinished, given_of

HELD: Final = 10_000  # the most lines that wait for one that began before them
SECOND: Final = 1_000_000_000
SILENCE: Final = ("slipstream", "connection", "silence")
# Kinds of lines that tell of an outage, which is told as a whole.
FOLDED: Final = frozenset({"connection", "opened", "failed", "client connect", "reconnect"})

Entry = tuple[int, int, Line, Record]  # when it happened, its place among the others, what it says, and the record


@define
class _Hearing:
    """What is known of an open connection: `owed` is since when something is sent that the server has to answer."""

    record: Record
    opened: int
    heard: int
    frames: int = 0
    sent: int = 0
    owed: int = 0

    def silence(self, now: int, *, over: bool = True) -> Recorded | None:
        """Return a record of a silence until now: nothing came, though something was due, or five frames by rate."""
        quiet, its = now - self.heard, self.record
        owed = self.owed and now - self.owed > SECOND // 2
        if quiet <= SECOND or not (owed or self.frames * quiet >= 5 * (now - self.opened)):
            return None
        monotonic_time = its.measurements["monotonic_time"] + quiet
        measurements = {"system_time": self.heard, "monotonic_time": monotonic_time, "duration": quiet}
        details = {"sent": self.sent, "over": over}
        return Recorded(getattr(its, "line", 0), SILENCE, its.origin, measurements, None, None, details)


@define
class _Outage:
    """A time without a connection."""

    at: int
    line: Line
    record: Record
    attempts: int = 0
    failure: str = ""

    def told(self, now: int, how: str) -> Line:
        note = f"{self.line.note}; {how} after {many(self.attempts, 'attempt')}"
        note += self.failure and f", the last: {self.failure}"
        return evolve(self.line, what="outage", direction="here", took=now - self.at, note=note)


class History:
    """Tells what records say, in the order in which it began; `first` is when the first was emitted."""

    def __init__(self, records: Iterable[Record], held: int, *, fold: bool) -> None:
        self._clock = WallClock()
        records = iter(records)
        began = list(islice(records, 1))
        self.first: int | None = self._clock.at(began[0]) if began else None
        self._records = chain(began, records)
        self._held = held
        self._fold = fold
        self._lines: list[Entry] = []
        self._count = 0
        # What lines wait for, by the time at which it began: spans that have not ended, silences, outages.
        self._open: OrderedDict[str, tuple[int, Record]] = OrderedDict()
        # Of each connection the input that is being handled: its end comes next, so nothing waits for it.
        self._handles: dict[str, tuple[int, Record]] = {}
        self._hearing: dict[str, _Hearing] = {}
        self._outages: dict[str, _Outage] = {}

    def lines(self) -> Iterator[Entry]:
        """Give the lines."""
        now, lines, waits, at, held = 0, self._lines, self._open, self._clock.at, self._held
        for record in self._records:
            now = at(record)
            name = record.name
            if name[-1] == "start" and name[2] == "handle":
                self._handles[record.origin.connection_id or ""] = now, record
                continue
            self._take(now, name, record)
            oldest = next(iter(waits.values()))[0] if waits else now
            while lines and (lines[0][0] <= oldest or len(lines) > held):
                yield heappop(lines)
        for hearing in self._hearing.values():
            self._put(hearing.heard, hearing.silence(now, over=False))
        for outage in self._outages.values():
            self._put(outage.at, outage.record, outage.told(now, "no other connection"))
        for began, record in (*waits.values(), *self._handles.values()):
            if record.name[-1] == "start":
                self._put(began, record, describe_unfinished(record))
        while lines:
            yield heappop(lines)

    def _put(self, at: int, record: Record | None, line: Line | None = None) -> None:
        if record is not None and (line := line or describe(record)) is not None:
            self._count += 1
            heappush(self._lines, (at, self._count, line, record))

    def _take(self, now: int, name: EventName, record: Record) -> None:
        key = record.origin.connection_id or ""
        connect = name[2] == "connect" and name[1] == "connection"
        if name[-1] == "start" and not connect:
            if (span_id := record.span_id) is not None:
                self._open[span_id] = now, record
            if name[2] == "push" and (hearing := self._hearing.get(key)) is not None:
                hearing.owed = hearing.owed or now
            return
        line = describe(record)
        if line is None:
            return
        if name[2] == "handle":
            self._handles.pop(key, None)
            if name[-1] == "stop":
                self._handled(now, record, key)
        else:
            self._open.pop(record.span_id or "", None)
            if connect and name[-1] != "start" and (hearing := self._hearing.pop(key, None)) is not None:
                self._put(hearing.heard, hearing.silence(now))
                self._open.pop(key, None)
        if not (self._fold and self._folded(now, line, record)):
            self._put(now if connect else now - (line.took or 0), record, line)

    def _handled(self, now: int, record: Record, key: str) -> None:
        hearing = self._hearing.get(key)
        if hearing is None:
            hearing = self._hearing[key] = _Hearing(record, now, now)
        given = given_of(record)
        if isinstance(given, FrameReceived):
            if now - hearing.heard > SECOND:
                self._put(hearing.heard, hearing.silence(now))
            hearing.record, hearing.heard, hearing.sent, hearing.owed = record, now, 0, 0
            hearing.frames += 1
            self._open[key] = now, record
            self._open.move_to_end(key)
        elif record.details()["return"]:
            hearing.sent += 1
            if isinstance(given, JoinTopic | LeaveTopic | SendHeartbeat):
                hearing.owed = hearing.owed or now

    def _folded(self, now: int, line: Line, record: Record) -> bool:
        """Tell whether a line is part of an outage, and take it into that."""
        socket = record.origin.socket_id
        outage = self._outages.get(socket)
        if outage is None:
            bad = line.what == "closed" and line.mood == "bad"
            if bad and record.name == HandleStop.name and isinstance(given_of(record), TransportClosed):
                line = evolve(line, note=f"{line.status} {line.note}")
                self._outages[socket] = _Outage(now, line, record)
                self._open[f"outage {socket}"] = now, record
            return socket in self._outages
        if line.what == "connection" and line.event == "ends" and not outage.attempts:
            outage.line = evolve(outage.line, status=line.status, note=line.note or outage.line.note)
        elif line.what == "failed":
            outage.failure = line.note
        elif line.what == "client connect":
            outage.attempts += 1
            if line.status == "ok":
                self._put(outage.at, outage.record, self._outages.pop(socket).told(now, "back"))
                self._open.pop(f"outage {socket}", None)
        return line.what in FOLDED
