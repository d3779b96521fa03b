"""A summary of a run's records: their numbers, and whether they are sound.

Records are counted and checked as they come and then forgotten, so that a run may take as long as it likes.
"""

from attrs import define, field

from ..telemetry import ConnectStop, HandlerFailed, Record
from ..trace import Verifier, Violation
from ..trace.clock import WallClock
from ..trace.selection import Glance
from ..trace.stats import Statistics
from ..trace.text import NO_SECRETS, Secrets
from ..trace.view import describe

__all__ = ["Tally"]


@define
class Tally:
    """Takes in records, as a telemetry handler: counts spans, and collects violations; `statistics` has the numbers."""

    secrets: Secrets = NO_SECRETS
    spans: int = 0
    violations: list[Violation] = field(factory=list)
    statistics: Statistics = field(factory=Statistics)
    verifier: Verifier = field(factory=Verifier)
    ended: list[ConnectStop] = field(factory=list)
    _clock: WallClock = field(factory=WallClock)
    _open: dict[str, str] = field(factory=dict)
    _lost: list[str] = field(factory=list)

    def feed(self, record: Record) -> None:
        """Count and check a record."""
        self.violations += self.verifier.feed(record)
        if (line := describe(record, self.secrets)) is not None:
            self.statistics.feed(Glance(self._clock.at(record) - (line.took or 0), 0, line, record))
        name, span_id = record.name, record.metadata.get("span_id", "")
        if name[-1] == "start" and name[1] == "client":
            self._open[span_id] = " ".join(name[1:-1])
        elif name[-1] in ("stop", "exception"):
            self.spans += 1
            self._open.pop(span_id, None)
        if isinstance(record, ConnectStop):
            self.ended.append(record)
        if isinstance(record, HandlerFailed):
            self._lost.append(f"a telemetry handler failed: {record.handler_id}: {record.reason}")

    @property
    def problems(self) -> list[str]:
        """The problems of the trace, a line each."""
        return [*map(str, self.violations), *(f"1 {name} without an end" for name in self._open.values()), *self._lost]
