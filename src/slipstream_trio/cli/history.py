"""What a record of telemetry looks like as one line of history. No drawing here: that is the screens' business."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

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
    TopicJoinSucceeded,
    TopicLeft,
    TransportClosed,
    TransportFailed,
    TransportOpened,
)
from ..telemetry import (
    BufferOverflowed,
    ClientConnectStop,
    ClientJoinStop,
    ClientLeaveStop,
    ClientPushStop,
    ConnectStart,
    ConnectStop,
    HandlerFailed,
    HandleStop,
    MessageDiscarded,
    Record,
    ReplyOrphaned,
    SpanException,
)
from .text import NO_SECRETS, Secrets, brief, duration, printable

__all__ = ["Direction", "Line", "Mood", "describe"]

Direction = Literal["out", "in", "here"]
"""Whether something goes to the server, comes from it, or happens on this side."""

Mood = Literal["good", "bad", "plain"]


@frozen(kw_only=True)
class Line:
    """One line of history.

    Attributes:
        monotonic_time: when it was emitted, in nanoseconds.
        span_id: the span that has ended; "" for what happens once.
        direction: which way it goes.
        what: what it is, in a word or two.
        topic: the topic, "" where there is none.
        event: the event on that topic.
        status: how it went: a reply's status, an outcome, a reason.
        mood: whether `status` is good news.
        detail: refs and payloads; secrets are masked.
        took: the span's duration in nanoseconds; None for what happens once.
        client: whether it is a span of the client, not of the connection.
    """

    monotonic_time: int
    span_id: str = ""
    direction: Direction = "here"
    what: str
    topic: str = ""
    event: str = ""
    status: str = ""
    mood: Mood = "plain"
    detail: str = ""
    took: int | None = None
    client: bool = False


Describe: TypeAlias = Callable[[Any, Secrets], Line | None]


def describe(record: Record, secrets: Secrets = NO_SECRETS) -> Line | None:
    """Return a record's line; None where it is told by another one: a start by its stop."""
    function = _RECORDS.get(type(record))
    line = function(record, secrets) if function is not None else _unknown(record)
    if line is None:
        return None
    shown: dict[str, Any] = {}
    for name in ("topic", "event", "status", "detail"):
        shown[name] = printable(secrets.hide(getattr(line, name)))
    return evolve(line, **shown)


def _mood(status: str) -> Mood:
    return "good" if status == "ok" else "bad"


def _unknown(record: Record) -> Line | None:
    """Show what this module does not know by its name, unless it is a start."""
    if record.name[-1] == "start":
        return None
    return Line(monotonic_time=record.measurements["monotonic_time"], what=" ".join(record.name[1:]))


# The connection


def _connect_started(record: ConnectStart, _: Secrets) -> Line:
    return Line(
        monotonic_time=record.monotonic_time,
        span_id=record.span_id,
        what="connection",
        event="begins",
        detail=f"generation {record.generation}, vsn {record.state.options.vsn}, {record.state.options.transport}",
    )


def _connect_stopped(record: ConnectStop, _: Secrets) -> Line:
    return Line(
        monotonic_time=record.monotonic_time,
        span_id=record.span_id,
        what="connection",
        event="ends",
        status=record.termination_reason,
        mood="good" if record.termination_reason == "closed_by_client" else "bad",
        took=record.duration,
    )


def _handled(record: HandleStop, secrets: Secrets) -> Line:
    given: Any = record.start.raw_message
    line = Line(
        monotonic_time=record.monotonic_time, span_id=record.span_id, what=type(given).__name__, took=record.duration
    )
    describe_input = _INPUTS.get(type(given))
    return line if describe_input is None else describe_input(line, record, given, secrets)


def _sent(record: HandleStop) -> str:
    refs = [effect.ref for effect in record.transition.return_ if isinstance(effect, SendFrame)]
    return f"ref {' '.join(refs)}" if refs else ""


def _join(line: Line, record: HandleStop, given: JoinTopic, _: Secrets) -> Line:
    # The payload of a join is often a credential, so it is never shown.
    return evolve(line, direction="out", what="join", topic=given.topic, event="phx_join", detail=_sent(record))


