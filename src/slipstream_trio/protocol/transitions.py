"""The pure core: one input in, one transition out.

A connection's whole behaviour is the function `handle`; it does no I/O, reads no clock and takes no random numbers, so
a recorded connection can be replayed through it. What the server does, and why each rule below is as it is:

* Replies are matched by ref, never by join_ref: the refusal of an unmatched topic has a null join_ref.
* `phx_close` and `phx_error` end a channel only if their ref is the join_ref of its current join. With null refs they
  are an application's own events; with an older ref they belong to a join that a newer one replaced (the new join's
  reply comes before the old join's `phx_close`).
* A reply to a push may never come: its channel may end first. Its end is told by `TopicJoinClosed`,
  `TopicLeft` or `ConnectionClosed`.
* A leave is complete at the end of its join: its `phx_close` or `phx_error`, or its refusal if it was pending.
  The leave's own reply may be absent (it is, if the channel had just ended), or come later.
* While a join is pending the server may answer nothing else, heartbeats included: `join/3` runs in its socket process.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..errors import EndedBy, ProtocolError
from . import commands, events
from .draft import Draft
from .events import Event, FrameRejected, MessageDropped, ReplyReceived, Transition, reply_received, transition
from .message import CLOSE, ERROR, PHOENIX, REPLY, Frame, Message, new_message
from .serializer import Serializer, serializer_for
from .state import Heartbeat, State, Status

ABNORMAL_CLOSURE: Final = 1006  # the code of a connection that ended without a close frame (RFC 6455, 7.4.1)
_ANSWERS: Final = frozenset({REPLY, CLOSE, ERROR})  # they settle something with a ref; else they are an application's


def handle(state: State, input: commands.Input, serializer: Serializer | None = None) -> Transition:  # noqa: A002 - the design's word
    """Return what `input` does to a connection in `state`.

    Parameters:
        serializer: the connection's own; None takes the built-in one of `state.options.vsn`.

    Raises:
        SerializationError: a command's payload cannot be sent; the state is as it was.
        ProtocolError: the input does not fit the state, such as a push on a connection that is not open.
    """
    if serializer is None:
        serializer = serializer_for(state.options.vsn)
    if isinstance(input, commands.FrameReceived):
        try:
            message = serializer.decode(input.frame)
        except ProtocolError as error:
            return Transition(state, input, (FrameRejected(error.problem),))
        return receive(state, message, input, serializer)
    if isinstance(input, commands.PushMessage):
        number = state.current_ref + 1
        frame = push_frame(state, input, str(number), serializer)
        return transition(state.with_ref(number), input, (), (events.SendFrame(frame, str(number)),))
    status, handler = _HANDLERS[type(input)]
    if status is not None and state.status != status:
        raise ProtocolError(f"{type(input).__name__} on a connection that is {state.status}, not {status}")
    draft = Draft(state, getattr(input, "now", math.inf), serializer)
    handler(draft, input)
    return draft.transition(input)


def is_plain(state: State, message: Message) -> bool:
    """Tell whether `message` is just delivered: `handle` would leave the state as it is and build `MessageReceived`.

    The runtime's shortcut for nearly everything that a server sends.
    """
    join_ref, ref, topic, event, _ = message
    known = state.topics.seen.get(topic) or state.topics.join_ref(topic)
    return known is not None and (join_ref is None or join_ref == known) and (ref is None or event not in _ANSWERS)


def plain_reply(state: State, message: Message) -> ReplyReceived | None:
    """Return the event that is all that `handle` builds of a reply to a push, None for other messages: a shortcut."""
    _, ref, topic, event, payload = message
    if event != REPLY or ref is None or type(payload) is not dict or type(payload.get("status")) is not str:
        return None
    topics, turns = state.topics, state.turn_queue
    # Mostly no join or leave is unanswered, so that a reply changes nothing.
    if turns.queue or turns.late or topics.leaving or ref == state.heartbeat.ref:
        return None
    if ref == (topics.seen.get(topic) or topics.join_ref(topic)):
        return None
    return reply_received(topic, ref, payload["status"], payload.get("response"))


def push_frame(state: State, push: commands.PushMessage, ref: str, serializer: Serializer) -> Frame:
    """Return the frame that `handle` sends for a push, or raise as it does; it changes nothing but `current_ref`."""
    topics, topic = state.topics, push.topic
    if state.status != "open":
        raise ProtocolError(f"PushMessage on a connection that is {state.status}, not open")
    join_ref = topics.seen.get(topic) or topics.join_ref(topic)
    if join_ref is None:
        raise ProtocolError(f"a push on {topic!r}, which is not joined")
    return serializer.encode(new_message(join_ref, ref, topic, push.event, push.payload))


# The transport


def _transport_opened(draft: Draft, opened: commands.TransportOpened) -> None:
    interval = draft.before.options.heartbeat_interval
    draft.status = "open"
    draft.heartbeat = Heartbeat(deadline=None if interval is None else opened.now + interval)
    draft.events.append(events.ConnectionOpened(opened.response_headers))


def _transport_failed(draft: Draft, failed: commands.TransportFailed) -> None:
    draft.status = "closed"
    draft.events.append(events.ConnectionFailed(failed.reason, failed.status, failed.headers, failed.body))


def _transport_closed(draft: Draft, closed: commands.TransportClosed) -> None:
    if draft.status == "closed":
        raise ProtocolError("the transport of a closed connection cannot end again")
    by: EndedBy = closed.ended_by or ("network" if closed.code == ABNORMAL_CLOSURE else "server")
    reason = _REASONS[by]
    if draft.close_reason is not None:
        reason = draft.close_reason
        by = "network" if reason == "heartbeat_timeout" else "client"
    elif closed.reason is not None:
        reason = closed.reason
        by = closed.ended_by or events.ENDED_BY.get(reason, "client")
    draft.status, draft.close_reason = "closed", reason
    draft.events.append(events.ConnectionClosed(reason, closed.code, closed.message, by))


_REASONS: Final[Mapping[EndedBy, str]] = {"client": "closed_by_client", "server": "closed_by_server", "network": "lost"}


# Frames


def receive(state: State, message: Message, received: commands.FrameReceived, serializer: Serializer) -> Transition:
    """Return what `handle` does with a frame that was decoded already; `serializer` is the connection's own."""
    if message.ref is None or message.event not in _ANSWERS:
        join_ref = state.topics.join_ref(message.topic)
        event: Event = events.MessageReceived(message)
        if join_ref is None or message.join_ref not in (None, join_ref):
            event = MessageDropped(message, "not_joined" if join_ref is None else "outdated_join_ref")
        return Transition(state, message, (event,))
    reply = plain_reply(state, message)
    if reply is not None:
        return transition(state, message, (reply,), ())
    payload = message.payload
    if message.event == REPLY and (type(payload) is not dict or type(payload.get("status")) is not str):
        return Transition(state, received, (FrameRejected("a phx_reply whose payload has no status"),))
    draft = Draft(state, received.now, serializer)
    draft.worked_off(message.ref, message.topic)
    if message.event == REPLY:
        _reply(draft, message.topic, message.ref, payload["status"], payload.get("response"))
    else:
        _end_of_channel(draft, message, message.ref)
    return draft.transition(message)


