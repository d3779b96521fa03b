"""A summary of a run's records: their numbers, and whether they are sound.

Records are counted and checked as they come and then forgotten, so that a run may take as long as it likes.
"""

from collections import Counter

import attrs

from ..telemetry import ConnectStop, HandlerFailed, Origin, Record
from ..trace import Verifier, Violation
from ..trace.clock import WallClock
from ..trace.selection import Glance
from ..trace.stats import Statistics
from ..trace.text import NO_SECRETS, Secrets
from ..trace.view import describe

__all__ = ["Tally"]


@attrs.define
class Tally:
    """Takes in records, as a telemetry handler: counts spans, and collects violations; `statistics` has the numbers."""

    secrets: Secrets = NO_SECRETS
    spans: int = 0
    violations: list[Violation] = attrs.field(factory=list)
    _verifier: Verifier = attrs.field(factory=Verifier, init=False)
    statistics: Statistics = attrs.field(factory=Statistics, init=False)
    _clock: WallClock = attrs.field(factory=WallClock, init=False)
    _origins: dict[str, Origin] = attrs.field(factory=dict, init=False)
    _ends: dict[str, str] = attrs.field(factory=dict, init=False)
    _open: dict[str, str] = attrs.field(factory=dict, init=False)
    _lost: list[str] = attrs.field(factory=list, init=False)

    def feed(self, record: Record) -> None:
        """Count and check a record."""
        self.violations += self._verifier.feed(record)
        line = describe(record, self.secrets)
        if line is not None:
            self.statistics.feed(Glance(self._clock.at(record) - (line.took or 0), 0, line, record))
        name, span_id = record.name, record.metadata.get("span_id", "")
        if name[-1] == "start" and name[1] == "client":
            self._open[span_id] = " ".join(name[1:-1])
        elif name[1:] == ("connection", "connect", "start"):
            self._origins[span_id] = record.origin
        elif name[-1] in ("stop", "exception"):
            self.spans += 1
            self._open.pop(span_id, None)
        if isinstance(record, ConnectStop):
            self._ends[span_id] = record.termination_reason
        if isinstance(record, HandlerFailed):
            self._lost.append(f"{record.handler_id}: {record.reason}")

    def finish(self) -> None:
        """End the run: everything that began has to have ended."""
        self.violations += self._verifier.finish()

    @property
    def records(self) -> int:
        """The number of records."""
        return self._verifier.records

    @property
    def connections(self) -> list[tuple[Origin, str]]:
        """The ids of every connection, and its end."""
        return [(origin, self._ends.get(span_id, "unknown")) for span_id, origin in self._origins.items()]

    @property
    def problems(self) -> list[str]:
        """The problems of the trace, a line each."""
        unfinished = [f"{count} {name} without an end" for name, count in Counter(self._open.values()).items()]
        lost = [f"a telemetry handler failed: {handler}" for handler in self._lost]
        return [*map(str, self.violations), *unfinished, *lost]
