"""One frozen record for each telemetry event.

Records are lean, as one pair is built for every message that is handled while somebody listens: what is constant for a
connection is one shared `Origin`, a stop holds its start, and whatever can be computed is computed when it is read.
`measurements` and `metadata` are derived from the fields.

Frozen is shallow: states never change, but payloads are the very objects that the user has. A handler that keeps
records for later encodes them at once.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal

from attrs import field, frozen

from ..errors import EndedBy
from ..protocol import Frame, FrameReceived, Message, MessageReceived, Options, State, Transition
from .base import End, EndOfConnection, EventName, Once, Origin, Outcome, Record, SpanException, SpanStart, Start

__all__ = [
    "BufferOverflowed", "ClientCallbackStart", "ClientCallbackStop", "ClientConnectStart", "ClientConnectStop",
    "ClientGaveUp", "ClientJoinStart", "ClientJoinStop", "ClientLeaveStart", "ClientLeaveStop", "ClientPushStart",
    "ClientPushStop", "ClientSendStart", "ClientSendStop", "ConnectStart", "ConnectStop", "EventName", "GapOpened",
    "HandleStart", "HandleStop", "HandlerFailed", "LoopStalled", "MessageDiscarded", "Origin", "Outcome",
    "ReconnectScheduled", "Record", "RejoinScheduled", "ReplyOrphaned", "SpanException", "SpanStart",
]  # fmt: skip


# The connection


@frozen(eq=False, repr=False)
class ConnectStart(Once, SpanStart):
    """A connection's life begins, before anything is sent; its span's id is the connection_id."""

    name: ClassVar[EventName] = ("slipstream", "connection", "connect", "start")
    state: State

    @property
    def span_id(self) -> str:
        """The connection_id, as every span of a connection is its child."""
        return self.state.connection_id


@frozen(eq=False, repr=False)
class ConnectStop(EndOfConnection[ConnectStart]):
    """A connection's life has ended.

    Attributes:
        state: the last.
        termination_reason: why, in a word.
        ended_by: the side that ended it; None if it was cancelled before it was open.
        code: the close code, None where it was never open.
        message: the close frame's text.
        heard: when the last byte of a data message came, on the clock of the inputs; None if none did.
        received: when the last whole data message came, likewise, or else the opening; None where it was never open.
    """

    name: ClassVar[EventName] = ("slipstream", "connection", "connect", "stop")
    state: State
    termination_reason: str
    ended_by: EndedBy | None = None
    code: int | None = None
    message: str = ""
    heard: float | None = None
    received: float | None = None


# Of a frame, and of a message that is just delivered, these two hold no more than they were given, and make the input
# and the transition when they are read: to make them takes longer than to handle the message.
@frozen(eq=False, repr=False)
class HandleStart(Start):
    """The connection begins to handle an input: `raw_message`, in `state`."""

    name: ClassVar[EventName] = ("slipstream", "connection", "handle", "start")
    _given: Any = field(alias="raw_message", eq=False)
    state: State
    _now: float | None = field(default=None, alias="now", eq=False)

    @property
    def raw_message(self) -> Any:
        """The input."""
        if self._now is not None:
            object.__setattr__(self, "_given", FrameReceived(self._now, self._given))
            object.__setattr__(self, "_now", None)
        return self._given

    @property
    def frame(self) -> tuple[float, Frame] | None:
        """The time and the frame, where the input is a frame."""
        given = self._given
        if self._now is not None:
            return self._now, given
        return (given.now, given.frame) if type(given) is FrameReceived else None

    def details(self) -> dict[str, Any]:
        """Return `raw_message`, `state`."""
        return {"raw_message": self.raw_message, "state": self.state}


@frozen(eq=False, repr=False)
class HandleStop(EndOfConnection[HandleStart]):
    """The connection has handled an input; delivery and writing come after."""

    name: ClassVar[EventName] = ("slipstream", "connection", "handle", "stop")
    _came_to: Transition | Message = field(alias="transition", eq=False)

    @property
    def transition(self) -> Transition:
        """The state after it, the decoded message, the events and the effects."""
        if isinstance(self._came_to, Message):
            made = Transition(self.start.state, self._came_to, (MessageReceived(self._came_to),))
            object.__setattr__(self, "_came_to", made)
            return made
        return self._came_to

    @property
    def delivered(self) -> Message | None:
        """The message, where all that is done with it is that it is delivered."""
        made = self._came_to
        if isinstance(made, Message):
            return made
        return made.message if len(made.built_events) == 1 and type(made.built_events[0]) is MessageReceived else None

    def _described(self) -> dict[str, Any]:
        return {**super()._described(), "event": self.transition.event}

    def details(self) -> dict[str, Any]:
        """Return `message`, `built_events`, `return`, `end_state`."""
        did = self.transition
        return {"message": did.message, "built_events": did.built_events, "return": did.return_, "end_state": did.state}


# The client. `waited` is the part of the duration, in nanoseconds on the clock of the inputs, that had passed when the
# frame was queued, or, if it never was, at the end.


@frozen(eq=False, repr=False)
class ClientConnectStart(Start):
    """A socket asks for a connection; `attempt` counts from 1 since it was last connected."""

    name: ClassVar[EventName] = ("slipstream", "client", "connect", "start")
    configuration: Options
    attempt: int


@frozen(eq=False, repr=False)
class ClientConnectStop(End[ClientConnectStart]):
    """The socket is connected, or is not."""

    name: ClassVar[EventName] = ("slipstream", "client", "connect", "stop")
    outcome: Outcome
    response_headers: tuple[tuple[str, str], ...]


@frozen(eq=False, repr=False)
class ClientJoinStart(Start):
    """A topic is asked for."""

    name: ClassVar[EventName] = ("slipstream", "client", "join", "start")
    topic: str
    params: Any


@frozen(eq=False, repr=False)
class ClientJoinStop(End[ClientJoinStart]):
    """A join was answered, or was not; `reason` tells why it did not succeed."""

    name: ClassVar[EventName] = ("slipstream", "client", "join", "stop")
    outcome: Outcome
    response: Any
    reason: str | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientLeaveStart(Start):
    """A channel is being left."""

    name: ClassVar[EventName] = ("slipstream", "client", "leave", "start")
    topic: str
    params: Any


@frozen(eq=False, repr=False)
class ClientLeaveStop(End[ClientLeaveStart]):
    """A channel is left; `reason` tells why that was not confirmed."""

    name: ClassVar[EventName] = ("slipstream", "client", "leave", "stop")
    outcome: Outcome
    response: Any
    reason: str | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientPushStart(Start):
    """A push whose reply is awaited begins."""

    name: ClassVar[EventName] = ("slipstream", "client", "push", "start")
    topic: str
    event: str
    params: Any


@frozen(eq=False, repr=False)
class ClientPushStop(End[ClientPushStart]):
    """A push was answered (it has a `status`), or was not: `reason` tells why, `sent` whether it may have left."""

    name: ClassVar[EventName] = ("slipstream", "client", "push", "stop")
    outcome: Outcome
    ref: str | None
    status: str | None
    response: Any
    reason: str | None = None
    sent: bool | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientSendStart(Start):
    """A push that awaits no reply begins."""

    name: ClassVar[EventName] = ("slipstream", "client", "send", "start")
    topic: str
    event: str
    params: Any


@frozen(eq=False, repr=False)
class ClientSendStop(End[ClientSendStart]):
    """It was queued, under this `ref`, or was not: `reason` tells why."""

    name: ClassVar[EventName] = ("slipstream", "client", "send", "stop")
    outcome: Outcome
    ref: str | None
    reason: str | None
    waited: int


@frozen(eq=False, repr=False)
class ClientCallbackStart(Start):
    """A callback of a `Client` is called; `client` is the name of its class, the event's name has the callback's."""

    client: str
    callback: str
    arguments: tuple[Any, ...]

    @property
    def name(self) -> EventName:
        """Such as ("slipstream", "client", "handle_message", "start")."""
        return ("slipstream", "client", self.callback, "start")


@frozen(eq=False, repr=False)
class ClientCallbackStop(End[ClientCallbackStart]):
    """A callback of a `Client` has returned, or was cancelled (outcome "cancelled", and `return_` is None)."""

    outcome: Outcome
    return_: Any

    @property
    def name(self) -> EventName:
        """Such as ("slipstream", "client", "handle_message", "stop")."""
        return ("slipstream", "client", self.start.callback, "stop")


# What happens once


@frozen(eq=False, repr=False)
class ReplyOrphaned(Once):
    """A reply came whose push was given up: it was cancelled, or had timed out."""

    name: ClassVar[EventName] = ("slipstream", "client", "reply_orphaned")
    topic: str
    ref: str
    status: str
    response: Any
    reason: Literal["cancelled", "timeout"]


@frozen(eq=False, repr=False)
class MessageDiscarded(Once):
    """A message was dropped: `reason` tells why, `direction` which way it was going ("in" or "out").

    Where it was malformed, `frame` is its beginning.
    """

    name: ClassVar[EventName] = ("slipstream", "client", "message_dropped")
    direction: Literal["in", "out"]
    topic: str | None
    event: str | None
    ref: str | None
    reason: str
    frame: Frame | None = None


@frozen(eq=False, repr=False)
class GapOpened(Once):
    """Messages may have been missed, as a channel is joined again, or were, at a full buffer; times are UTC datetimes.

    Of a full buffer, it is emitted where its reader learns of the loss, or, if nobody reads it, when the channel ends.
    """

    name: ClassVar[EventName] = ("slipstream", "client", "gap")
    topic: str
    reason: Literal["reconnected", "rejoined", "overflow"]
    since: datetime
    until: datetime
    dropped: int


@frozen(eq=False, repr=False)
class ReconnectScheduled(Once):
    """The connection ended, or an attempt failed; another follows in `delay` seconds."""

    name: ClassVar[EventName] = ("slipstream", "client", "reconnect_scheduled")
    delay: float
    attempt: int
    reason: str
    code: int | None
    status: int | None


@frozen(eq=False, repr=False)
class RejoinScheduled(Once):
    """A channel has ended; it is joined again in `delay` seconds."""

    name: ClassVar[EventName] = ("slipstream", "client", "rejoin_scheduled")
    topic: str
    delay: float
    attempt: int
    reason: str


@frozen(eq=False, repr=False)
class ClientGaveUp(Once):
    """A socket has ended for good, and its user has not asked for that.

    Attributes:
        reason: why its last connection ended, or could not be opened.
        attempts: how many attempts there were since it was last connected.
        status: the HTTP status with which the last was refused, None where it was not.
        hint: what to do about it.
    """

    name: ClassVar[EventName] = ("slipstream", "client", "gave_up")
    reason: str
    attempts: int
    status: int | None
    hint: str


@frozen(eq=False, repr=False)
class LoopStalled(Once):
    """Trio's event loop did not run for a while: the timer woke `seconds` too late."""

    name: ClassVar[EventName] = ("slipstream", "client", "stalled")
    seconds: float


@frozen(eq=False, repr=False)
class BufferOverflowed(Once):
    """A consumer's buffer is full, and messages are dropped: an episode, which is told of several times.

    Attributes:
        topic: the channel's topic.
        policy: what is dropped.
        buffer: how many messages the buffer holds.
        consumer: what reads it.
        phase: "began" at the first message that is dropped, "lasts" every 10 seconds, "ended" when the buffer is half
            empty again, or the stream has ended.
        dropped: how many messages were dropped so far in this episode.
    """

    name: ClassVar[EventName] = ("slipstream", "client", "overflow")
    topic: str
    policy: str
    buffer: int
    consumer: Literal["channel", "subscription", "client"]
    phase: Literal["began", "lasts", "ended"] = "began"
    dropped: int = 1


@frozen(eq=False, repr=False)
class HandlerFailed(Once):
    """A telemetry handler raised, and is detached."""

    name: ClassVar[EventName] = ("slipstream", "telemetry", "handler", "failure")
    handler_id: str
    event: EventName
    reason: str
    stacktrace: str
