"""Join, leave and rejoin: the one place that decides about a topic's membership.

A join is a `Request`, made by a user who awaits it, or by the library for a channel that is to be joined again.
They wait in a queue, until there is a connection and a slot. What then happens is decided here; channels take note.
"""

import logging
import math
import random
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, final

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout
from ..protocol import Backoff, LeaveTopic, events, rejoin_delay
from ..telemetry import ClientJoinStart, ClientLeaveStart, RejoinScheduled
from .configuration import DEFAULT, Timeout, chosen
from .join_queue import JoinQueue, Request
from .spans import Span, join_stop, leave_stop
from .turn import begun, finished

if TYPE_CHECKING:
    from .channel import Channel
    from .socket import Socket

Departure = Literal["left", "leave_timeout", "leave_lost"]

logger: Final = logging.getLogger("slipstream_trio")


@final
class Joining:
    """The history of one channel's joins and leaves."""

    __slots__ = ("_ended_at", "begun", "request", "step")

    def __init__(self) -> None:
        self.request: Request | None = None  # that is under way, or waits to be repeated
        self.begun: int = 0  # joins; the latest holds the topic
        self.step: int = 0  # repetitions since a join last went well
        self._ended_at = 0.0  # when the latest join was answered, or given up

    def begin(self, request: Request, step: int) -> None:
        """Take note of a join that takes the topic, now or when its back-off is over."""
        self.request, self.step = request, step
        self.begun += 1

    def finish(self) -> Request | None:
        """Forget the join that is under way, or waits to be repeated, and return it."""
        request, self.request = self.request, None
        self._ended_at = trio.current_time()
        return request

    def lasted(self, backoff: Backoff | None) -> None:
        """Take note that the channel is joined no longer: if it was for long enough, the back-off begins anew."""
        if backoff is not None:
            self.step = backoff.step_after(self.step, trio.current_time() - self._ended_at)


