"""Join, leave and rejoin: the one place that decides about a topic's membership, and the queue of joins.

A join is a `Request`, made by a user who awaits it, or by the library for a channel that is to be joined again.
Requests wait in a queue, users' before the library's, until there is a connection and a slot. What then happens to the
channel is decided here; the channel only takes note of it.
"""

import logging
import math
import random
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, final

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout
from ..protocol import (
    LeaveTopic,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    rejoin_delay,
)
from ..telemetry import ClientJoinStart
from .arguments import DEFAULT, Timeout, chosen
from .join_queue import JoinQueue, asked
from .joining import Departure, Request, Retry
from .spans import join_stop
from .turn import begun, finished

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

__all__ = ["Joins", "join", "request_join"]

TopicEvent = TopicJoinSucceeded | TopicJoinFailed | TopicJoinOverdue | TopicJoinClosed | TopicLeft

logger: Final = logging.getLogger("slipstream_trio")


@final
class Joins:
    """The joins of one socket: what is to be joined, joined again and left, and what an answer means.

    Attributes:
        queue: the joins that wait to be sent.
    """

    __slots__ = ("_socket", "queue")

    def __init__(self, socket: "Socket") -> None:
        self.queue: JoinQueue = JoinQueue(socket)
        self._socket = socket

    # Asking for a join

    @trio.lowlevel.enable_ki_protection
    async def join(self, request: Request) -> Any:
        """Join, and return the server's answer."""
        channel = request.channel
        channel._keep_payload()
        await self._claim(request)
        try:
            self.queue.put(request)
            while not request.sent:
                await request.slot.wait()
                params = await asked(request)
                connection = self._socket._connection
                if connection is not None and connection.is_open:
                    self.queue.send(request, connection, params)
                else:
                    request.wait_again()
                    self.queue.put(request, first=True)
            answer = await request.answer.wait()
            channel._joining.joined(request)
            return answer
        except BaseException:
            # Cancelled, perhaps just before the answer, or not sent. If the connection told the end, nothing is left.
            if channel._joining.claim is request:
                self.leave_soon(channel, self._socket._options.leave_timeout)
            raise
        finally:
            self.queue.give_back(request)

    @trio.lowlevel.enable_ki_protection
    async def request(self, channel: "Channel") -> None:
        """Ask for a join that is repeated until it succeeds; its answer is told to the channel's backlog."""
        channel._keep_payload()
        request = Request(channel, self._socket._options.join_timeout, by_user=False)
        await self._claim(request)
        channel._become("errored", "lost")  # it will be joined with this connection, or the next
        self.queue.put(request)

    def rejoin(self, channel: "Channel") -> None:
        """Join a channel again, as soon as that is possible."""
        self._wait_for_slot(channel)
        self.queue.pump()

    def _wait_for_slot(self, channel: "Channel") -> None:
        request = Request(channel, self._socket._options.join_timeout, by_user=False)
        channel._joining.begin(request)
        self.queue.add(request)

    async def _claim(self, request: Request) -> None:
        """Take the topic on this socket, when a leave of it that is under way is complete."""
        await trio.lowlevel.checkpoint()
        socket, channel = self._socket, request.channel
        while True:
            socket._check_usable()
            holder = socket._channels.get(channel.topic)
            if holder is None:
                break
            if holder.status != "leaving":
                raise AlreadyJoined(channel.topic)
            await holder._changed.next()
        socket._hold(channel)
        channel._joining.claimed(request)
        channel._claimed()

    def payload_failed(self, request: Request, error: Exception) -> None:
        """Take note that there is nothing to join with; the next attempt may do better."""
        channel = request.channel
        if channel._joining.request is not request:
            return  # it was left meanwhile
        logger.error(
            "socket %s: the payload for rejoining %r failed", self._socket.socket_id, channel.topic, exc_info=error
        )
        channel._joining.finish()
        self._try_again(channel, "payload_failed", "payload_failed")
        channel._tell_closed(error)

    # Answers

    def handle_event(self, event: TopicEvent) -> None:
        """Do what an event of a topic calls for."""
        channel = self._socket._channels.get(event.topic)
        if channel is None:
            return  # given up at once, as it was left while the connection closed
        match event:
            case TopicJoinSucceeded():
                self._succeeded(channel, event.response)
            case TopicJoinFailed():
                self._failed(channel, event)
            case TopicJoinOverdue():
                self._overdue(channel)
            case TopicJoinClosed():
                self._closed(channel, event.reason)
            case TopicLeft():
                self._end_left(channel, "left" if event.reason == "left" else "leave_timeout")
            case _:
                assert_never(event)

    def _succeeded(self, channel: "Channel", response: Any) -> None:
        request = channel._joining.finish()
        self.queue.answered()
        channel._joining.succeeded(trio.current_time())
        channel._accepted(response)
        if request is not None:
            request.answer.succeed(response)

    def _failed(self, channel: "Channel", event: TopicJoinFailed) -> None:
        if event.reason == "refused":
            self.queue.answered(refused=True)
            refusal = JoinError(channel.topic, event.response)
            channel._joining.refused(refusal)
            self._join_failed(channel, "join_refused", "refused", refusal)
        else:
            request = channel._joining.request
            timeout = None if request is None else request.timeout
            if request is not None:
                self.queue.timed_out(request)
            self._join_failed(channel, "join_timeout", "timeout", JoinTimeout(channel.topic, timeout or 0.0, sent=True))

    def _overdue(self, channel: "Channel") -> None:
        """Report a rejoin that takes longer than it may; its answer still counts."""
        request = channel._joining.request
        if request is not None:
            self.queue.timed_out(request)
            request.report()
            logger.warning("the server has not answered the join of %r within %s s", channel.topic, request.timeout)
            channel._tell_closed(JoinTimeout(channel.topic, request.timeout or 0.0, sent=True))

    def _closed(self, channel: "Channel", reason: Literal["closed", "crashed", "replaced"]) -> None:
        """Take note that the server ended a channel."""
        if channel.status == "leaving":
            return  # a handler of telemetry left it while this was being handled: the end of the leave comes next
        error = ChannelClosed(channel.topic, reason)
        if channel._joining.request is not None:
            self._join_failed(channel, reason, reason, error)
            return
        self._socket._pushes.fail_channel(channel, reason)
        channel._joining.lasted(self._socket._configuration.rejoin, trio.current_time())
        channel._lost("rejoined")
        self._try_again(channel, reason, reason, "errored" if reason == "crashed" else "closed")
        channel._tell_closed(error)

    def _join_failed(self, channel: "Channel", reason: str, ending: str, error: Exception) -> None:
        request = channel._joining.finish()
        if request is None or request.by_user:
            channel._end("closed", reason)
        else:
            self._try_again(channel, reason, ending)
        if request is not None:
            request.answer.fail(error)
        if request is None or not (request.reported and isinstance(error, JoinTimeout)):
            channel._tell_closed(error)

    def _try_again(
        self, channel: "Channel", reason: str, ending: str, final_status: Literal["closed", "errored"] = "closed"
    ) -> None:
        """Join again after a while, or end the channel, as `rejoin` says."""
        socket, joining = self._socket, channel._joining
        options = socket._configuration
        treated = "crashed" if ending == "closed" and options.rejoin_closed else ending
        delay = rejoin_delay(treated, options.rejoin, joining.step, random.random())  # noqa: S311 - for jitter
        if delay is None:
            channel._end(final_status, reason)
            return
        channel._become("errored", reason)
        retry = Retry(channel)
        joining.repeat_after(retry)
        socket._timer.add(trio.current_time() + delay, retry)
        socket._emitter.rejoin_scheduled(channel.topic, delay, joining.step + 1, ending)

    # The connection

    def connection_opened(self) -> None:
        """Join again what was joined; what waits for its time waits on."""
        self.queue.connection_opened()
        work = self._rejoin_all()
        if begun(work):
            self._socket._supervisor.tasks.start(finished, work)
        self.queue.pump()

    def _rejoin_all(self) -> Iterator[None]:
        for channel in list(self._socket._channels.values()):
            if channel.status == "errored" and channel._joining.idle:
                self._wait_for_slot(channel)
            yield
        self.queue.pump()

    def connection_lost(self) -> Iterator[None]:
        """Take note that the connection has ended, and another one may come: one channel a step."""
        for channel in list(self._socket._channels.values()):
            self._lose(channel)
            yield

    def _lose(self, channel: "Channel") -> None:
        request = channel._joining.request
        if channel.status == "leaving":
            self._end_left(channel, "left" if self._socket._ending.asked is not None else "leave_lost")
        elif request is not None and request.sent:
            channel._joining.finish()
            if request.by_user:
                channel._end("closed", "lost")
            else:
                channel._become("errored", "lost")
            request.answer.fail(self._socket._ending.lost())
        elif channel.status == "joined":
            channel._joining.lasted(self._socket._configuration.rejoin, trio.current_time())
            channel._lost("reconnected")
            channel._become("errored", "lost")

    def socket_ended(self) -> Iterator[None]:
        """Take note that there will be no other connection: one channel a step."""
        for channel in list(self._socket._channels.values()):
            request = channel._joining.finish()
            channel._end("closed", "lost" if self._socket._ending.error is not None else "left")
            if request is not None:
                request.fail(self._socket._ending.lost())
            yield

    # Leaving

    @trio.lowlevel.enable_ki_protection
    def leave_soon(self, channel: "Channel", timeout: float | None) -> None:
        """Ask to leave, and do not wait; a channel that is not joined just ends.

        Handlers of telemetry may call it, whatever is being handled.
        """
        if not channel._is_held or channel.status == "leaving":
            return
        connection = self._socket._connection
        request = channel._joining.finish()
        if connection is not None and connection.is_open and _is_joined(channel, connection, request):
            channel._begin_leave()
            connection.submit(LeaveTopic(trio.current_time(), channel.topic, timeout))
        else:
            self._end_left(channel, "left")
        if request is not None:
            request.fail(ChannelClosed(channel.topic, "left"))

    def _end_left(self, channel: "Channel", by: Departure) -> None:
        channel._joining.left(by)
        channel._end_left(by)

    @trio.lowlevel.enable_ki_protection
    async def leave_all(self) -> None:
        """Ask to leave all topics, in the time that this takes."""
        timeout = self._socket._options.leave_timeout
        channels = iter(list(self._socket._channels.values()))
        while begun(self.leave_soon(channel, timeout) for channel in channels):
            await trio.lowlevel.checkpoint()

    async def until_all_are_left(self) -> None:
        """Wait until the socket holds no topic."""
        channels = self._socket._channels
        while channels:
            await next(iter(channels.values()))._changed.next()