def _end_of_channel(draft: Draft, message: Message, ref: str) -> None:
    topic, topics = message.topic, draft.topics
    join_ref = topics.joins.get(topic)
    if join_ref != ref:
        draft.events.append(MessageDropped(message, "not_joined" if join_ref is None else "outdated_join_ref"))
    elif topic in topics.leaving:
        draft.left(topic, "left")
    else:
        draft.topics = topics.without(topic)
        reason: Any = "closed" if message.event == CLOSE else "crashed"
        draft.events.append(events.TopicJoinClosed(topic, ref, reason, message.payload))


def _reply(draft: Draft, topic: str, ref: str, status: str, response: Any) -> None:
    leaving = draft.topics.leaving.get(topic)
    if ref == draft.heartbeat.ref and topic == PHOENIX:
        now, sent_at, interval = draft.now, draft.heartbeat.sent_at, draft.before.options.heartbeat_interval
        since = now if sent_at is None else sent_at
        draft.heartbeat = Heartbeat(None, sent_at, None if interval is None else max(now, since + interval))
        draft.events.append(events.HeartbeatAcknowledged(ref, now - since))
    elif ref == draft.topics.join_ref(topic):
        _join_reply(draft, topic, ref, status, response)
    elif leaving is None or ref != leaving.ref:
        draft.events.append(ReplyReceived(topic, ref, status, response))
    elif status != "ok":
        draft.left(topic, "left")


def _join_reply(draft: Draft, topic: str, ref: str, status: str, response: Any) -> None:
    pending = draft.topics.pending.get(topic)
    if pending is not None and status == "ok":
        draft.topics = draft.topics.changed(topic, pending=None)
        draft.events.append(events.TopicJoinSucceeded(topic, ref, response))
    elif pending is not None:
        draft.topics = draft.topics.without(topic)
        draft.events.append(events.TopicJoinFailed(topic, ref, "refused", response))
    elif topic in draft.topics.leaving and status != "ok":
        # Left before it was refused: no phx_close will come.
        draft.left(topic, "left")
    else:
        draft.events.append(ReplyReceived(topic, ref, status, response))


_HANDLERS: Final[Mapping[type, tuple[Status | None, Callable[[Draft, Any], None]]]] = {
    commands.TransportOpened: ("opening", _transport_opened),
    commands.TransportFailed: ("opening", _transport_failed),
    commands.TransportClosed: (None, _transport_closed),
    commands.TimerTicked: (None, Draft.tick),
    commands.JoinTopic: ("open", Draft.join),
    commands.LeaveTopic: ("open", Draft.leave),
    commands.SendHeartbeat: ("open", Draft.beat),
    commands.CloseConnection: ("open", Draft.close),
}
"""By the type of an input: the status that the connection must have for it, and what handles it."""
