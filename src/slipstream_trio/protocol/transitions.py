"""The pure core: one input in, one transition out.

A connection's whole behaviour is the function `handle`; it does no I/O, reads no clock and takes no random numbers, so
a recorded connection can be replayed through it. What the server does, and why each rule below is as it is:

* Replies are matched by ref, never by join_ref: the refusal of an unmatched topic has a null join_ref.
* `phx_close` and `phx_error` end a channel only if their ref is the join_ref of its current join. With null refs they
  are an application's own events; with an older ref they belong to a join that a newer one replaced (the new join's
  reply comes before the old join's `phx_close`).
* A reply to a push may never come: its channel may end first. Whoever waits for one is told by `TopicJoinClosed`,
  `TopicLeft` or `ConnectionClosed`.
* A leave is complete at the end of its join: its `phx_close` or `phx_error`, or its refusal if it was pending.
  The leave's own reply may be absent (it is, if the channel had just ended), or come later.
* While a join is pending the server may answer nothing else, heartbeats included: `join/3` runs in its socket process.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import attrs
from attrs import frozen

from ..errors import ProtocolError, SerializationError
from .commands import (
    CloseConnection,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    PushMessage,
    SendHeartbeat,
    TimerTicked,
    TransportClosed,
    TransportFailed,
    TransportOpened,
)
from .events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Event,
    FrameRejected,
    HeartbeatAcknowledged,
    MessageDropped,
    MessageReceived,
    ReplyReceived,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinSucceeded,
    TopicLeft,
)
from .message import CLOSE, ERROR, HEARTBEAT, JOIN, LEAVE, PHOENIX, REPLY, Frame, Message
from .serializer import Serializer, serializer_for
from .state import State

__all__ = ["CloseTransport", "Effect", "SendFrame", "Step", "Transition", "handle", "is_plain"]

ABNORMAL_CLOSURE: Final = 1006
"""The code of a connection that ended without a close frame (RFC 6455, 7.4.1)."""

_ANSWERS: Final = frozenset({REPLY, CLOSE, ERROR})
"""The events that settle something, if they have a ref; without one they are an application's own."""

V = TypeVar("V")


@frozen
class SendFrame:
    """Send this frame; `ref` is the ref that its message took."""

    frame: Frame
    ref: str


@frozen
class CloseTransport:
    """Close the transport with this WebSocket close code."""

    code: int
    reason: str


Effect = SendFrame | CloseTransport
"""What the runtime has to do to the transport."""


@frozen
class Step:
    """A built event as plain data: its name in snake case, and its fields."""

    type: str
    attrs: Mapping[str, Any]


@frozen
class Transition:
    """What one input did.

    Attributes:
        state: the state after it.
        message: the decoded input: a `Message` for a good frame, else the input itself.
        built_events: what the socket is told.
        return_: the effects, in order.
    """

    state: State
    message: Any
    built_events: tuple[Event, ...] = ()
    return_: tuple[Effect, ...] = ()

    @property
    def event(self) -> tuple[Step, ...]:
        """The built events as steps of plain data."""
        return tuple(
            Step(_snake_case(type(event).__name__), attrs.asdict(event, recurse=False)) for event in self.built_events
        )


def handle(state: State, input: Input, serializer: Serializer | None = None) -> Transition:  # noqa: A002 - the design's word
    """Return what `input` does to a connection in `state`.

    Parameters:
        serializer: the connection's own; None takes the built-in one of `state.options.vsn`.

    Raises:
        SerializationError: a command's payload cannot be sent; the state is as it was.
        ProtocolError: the input does not fit the state, such as a push on a connection that is not open.
    """
    if serializer is None:
        serializer = serializer_for(state.options.vsn)
    return _HANDLERS[type(input)](state, input, serializer)


def is_plain(state: State, message: Message) -> bool:
    """Tell whether `message` is just delivered: `handle` would leave the state as it is and build `MessageReceived`.

    The runtime's shortcut for nearly everything that a server sends.
    """
    join_ref = state.joins.get(message.topic)
    return (
        join_ref is not None
        and (message.ref is None or message.event not in _ANSWERS)
        and (message.join_ref is None or message.join_ref == join_ref)
    )


# The transport


