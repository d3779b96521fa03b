"""The inputs of a connection: what its socket asks of it, and what its transport and its timer tell it.

Time is in the inputs, as `now`: seconds on the clock that the deadlines are on (`trio.current_time()`).
"""

from typing import Any

from attrs import frozen

from ..errors import EndedBy
from .message import Frame

__all__ = [
    "CloseConnection", "Command", "FrameReceived", "Input", "JoinTopic", "LeaveTopic", "PushMessage",
    "SendHeartbeat", "TimerTicked", "TransportClosed", "TransportFailed", "TransportOpened",
]  # fmt: skip


@frozen
class JoinTopic:
    """Join a topic.

    Attributes:
        now: the time.
        topic: the topic.
        payload: JSON.
        timeout: seconds that the server may take for it, counted from its turn (`turns` tells when that begins); None
            for no limit.
        deadline: when it fails at the latest, whosever turn it is; None for no limit.
        rejoin: whether the library joins again. Such a join that takes longer is reported, and its answer still counts.
    """

    now: float
    topic: str
    payload: Any
    timeout: float | None
    deadline: float | None = None
    rejoin: bool = False


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
    """The transport has ended.

    Attributes:
        code: the close code, 1006 where no close frame was received.
        message: the close frame's text.
        ended_by: who ended it, None where only the code tells: 1006 is the network, any other the server.
        reason: why, where the transport knows better than the code: "protocol_error" and "message_too_big" are the
            client's own limits.
    """

    code: int
    message: str = ""
    ended_by: EndedBy | None = None
    reason: str | None = None


@frozen
class TimerTicked:
    """Time has passed: whatever is due by `now` is done, the first 256 of it.

    Attributes:
        now: the time.
        heard: when the last byte of a data message came, None where that is not known.
        heartbeat_written: when the outstanding heartbeat was written, None where it is not, or that is not known.
        write_blocked_since: since when what is to be written has made no progress, None where it makes some, there is
            nothing to write, or that is not known.
    """

    now: float
    heard: float | None = None
    heartbeat_written: float | None = None
    write_blocked_since: float | None = None


Command = JoinTopic | LeaveTopic | PushMessage | SendHeartbeat | CloseConnection
"""A request of the socket to the connection."""

Input = Command | TransportOpened | TransportFailed | FrameReceived | TransportClosed | TimerTicked
"""Anything that a connection handles."""
