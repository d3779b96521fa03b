"""Join, leave and rejoin: the one place that decides about a topic's membership, and the queue of joins.

A join is a `Request`, made by a user who awaits it, or by the library for a channel that is to be joined again.
Requests wait in a queue, users' before the library's, until there is a connection and a slot. What then happens to the
channel is decided here; the channel only takes note of it.
"""

import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, final

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout
from ..protocol import (
    JoinPacing,
    JoinTopic,
    LeaveTopic,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    rejoin_delay,
)
from ..telemetry import (
    ClientJoinStart,
    ClientJoinStop,
    Origin,
    Outcome,
    Record,
)
from .arguments import DEFAULT, KeptPayload, Timeout, chosen
from .handshake import ask
from .joining import Departure, Request, Retry
from .result import Result
from .spans import Stop

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

__all__ = ["Joins", "join", "request_join"]

TopicEvent = TopicJoinSucceeded | TopicJoinFailed | TopicJoinOverdue | TopicJoinClosed | TopicLeft

logger: Final = logging.getLogger("slipstream_trio")

JOINS_A_STEP: Final = 64
"""How many joins of the library are sent before other tasks run."""

LEAVES_A_STEP: Final = 64
"""How many channels are left before other tasks run."""


@final
class Joins:
    """The joins of one socket: who waits to join, who is to be joined again, and what an answer means."""

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._users: deque[Request] = deque()
        self._library: deque[Request] = deque()
        self._granted: set[Request] = set()  # that have a slot, and are not sent yet
        self._pacing = JoinPacing(fixed=socket._configuration.join_window)

    @property
    def wait(self) -> bool:
        """Whether joins wait for a slot."""
        return bool(self._users or self._library)

    # Asking for a join

    @trio.lowlevel.enable_ki_protection
    async def join(self, channel: "Channel", timeout: float | None, deadline: float) -> Any:
        """Join, and return the server's answer."""
        channel._keep_payload()
        request = Request(channel, timeout, deadline, by_user=True)
        await self._claim(request)
        self._users.append(request)
        self._limit_wait(request)
        self.pump()
        try:
            while not request.sent:
                await request.slot.wait()
                params = await _asked(request)
                connection = self._socket._connection
                if connection is not None and connection.is_open:
                    self._send(request, connection, params)
                else:
                    self._granted.discard(request)
                    request.wait_again()
                    self._users.appendleft(request)
                    self._limit_wait(request)
            return await request.answer.wait()
        except BaseException:
            self._give_back(request)
            # Cancelled, perhaps just before the answer, or not sent. If the connection told the end, nothing is left.
            if channel._joining.claim is request:
                self.leave_soon(channel, self._socket._options.leave_timeout)
            raise

    @trio.lowlevel.enable_ki_protection
    async def request(self, channel: "Channel") -> None:
        """Ask for a join that is repeated until it succeeds; its answer is told to the channel's backlog."""
        channel._keep_payload()
        request = Request(channel, self._socket._options.join_timeout, by_user=False)
        await self._claim(request)
        channel._become("errored", "lost")  # it will be joined with this connection, or the next
        self._users.append(request)
        self.pump()

    def rejoin(self, channel: "Channel") -> None:
        """Join a channel again, as soon as that is possible."""
        request = Request(channel, self._socket._options.join_timeout, by_user=False)
        channel._joining.begin(request)
        self._library.append(request)
        self.pump()

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
            await holder._changed.park()
        socket._hold(channel)
        channel._joining.claimed(request)
        channel._claimed()

    def _limit_wait(self, request: Request) -> None:
        """Limit how long a user's join waits to be sent: by its own deadline, or while there is no connection."""
        if request.deadline < math.inf:
            self._socket._timer.add(request.deadline, request)
        elif request.timeout is not None and not self._socket._is_connected:
            self._socket._timer.add(trio.current_time() + request.timeout, request)

    # Sending

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
            if at is None or not self.wait:
                return  # the next answer makes room
            if at > now:
                self._socket._timer.arm(at)
                return
            request = self._next(connection)
            if request is None:
                return  # room in the writer's queue is waited for
            self._grant(request, connection, now)
        self._socket._timer.arm(now)

    def _grant(self, request: Request, connection: "Connection", now: float) -> None:
        """Give a slot to a join: a user's task sends its own, the library's are sent here, or when a function is asked."""
        self._pacing = self._pacing.sent(now)
        request.granted(self._pacing.number)
        self._granted.add(request)
        if request.by_user:
            request.slot.succeed(None)
        elif callable(request.channel._payload):
            self._socket._start_task(self._ask_and_send, request)
        else:
            self._send_again(request, connection, request.channel._payload.value())

    def _give_back(self, request: Request) -> None:
        """Take a slot back that was not used."""
        if request in self._granted:
            self._granted.discard(request)
            self.pump()

    def _next(self, connection: "Connection") -> Request | None:
        """Take the next join that can be sent: one of a user needs room in the writer's queue, as pushes do."""
        for queue in (self._users, self._library):
            while queue and (queue is self._library or connection.writer.has_room):
                request = queue.popleft()
                if not request.over:
                    return request
        return None

    @trio.lowlevel.enable_ki_protection
    async def _ask_and_send(self, request: Request) -> None:
        """Ask the user's function for a payload, and join again with that."""
        try:
            params = await _asked(request)
            connection = self._socket._connection
            if not request.over and connection is not None and connection.is_open:
                self._send_again(request, connection, params)
            elif not request.over:
                self._library.appendleft(request)
        except Exception as error:  # noqa: BLE001 - the user's function; what it raises says nothing of this channel
            self._payload_failed(request, error)
        finally:
            self._give_back(request)

    def _send_again(self, request: Request, connection: "Connection", params: Any) -> None:
        """Send a join that no task awaits, in its telemetry span."""
        emitter = self._socket._emitter
        start = ClientJoinStart(*emitter.opening(), request.channel.topic, params) if emitter.join.active else None

        def answered(answer: Result[Any]) -> None:
            if start is not None:
                emitter.end_span(emitter.join, start, _join_stop(start), result=answer.value, error=answer.error)

        request.sending(answered)
        if start is not None:
            emitter.join.start.emit(start)
        try:
            self._send(request, connection, params)
        except Exception as error:  # noqa: BLE001 - a payload that cannot be sent, as a function returned it
            request.answer.fail(error)
            self._payload_failed(request, error)

    def _send(self, request: Request, connection: "Connection", params: Any) -> None:
        channel = request.channel
        # First, as a handler of telemetry may leave the topic while the join is being handled.
        self._granted.discard(request)
        request.sending()
        channel._begin_join()
        turn, deadline = (request.timeout, None) if request.deadline == math.inf else (None, request.deadline)
        command = JoinTopic(trio.current_time(), channel.topic, params, turn, deadline, rejoin=not request.by_user)
        transition = connection.handle(command)
        channel._sent(transition.state.joins[channel.topic])

    def _payload_failed(self, request: Request, error: Exception) -> None:
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
        self._pacing = self._pacing.answered()
        channel._joining.succeeded(trio.current_time())
        channel._accepted(response)
        if request is not None:
            request.answer.succeed(response)

    def _failed(self, channel: "Channel", event: TopicJoinFailed) -> None:
        if event.reason == "refused":
            self._pacing = self._pacing.answered(refused=True)
            refusal = JoinError(channel.topic, event.response)
            channel._refused(refusal)
            self._join_failed(channel, "join_refused", "refused", refusal)
        else:
            request = channel._joining.request
            timeout = None if request is None else request.timeout
            self._timed_out(request)
            self._join_failed(channel, "join_timeout", "timeout", JoinTimeout(channel.topic, timeout or 0.0, sent=True))

    def _overdue(self, channel: "Channel") -> None:
        """Report a rejoin that takes longer than it may; its answer still counts."""
        request = channel._joining.request
        if request is not None:
            self._timed_out(request)
            request.report()
            logger.warning("the server has not answered the join of %r within %s s", channel.topic, request.timeout)
            channel._tell_closed(JoinTimeout(channel.topic, request.timeout or 0.0, sent=True))

    def _timed_out(self, request: Request | None) -> None:
        if request is not None:
            self._pacing = self._pacing.timed_out(request.number)

    def _closed(self, channel: "Channel", reason: Literal["closed", "crashed", "replaced"]) -> None:
        """Take note that the server ended a channel."""
        error = ChannelClosed(channel.topic, reason)
        if channel._joining.request is not None:
            self._join_failed(channel, reason, reason, error)
            return
        self._socket._pushes.fail_topic(channel.topic, reason)
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
        delay = rejoin_delay(ending, socket._configuration.rejoin, joining.step, socket._draw())
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
        self._pacing = self._pacing.opened(trio.current_time())
        for channel in list(self._socket._channels.values()):
            if channel.status == "errored" and channel._joining.idle:
                self.rejoin(channel)
        self.pump()

    def connection_lost(self) -> None:
        """Take note that the connection has ended, and another one may come."""
        connection, now = self._socket._connection, trio.current_time()
        if connection is not None:
            self._pacing = self._pacing.ended(now, connection.state.unanswered)
        for request in self._users:
            self._limit_wait(request)
        for channel in list(self._socket._channels.values()):
            self._lose(channel)

    def _lose(self, channel: "Channel") -> None:
        request = channel._joining.request
        if channel.status == "leaving":
            self._end_left(channel, "left" if self._socket._end_asked is not None else "leave_lost")
        elif request is not None and request.sent:
            channel._joining.finish()
            if request.by_user:
                channel._end("closed", "lost")
            else:
                channel._become("errored", "lost")
            request.answer.fail(self._socket._lost())
        elif channel.status == "joined":
            channel._joining.lasted(self._socket._configuration.rejoin, trio.current_time())
            channel._lost("reconnected")
            channel._become("errored", "lost")

    def socket_ended(self) -> None:
        """Take note that there will be no other connection."""
        for channel in list(self._socket._channels.values()):
            request = channel._joining.finish()
            channel._end("closed", "lost" if self._socket._error is not None else "left")
            if request is not None:
                request.fail(self._socket._lost())

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
        for number, channel in enumerate(list(self._socket._channels.values()), 1):
            self.leave_soon(channel, self._socket._options.leave_timeout)
            if number % LEAVES_A_STEP == 0:
                await trio.lowlevel.checkpoint()

    async def until_all_are_left(self) -> None:
        """Wait until the socket holds no topic."""
        channels = self._socket._channels
        while channels:
            await next(iter(channels.values()))._changed.park()


