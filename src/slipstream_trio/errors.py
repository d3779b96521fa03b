"""Every exception that the library raises on purpose.

All are `SlipstreamError`s. Each carries its facts as fields, and says in its message what to do next. None of them ever
holds connect parameters, tokens, headers that were sent, or the payload of a push.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AlreadyJoined",
    "CallTimeout",
    "ChannelClosed",
    "ClientBusy",
    "ClientStopped",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionRejected",
    "ExportError",
    "InternalError",
    "JoinError",
    "JoinTimeout",
    "ProtocolError",
    "PushError",
    "PushTimeout",
    "RecordingError",
    "SerializationError",
    "SlipstreamError",
    "SlowConsumer",
]


class SlipstreamError(Exception):
    """The base of every error of this library."""


class ConfigurationError(SlipstreamError):
    """An option of `connect` cannot be used as given.

    Attributes:
        option: the option's name.
        problem: what is wrong with it, and what would be right.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.option}: {self.problem}"


class ConnectError(SlipstreamError):
    """A connection could not be opened.

    Attributes:
        reason: what went wrong, in a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectTimeout(ConnectError):
    """A connection was not open in time.

    Attributes:
        timeout: the time waited, in seconds.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(f"not connected within {timeout} s; see connect_timeout")
        self.timeout = timeout

    def __reduce__(self) -> tuple[type["ConnectTimeout"], tuple[float]]:
        return type(self), (self.timeout,)


class ConnectionRejected(ConnectError):
    """The server answered the upgrade with an HTTP status other than 101.

    Attributes:
        status: the HTTP status.
        headers: the response's headers, names in lower case.
        body: the start of the response's body, as text.
    """

    def __init__(self, status: int, headers: Sequence[tuple[str, str]] = (), body: str = "") -> None:
        super().__init__(_rejection(status, body))
        self.status = status
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)
        self.body = body

    def __reduce__(self) -> tuple[type["ConnectionRejected"], tuple[int, tuple[tuple[str, str], ...], str]]:
        return type(self), (self.status, self.headers, self.body)


def _rejection(status: int, body: str) -> str:
    hint = {
        401: "; check the credentials",
        403: "; the server's connect/3 refused it: check params, auth_token and vsn",
        404: "; does the URL's path end in /websocket, behind the path of the server's socket?",
    }.get(status, "")
    said = f": {body[:200]!r}" if body else ""
    return f"the server refused the connection with HTTP status {status}{said}{hint}"


class ConnectionLost(SlipstreamError):
    """The connection ended while it was needed.

    Attributes:
        reason: how it ended, such as "closed_by_server", "lost" (no close frame) or "heartbeat_timeout".
        code: the WebSocket close code, 1006 where none was received.
        sent: whether the push that raises this may have reached the server; False means that it certainly did not.
    """

    def __init__(self, reason: str, code: int | None = None, *, sent: bool = False) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code
        self.sent = sent

    def __str__(self) -> str:
        code = f" (close code {self.code})" if self.code is not None else ""
        return f"the connection ended: {self.reason}{code}"


class JoinError(SlipstreamError):
    """The server refused a join.

    Attributes:
        topic: the topic.
        response: the server's answer, such as {"reason": "unauthorized"}.
    """

    def __init__(self, topic: str, response: Any) -> None:
        super().__init__(topic, response)
        self.topic = topic
        self.response = response

    def __str__(self) -> str:
        return f"the server refused to let {self.topic!r} be joined: {self.response!r}"


class JoinTimeout(SlipstreamError):
    """No answer to a join came in time.

    Attributes:
        topic: the topic.
        timeout: the time waited, in seconds.
    """

    def __init__(self, topic: str, timeout: float) -> None:
        super().__init__(topic, timeout)
        self.topic = topic
        self.timeout = timeout

    def __str__(self) -> str:
        return f"no answer to the join of {self.topic!r} within {self.timeout} s; see join_timeout"


class AlreadyJoined(SlipstreamError):
    """The socket holds a channel of this topic; leave it first, or share the one there is.

    Attributes:
        topic: the topic.
    """

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"this socket has already joined {self.topic!r}: share that channel, or leave it first"


