"""One frozen record for each telemetry event.

Records are lean, as one pair is built for every message that is handled while somebody listens: what is constant for a
connection is one shared `Origin`, a stop holds its start, and whatever can be computed is computed when it is read.
`measurements` and `metadata` are derived from the fields.

Frozen is shallow: states never change, but payloads are the very objects that the user has. A handler that keeps
records for later encodes them at once.
"""

from datetime import datetime
from typing import Any, Literal

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
class ConnectStart(Once, SpanStart, name="connection connect start"):
    """A connection's life begins, before anything is sent; its span's id is the connection_id."""

    state: State

    @property
    def span_id(self) -> str:  # type: ignore[override]
        """The connection_id, as every span of a connection is its child."""
        return self.state.connection_id


@frozen(eq=False, repr=False)
class ConnectStop(EndOfConnection[ConnectStart], name="connection connect stop"):
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
class HandleStart(Start, name="connection handle start"):
    """The connection begins to handle an input: `raw_message`, in `state`."""

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
class HandleStop(EndOfConnection[HandleStart], name="connection handle stop"):
    """The connection has handled an input; delivery and writing come after."""

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
class ClientConnectStart(Start, name="client connect start"):
    """A socket asks for a connection; `attempt` counts from 1 since it was last connected."""

    configuration: Options
    attempt: int


@frozen(eq=False, repr=False)
class ClientConnectStop(End[ClientConnectStart], name="client connect stop"):
    """The socket is connected, or is not."""

    outcome: Outcome
    response_headers: tuple[tuple[str, str], ...]


@frozen(eq=False, repr=False)
class ClientJoinStart(Start, name="client join start"):
    """A topic is asked for."""

    topic: str
    params: Any


@frozen(eq=False, repr=False)
class ClientJoinStop(End[ClientJoinStart], name="client join stop"):
    """A join was answered, or was not; `reason` tells why it did not succeed."""

    outcome: Outcome
    response: Any
    reason: str | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientLeaveStart(Start, name="client leave start"):
    """A channel is being left."""

    topic: str
    params: Any


@frozen(eq=False, repr=False)
class ClientLeaveStop(End[ClientLeaveStart], name="client leave stop"):
    """A channel is left; `reason` tells why that was not confirmed."""

    outcome: Outcome
    response: Any
    reason: str | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientPushStart(Start, name="client push start"):
    """A push whose reply is awaited begins."""

    topic: str
    event: str
    params: Any


@frozen(eq=False, repr=False)
class ClientPushStop(End[ClientPushStart], name="client push stop"):
    """A push was answered (it has a `status`), or was not: `reason` tells why, `sent` whether it may have left."""

    outcome: Outcome
    ref: str | None
    status: str | None
    response: Any
    reason: str | None = None
    sent: bool | None = None
    waited: int = 0


@frozen(eq=False, repr=False)
class ClientSendStart(Start, name="client send start"):
    """A push that awaits no reply begins."""

    topic: str
    event: str
    params: Any


@frozen(eq=False, repr=False)
class ClientSendStop(End[ClientSendStart], name="client send stop"):
    """It was queued, under this `ref`, or was not: `reason` tells why."""

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
    def name(self) -> EventName:  # type: ignore[override] # of any callback
        """Such as ("slipstream", "client", "handle_message", "start")."""
        return ("slipstream", "client", self.callback, "start")


@frozen(eq=False, repr=False)
class ClientCallbackStop(End[ClientCallbackStart]):
    """A callback of a `Client` has returned, or was cancelled (outcome "cancelled", and `return_` is None)."""

    outcome: Outcome
    return_: Any

    @property
    def name(self) -> EventName:  # type: ignore[override] # of any callback
        """Such as ("slipstream", "client", "handle_message", "stop")."""
        return ("slipstream", "client", self.start.callback, "stop")


# What happens once


@frozen(eq=False, repr=False)
class ReplyOrphaned(Once, name="client reply_orphaned"):
    """A reply came whose push was given up: it was cancelled, or had timed out."""

    topic: str
    ref: str
    status: str
    response: Any
    reason: Literal["cancelled", "timeout"]


@frozen(eq=False, repr=False)
class MessageDiscarded(Once, name="client message_dropped"):
    """A message was dropped: `reason` tells why, `direction` which way it was going ("in" or "out").

    Where it was malformed, `frame` is its beginning.
    """

    direction: Literal["in", "out"]
    topic: str | None
    event: str | None
    ref: str | None
    reason: str
    frame: Frame | None = None


@frozen(eq=False, repr=False)
class GapOpened(Once, name="client gap"):
    """Messages may have been missed, as a channel is joined again, or were, at a full buffer; times are UTC datetimes.

    Of a full buffer, it is emitted where its reader learns of the loss, or, if nobody reads it, when the channel ends.
    """

    topic: str
    reason: Literal["reconnected", "rejoined", "overflow"]
    since: datetime
    until: datetime
    dropped: int


@frozen(eq=False, repr=False)
class ReconnectScheduled(Once, name="client reconnect_scheduled"):
    """The connection ended, or an attempt failed; another follows in `delay` seconds."""

    delay: float
    attempt: int
    reason: str
    code: int | None
    status: int | None


@frozen(eq=False, repr=False)
class RejoinScheduled(Once, name="client rejoin_scheduled"):
    """A channel has ended; it is joined again in `delay` seconds."""

    topic: str
    delay: float
    attempt: int
    reason: str


@frozen(eq=False, repr=False)
class ClientGaveUp(Once, name="client gave_up"):
    """A socket has ended for good, and its user has not asked for that.

    Attributes:
        reason: why its last connection ended, or could not be opened.
        attempts: how many attempts there were since it was last connected.
        status: the HTTP status with which the last was refused, None where it was not.
        hint: what to do about it.
    """

    reason: str
    attempts: int
    status: int | None
    hint: str


@frozen(eq=False, repr=False)
class LoopStalled(Once, name="client stalled"):
    """Trio's event loop did not run for a while: the timer woke `seconds` too late."""

    seconds: float


@frozen(eq=False, repr=False)
class BufferOverflowed(Once, name="client overflow"):
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

    topic: str
    policy: str
    buffer: int
    consumer: Literal["channel", "subscription", "client"]
    phase: Literal["began", "lasts", "ended"] = "began"
    dropped: int = 1


@frozen(eq=False, repr=False)
class HandlerFailed(Once, name="telemetry handler failure"):
    """A telemetry handler raised, and is detached."""

    handler_id: str
    event: EventName
    reason: str
    stacktrace: str
