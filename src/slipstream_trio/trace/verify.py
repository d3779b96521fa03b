"""The invariants of a trace, as code: they hold for the records of every connection.

`MEANINGS` has them. The sixth of the design is that all this holds under cancellation, failing handlers and any bytes;
tests see to it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from .. import protocol
from ..telemetry import ClientPushStop, ConnectStart, EventName, Origin, Record

MEANINGS: Final[Mapping[int, str]] = {
    1: "every record of a connection carries its own ids, and no other connection has them",
    2: "a connection's records begin with connect start and end with its stop, each once",
    3: "each input is handled in one span, from its start to its end, and no other starts before that",
    4: "each state is what the span before left",
    5: "time never goes back, durations are differences, refs increase, and each settles once",
}
"""The meaning of each invariant; a trace_id is shared where `trace_parent` made it so."""

MOST_SPANS: Final = 2**15  # so many ids of spans are remembered at least: all of them would take all of the memory


@frozen
class Violation:
    """A record that breaks an invariant.

    Attributes:
        index: the record's place in the trace, from 0; for what is missing at the end, the number of records.
        connection_id: the connection's id, None where the record has none.
        invariant: the invariant's number, as in `MEANINGS`.
        problem: the fault, in a sentence.
    """

    index: int
    connection_id: str | None
    invariant: int
    problem: str

    def __str__(self) -> str:
        return f"record {self.index}, connection {self.connection_id}: invariant {self.invariant}: {self.problem}"


@define
class _Connection:
    """The records of a connection, as far as invariants need them."""

    ids: Origin
    state: protocol.State | None = None
    unsure: bool = False
    ended: bool = False
    open_span: str | None = None
    began: dict[str, int] = field(factory=lambda: {"connect": 0, "handle": 0})  # when the last of each did
    monotonic: int = 0
    last_ref: int = 0
    joins: dict[str, str] = field(factory=dict)
    settled: set[str] = field(factory=set)


class Verifier:
    """Checks records one by one, so that a long recording need not be held in memory.

    Attributes:
        records: the number of records.
    """

    def __init__(self) -> None:
        self._connections: dict[str, _Connection] = {}
        self._traces: dict[str, str] = {}
        self._spans: set[str] = set()
        self._older_spans: set[str] = set()
        self._adopted: set[str | None] = set()  # None: any connection
        self._found: list[Violation] = []
        self._current: str | None = None
        self.records: int = 0

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._connections)

    def feed(self, record: Record) -> list[Violation]:
        """Check the next record; returns its violations."""
        self._found = []
        name = record.name
        self._current = record.origin.connection_id
        if name[1] == "connection":
            self._connection_record(record, name)
        elif name == ClientPushStop.name:
            details, connection = record.details(), self._connections.get(self._current or "")
            if connection is not None and details["status"] is not None and details["ref"] is not None:
                self._settled(connection, details["ref"])
        self.records += 1
        return self._found

    def missed(self, connection_id: str | None = None) -> None:
        """Note that records are missing here, without a violation.

        What they may have said is not held against those that follow.

        Parameters:
            connection_id: the connection that they are missing of; None: they may be anybody's.
        """
        self._adopted.add(connection_id)
        for known_id, connection in self._connections.items():
            if connection_id in (None, known_id):
                connection.unsure = True

    def finish(self) -> list[Violation]:
        """Check that everything that began has ended; returns violations for the rest."""
        self._found = []
        for connection_id, connection in self._connections.items():
            self._current = connection_id
            if connection.unsure:
                continue
            if not connection.ended:
                self._violated(2, "the connection has no connect stop")
            if connection.open_span is not None:
                self._violated(3, f"the handle span {connection.open_span} has no stop")
        return self._found

    def _violated(self, invariant: int, problem: str) -> None:
        self._found.append(Violation(self.records, self._current, invariant, problem))

    def _connection_record(self, record: Record, name: EventName) -> None:
        details, origin = record.details(), record.origin
        connection = self._connections.get(origin.connection_id or "")
        if name == ConnectStart.name:
            connection = self._connect_started(connection, origin, details["state"])
        elif connection is None and (connection := self._adopt(origin)) is None:
            self._violated(2, f"{' '.join(name)} before connect start")
            return
        if origin is not connection.ids and origin != connection.ids:
            self._violated(1, f"its ids are {origin}, not {connection.ids}")
        if connection.ended:
            self._violated(2, f"{' '.join(name)} after the end of the connection")
        measurements = record.measurements
        now = measurements["monotonic_time"]
        if now < connection.monotonic:
            self._violated(5, f"its monotonic time is {connection.monotonic - now} ns before the last")
        connection.monotonic = max(now, connection.monotonic)
        handles, unsure = name[2] == "handle", connection.unsure
        if name[-1] == "start":
            if handles:
                self._handle_started(connection, record.span_id or "", details["state"])
            connection.began[name[2]] = now
            return
        began = None if handles and unsure else connection.began.get(name[2])
        if began is not None and measurements["duration"] != now - began:
            self._violated(5, f"its duration is {measurements['duration']} ns, not {now - began}")
        if handles:
            self._handle_ended(connection, record, details, unsure=unsure)
        else:
            self._connect_ended(connection, name, details)

    def _adopt(self, origin: Origin) -> _Connection | None:
        """Take up a connection whose beginning may be among what is missing."""
        if self._adopted.isdisjoint((None, self._current)):
            return None
        adopted = self._connections[self._current or ""] = _Connection(origin, unsure=True, began={})
        return adopted

    def _connect_started(self, known: _Connection | None, origin: Origin, state: protocol.State) -> _Connection:
        if known is not None:
            self._violated(1, "another connect start of the same connection_id")
            return known
        other = self._traces.setdefault(origin.trace_id or "", self._current or "")
        if other != self._current and state.trace_parent is None:
            self._violated(1, f"its trace_id is that of connection {other}")
        connection = self._connections[self._current or ""] = _Connection(origin, state)
        if state.connection_id != self._current:
            self._violated(1, "its state has another connection_id")
        return connection

    def _handle_started(self, connection: _Connection, span_id: str, state: protocol.State) -> None:
        spans = self._spans
        if connection.open_span is not None and not connection.unsure:
            self._violated(3, f"a handle starts before the one with span_id {connection.open_span} ended")
        if span_id in spans or span_id in self._older_spans:
            self._violated(3, f"the span_id {span_id} was used before")
        if len(spans) >= MOST_SPANS:
            self._older_spans, self._spans = spans, set()
        self._spans.add(span_id)
        connection.open_span = span_id
        if connection.unsure:
            connection.state, connection.unsure = state, False
        elif state is not connection.state and state != connection.state:
            self._violated(4, "its state is not the end state of the span before")

    def _handle_ended(self, connection: _Connection, record: Record, details: Any, *, unsure: bool) -> None:
        span_id = record.span_id
        other = connection.open_span
        if other != span_id and not unsure:  # its start may be among what is missing
            its = "that did not start" if other is None else f"with span_id {span_id}, not {other}"
            self._violated(3, f"a handle ends {its}")
        connection.open_span = None
        if "end_state" not in details:  # it raised
            return
        connection.state, connection.unsure = details["end_state"], False
        for effect in details["return"]:
            if type(effect) is not protocol.SendFrame:
                continue
            # No client counts further than so many digits.
            number = int(effect.ref) if effect.ref.isdecimal() and len(effect.ref) < 20 else 0
            if number <= connection.last_ref:
                self._violated(5, f"the ref {effect.ref} is sent after {connection.last_ref}")
            connection.last_ref = max(number, connection.last_ref)
        for event in details["built_events"]:
            if type(event) is not protocol.MessageReceived:
                self._event_built(connection, event)

    def _connect_ended(self, connection: _Connection, name: EventName, details: Any) -> None:
        if connection.open_span is not None and not connection.unsure:
            self._violated(3, f"the connection ends while span {connection.open_span} is open")
        connection.open_span = None
        if name[-1] == "stop" and not connection.unsure and details["state"] != connection.state:
            self._violated(4, "its state is not the end state of the last span")
        connection.ended = True
        connection.unsure = False

    def _event_built(self, connection: _Connection, event: Any) -> None:
        match event:
            case protocol.TopicJoinSucceeded(ref=ref) | protocol.TopicJoinFailed(ref=ref):
                if ref in connection.joins:
                    self._violated(5, f"the join {ref} settles again: it {connection.joins[ref]} before")
                connection.joins[ref] = "succeeded" if isinstance(event, protocol.TopicJoinSucceeded) else "failed"
            case protocol.TopicJoinClosed(ref=ref) | protocol.TopicLeft(ref=str(ref)):
                if connection.joins.get(ref) in ("failed", "ended"):
                    self._violated(5, f"the join {ref} ends, but {connection.joins[ref]} before")
                connection.joins[ref] = "ended"
            case protocol.HeartbeatAcknowledged(ref=ref):
                self._settled(connection, ref)

    def _settled(self, connection: _Connection, ref: str) -> None:
        if ref in connection.settled:
            self._violated(5, f"the ref {ref} settles again")
        connection.settled.add(ref)


def verify(records: Iterable[Record]) -> list[Violation]:
    """Check the records of whole connections; returns all violations, in order.

    Parameters:
        records: from a handler attached to () before the connections were opened.
    """
    verifier = Verifier()
    return [violation for record in records for violation in verifier.feed(record)] + verifier.finish()
