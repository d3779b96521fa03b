"""Join, leave and rejoin: the one place that decides about a topic's membership, and the queue of joins.

A join is a `Request`, made by a user who awaits it, or by the library for a channel that is to be joined again. They
wait in a queue, users' before the library's, until there is a connection and a slot: in a window, at a pace, and with
users' functions asked late. What then happens is decided here; channels take note.
"""

import logging
import math
import random
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, final

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout
from ..protocol import JoinPacing, JoinTopic, LeaveTopic, events, rejoin_delay
from ..telemetry import RejoinScheduled
from .join_request import Request
from .turn import begun, finished

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

JOINS_A_STEP: Final = 8
"""The number of joins of the library sent before other tasks run."""

logger: Final = logging.getLogger("slipstream_trio")


@final
class Joins:
    """The joins of one socket: what is to be joined, joined again and left, and what an answer means.

    So many joins may be unanswered at once as `JoinPacing` has found out. A join has a slot from when it may be sent;
    the core counts those that were sent.
    """

    __slots__ = ("_granted", "_library", "_pacing", "_socket", "_users")

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        # Ordered dicts rather than deques, of which an empty one takes 760 bytes.
        self._users: OrderedDict[Request, None] = OrderedDict()
        self._library: OrderedDict[Request, None] = OrderedDict()
        self._granted: dict[Request, None] = {}  # that have a slot, and are not sent yet
        self._pacing = JoinPacing(fixed=socket._configuration.join_window)

    @trio.lowlevel.enable_ki_protection
    async def join(self, request: Request) -> Any:
        """Join, and return the server's answer."""
        channel = request.channel
        channel._keep_payload()
        await self._claim(request)
        number = channel._joining.begun
        try:
            self.put(request)
            while not request.sent:
                await request.slot.wait()
                await self._ask_and_send(request)
            return await request.answer.wait()
        except BaseException:
            # Cancelled, perhaps just before the answer, or not sent. If the connection told the end, nothing is left.
            if channel._joining.begun == number:
                channel.leave_soon()
            raise
        finally:
            self._give_back(request)

    @trio.lowlevel.enable_ki_protection
    async def request(self, channel: "Channel") -> None:
        """Ask for a join that is repeated until it succeeds; its answer is told to the channel's backlog."""
        channel._keep_payload()
        request = Request(channel, self._socket._options.join_timeout, by_user=False)
        await self._claim(request)
        self.put(request)

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

    # The queue

    def put(self, request: Request, *, first: bool = False) -> None:
        """Let a join wait for its slot, behind the others, or before them as it had one; send what can be sent."""
        self._add(request, first=first)
        self.pump()

    def _add(self, request: Request, *, first: bool = False) -> None:
        queue = self._users if request.by_user else self._library
        queue[request] = None
        queue.move_to_end(request, last=not first)
        if request.by_user:
            self._limit_wait(request)

    def _limit_wait(self, request: Request) -> None:
        """Limit how long a user's join waits to be sent: by its own deadline, or while there is no connection."""
        if request.deadline < math.inf:
            self._socket._timer.add(request.deadline, request)
        elif request.timeout is not None and not self._socket._is_connected:
            self._socket._timer.add(trio.current_time() + request.timeout, request)

    def pump(self) -> None:
        """Give slots to the joins that wait, in order, while that is possible."""
        connection = self._socket._connection
        if connection is None or not self._socket._is_connected:
            return
        if connection.handling:
            connection.afterwards(self.pump)
            return
        now = trio.current_time()
        for _ in range(JOINS_A_STEP):
            at = self._pacing.next_join(now, connection.state.unanswered + len(self._granted))
            if at is None or not (self._users or self._library):
                return  # the next answer makes room
            if at > now:
                self._socket._timer.arm(at)
                return
            request = self._next(connection)
            if request is None:
                return  # room in the writer's queue is waited for
            self._grant(request, connection, now)
        self._socket._timer.arm(now)

    def _next(self, connection: "Connection") -> Request | None:
        """Take the next join that can be sent: one of a user needs room in the writer's queue, as pushes do."""
        has_room = connection.writer.has_room and not self._socket._pushes._tickets
        for queue in (self._users, self._library):
            while queue and (queue is self._library or has_room):
                request, _ = queue.popitem(last=False)
                if not queue:
                    queue.clear()  # gives back two thirds of its memory
                if not request.over:
                    return request
        return None

    def _grant(self, request: Request, connection: "Connection", now: float) -> None:
        """Give a slot to a join: a user sends its own; the library's is sent here, or when a function was asked."""
        self._pacing = self._pacing.sent(now)
        self._granted[request] = None
        request.grant(self._pacing.number)
        if request.by_user:
            return
        if callable(request.channel._payload):
            self._socket._supervisor.tasks.start(self._ask_and_send_again, request)
            return
        try:
            self._send(request, connection, request.channel._payload.value())
        except Exception as error:  # noqa: BLE001 - of the user's serializer, or of a copy of the payload
            self._granted.pop(request, None)
            self._payload_failed(request, error)

    def _give_back(self, request: Request) -> None:
        """Take a slot back, if it was not used."""
        if request in self._granted:
            del self._granted[request]
            self.pump()

    async def _ask_and_send_again(self, request: Request) -> None:
        """Ask the user's function for a payload, and join again with that."""
        try:
            await self._ask_and_send(request)
        except Exception as error:  # noqa: BLE001 - the user's function; what it raises says nothing of this channel
            self._payload_failed(request, error)
        except (KeyboardInterrupt, SystemExit) as error:
            self._socket._supervisor.interrupted(error)
        finally:
            self._give_back(request)

    async def _ask_and_send(self, request: Request) -> None:
        """Ask for a payload, and send a join with it; where the connection has ended, let it wait for another slot."""
        params = await request.params()
        connection = self._socket._connection
        if request.over:
            return
        if connection is not None and connection.is_open:
            self._send(request, connection, params)
        else:
            self._granted.pop(request, None)
            request.wait_again()
            self.put(request, first=True)

    def _send(self, request: Request, connection: "Connection", params: Any) -> None:
        """Send a join, the library's in a telemetry span; raises `SerializationError`."""
        channel = request.channel
        # First, as a handler of telemetry may leave the topic while the join is being handled.
        self._granted.pop(request, None)
        request.sending(params)
        if channel._joining.request is not request:  # or as its span begins
            self._socket._timer.arm(trio.current_time())  # for those that wait for the slot
            return
        channel._begin_join()
        turn, deadline = (request.timeout, None) if request.deadline == math.inf else (None, request.deadline)
        command = JoinTopic(trio.current_time(), channel.topic, params, turn, deadline, rejoin=not request.by_user)
        transition = connection.handle(command)
        channel._sent(transition.state.joins[channel.topic])

    def _payload_failed(self, request: Request, error: Exception) -> None:
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
        """Do what an event of a topic calls for; one about a join that is not answered finds it under way."""
        channel = self._socket._channels.get(event.topic)
        if channel is None or event.ref not in (None, channel._join_ref):
            return  # given up at once, as it was left while the connection closed; another may have the topic since
        if isinstance(event, events.TopicLeft):
            channel._end_left("left" if event.reason == "left" else "leave_timeout")
            return
        if channel.status == "leaving":
            return  # a handler of telemetry left it while this was being handled: the end of the leave comes next
        match event:
            case events.TopicJoinSucceeded():
                request = channel._joining.finish()
                assert request is not None
                self._pacing = self._pacing.answered()
                channel._accepted(event.response)
                request.answer.succeed(event.response)
            case events.TopicJoinFailed():
                self._failed(channel, event)
            case events.TopicJoinOverdue():
                self._overdue(channel)
            case events.TopicJoinClosed():
                self._closed(channel, event.reason)
            case _:
                assert_never(event)

    def _failed(self, channel: "Channel", event: events.TopicJoinFailed) -> None:
        request = channel._joining.request
        assert request is not None
        if event.reason == "refused":
            self._pacing = self._pacing.answered(refused=True)
            self._join_failed(request, "join_refused", JoinError(channel.topic, event.response))
        else:
            self._pacing = self._pacing.timed_out(request.number)
            self._join_failed(request, "join_timeout", request.timed_out(sent=True))

    def _overdue(self, channel: "Channel") -> None:
        """Report a rejoin that takes longer than it may; its answer still counts."""
        request = channel._joining.request
        assert request is not None
        self._pacing = self._pacing.timed_out(request.number)
        request.report()
        logger.warning("the server has not answered the join of %r within %s s", channel.topic, request.timeout)
        channel._tell_closed(request.timed_out(sent=True))

    def _closed(self, channel: "Channel", reason: Literal["closed", "crashed", "replaced"]) -> None:
        """Take note that the server ended a channel."""
        error = ChannelClosed(channel.topic, reason)
        if channel._joining.request is not None:
            self._join_failed(channel._joining.request, reason, error)
            return
        self._socket._pushes.fail_channel(channel, reason)
        if not channel._is_held:
            return  # a handler of telemetry that was told of a push left it
        channel._joining.lasted(self._socket._configuration.rejoin)
        channel._lost("rejoined")
        self._try_again(channel, reason, error, "errored" if reason == "crashed" else "closed")
        channel._tell_closed(error)

    def _join_failed(self, request: Request, reason: str, error: Exception) -> None:
        channel = request.channel
        channel._joining.finish()
        if request.by_user:
            channel._end("closed", reason, error)
        else:
            self._try_again(channel, reason, error)
        request.answer.fail(error)
        if not (request.reported and isinstance(error, JoinTimeout)):
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
        self._pacing = self._pacing.opened(trio.current_time())
        work = self._rejoin_all()
        if begun(work):
            self._socket._supervisor.tasks.start(finished, work)

    def _rejoin_all(self) -> Iterator[None]:
        for channel in list(self._socket._channels.values()):
            if channel.status == "errored" and channel._joining.request is None:
                request = Request(channel, self._socket._options.join_timeout, by_user=False)
                channel._joining.begin(request, channel._joining.step)
                self._add(request)
            yield
        self.pump()

    def connection_ended(self, connection: "Connection") -> None:
        """Take note that the connection has ended, perhaps because of the joins."""
        self._pacing = self._pacing.ended(trio.current_time(), connection.state.unanswered)

    def connection_lost(self) -> Iterator[None]:
        """Take note that the connection has ended, and another one may come: one join, or channel, a step."""
        for waiting in list(self._users):
            self._limit_wait(waiting)
            yield
        for channel in list(self._socket._channels.values()):
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
            elif channel._status == "joined":
                channel._joining.lasted(self._socket._configuration.rejoin)
                channel._lost("reconnected")
                channel._become("errored", "lost")
            yield

    def socket_ended(self) -> Iterator[None]:
        """Take note that there will be no other connection: one channel a step."""
        for channel in list(self._socket._channels.values()):
            if channel._is_held:  # else it was left meanwhile
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
            channel._become("leaving", "left")
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
