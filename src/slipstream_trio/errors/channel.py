"""Errors of channels (joins, pushes, streams of messages), and of callback clients."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from .base import SlipstreamError, leaves

__all__ = [
    "AlreadyJoined", "CallTimeout", "ChannelClosed", "ClientBusy", "ClientStopped", "JoinError", "JoinTimeout",
    "PushError", "PushTimeout", "SlowConsumer",
]  # fmt: skip


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
        hint = "; no channel of the server has this topic: check its spelling, and `channel` in the server's socket"
        is_unmatched = self.response == {"reason": "unmatched topic"}
        return f"the server refused the join of {self.topic!r}: {self.response!r}{hint if is_unmatched else ''}"


class JoinTimeout(SlipstreamError):
    """A join was not answered in time.

    Attributes:
        topic: the topic.
        timeout: the time waited, in seconds.
        sent: whether the join was sent; None if unknown.
    """

    def __init__(self, topic: str, timeout: float, *, sent: bool | None = None) -> None:
        super().__init__(topic, timeout)
        self.topic = topic
        self.timeout = timeout
        self.sent = sent

    def __str__(self) -> str:
        join, within = f"the join of {self.topic!r}", f"within {self.timeout} s"
        if self.sent is not False:
            return f"no answer to {join} {within}; see join_timeout"
        why = "as the socket was not connected, other joins came first, or the function for its payload took too long"
        return f"{join} was not sent {within}, {why}; see join_timeout"


class AlreadyJoined(SlipstreamError):
    """The socket holds a channel of this topic: share that channel, or leave it first.

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
    """A push was not answered in time; if it was sent, the server may still have acted on it.

    Attributes:
        topic: the push's topic.
        event: the push's event.
        timeout: the time waited, in seconds.
        sent: whether the push may have reached the server; None if unknown.
        waited: the seconds of `timeout` that passed before it was queued; None if unknown.
        awaited: the condition that it waited for, where it was never queued: "connection", "join" or "room" (in the
            queue of frames to send).
    """

    def __init__(
        self,
        topic: str,
        event: str,
        timeout: float,
        *,
        sent: bool | None = None,
        waited: float | None = None,
        awaited: Literal["connection", "join", "room"] | None = None,
    ) -> None:
        super().__init__(topic, event, timeout)
        self.topic = topic
        self.event = event
        self.timeout = timeout
        self.sent = sent
        self.waited = waited
        self.awaited = awaited

    def __str__(self) -> str:
        push = f"{self.event!r} on {self.topic!r}"
        if self.sent is False:
            return f"{push} was not sent within {self.timeout} s, as {_NOT_SENT[self.awaited]}; see push_timeout"
        waited = f", of which it waited {self.waited:.3g} s to be sent" if self.waited else ""
        hint = "use send() for events that the server does not answer"
        return f"no reply to {push} within {self.timeout} s{waited}; {hint}"


_NOT_SENT: Final[Mapping[str | None, str]] = {
    None: "it waited for a connection, a join, or room in the queue",
    "connection": "the socket was not connected (socket.wait_connected() waits for that)",
    "join": "the join of its channel was not answered",
    "room": "the queue of frames to send was full: the connection is slower than the pushes",
}


class ChannelClosed(SlipstreamError):
    """The channel is not joined (any more).

    Attributes:
        topic: the channel's topic.
        reason: "not_joined", "left", "leave_timeout" or "leave_lost" (left, without a confirmation), "closed" (by
            the server), "crashed", "replaced" (by a newer join), "join_refused", "join_timeout", or "payload_failed"
            (the function for the payload of its next join raised).
        event: the event of the push that was not answered before the channel ended; None for anything else.
    """

    def __init__(self, topic: str, reason: str, event: str | None = None) -> None:
        super().__init__(topic, reason)
        self.topic = topic
        self.reason = reason
        self.event = event

    def __str__(self) -> str:
        push = "" if self.event is None else f"{self.event!r} was not answered: "
        return f"{push}the channel {self.topic!r} is not joined: {_CLOSED.get(self.reason, self.reason)}"


_CLOSED: Final[Mapping[str, str]] = {
    "not_joined": "join it first",
    "left": "it was left; join it again to use it",
    "leave_timeout": "it was left, though the server has not confirmed that in time",
    "leave_lost": "it was left, though the connection ended before the server had confirmed that",
    "closed": "the server closed it (phx_close)",
    "crashed": "it crashed on the server (phx_error), whose log has the reason",
    "replaced": "a newer join of its topic has replaced it",
    "join_refused": "the server refused its join",
    "join_timeout": "the server did not answer its join in time; see join_timeout",
    "payload_failed": "the function for the payload of its next join failed",
}


class SlowConsumer(SlipstreamError):
    """A consumer did not keep up, its buffer was full, and messages were dropped; iteration may go on.

    Attributes:
        topic: the channel's topic.
        dropped: the number of messages dropped at this place in the stream.
    """

    def __init__(self, topic: str, dropped: int) -> None:
        super().__init__(topic, dropped)
        self.topic = topic
        self.dropped = dropped

    def __str__(self) -> str:
        messages = "1 message" if self.dropped == 1 else f"{self.dropped} messages"
        advice = "read faster, or raise `buffer` or `buffer_bytes`"
        return f"dropped {messages} of {self.topic!r} here, as a buffer was full: {advice}"


class ClientBusy(SlipstreamError):
    """The inbox of a `Client` is full of casts and infos.

    Attributes:
        client: the name of the client's class.
        waiting: the number of waiting casts and infos.
    """

    def __init__(self, client: str, waiting: int) -> None:
        super().__init__(client, waiting)
        self.client = client
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.client} has {self.waiting} casts and infos waiting: use call(), which waits, or raise `buffer`"


class ClientStopped(SlipstreamError):
    """A `Client` does not run: it has ended, or was never started.

    If an exception ended it, that is the `__cause__`, and named in the text.

    Attributes:
        client: the name of the client's class.
    """

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        cause = self.__cause__
        if cause is None:
            return f"{self.client} does not run: it has ended, or run_client was not called yet"
        # Trio's, by its name, as this does without Trio.
        if all(type(leaf).__name__ == "Cancelled" for leaf in leaves(cause)):
            return f"{self.client} has ended, as it was cancelled"
        text = str(cause).partition("\n")[0]
        return f"{self.client} has ended, as it failed with {type(cause).__name__}{text and ': '}{text}"


class CallTimeout(SlipstreamError):
    """A `Client` did not answer a call in time.

    Attributes:
        client: the name of the client's class.
        timeout: the time waited, in seconds.
        runs: whether the client ran.
    """

    def __init__(self, client: str, timeout: float, *, runs: bool = True) -> None:
        super().__init__(client, timeout)
        self.client = client
        self.timeout = timeout
        self.runs = runs

    def __str__(self) -> str:
        way_out = "see the timeout of call()" if self.runs else "it does not run: start it with run_client"
        return f"{self.client} did not answer a call within {self.timeout} s; {way_out}"