@final
class Joins:
    """The joins of one socket: what is to be joined, joined again and left, and what an answer means."""

    __slots__ = ("_socket", "queue")

    def __init__(self, socket: "Socket") -> None:
        self.queue: JoinQueue = JoinQueue(socket)
        self._socket = socket

    @trio.lowlevel.enable_ki_protection
    async def join(self, request: Request) -> Any:
        """Join, and return the server's answer."""
        channel = request.channel
        channel._keep_payload()
        await self._claim(request)
        number = channel._joining.begun
        try:
            self.queue.put(request)
            while not request.sent:
                await request.slot.wait()
                await self.queue.ask_and_send(request)
            return await request.answer.wait()
        except BaseException:
            # Cancelled, perhaps just before the answer, or not sent. If the connection told the end, nothing is left.
            if channel._joining.begun == number:
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
        socket._channels[channel.topic] = channel
        channel._joining.begin(request, step=0)
        channel._claimed()

    def payload_failed(self, request: Request, error: Exception) -> None:
        """Take note that there is nothing to join with; the next attempt may do better."""
        socket, channel = self._socket, request.channel
        request.answer.fail(error)
        if channel._joining.request is not request:
            return  # it was left meanwhile
        logger.error("socket %s: the payload for rejoining %r failed", socket.socket_id, channel.topic, exc_info=error)
        channel._joining.finish()
        self._try_again(channel, "payload_failed", error)
        channel._tell_closed(error)

    # Answers

    def handle_event(self, event: events.TopicEvent) -> None:
        """Do what an event of a topic calls for."""
        channel = self._socket._channels.get(event.topic)
        if channel is None:
            return  # given up at once, as it was left while the connection closed
        match event:
            case events.TopicJoinSucceeded():
                self._succeeded(channel, event.response)
            case events.TopicJoinFailed():
                self._failed(channel, event)
            case events.TopicJoinOverdue():
                self._overdue(channel)
            case events.TopicJoinClosed():
                self._closed(channel, event.reason)
            case events.TopicLeft():
                channel._end_left("left" if event.reason == "left" else "leave_timeout")
            case _:
                assert_never(event)

    def _succeeded(self, channel: "Channel", response: Any) -> None:
        request = channel._joining.finish()
        self.queue.answered()
        channel._accepted(response)
        if request is not None:
            request.answer.succeed(response)

    def _failed(self, channel: "Channel", event: events.TopicJoinFailed) -> None:
        if event.reason == "refused":
            self.queue.answered(refused=True)
            self._join_failed(channel, "join_refused", JoinError(channel.topic, event.response))
        else:
            timeout = 0.0
            if (request := channel._joining.request) is not None:
                timeout = request.timeout or 0.0
                self.queue.timed_out(request)
            self._join_failed(channel, "join_timeout", JoinTimeout(channel.topic, timeout, sent=True))

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
            self._join_failed(channel, reason, error)
            return
        self._socket._pushes.fail_channel(channel, reason)
        channel._joining.lasted(self._socket._configuration.rejoin)
        channel._lost("rejoined")
        self._try_again(channel, reason, error, "errored" if reason == "crashed" else "closed")
        channel._tell_closed(error)

    def _join_failed(self, channel: "Channel", reason: str, error: Exception) -> None:
        request = channel._joining.finish()
        if request is None or request.by_user:
            channel._end("closed", reason, error)
        else:
            self._try_again(channel, reason, error)
        if request is not None:
            request.answer.fail(error)
        if request is None or not (request.reported and isinstance(error, JoinTimeout)):
            channel._tell_closed(error)

    def _try_again(
        self, channel: "Channel", reason: str, error: Exception, final: Literal["closed", "errored"] = "closed"
    ) -> None:
        """Join again after a while, or end the channel with the status `final`, as `rejoin` says."""
        socket, joining = self._socket, channel._joining
        options, ending = socket._configuration, reason.removeprefix("join_")
        treated = "crashed" if ending == "closed" and options.rejoin_closed else ending
        delay = rejoin_delay(treated, options.rejoin, joining.step, random.random())  # noqa: S311 - for jitter
        if delay is None:
            channel._end(final, reason, error)
            return
        channel._become("errored", reason)
        request = Request(channel, socket._options.join_timeout, by_user=False)
        joining.begin(request, joining.step + 1)
        socket._timer.add(trio.current_time() + delay, request)
        socket._emitter.emit(RejoinScheduled, channel.topic, delay, joining.step, ending)

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
            if channel.status == "errored" and channel._joining.request is None:
                request = Request(channel, self._socket._options.join_timeout, by_user=False)
                channel._joining.begin(request, channel._joining.step)
                self.queue.add(request)
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
            channel._end_left("left" if self._socket._lifecycle.asked is not None else "leave_lost")
        elif request is not None and request.sent:
            channel._joining.finish()
            if request.by_user:
                channel._end("closed", "lost")
            else:
                channel._become("errored", "lost")
            request.answer.fail(self._socket._lifecycle.lost())
        elif channel.status == "joined":
            channel._joining.lasted(self._socket._configuration.rejoin)
            channel._lost("reconnected")
            channel._become("errored", "lost")

    def socket_ended(self) -> Iterator[None]:
        """Take note that there will be no other connection: one channel a step."""
        for channel in list(self._socket._channels.values()):
            request = channel._joining.finish()
            channel._end("closed", "lost" if self._socket._lifecycle.error is not None else "left")
            if request is not None:
                request.fail(self._socket._lifecycle.lost())
            yield

    @trio.lowlevel.enable_ki_protection
    def leave_soon(self, channel: "Channel", timeout: float | None) -> None:
        """Ask to leave, and do not wait; a channel that is not joined just ends.

        Handlers of telemetry may call it, whatever is being handled.
        """
        if not channel._is_held or channel.status == "leaving":
            return
        connection = self._socket._connection
        request = channel._joining.finish()
        # There is a join to leave in the state, or about to be, as it is being handled.
        is_sent = request is not None and request.sent
        if (connection is not None and connection.is_open) and (
            channel.topic in connection.state.joins or (connection.handling and is_sent)
        ):
            channel._begin_leave()
            leave = LeaveTopic(trio.current_time(), channel.topic, timeout)
            connection.afterwards(partial(connection.handle_own, leave))
        else:
            channel._end_left("left")
        if request is not None:
            request.fail(ChannelClosed(channel.topic, "left"))

    @trio.lowlevel.enable_ki_protection
    async def leave_all(self) -> None:
        """Ask to leave all topics, in the time that this takes."""
        timeout = self._socket._options.leave_timeout
        channels = iter(list(self._socket._channels.values()))
        while begun(self.leave_soon(channel, timeout) for channel in channels):
            await trio.lowlevel.checkpoint()


