"""The inputs of a connection: what its socket asks of it, and what its transport and its timer tell it.

Time is in the inputs, as `now`: seconds on the clock that the deadlines are on (`trio.current_time()`).
"""

from typing import Any

from attrs import frozen

from .message import Frame

__all__ = [
    "CloseConnection",
    "Command",
    "FrameReceived",
    "Input",
    "JoinTopic",
    "LeaveTopic",
    "PushMessage",
    "SendHeartbeat",
    "TimerTicked",
    "TransportClosed",
    "TransportFailed",
    "TransportOpened",
]


@frozen
class JoinTopic:
    """Join a topic; `timeout` is in seconds, None for no limit."""

    now: float
    topic: str
    payload: Any
    timeout: float | None


@frozen
class LeaveTopic:
    """Leave a topic; `timeout` is in seconds, None for no limit."""

    now: float
    topic: str
    timeout: float | None


@frozen
class PushMessage:
    """Push a message. Whether its reply is awaited, and until when, is the socket's own business."""

    topic: str
    event: str
    payload: Any


@frozen
class SendHeartbeat:
    """Send a heartbeat now, unless one is outstanding."""

    now: float


@frozen
class CloseConnection:
    """Close the connection, with a WebSocket close code; `reason` becomes the reason of its end."""

    code: int = 1000
    reason: str = "closed_by_client"


@frozen
class TransportOpened:
    """The upgrade succeeded; `url` is the URL without its query, where a function gave it and the options have none."""

    now: float
    response_headers: tuple[tuple[str, str], ...] = ()
    url: str | None = None


@frozen
class TransportFailed:
    """The upgrade did not succeed; `status` is None where no HTTP response came, `url` is as in `TransportOpened`."""

    reason: str
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    url: str | None = None


@frozen
class FrameReceived:
    """A frame came in."""

    now: float
    frame: Frame


@frozen
class TransportClosed:
    """The transport has ended; `code` is 1006 where no close frame was received."""

    code: int
    message: str = ""


@frozen
class TimerTicked:
    """Time has passed: whatever is due by `now` is done."""

    now: float


Command = JoinTopic | LeaveTopic | PushMessage | SendHeartbeat | CloseConnection
"""What the socket asks of the connection."""

Input = Command | TransportOpened | TransportFailed | FrameReceived | TransportClosed | TimerTicked
"""Anything that a connection handles."""