def _is_joined(channel: "Channel", connection: "Connection", request: Request | None) -> bool:
    """Tell whether there is a join to leave: in the state, or about to be, as it is being handled."""
    return channel.topic in connection.state.joins or (connection.handling and request is not None and request.sent)


# What tasks of users call


def join(channel: "Channel", timeout: Timeout) -> Coroutine[Any, Any, Any]:
    """Join for the first time; see `Channel.join`. To be awaited at once."""
    socket = channel._socket
    point = socket._emitter.join
    seconds = chosen(timeout, socket._options.join_timeout)
    # An explicit limit runs from the call, the option's from the turn of the join at the server.
    deadline = math.inf if timeout is DEFAULT or seconds is None else trio.current_time() + seconds
    request = Request(channel, seconds, deadline, by_user=True)
    if not point.active:
        return socket._joins.join(request)
    params = None if callable(channel._given_payload) else channel._given_payload  # a function is asked later
    start = ClientJoinStart(*socket._emitter.opening(), channel.topic, params)
    joining = partial(socket._joins.join, request)
    return socket._emitter.observed(point, start, joining, join_stop(start, request))


async def request_join(channel: "Channel") -> None:
    """Join as soon as there is a connection, and try again by the back-off; returns when that is under way.

    Raises:
        AlreadyJoined: the topic is held; one that is being left is waited for.
        ConnectionLost: there will be no connection any more.
        SerializationError: the payload is not a JSON value.
    """
    await channel._socket._joins.request(channel)
