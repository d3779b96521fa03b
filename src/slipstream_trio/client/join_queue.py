"""Joins, and their queue: users' before the library's, in a window, at a pace, and with users' functions asked late."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from attrs import define, field

from ..errors import JoinTimeout
from ..protocol import JoinPacing, JoinTopic
from ..protocol.serializer import KeptPayload
from ..telemetry import ClientJoinStart
from .handshake import ask
from .spans import Span, join_stop
from .status import Result

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

JOINS_A_STEP: Final = 8
"""The number of joins of the library sent before other tasks run."""


@final
@define(eq=False, repr=False)
class Request:
    """A join that was asked for.

    One `by_user` is awaited by a task; others are repeated, as `rejoin` says, until they succeed. `timeout` is for the
    server's answer; at `deadline` a user's join fails, if that is infinity, `timeout` runs from its turn at the server.
    """

    channel: "Channel"
    timeout: float | None
    deadline: float = math.inf
    by_user: bool = field(kw_only=True)
    slot: Result[None] = field(factory=Result, init=False)  # settled when it may be sent
    answer: Result[Any] = field(factory=Result, init=False)
    sent: bool = field(default=False, init=False)
    number: int = field(default=0, init=False)  # of the joins of the socket, once it may be sent
    reported: bool = field(default=False, init=False)  # that it takes too long
    asking: trio.CancelScope = field(factory=trio.CancelScope, init=False)  # in which the payload's function runs
    _began: float = field(factory=trio.current_time, init=False)
    _sent_at: float | None = field(default=None, init=False)

    @property
    def waited(self) -> float:
        """The seconds until it was sent, or that it has waited by now."""
        return (trio.current_time() if self._sent_at is None else self._sent_at) - self._began

    @property
    def over(self) -> bool:
        """Whether it need not be sent any more: it was, or has ended."""
        return self.sent or self.answer.settled

    def expire(self) -> None:
        """Give up, as it could not be sent in time; one of the library may be sent now, as its back-off is over.

        Without a deadline, only the wait for a connection is limited.
        """
        if not self.by_user:
            self.channel._socket._joins.queue.put(self)
        elif self.deadline < math.inf or not self.channel._socket._is_connected:
            self.fail(JoinTimeout(self.channel.topic, self.timeout or 0.0, sent=False))

    def fail(self, error: Exception) -> None:
        """End, sent or not."""
        self.answer.fail(error)
        self.slot.fail(error)
        self.asking.cancel()

    def granted(self, number: int) -> None:
        """Take note that it may be sent, as the socket's join of this number."""
        self.number = number

    def ask(self) -> trio.CancelScope:
        """Return the scope to ask the payload's function in."""
        limit = math.inf if self.timeout is None else trio.current_time() + self.timeout
        self.asking = trio.CancelScope(deadline=min(limit, self.deadline))
        return self.asking

    def wait_again(self) -> None:
        """Wait for another slot, as the connection ended before this one could be used."""
        self.slot = Result()

    def sending(self, answered: Callable[[Result[Any]], None] | None = None) -> None:
        """Take note that it is sent now; `answered` is called with the answer to a join that no task awaits."""
        self.sent = True
        self._sent_at = trio.current_time()
        if answered is not None:
            self.answer = Result(answered)

    def report(self) -> None:
        """Take note that it was reported to take too long."""
        self.reported = True


@final
class JoinQueue:
    """The joins of one socket that wait for a connection, and a slot on it.

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

    def put(self, request: Request, *, first: bool = False) -> None:
        """Let a join wait for its slot, and send what can be sent."""
        self.add(request, first=first)
        self.pump()

    def add(self, request: Request, *, first: bool = False) -> None:
        """Let a join wait for its slot: behind the others, or before them as it had one already."""
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

    # What is known of the server

    def connection_opened(self) -> None:
        """Take note of another connection."""
        self._pacing = self._pacing.opened(trio.current_time())

    def connection_ended(self) -> None:
        """Take note that the connection has ended, perhaps because of the joins."""
        connection = self._socket._connection
        if connection is not None:
            self._pacing = self._pacing.ended(trio.current_time(), connection.state.unanswered)
        for request in self._users:
            self._limit_wait(request)

    def answered(self, *, refused: bool = False) -> None:
        """Take note of an answer."""
        self._pacing = self._pacing.answered(refused=refused)

    def timed_out(self, request: Request) -> None:
        """Take note that a join takes too long."""
        self._pacing = self._pacing.timed_out(request.number)

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

    def _grant(self, request: Request, connection: "Connection", now: float) -> None:
        """Give a slot to a join: a user sends its own; the library's is sent here, or when a function was asked."""
        self._pacing = self._pacing.sent(now)
        request.granted(self._pacing.number)
        self._granted[request] = None
        if request.by_user:
            request.slot.succeed(None)
        elif callable(request.channel._payload):
            self._socket._supervisor.tasks.start(self._ask_and_send_again, request)
        else:
            try:
                self._send(request, connection, request.channel._payload.value())
            except Exception as error:  # noqa: BLE001 - of the user's serializer, or of a copy of the payload
                self._granted.pop(request, None)
                self._socket._joins.payload_failed(request, error)

    def give_back(self, request: Request) -> None:
        """Take a slot back, if it was not used."""
        if request in self._granted:
            self._granted.pop(request, None)
            self.pump()

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

    @trio.lowlevel.enable_ki_protection
    async def _ask_and_send_again(self, request: Request) -> None:
        """Ask the user's function for a payload, and join again with that."""
        try:
            await self.ask_and_send(request)
        except Exception as error:  # noqa: BLE001 - the user's function; what it raises says nothing of this channel
            self._socket._joins.payload_failed(request, error)
        except (KeyboardInterrupt, SystemExit) as error:
            self._socket._supervisor.interrupted(error)
        finally:
            self.give_back(request)

    async def ask_and_send(self, request: Request) -> None:
        """Ask for a payload, and send a join with it; where the connection has ended, let it wait for another slot."""
        params = await asked(request)
        connection = self._socket._connection
        if connection is not None and connection.is_open and not request.over:
            self._send(request, connection, params)
        elif not request.over:
            request.wait_again()
            self._granted.pop(request, None)
            self.put(request, first=True)

    def _send(self, request: Request, connection: "Connection", params: Any) -> None:
        """Send a join, the library's in a telemetry span; raises `SerializationError`."""
        channel = request.channel
        # First, as a handler of telemetry may leave the topic while the join is being handled.
        self._granted.pop(request, None)
        if request.by_user:
            request.sending()
        else:
            emitter, stop = self._socket._emitter, partial(join_stop, request)
            span = Span(emitter, emitter.join, stop, ClientJoinStart, channel.topic, params)
            request.sending(lambda answer: span.end(answer.value, answer.error))
            span.begin()
        channel._begin_join()
        turn, deadline = (request.timeout, None) if request.deadline == math.inf else (None, request.deadline)
        command = JoinTopic(trio.current_time(), channel.topic, params, turn, deadline, rejoin=not request.by_user)
        transition = connection.handle(command)
        channel._sent(transition.state.joins[channel.topic])


async def asked(request: Request) -> Any:
    """Return the payload to join with; raises what the user's function does, or why it is not wanted any more."""
    payload = request.channel._payload
    if request.over:  # it was left after it had its slot
        return await request.answer.wait()
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
