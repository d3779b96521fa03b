"""Handled inputs in a line: by the input, and for frames by the result."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from ..errors import ConnectionRejected
from ..protocol import (
    CloseConnection,
    ConnectionClosed,
    FrameReceived,
    FrameRejected,
    HeartbeatAcknowledged,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    MessageDropped,
    MessageReceived,
    PushMessage,
    ReplyReceived,
    SendFrame,
    SendHeartbeat,
    TimerTicked,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
    TransportClosed,
    TransportFailed,
    TransportOpened,
)
from .text import duration, frame_as_text

__all__ = ["describe_handle"]

Parts: TypeAlias = dict[str, Any]
"""Attributes of a line, as `view` has it."""

Metadata: TypeAlias = Mapping[str, Any]


def describe_handle(metadata: Metadata) -> Parts:
    """Return the line of a `handle stop`.

    Parameters:
        metadata: of the record; an input of a type that is not known here is called by that.
    """
    given = metadata["raw_message"]
    function = _INPUTS.get(type(given))
    return {"what": type(given).__name__} if function is None else function(metadata, given)


def _sent(metadata: Metadata) -> Parts:
    refs = " ".join(effect.ref for effect in metadata["return"] if isinstance(effect, SendFrame))
    return {"ref": refs, "note": f"ref {refs}" if refs else ""}


def _join(metadata: Metadata, given: JoinTopic | LeaveTopic) -> Parts:
    # The payload of a join is often a credential, so it is never shown.
    what = "join" if isinstance(given, JoinTopic) else "leave"
    return {"direction": "out", "what": what, "topic": given.topic, "event": f"phx_{what}", **_sent(metadata)}


def _push(metadata: Metadata, given: PushMessage) -> Parts:
    its = {"topic": given.topic, "event": given.event, "payload": given.payload}
    return {"direction": "out", "what": "push", **its, **_sent(metadata)}


def _heartbeat(metadata: Metadata, _: SendHeartbeat) -> Parts:
    sent = _sent(metadata)
    sent["note"] = sent["note"] or "one is outstanding"
    return {"direction": "out", "what": "heartbeat", "topic": "phoenix", "event": "heartbeat", **sent}


def _close(_: Metadata, given: CloseConnection) -> Parts:
    return {"direction": "out", "what": "close", "status": str(given.code), "note": given.reason}


def _opened(_: Metadata, given: TransportOpened) -> Parts:
    note = " ".join(filter(None, (given.url, dict(given.response_headers).get("server"))))
    return {"direction": "in", "what": "opened", "status": "101", "mood": "good", "note": note}


def _failed(_: Metadata, given: TransportFailed) -> Parts:
    status = "" if given.status is None else str(given.status)
    said = given.reason if given.status is None else str(ConnectionRejected(given.status, given.headers, given.body))
    note = " ".join(filter(None, (given.url, said)))
    return {"what": "failed", "status": status, "mood": "bad", "note": note}


def _closed(metadata: Metadata, given: TransportClosed) -> Parts:
    reasons = [event.reason for event in metadata["built_events"] if isinstance(event, ConnectionClosed)]
    mood = "plain" if given.code == 1000 else "bad"
    note = " ".join(filter(None, [*reasons, given.message]))
    return {"direction": "in", "what": "closed", "status": str(given.code), "mood": mood, "note": note}


def _ticked(metadata: Metadata, _: TimerTicked) -> Parts:
    sent = _sent(metadata)
    if sent["ref"] and sent["ref"] == metadata["end_state"].heartbeat_ref:
        return {"direction": "out", "what": "heartbeat", "topic": "phoenix", "event": "heartbeat", **sent}
    event = Transition(metadata["end_state"], metadata["message"], metadata["built_events"]).event
    steps = [f"{step.type} {step.attrs.get('topic', '')}" for step in event]
    sent["note"] = ", ".join(filter(None, [sent["note"], *steps]))
    mood = "bad" if metadata["built_events"] else "plain"  # a time limit that was reached
    return {"direction": "out" if metadata["return"] else "here", "what": "timer", "mood": mood, **sent}


# Frames


def _received(metadata: Metadata, given: FrameReceived) -> Parts:
    message = metadata["message"]
    if isinstance(message, Message):
        parts = _decoded(message)
    else:
        # A recording may have something else in the frame's place.
        frame: Any = given.frame
        note = f"{len(frame):,} long" if isinstance(frame, str | bytes) else ""
        parts = {"direction": "in", "what": "frame", "note": note}
    given_up = []
    for event in metadata["built_events"]:
        if isinstance(event, FrameRejected):
            parts.update(what="bad frame", mood="bad", note=event.reason, payload=frame_as_text(given.frame))
        elif isinstance(event, TopicJoinFailed) and event.reason == "timeout":
            given_up.append(f"the join of {event.topic} timed out")  # told by the answer to something later
        elif (function := _BUILT.get(type(event))) is not None:
            parts.update(function(event))
    if given_up:
        parts.update(mood="bad", note=", ".join(filter(None, [parts["note"], *given_up])))
    return parts


def _decoded(message: Message) -> Parts:
    ref = message.ref or ""
    parts = {
        "direction": "in",
        "what": "message",
        "topic": message.topic,
        "event": message.event,
        "note": f"ref {ref}" if ref else "",
        "ref": ref,
        "payload": message.payload,
    }
    payload = message.payload
    if message.event == "phx_reply" and ref and isinstance(payload, dict) and "status" in payload:
        status = str(payload["status"])
        mood = "good" if status == "ok" else "bad"
        parts.update(what="reply", status=status, mood=mood, payload=payload.get("response"))
    return parts


_BUILT: Final[Mapping[type, Callable[[Any], Parts]]] = {
    TopicJoinSucceeded: lambda _: {"what": "joined"},
    TopicJoinFailed: lambda event: {"what": event.reason, "mood": "bad"},
    TopicJoinOverdue: lambda _: {"what": "overdue", "mood": "bad"},
    TopicJoinClosed: lambda event: {"what": event.reason, "mood": "bad"},
    TopicLeft: lambda _: {"what": "left"},
    ReplyReceived: lambda _: {},
    MessageReceived: lambda event: {"what": "broadcast" if event.message.join_ref is None else "message"},
    MessageDropped: lambda event: {"what": "dropped", "status": event.reason, "mood": "bad"},
    HeartbeatAcknowledged: lambda event: {
        "what": "heartbeat",
        "note": f"ref {event.ref} round trip {duration(event.round_trip * 1e9)}",
    },
}

_INPUTS: Final[Mapping[type[Input], Callable[[Metadata, Any], Parts]]] = {
    JoinTopic: _join,
    LeaveTopic: _join,
    PushMessage: _push,
    SendHeartbeat: _heartbeat,
    CloseConnection: _close,
    TransportOpened: _opened,
    TransportFailed: _failed,
    TransportClosed: _closed,
    TimerTicked: _ticked,
    FrameReceived: _received,
}