def _leave(line: Line, record: HandleStop, given: LeaveTopic, _: Secrets) -> Line:
    return evolve(line, direction="out", what="leave", topic=given.topic, event="phx_leave", detail=_sent(record))


def _push(line: Line, record: HandleStop, given: PushMessage, secrets: Secrets) -> Line:
    detail = f"{_sent(record)} {brief(given.payload, secrets)}"
    return evolve(line, direction="out", what="push", topic=given.topic, event=given.event, detail=detail)


def _heartbeat(line: Line, record: HandleStop, _: SendHeartbeat, __: Secrets) -> Line:
    detail = _sent(record) or "one is outstanding"
    return evolve(line, direction="out", what="heartbeat", topic="phoenix", event="heartbeat", detail=detail)


def _close(line: Line, _: HandleStop, given: CloseConnection, __: Secrets) -> Line:
    return evolve(line, direction="out", what="close", status=str(given.code), detail=given.reason)


def _opened(line: Line, _: HandleStop, given: TransportOpened, __: Secrets) -> Line:
    headers = dict(given.response_headers)
    return evolve(line, direction="in", what="opened", status="101", mood="good", detail=headers.get("server", ""))


def _failed(line: Line, _: HandleStop, given: TransportFailed, __: Secrets) -> Line:
    status = "" if given.status is None else str(given.status)
    return evolve(line, what="failed", status=status, mood="bad", detail="" if status else given.reason)


def _closed(line: Line, record: HandleStop, given: TransportClosed, __: Secrets) -> Line:
    reasons = [event.reason for event in record.transition.built_events if isinstance(event, ConnectionClosed)]
    detail = " ".join([*reasons, given.message])
    return evolve(line, direction="in", what="closed", status=str(given.code), detail=detail)


def _ticked(line: Line, record: HandleStop, _: TimerTicked, __: Secrets) -> Line:
    steps = [f"{step.type} {step.attrs.get('topic', '')}" for step in record.transition.event]
    detail = ", ".join(filter(None, [_sent(record), *steps]))
    return evolve(line, direction="out" if record.transition.return_ else "here", what="timer", detail=detail)


# Frames


def _received(line: Line, record: HandleStop, given: FrameReceived, secrets: Secrets) -> Line:
    message = record.transition.message
    line = evolve(line, direction="in", what="frame", detail=f"{len(given.frame):,} long")
    if isinstance(message, Message):
        status, payload = _answer(message)
        ref = f"ref {message.ref} " if message.ref is not None else ""
        line = evolve(
            line,
            what="reply" if status else "message",
            topic=message.topic,
            event=message.event,
            status=status,
            mood=_mood(status) if status else "plain",
            detail=ref + brief(payload, secrets),
        )
    for event in record.transition.built_events:
        line = evolve(line, **_BUILT.get(type(event), _nothing)(event))
    return line


def _answer(message: Message) -> tuple[str, Any]:
    payload = message.payload
    if message.event == "phx_reply" and message.ref is not None and isinstance(payload, dict):
        return str(payload.get("status", "")), payload.get("response")
    return "", payload


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _join_failed(event: TopicJoinFailed) -> dict[str, Any]:
    return {"what": event.reason, "mood": "bad"}


def _join_closed(event: TopicJoinClosed) -> dict[str, Any]:
    return {"what": event.reason, "mood": "bad"}


def _message(event: MessageReceived) -> dict[str, Any]:
    return {"what": "message" if event.message.join_ref is not None else "broadcast"}


def _dropped(event: MessageDropped) -> dict[str, Any]:
    return {"what": "dropped", "status": event.reason, "mood": "bad"}


def _rejected(event: FrameRejected) -> dict[str, Any]:
    return {"what": "bad frame", "mood": "bad", "detail": event.reason}


def _acknowledged(event: HeartbeatAcknowledged) -> dict[str, Any]:
    return {"what": "heartbeat", "detail": f"ref {event.ref} round trip {duration(event.round_trip * 1e9)}"}