def _transport_opened(state: State, opened: TransportOpened, _: Serializer) -> Transition:
    _require(state, "opening", opened)
    interval = state.options.heartbeat_interval
    state = attrs.evolve(state, status="open", heartbeat_deadline=_after(opened.now, interval))
    return Transition(state, opened, (ConnectionOpened(opened.response_headers),))


def _transport_failed(state: State, failed: TransportFailed, _: Serializer) -> Transition:
    _require(state, "opening", failed)
    event = ConnectionFailed(failed.reason, failed.status, failed.headers, failed.body)
    return Transition(attrs.evolve(state, status="closed"), failed, (event,))


def _transport_closed(state: State, closed: TransportClosed, _: Serializer) -> Transition:
    if state.status == "closed":
        raise ProtocolError("the transport of a closed connection cannot end again")
    reason = state.close_reason or ("lost" if closed.code == ABNORMAL_CLOSURE else "closed_by_server")
    event = ConnectionClosed(reason, closed.code, closed.message)
    return Transition(attrs.evolve(state, status="closed", close_reason=reason), closed, (event,))


# Commands


def _join_topic(state: State, join: JoinTopic, serializer: Serializer) -> Transition:
    _require(state, "open", join)
    check_join(join.payload)
    ref = str(state.current_ref + 1)
    effect = SendFrame(serializer.encode(Message(ref, ref, join.topic, JOIN, join.payload)), ref)
    replaced = state.joins.get(join.topic)
    events = () if replaced is None else (TopicJoinClosed(join.topic, replaced, "replaced", None),)
    state = attrs.evolve(
        state,
        current_ref=state.current_ref + 1,
        joins=_with(state.joins, join.topic, ref),
        join_deadlines=_with(state.join_deadlines, join.topic, _after(join.now, join.timeout)),
        leaves=_without(state.leaves, join.topic),
        leave_deadlines=_without(state.leave_deadlines, join.topic),
    )
    return Transition(state, join, events, (effect,))


def check_join(payload: Any) -> None:
    """Refuse a join's payload that a serializer would take, but no server; raises `SerializationError`."""
    if type(payload) is bytes:
        raise SerializationError("a join's payload is JSON: Phoenix closes the connection on a binary join")


def _leave_topic(state: State, leave: LeaveTopic, serializer: Serializer) -> Transition:
    _require(state, "open", leave)
    join_ref = state.joins.get(leave.topic)
    if join_ref is None:
        return Transition(state, leave, (TopicLeft(leave.topic, None, "left"),))
    if leave.topic in state.leaves:
        return Transition(state, leave)
    ref = str(state.current_ref + 1)
    effect = SendFrame(serializer.encode(Message(join_ref, ref, leave.topic, LEAVE, {})), ref)
    state = attrs.evolve(
        state,
        current_ref=state.current_ref + 1,
        join_deadlines=_without(state.join_deadlines, leave.topic),
        leaves=_with(state.leaves, leave.topic, ref),
        leave_deadlines=_with(state.leave_deadlines, leave.topic, _after(leave.now, leave.timeout)),
    )
    return Transition(state, leave, (), (effect,))


def _push_message(state: State, push: PushMessage, serializer: Serializer) -> Transition:
    _require(state, "open", push)
    join_ref = state.joins.get(push.topic)
    if join_ref is None:
        raise ProtocolError(f"a push on {push.topic!r}, which is not joined")
    ref = str(state.current_ref + 1)
    effect = SendFrame(serializer.encode(Message(join_ref, ref, push.topic, push.event, push.payload)), ref)
    return Transition(_with_ref(state), push, (), (effect,))


def _send_heartbeat(state: State, command: SendHeartbeat, serializer: Serializer) -> Transition:
    _require(state, "open", command)
    if state.heartbeat_ref is not None:
        return Transition(state, command)
    state, effect = _heartbeat(state, command.now, serializer)
    return Transition(state, command, (), (effect,))


def _close_connection(state: State, close: CloseConnection, _: Serializer) -> Transition:
    _require(state, "open", close)
    state = attrs.evolve(state, status="closing", close_reason=close.reason)
    return Transition(state, close, (), (CloseTransport(close.code, ""),))


# The timer


