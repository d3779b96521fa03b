"""A call that sends something on a channel: from the call, through lines and queues, to its reply."""

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

import trio

from ..errors import PushTimeout
from ..protocol import Message, PushMessage
from .result import Result

if TYPE_CHECKING:
    from .arguments import KeptPayload
    from .channel import Channel
    from .connection import Connection

__all__ = ["Call"]


@final
class Call:
    """A push or a send: it may wait in its channel's line, then for room; a push awaits its reply after that.

    To be made in the task that calls.

    Parameters:
        channel: the channel.
        event: the event.
        timeout: seconds from now, None for ever.
        is_send: whether it is over when it is queued.
        queued: settled when it is queued, with its ref, or when it never will be; where somebody awaits that.
        told: called with the result when it is settled, where nobody awaits it.

    Attributes:
        channel: the channel.
        event: the event.
        began: when it was made, on Trio's clock.
        ref: its ref, None until it is queued.
        number: the number of its frame in the writer's queue.
        waited: for how many seconds it waited to be queued.
        result: the response, or the error to raise.
    """

    __slots__ = (
        *("_context", "_is_send", "_kept", "_queued", "_timeout", "began", "channel", "event", "number", "ref"),
        *("result", "waited"),
    )

    def __init__(
        self,
        channel: "Channel",
        event: str,
        timeout: float | None,
        *,
        is_send: bool = False,
        queued: Result[str] | None = None,
        told: Callable[[Result[Any]], None] | None = None,
    ) -> None:
        self.channel: Channel = channel
        self.event: str = event
        self.began: float = trio.current_time()
        self.ref: str | None = None
        self.number: int = sys.maxsize
        self.waited: float = 0.0
        self.result: Result[Any] = Result(told)
        self._timeout = timeout
        self._is_send = is_send
        self._queued = queued
        self._kept: KeptPayload | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, or nobody waits for it any more."""
        return self.result.settled or (self._queued or self.result).given_up

    @property
    def deadline(self) -> float:
        """The end of its time limit, on Trio's clock."""
        return math.inf if self._timeout is None else self.began + self._timeout

    @property
    def may_be_sent(self) -> bool:
        """Whether its frame has gone to the transport."""
        connection = self.channel._socket._connection
        return connection is not None and self.number <= connection.writer.taken

    def submit(self, connection: "Connection", payload: Any) -> None:
        """Queue it now."""
        topic, number = self.channel.topic, connection.writer.number + 1
        sent = Message(None, None, topic, self.event, None) if self._is_send else None
        self.ref, self.number = connection.push(PushMessage(topic, self.event, payload), sent), number
        if self._is_send:
            self.result.succeed(None)
        else:
            self.channel._socket._pushes.add(self, self.ref, timed=self._kept is None)
        if self._queued is not None:
            self._queued.succeed(self.ref)

    def wait_in_line(self, payload: Any) -> None:
        """Keep the payload as it is now, and the context, as handlers of telemetry may read it."""
        self._kept = self.channel._socket._kept(self.channel.topic, self.event, payload)
        self._context = trio.lowlevel.current_task().context

    def take_turn(self, connection: "Connection") -> None:
        """Queue it now, in whichever task this is.

        To wake the caller's task first would cost each call a pass of the scheduler, as only one may have its turn at
        a time.
        """
        assert self._kept is not None
        self.waited = trio.current_time() - self.began
        try:
            if trio.lowlevel.current_task().context is self._context:
                self.submit(connection, self._kept.value())
            else:
                self._context.run(self.submit, connection, self._kept.value())
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; it is the call's to raise
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End it before it is queued."""
        (self._queued or self.result).fail(error)

    def expire(self) -> None:
        """Give up: its time is up."""
        topic, timeout = self.channel.topic, self._timeout or 0.0
        if self.ref is None:
            awaited = self._awaited()
            self.fail(PushTimeout(topic, self.event, timeout, sent=False, waited=timeout, awaited=awaited))
        else:
            sent = self.may_be_sent
            self.result.fail(PushTimeout(topic, self.event, timeout, sent=sent, waited=self.waited))
            self.channel._socket._pushes.give_up(self, "timeout")

    def _awaited(self) -> Literal["connection", "join", "room"]:
        """Return the condition that keeps it waiting."""
        if self.channel._socket.status != "connected":
            return "connection"
        return "room" if self.channel.status == "joined" else "join"
