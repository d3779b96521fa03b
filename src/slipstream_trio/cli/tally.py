"""What the records of a run come to: how many spans of each kind and how long they took, and whether they are sound.

Records are counted and checked as they come and then forgotten, so that a run may take as long as it likes.
"""

from collections import Counter
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

import attrs
from attrs import frozen

from ..protocol import HeartbeatAcknowledged
from ..telemetry import ConnectStop, HandlerFailed, HandleStop, Origin, Record
from ..trace import Verifier, Violation

__all__ = ["INVARIANTS", "REMARK", "Latencies", "Report", "SpanKind", "Tally"]

INVARIANTS: Final[Mapping[int, str]] = {
    1: "one connection_id and one trace_id a connection, and its own",
    2: "connect start first and once, connect stop last and once",
    3: "one end to every handle start, before the next; span ids unique",
    4: "every state is the end state of the span before",
    5: "time never goes back, durations add up, refs settle once",
}
"""What `slipstream_trio.trace.verify` checks, in a line each."""


REMARK: Final = "times of the client and of pings include the drawing of these lines"


@frozen
class Latencies:
    """How long things took, in nanoseconds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, durations: list[int]) -> "Latencies | None":
        """Return the latencies of these durations; None if there are none."""
        return cls(min(durations), median(durations), max(durations)) if durations else None


@frozen
class SpanKind:
    """The spans of one kind: of one name, or of one input of the name "connection handle".

    Attributes:
        name: the kind's name.
        count: how many have ended.
        latencies: how long they took.
        outcomes: how the client's ended, such as {"ok": 3, "timeout": 1}.
        part: whether they are counted under the kind before too.
    """

    name: str
    count: int
    latencies: Latencies | None
    outcomes: Mapping[str, int]
    part: bool = False


@frozen(kw_only=True)
class Report:
    """What a run came to.

    Attributes:
        origins: the ids of every connection.
        ends: how each of them ended.
        kinds: its spans by kind.
        pings: the round trips of heartbeats.
        once: how often each event happened that is no span.
        records: how many records were seen.
        violations: which invariants of the trace do not hold, and where.
        unfinished: spans of the client that began and never ended, by name.
        lost_handlers: telemetry handlers that raised.
    """

    origins: tuple[Origin, ...]
    ends: Mapping[str, str]
    kinds: tuple[SpanKind, ...]
    pings: SpanKind
    once: Mapping[str, int]
    records: int
    violations: tuple[Violation, ...]
    unfinished: Mapping[str, int]
    lost_handlers: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """Whatever is wrong with the trace, in a line each."""
        violated = [str(violation) for violation in self.violations]
        unfinished = [f"{count} {name} without an end" for name, count in self.unfinished.items()]
        return violated + unfinished + [f"a telemetry handler failed: {handler}" for handler in self.lost_handlers]


@attrs.define
class Tally:
    """Takes in records, as a telemetry handler."""

    _verifier: Verifier = attrs.field(factory=Verifier, init=False)
    _violations: list[Violation] = attrs.field(factory=list, init=False)
    _origins: dict[str, Origin] = attrs.field(factory=dict, init=False)
    _ends: dict[str, str] = attrs.field(factory=dict, init=False)
    _durations: dict[str, list[int]] = attrs.field(factory=dict, init=False)
    _inputs: dict[str, list[int]] = attrs.field(factory=dict, init=False)
    _outcomes: dict[str, Counter[str]] = attrs.field(factory=dict, init=False)
    _pings: list[int] = attrs.field(factory=list, init=False)
    _once: Counter[str] = attrs.field(factory=Counter, init=False)
    _open: dict[str, str] = attrs.field(factory=dict, init=False)
    _lost: list[str] = attrs.field(factory=list, init=False)

    def feed(self, record: Record) -> None:
        """Count and check a record."""
        self._violations += self._verifier.feed(record)
        last = record.name[-1]
        if last == "start":
            self._started(record)
        elif last in ("stop", "exception"):
            self._ended(record)
        else:
            self._once[" ".join(record.name[1:])] += 1
            if isinstance(record, HandlerFailed):
                self._lost.append(f"{record.handler_id}: {record.reason}")

    def report(self) -> Report:
        """Return what it has come to; everything that began has to have ended."""
        return Report(
            origins=tuple(self._origins.values()),
            ends=dict(self._ends),
            kinds=tuple(self._kinds()),
            pings=SpanKind("ping", len(self._pings), Latencies.of(self._pings), {}),
            once=dict(self._once),
            records=self._verifier.records,
            violations=(*self._violations, *self._verifier.finish()),
            unfinished=dict(Counter(self._open.values())),
            lost_handlers=tuple(self._lost),
        )

    def _started(self, record: Record) -> None:
        name = " ".join(record.name[1:-1])
        if record.name[1] == "client":
            self._open[record.metadata["span_id"]] = name
        elif name == "connection connect":
            self._origins[record.metadata["span_id"]] = record.origin

    def _ended(self, record: Any) -> None:
        name = " ".join(record.name[1:-1])
        self._open.pop(record.span_id, None)
        self._durations.setdefault(name, []).append(record.duration)
        if isinstance(record, HandleStop):
            given = type(record.start.raw_message).__name__
            self._inputs.setdefault(given, []).append(record.duration)
            self._pings += [
                round(event.round_trip * 1e9)
                for event in record.transition.built_events
                if isinstance(event, HeartbeatAcknowledged)
            ]
        elif isinstance(record, ConnectStop):
            self._ends[record.span_id] = record.termination_reason
        else:
            how = "exception" if record.name[-1] == "exception" else record.outcome
            self._outcomes.setdefault(name, Counter())[how] += 1

    def _kinds(self) -> list[SpanKind]:
        kinds: list[SpanKind] = []
        # The connection's first, and its life before what happened in it; the client's in the order they ended in.
        names = sorted(self._durations, key=lambda name: (name[:6] == "client", name != "connection connect"))
        for name in names:
            durations = self._durations[name]
            outcomes = dict(self._outcomes.get(name, {}))
            kinds.append(SpanKind(name, len(durations), Latencies.of(durations), outcomes))
            if name == "connection handle":
                kinds += [
                    SpanKind(given, len(durations), Latencies.of(durations), {}, part=True)
                    for given, durations in self._inputs.items()
                ]
        return kinds