def _timer_ticked(state: State, tick: TimerTicked, serializer: Serializer) -> Transition:
    if state.status != "open":
        return Transition(state, tick)
    events: list[Event] = []
    effects: list[Effect] = []
    joining = bool(state.join_deadlines)
    for topic in _due(state.join_deadlines, tick.now):
        state, effect = _abandon_join(state, topic, serializer)
        ref = state.joins[topic]
        events.append(TopicJoinFailed(topic, ref, "timeout", None))
        effects.append(effect)
        state = attrs.evolve(state, joins=_without(state.joins, topic))
    for topic in _due(state.leave_deadlines, tick.now):
        state, left = _left(state, topic, "timeout")
        events.append(left)
    if state.heartbeat_deadline is not None and state.heartbeat_deadline <= tick.now:
        state, due = _heartbeat_due(state, tick.now, serializer, joining=joining)
        effects.extend(due)
    return Transition(state, tick, tuple(events), tuple(effects))


def _abandon_join(state: State, topic: str, serializer: Serializer) -> tuple[State, SendFrame]:
    """Leave a topic whose join was not answered in time: the server may yet accept it."""
    ref = str(state.current_ref + 1)
    frame = serializer.encode(Message(state.joins[topic], ref, topic, LEAVE, {}))
    state = attrs.evolve(_with_ref(state), join_deadlines=_without(state.join_deadlines, topic))
    return state, SendFrame(frame, ref)


def _heartbeat_due(
    state: State, now: float, serializer: Serializer, *, joining: bool
) -> tuple[State, tuple[Effect, ...]]:
    if state.heartbeat_ref is None:
        state, effect = _heartbeat(state, now, serializer)
        return state, (effect,)
    if joining:
        return attrs.evolve(state, heartbeat_deadline=_after(now, state.options.heartbeat_timeout)), ()
    state = attrs.evolve(state, status="closing", close_reason="heartbeat_timeout")
    return state, (CloseTransport(1000, "heartbeat_timeout"),)


def _heartbeat(state: State, now: float, serializer: Serializer) -> tuple[State, SendFrame]:
    ref = str(state.current_ref + 1)
    frame = serializer.encode(Message(None, ref, PHOENIX, HEARTBEAT, {}))
    state = attrs.evolve(
        state,
        current_ref=state.current_ref + 1,
        heartbeat_ref=ref,
        heartbeat_sent_at=now,
        heartbeat_deadline=_after(now, state.options.heartbeat_timeout),
    )
    return state, SendFrame(frame, ref)


# Frames


def _frame_received(state: State, received: FrameReceived, serializer: Serializer) -> Transition:
    try:
        message = serializer.decode(received.frame)
    except ProtocolError as error:
        return Transition(state, received, (FrameRejected(error.problem),))
    return receive(state, message, received)


def receive(state: State, message: Message, received: FrameReceived) -> Transition:
    """Return what `handle` does with a frame that was decoded already."""
    if message.ref is not None:
        if message.event == REPLY:
            try:
                return _reply(state, message, message.ref, received.now)
            except ProtocolError as error:
                return Transition(state, received, (FrameRejected(error.problem),))
        if message.event in (CLOSE, ERROR):
            return _end_of_channel(state, message, message.ref)
    return Transition(state, message, (_message(state, message),))


def _message(state: State, message: Message) -> Event:
    join_ref = state.joins.get(message.topic)
    if join_ref is None:
        return MessageDropped(message, "not_joined")
    if message.join_ref not in (None, join_ref):
        return MessageDropped(message, "outdated_join_ref")
    return MessageReceived(message)


def _end_of_channel(state: State, message: Message, ref: str) -> Transition:
    topic = message.topic
    join_ref = state.joins.get(topic)
    if join_ref != ref:
        dropped = MessageDropped(message, "not_joined" if join_ref is None else "outdated_join_ref")
        return Transition(state, message, (dropped,))
    if topic in state.leaves:
        state, left = _left(state, topic, "left")
        return Transition(state, message, (left,))
    reason: Any = "closed" if message.event == CLOSE else "crashed"
    state = _without_join(state, topic)
    return Transition(state, message, (TopicJoinClosed(topic, ref, reason, message.payload),))


def _reply(state: State, message: Message, ref: str, now: float) -> Transition:
    status, response = _answer(message.payload)
    topic = message.topic
    if ref == state.heartbeat_ref and topic == PHOENIX:
        return _heartbeat_reply(state, message, ref, now)
    if ref == state.joins.get(topic):
        return _join_reply(state, message, status, response)
    if ref == state.leaves.get(topic):
        return _leave_reply(state, message, status)
    return Transition(state, message, (ReplyReceived(topic, ref, status, response),))


