"""Measures of a client, for any system of metrics: the instruments, and the records' contributions to them."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, Literal

from attrs import field, frozen

from ..protocol import HeartbeatAcknowledged, Message, PushMessage, SendFrame, Transition
from ..telemetry import Telemetry, records
from ..trace.export_spans import COMMANDS, TopicPattern
from ..trace.text import in_a_word
from .attachment import Attachment

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # bounds, in seconds


@frozen(eq=False)
class Instrument:
    """A measured quantity: a "gauge" goes up and down, a "counter" up only; a "histogram" has `BUCKETS`."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str  # UCUM's: "s" is seconds, "{…}" counts things
    description: str
    labels: str = ""  # their names, as words


INSTRUMENTS: Final = (
    Instrument("connections", "gauge", "{connection}", "Connections that are open."),
    Instrument("connects", "counter", "{attempt}", "Attempts to connect, by outcome.", "outcome"),
    Instrument("messages", "counter", "{message}", "Messages sent and received.", "direction topic event"),
    Instrument("push.duration", "histogram", "s", "From a push to its reply.", "topic event outcome"),
    Instrument("joins", "counter", "{join}", "Joins and rejoins, by outcome.", "topic outcome"),
    Instrument("reconnects", "counter", "{attempt}", "Reconnects scheduled, by reason.", "reason"),
    Instrument("gaps", "counter", "{gap}", "Gaps, where messages may be missing.", "topic reason"),
    Instrument("dropped", "counter", "{message}", "Messages unclaimed, never sent, or too many.", "direction reason"),
    Instrument("overflows", "counter", "{episode}", "Episodes of a consumer's full buffer.", "topic policy"),
    Instrument("heartbeat.duration", "histogram", "s", "Round trips of heartbeats."),
)
CONNECTIONS, CONNECTS, MESSAGES, PUSHES, JOINS, RECONNECTS, GAPS, DROPS, OVERFLOWS, HEARTBEATS = INSTRUMENTS

Child = Callable[[Instrument, tuple[str, ...]], Callable[[float], object]]
"""Returns what takes the values of an instrument, for values of its labels: asked once for each of these."""

LASTING: Final[tuple[records.EventName | type, ...]] = (
    *((*records.ConnectStart.name[:-1], end) for end in ("start", "stop", "exception")),
    *(records.ClientConnectStop, records.ClientPushStop, records.ClientJoinStop, records.ReconnectScheduled),
    *(records.GapOpened, records.MessageDiscarded, records.BufferOverflowed),
)

OTHER: Final = "other"  # the label of values over the limit: a metrics store keeps a time series for each set of labels
REASONS: Final = 30  # the most different reasons; a user's transport can bring its own


def attach_measures(
    handler_id: str, telemetry: Telemetry, child: Child, *, pattern: TopicPattern, limit: int, messages: bool
) -> Attachment:
    """Measure a bus, with `messages` handled inputs too; raises `ValueError` if it is attached already."""
    measures = _Measures(cache(child), capped(limit, pattern), capped(limit), capped(REASONS))
    telemetry.attach_many(handler_id, [*LASTING, *([records.HandleStop] if messages else [])], measures.handle)
    return Attachment(lambda: telemetry.detach(handler_id))


def capped(limit: int, function: Callable[[str], str] = str) -> Callable[[str], str]:
    """Return a function from values to labels that gives `limit` different ones at most; later ones are "other"."""
    seen, lock = set[str](), threading.Lock()

    def label_of(value: str) -> str:
        label = function(value)
        if label in seen:
            return label
        with lock:
            if label not in seen and len(seen) >= limit:
                return OTHER
            seen.add(label)
        return label

    return label_of


@frozen(eq=False)
class _Measures:
    _child: Child
    _topic: TopicPattern
    _event: TopicPattern
    _reason: TopicPattern
    _open: dict[str, bool] = field(factory=dict, init=False)  # by the ids of connections that have begun

    def handle(self, record: records.Record) -> None:  # noqa: C901, PLR0912 - a case for each record
        add = self._add
        match record:
            case records.HandleStop():
                self._handled(record)
            case records.ClientPushStop(start=start):
                add(PUSHES, record.duration / 1e9, self._topic(start.topic), self._event(start.event), record.outcome)
            case records.ClientJoinStop(start=start):
                add(JOINS, 1, self._topic(start.topic), record.outcome)
            case records.ConnectStart():
                self._open[record.state.connection_id] = False
            case records.ClientConnectStop():
                add(CONNECTS, 1, record.outcome)
                # A connection whose start was not seen will have no end here either, and would be counted for ever.
                if record.outcome == "ok" and (connection_id := record.origin.connection_id or "") in self._open:
                    self._open[connection_id] = True
                    add(CONNECTIONS, 1)
            case records.ConnectStop() | records.SpanException():
                if self._open.pop(record.origin.connection_id or "", False):
                    add(CONNECTIONS, -1)
            case records.ReconnectScheduled(reason=reason):
                add(RECONNECTS, 1, self._reason(in_a_word(reason, "connect_failed")))
            case records.GapOpened():
                add(GAPS, 1, self._topic(record.topic), record.reason)
            case records.MessageDiscarded():
                add(DROPS, 1, record.direction, self._reason(in_a_word(record.reason, "malformed")))
            case records.BufferOverflowed(phase="began"):
                add(OVERFLOWS, 1, self._topic(record.topic), record.policy)
            case records.BufferOverflowed(phase="ended"):
                add(DROPS, record.dropped, "in", "overflow")

    def _add(self, instrument: Instrument, value: float, *labels: str) -> None:
        self._child(instrument, labels)(value)

    def _handled(self, record: records.HandleStop) -> None:
        message: Any = record.delivered
        if message is None:  # seldom: to make the transition takes longer than all else
            message = record.transition.message
            for event in record.transition.built_events:
                if type(event) is HeartbeatAcknowledged:
                    self._add(HEARTBEATS, event.round_trip)
            for topic, name in _sent(record.transition):
                self._add(MESSAGES, 1, "out", self._topic(topic), self._event(name))
        if type(message) is Message:
            self._add(MESSAGES, 1, "in", self._topic(message.topic), self._event(message.event))


def _sent(transition: Transition) -> Iterator[tuple[str, str]]:
    """Give topic and event of the messages that a command, or a tick, has sent."""
    given: Any = transition.message
    abandoned = iter(transition.built_events)
    for effect in transition.return_:
        if not isinstance(effect, SendFrame):
            continue
        if effect.ref == transition.state.heartbeat_ref:
            yield "phoenix", "heartbeat"
        elif isinstance(given, PushMessage):
            yield given.topic, given.event
        elif type(given) in COMMANDS:
            yield given.topic, COMMANDS[type(given)]
        else:  # a join that was not answered in time is left
            yield getattr(next(abandoned, None), "topic", "?"), "phx_leave"