class PushError(SlipstreamError):
    """The reply to a push has a status other than "ok".

    Attributes:
        topic: the push's topic.
        event: the push's event.
        status: the reply's status, "error" mostly.
        response: the reply's response.
    """

    def __init__(self, topic: str, event: str, status: str, response: Any) -> None:
        super().__init__(topic, event, status, response)
        self.topic = topic
        self.event = event
        self.status = status
        self.response = response

    def __str__(self) -> str:
        return f"{self.event!r} on {self.topic!r} was answered with status {self.status!r}: {self.response!r}"


class PushTimeout(SlipstreamError):
    """No reply to a push came in time; the server may have acted on it all the same.

    Attributes:
        topic: the push's topic.
        event: the push's event.
        timeout: the time waited, in seconds.
    """

    def __init__(self, topic: str, event: str, timeout: float) -> None:
        super().__init__(topic, event, timeout)
        self.topic = topic
        self.event = event
        self.timeout = timeout

    def __str__(self) -> str:
        return (
            f"no reply to {self.event!r} on {self.topic!r} within {self.timeout} s; "
            "use send() for events that the server does not answer"
        )


class ChannelClosed(SlipstreamError):
    """The channel is not joined (any more).

    Attributes:
        topic: the channel's topic.
        reason: why: "not_joined", "left", "leave_timeout" or "leave_lost" (left, without a confirmation), "closed" (by
            the server), "crashed", "replaced" (by a newer join), "join_refused", "join_timeout", or "payload_failed"
            (there was nothing to join again with).
    """

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(topic, reason)
        self.topic = topic
        self.reason = reason

    def __str__(self) -> str:
        if self.reason == "not_joined":
            return f"the channel {self.topic!r} is not joined: join it first"
        return f"the channel {self.topic!r} is not joined: {self.reason}"


class SlowConsumer(SlipstreamError):
    """A consumer did not keep up, its buffer was full, and messages were dropped; iteration may go on.

    Attributes:
        topic: the channel's topic.
        dropped: how many messages were dropped at this place in the stream.
    """

    def __init__(self, topic: str, dropped: int) -> None:
        super().__init__(topic, dropped)
        self.topic = topic
        self.dropped = dropped

    def __str__(self) -> str:
        return f"{self.dropped} messages of {self.topic!r} were dropped here: read faster, or raise `buffer`"


class ClientBusy(SlipstreamError):
    """So many casts and infos wait for a `Client` that another one is not taken.

    Attributes:
        client: the name of the client's class.
        waiting: how many wait.
    """

    def __init__(self, client: str, waiting: int) -> None:
        super().__init__(client, waiting)
        self.client = client
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.client} has {self.waiting} casts and infos waiting: use call(), which waits, or raise `buffer`"


class ClientStopped(SlipstreamError):
    """A `Client` does not run (any more), so that nobody handles this.

    Attributes:
        client: the name of the client's class.
    """

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        return f"{self.client} does not run (any more): run_client runs it"


class CallTimeout(SlipstreamError):
    """A `Client` did not answer a call in time.

    Attributes:
        client: the name of the client's class.
        timeout: the time waited, in seconds.
    """

    def __init__(self, client: str, timeout: float) -> None:
        super().__init__(client, timeout)
        self.client = client
        self.timeout = timeout

    def __str__(self) -> str:
        return f"{self.client} did not answer a call within {self.timeout} s"


class SerializationError(SlipstreamError):
    """A payload, topic or event cannot be put into a frame; nothing was sent, no ref was taken."""


class ProtocolError(SlipstreamError):
    """A frame is not a Phoenix message, or an input does not fit the connection's state.

    Attributes:
        problem: what is wrong with it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class RecordingError(SlipstreamError):
    """A recording cannot be written or read.

    Attributes:
        path: the file.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ExportError(SlipstreamError):
    """A recording could not be sent to where it was to go; the text says why, and what to do."""


class InternalError(SlipstreamError):
    """A bug in this library; its cause is the exception that revealed it. Please report it."""