def _is_joined(channel: "Channel", connection: "Connection", request: Request | None) -> bool:
    """Tell whether there is a join to leave: in the state, or about to be, as it is being handled."""
    return channel.topic in connection.state.joins or (connection.handling and request is not None and request.sent)


async def _asked(request: Request) -> Any:
    """Return the payload to join with; raises what the user's function does, or why it is not wanted any more."""
    payload = request.channel._payload
    if isinstance(payload, KeptPayload):
        return payload.value()
    with request.ask():
        return await _ask(payload)
    if not request.answer.settled:
        raise JoinTimeout(request.channel.topic, request.timeout or 0.0, sent=False)
    return await request.answer.wait()


@trio.lowlevel.disable_ki_protection
async def _ask(payload: Any) -> Any:
    """Call a function of the user's, which a KeyboardInterrupt may end."""
    return await ask(payload)


# What tasks of users call


async def join(channel: "Channel", timeout: Timeout) -> Any:
    """Join for the first time; see `Channel.join`."""
    socket = channel._socket
    point = socket._emitter.join
    seconds = chosen(timeout, socket._options.join_timeout)
    # An explicit limit runs from the call, the option's from the turn of the join at the server.
    deadline = math.inf if timeout is DEFAULT or seconds is None else trio.current_time() + seconds
    joining = socket._joins.join(channel, seconds, deadline)
    if not point.active:
        return await joining
    params = None if callable(channel._given_payload) else channel._given_payload  # a function is asked later
    start = ClientJoinStart(*socket._emitter.opening(), channel.topic, params)
    return await socket._emitter.observed(point, start, joining, _join_stop(start))


def _join_stop(start: ClientJoinStart) -> Stop:
    """Return what makes the record that a join has ended."""

    def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
        return ClientJoinStop(start, origin, now, outcome, getattr(error, "response", response))

    return stop


async def request_join(channel: "Channel") -> None:
    """Join as soon as there is a connection, and try again by the back-off; returns when that is under way.

    Raises:
        AlreadyJoined: the topic is held; one that is being left is waited for.
        ConnectionLost: there will be no connection any more.
        SerializationError: the payload is not a JSON value.
    """
    await channel._socket._joins.request(channel)