def _answer(payload: Any) -> tuple[str, Any]:
    if type(payload) is not dict or type(payload.get("status")) is not str:
        raise ProtocolError("a phx_reply whose payload has no status")
    return payload["status"], payload.get("response")


def _heartbeat_reply(state: State, message: Message, ref: str, now: float) -> Transition:
    sent_at = now if state.heartbeat_sent_at is None else state.heartbeat_sent_at
    interval = state.options.heartbeat_interval
    state = attrs.evolve(
        state,
        heartbeat_ref=None,
        heartbeat_deadline=None if interval is None else max(now, sent_at + interval),
    )
    return Transition(state, message, (HeartbeatAcknowledged(ref, now - sent_at),))


def _join_reply(state: State, message: Message, status: str, response: Any) -> Transition:
    topic, ref = message.topic, state.joins[message.topic]
    if topic in state.join_deadlines:
        if status == "ok":
            state = attrs.evolve(state, join_deadlines=_without(state.join_deadlines, topic))
            return Transition(state, message, (TopicJoinSucceeded(topic, ref, response),))
        return Transition(_without_join(state, topic), message, (TopicJoinFailed(topic, ref, "refused", response),))
    if topic in state.leaves and status != "ok":
        # Left before it was refused: no phx_close will come.
        state, left = _left(state, topic, "left")
        return Transition(state, message, (left,))
    return Transition(state, message, (ReplyReceived(topic, ref, status, response),))


def _leave_reply(state: State, message: Message, status: str) -> Transition:
    topic = message.topic
    if status == "ok":
        return Transition(state, message)
    state, left = _left(state, topic, "left")
    return Transition(state, message, (left,))


# Helpers


def _left(state: State, topic: str, reason: Any) -> tuple[State, TopicLeft]:
    left = TopicLeft(topic, state.joins.get(topic), reason)
    return _without_join(state, topic), left


def _without_join(state: State, topic: str) -> State:
    return attrs.evolve(
        state,
        joins=_without(state.joins, topic),
        join_deadlines=_without(state.join_deadlines, topic),
        leaves=_without(state.leaves, topic),
        leave_deadlines=_without(state.leave_deadlines, topic),
    )


def _with_ref(state: State) -> State:
    # Every push comes here, and evolve() takes four times as long as the constructor.
    return State(
        connection_id=state.connection_id,
        trace_id=state.trace_id,
        socket_id=state.socket_id,
        generation=state.generation,
        options=state.options,
        trace_parent=state.trace_parent,
        status=state.status,
        joins=state.joins,
        join_deadlines=state.join_deadlines,
        leaves=state.leaves,
        leave_deadlines=state.leave_deadlines,
        heartbeat_ref=state.heartbeat_ref,
        heartbeat_sent_at=state.heartbeat_sent_at,
        heartbeat_deadline=state.heartbeat_deadline,
        current_ref=state.current_ref + 1,
        close_reason=state.close_reason,
    )


def _require(state: State, status: str, given: Input) -> None:
    if state.status != status:
        raise ProtocolError(f"{type(given).__name__} on a connection that is {state.status}, not {status}")


def _after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


def _due(deadlines: Mapping[str, float | None], now: float) -> list[str]:
    return [topic for topic, deadline in deadlines.items() if deadline is not None and deadline <= now]


def _with(mapping: Mapping[str, V], topic: str, value: V) -> dict[str, V]:
    return {**mapping, topic: value}


def _without(mapping: Mapping[str, V], topic: str) -> Mapping[str, V]:
    if topic not in mapping:
        return mapping
    return {key: value for key, value in mapping.items() if key != topic}


@cache  # of a dozen names, asked for with every event that is looked at
def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


_HANDLERS: Final[Mapping[type, Callable[[State, Any, Serializer], Transition]]] = {
    TransportOpened: _transport_opened,
    TransportFailed: _transport_failed,
    TransportClosed: _transport_closed,
    FrameReceived: _frame_received,
    TimerTicked: _timer_ticked,
    JoinTopic: _join_topic,
    LeaveTopic: _leave_topic,
    PushMessage: _push_message,
    SendHeartbeat: _send_heartbeat,
    CloseConnection: _close_connection,
}
