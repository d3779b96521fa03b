"""The outcome of one input: the state after it, events that the socket is told, and effects on the transport."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

import attrs
from attrs import frozen

from ..errors import EndedBy
from ..lean import lean
from .message import Frame, Message
from .state import State

__all__ = [
    "CloseTransport", "ConnectionClosed", "ConnectionFailed", "ConnectionOpened", "Effect", "Event", "FrameRejected",
    "HeartbeatAcknowledged", "MessageDropped", "MessageReceived", "ReplyReceived", "SendFrame", "Step",
    "TopicJoinClosed", "TopicJoinFailed", "TopicJoinOverdue", "TopicJoinSucceeded", "TopicLeft", "Transition",
]  # fmt: skip


@frozen
class ConnectionOpened:
    """The connection can be used."""

    response_headers: tuple[tuple[str, str], ...]


@frozen
class ConnectionFailed:
    """The connection could not be opened; `status` is that of the HTTP response, None where none came."""

    reason: str
    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: str


ENDED_BY: Final[Mapping[str, EndedBy]] = {
    "closed_by_server": "server",
    "lost": "network",
    "heartbeat_timeout": "network",
}
"""Who ends a connection for a reason; the client, if it is none of these."""


@frozen
class ConnectionClosed:
    """The connection has ended.

    Attributes:
        reason: "closed_by_client", "closed_by_server", "lost" (no close frame came), "heartbeat_timeout",
            "protocol_error", "message_too_big", or what `CloseConnection` said.
        code: the close code, 1006 where there was none.
        message: the close frame's text.
        ended_by: "client", "server" or "network"; a heartbeat that is not answered is the network's.
    """

    reason: str
    code: int
    message: str
    ended_by: EndedBy = attrs.Factory(lambda self: ENDED_BY.get(self.reason, "client"), takes_self=True)


@frozen
class TopicJoinSucceeded:
    """The server accepted the join of this ref."""

    topic: str
    ref: str
    response: Any


@frozen
class TopicJoinFailed:
    """The server refused the join of this ref, or did not answer in time."""

    topic: str
    ref: str
    reason: Literal["refused", "timeout"]
    response: Any


@frozen
class TopicJoinOverdue:
    """A rejoin has not been answered within its time; its answer still counts, and nothing is sent."""

    topic: str
    ref: str


@frozen
class TopicJoinClosed:
    """The server ended the channel of this join: `phx_close`, `phx_error`, or a newer join of the topic."""

    topic: str
    ref: str
    reason: Literal["closed", "crashed", "replaced"]
    payload: Any


@frozen
class TopicLeft:
    """The channel of this join is left; `ref` is the join's, None where the topic was not joined."""

    topic: str
    ref: str | None
    reason: Literal["left", "timeout"]


TopicEvent = TopicJoinSucceeded | TopicJoinFailed | TopicJoinOverdue | TopicJoinClosed | TopicLeft
"""Whatever changes who has a topic."""


@frozen
class ReplyReceived:
    """A reply to a push."""

    topic: str
    ref: str
    status: str
    response: Any


reply_received: Final = lean(ReplyReceived)


@frozen
class MessageReceived:
    """A message on a joined topic."""

    message: Message


@frozen
class MessageDropped:
    """A message that is nobody's: of an older join of its topic, or of a topic that is not joined."""

    message: Message
    reason: Literal["outdated_join_ref", "not_joined"]


@frozen
class FrameRejected:
    """A malformed frame; the connection goes on."""

    reason: str


@frozen
class HeartbeatAcknowledged:
    """The heartbeat of this ref was answered, after `round_trip` seconds."""

    ref: str
    round_trip: float


_ConnectionEvent = ConnectionOpened | ConnectionFailed | ConnectionClosed | HeartbeatAcknowledged
Event = _ConnectionEvent | TopicEvent | ReplyReceived | MessageReceived | MessageDropped | FrameRejected
"""Anything that a connection tells its socket."""


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
"""An action of the runtime on the transport."""


@frozen
class Step:
    """A built event as plain data: its name in snake case, and its fields."""

    type: str
    attrs: Mapping[str, Any]


@frozen
class Transition:
    """The outcome of one input.

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
        told = ((type(event).__name__, attrs.asdict(event, recurse=False)) for event in self.built_events)
        return tuple(Step(_snake_case(name), fields) for name, fields in told)


transition: Final = lean(Transition)


@cache  # of a dozen names, asked for with every event that is looked at
def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
