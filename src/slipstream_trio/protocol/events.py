"""What a connection tells its socket."""

from typing import Any, Literal

from attrs import frozen

from .message import Message

__all__ = [
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionOpened",
    "Event",
    "FrameRejected",
    "HeartbeatAcknowledged",
    "MessageDropped",
    "MessageReceived",
    "ReplyReceived",
    "TopicJoinClosed",
    "TopicJoinFailed",
    "TopicJoinSucceeded",
    "TopicLeft",
]


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


@frozen
class ConnectionClosed:
    """The connection has ended.

    `reason` is "closed_by_client", "closed_by_server", "lost" (no close frame came), "heartbeat_timeout", or what
    `CloseConnection` said.
    """

    reason: str
    code: int
    message: str


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


@frozen
class ReplyReceived:
    """A reply to a push."""

    topic: str
    ref: str
    status: str
    response: Any


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
    """A frame that is no message; the connection goes on."""

    reason: str


@frozen
class HeartbeatAcknowledged:
    """The heartbeat of this ref was answered, after `round_trip` seconds."""

    ref: str
    round_trip: float


Event = (
    ConnectionOpened
    | ConnectionFailed
    | ConnectionClosed
    | TopicJoinSucceeded
    | TopicJoinFailed
    | TopicJoinClosed
    | TopicLeft
    | ReplyReceived
    | MessageReceived
    | MessageDropped
    | FrameRejected
    | HeartbeatAcknowledged
)
"""Anything that a connection tells its socket."""