_BUILT: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    TopicJoinSucceeded: lambda _: {"what": "joined"},
    TopicJoinFailed: _join_failed,
    TopicJoinClosed: _join_closed,
    TopicLeft: lambda _: {"what": "left"},
    ReplyReceived: _nothing,
    MessageReceived: _message,
    MessageDropped: _dropped,
    FrameRejected: _rejected,
    HeartbeatAcknowledged: _acknowledged,
}

_INPUTS: Final[Mapping[type[Input], Callable[[Line, HandleStop, Any, Secrets], Line]]] = {
    JoinTopic: _join,
    LeaveTopic: _leave,
    PushMessage: _push,
    SendHeartbeat: _heartbeat,
    CloseConnection: _close,
    TransportOpened: _opened,
    TransportFailed: _failed,
    TransportClosed: _closed,
    TimerTicked: _ticked,
    FrameReceived: _received,
}


# The client


def _client(record: Any, what: str, **more: Any) -> Line:
    return Line(
        monotonic_time=record.monotonic_time,
        span_id=record.span_id,
        what=f"client {what}",
        status=record.outcome,
        mood=_mood(record.outcome),
        took=record.duration,
        client=True,
        **more,
    )


def _client_connected(record: ClientConnectStop, _: Secrets) -> Line:
    return _client(record, "connect", detail=f"attempt {record.start.attempt}")


def _client_joined(record: ClientJoinStop, secrets: Secrets) -> Line:
    detail = "" if record.response is None else brief(record.response, secrets)
    return _client(record, "join", topic=record.start.topic, detail=detail)


def _client_left(record: ClientLeaveStop, _: Secrets) -> Line:
    return _client(record, "leave", topic=record.start.topic)


def _client_pushed(record: ClientPushStop, secrets: Secrets) -> Line:
    ref = "never sent" if record.ref is None else f"ref {record.ref}"
    detail = ref if record.status is None else f"{ref} {brief(record.response, secrets)}"
    return _client(record, "push", topic=record.start.topic, event=record.start.event, detail=detail)


def _raised(record: SpanException, _: Secrets) -> Line:
    return Line(
        monotonic_time=record.monotonic_time,
        span_id=record.span_id,
        what=" ".join(record.name[1:3]),
        status="raised",
        mood="bad",
        detail=f"{record.kind}: {record.reason}",
        took=record.duration,
    )


# What happens once


def _orphaned(record: ReplyOrphaned, secrets: Secrets) -> Line:
    return Line(
        monotonic_time=record.monotonic_time,
        what="late reply",
        topic=record.topic,
        event=f"push {record.reason}",
        detail=f"ref {record.ref} {record.status} {brief(record.response, secrets)}",
    )


def _discarded(record: MessageDiscarded, _: Secrets) -> Line:
    direction: Direction = "in" if record.direction == "in" else "out"
    return Line(
        monotonic_time=record.monotonic_time,
        direction=direction,
        what="dropped",
        topic=record.topic or "",
        event=record.event or "",
        status=record.reason,
        mood="bad",
    )


def _overflowed(record: BufferOverflowed, _: Secrets) -> Line:
    detail = f"the {record.consumer}'s buffer of {record.buffer} is full"
    return Line(monotonic_time=record.monotonic_time, what="overflow", topic=record.topic, mood="bad", detail=detail)


def _handler_failed(record: HandlerFailed, _: Secrets) -> Line:
    detail = f"{record.handler_id}: {record.reason}"
    return Line(monotonic_time=record.monotonic_time, what="handler", status="failed", mood="bad", detail=detail)


_RECORDS: Final[Mapping[type, Describe]] = {
    ConnectStart: _connect_started,
    ConnectStop: _connect_stopped,
    HandleStop: _handled,
    ClientConnectStop: _client_connected,
    ClientJoinStop: _client_joined,
    ClientLeaveStop: _client_left,
    ClientPushStop: _client_pushed,
    SpanException: _raised,
    ReplyOrphaned: _orphaned,
    MessageDiscarded: _discarded,
    BufferOverflowed: _overflowed,
    HandlerFailed: _handler_failed,
}