def join(channel: "Channel", timeout: Timeout) -> Coroutine[Any, Any, Any]:
    """Join for the first time; see `Channel.join`. To be awaited at once."""
    socket = channel._socket
    seconds = chosen(timeout, socket._options.join_timeout)
    # An explicit limit runs from the call, the option's from the turn of the join at the server.
    deadline = math.inf if timeout is DEFAULT or seconds is None else trio.current_time() + seconds
    request = Request(channel, seconds, deadline, by_user=True)
    if not socket._emitter.join.active:
        return socket._joins.join(request)  # without the span's lines in a traceback
    params = None if callable(channel._given_payload) else channel._given_payload  # a function is asked later
    span = Span(
        socket._emitter, socket._emitter.join, partial(join_stop, request), ClientJoinStart, channel.topic, params
    )
    return span.around(partial(socket._joins.join, request))


async def leave(channel: "Channel", timeout: float | None) -> None:
    """Leave, and wait until that is confirmed or given up."""

    async def departure() -> Departure:
        await trio.lowlevel.checkpoint()
        channel._socket._joins.leave_soon(channel, timeout)
        return await _until_left(channel)

    await _span(channel).around(departure)


async def _until_left(channel: "Channel") -> Departure:
    """Wait until a leave that was asked for is complete, or given up; returns how it ended."""
    waited = False
    while channel.status == "leaving":
        waited = True
        await channel._changed.next()
    return channel._left_by if waited else "left"


@trio.lowlevel.enable_ki_protection
async def request_leave(channel: "Channel") -> None:
    """Leave, and return when that is asked for."""
    await trio.lowlevel.checkpoint()
    span = _span(channel)
    span.begin()
    channel.leave_soon()
    if channel.status != "leaving":
        span.end("left")
    elif span.is_open:
        channel._socket._supervisor.tasks.start(span.around, partial(_until_left, channel))


def _span(channel: "Channel") -> Span:
    emitter = channel._socket._emitter
    return Span(emitter, emitter.leave, leave_stop, ClientLeaveStart, channel.topic, {})


@final
class Joined(AbstractAsyncContextManager["Channel"]):
    """A joined channel, for the time of `Socket.join`'s block. A generator would take half a KiB more."""

    __slots__ = ("_channel", "_timeout")

    def __init__(self, channel: "Channel", timeout: Timeout) -> None:
        self._channel = channel
        self._timeout = timeout

    async def __aenter__(self) -> "Channel":
        await join(self._channel, self._timeout)
        return self._channel

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                await self._leave()
        except BaseException:
            self._channel.leave_soon()  # the leave was cancelled before it was sent, perhaps
            raise
        if error is not None:
            self._channel.leave_soon()

    async def _leave(self) -> None:
        """Leave, and wait until the deadline of the first exit of the row."""
        exits = self._channel._socket._exits
        deadline = exits.take_deadline()
        left = deadline - trio.current_time()
        if left > 0:
            await leave(self._channel, None if left == math.inf else left)
        else:
            await request_leave(self._channel)
        exits.ended(deadline)
