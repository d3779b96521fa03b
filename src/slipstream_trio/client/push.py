"""Pushes and sends: those that wait to be queued, and those whose reply is awaited.

What is pushed on a channel leaves in the order of the calls, whatever a call waited for. So each channel has a line,
and a call that has to wait (for the join, for a reconnect, for room in the writer's queue) takes a place in it. Turns
are taken first come, first served, where room is made: Trio promises no order among tasks that are woken together.
"""

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, final

import trio
from attrs import define, field
from trio.lowlevel import checkpoint_if_cancelled

from ..errors import ChannelClosed, ConnectionLost, PushError, PushTimeout, SerializationError
from ..protocol import Message, PushMessage, ReplyReceived
from ..telemetry import ClientSendStart, ClientSendStop, Record, ReplyOrphaned
from ..telemetry.span import push_end, push_start
from .spans import First, Span, reason_of
from .status import Result, again

if TYPE_CHECKING:
    from ..protocol.serializer import KeptPayload
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

CALLS_A_STEP: Final = 64
"""The number of calls that take their turns before other tasks run."""

REMEMBERED: Final = 1024
"""The number of pushes given up that are remembered, so that their late replies are recognised."""

GivenUp = Literal["cancelled", "timeout"]


@final
@define(eq=False, repr=False)
class Call:
    """A push or a send: it may wait in its channel's line, then for room; a push awaits its reply after that.

    To be made in the task that calls. `queued`, where somebody awaits that, is settled when it is queued, with its ref,
    or when it never will be.
    """

    channel: "Channel"
    event: str
    _timeout: float | None
    _is_send: bool = field(default=False, kw_only=True)
    _queued: Result[str] | None = None
    result: Result[Any] = field(factory=Result)
    _began: float = field(factory=trio.current_time, init=False)
    ref: str | None = field(default=None, init=False)
    number: int = field(default=sys.maxsize, init=False)  # of its frame in the queue of the writer
    _waited: float = field(default=0.0, init=False)  # seconds, to be queued
    _kept: "KeptPayload | None" = field(default=None, init=False)
    _context: Context = field(init=False)

    @property
    def over(self) -> bool:
        """Whether it has ended, or nobody waits for it any more."""
        return self.result.settled or (self._queued or self.result).given_up

    @property
    def deadline(self) -> float:
        """The end of its time limit, on Trio's clock."""
        return math.inf if self._timeout is None else self._began + self._timeout

    def queue(self, payload: Any) -> None:
        """Queue it, now if possible, else when it is its turn; raises what keeps it from ever being queued."""
        channel, pushes = self.channel, self.channel._socket._pushes
        try:
            connection = channel._open_connection()
            # While this channel is joined, there is a ticket for each of its calls that wait.
            if connection is None or pushes._tickets or not connection.writer.has_room:
                # The payload as it is now, and the context, as handlers of telemetry may read it.
                self._kept = channel._socket._kept(channel.topic, self.event, payload)
                self._context = trio.lowlevel.current_task().context
                pushes.wait_in_line(self)
            else:
                self.submit(connection, payload)
        except SerializationError as error:
            error.with_traceback(None)  # its way through the core helps no user
            raise

    def settling(self) -> Awaitable[object]:
        """Return what is to be awaited until what its task waits for is settled."""
        return (self._queued or self.result).settling(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        """Give up, as its task is cancelled: a reply that comes before that task runs is told of as late."""
        pushes = self.channel._socket._pushes
        aborted = (self._queued or self.result).give_up()
        pushes.leave_line(self)
        pushes.give_up(self, "cancelled")
        return aborted

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

    def take_turn(self, connection: "Connection") -> None:
        """Queue it now, in whichever task this is.

        To wake the caller's task first would cost each call a pass of the scheduler, as only one may have its turn at
        a time.
        """
        assert self._kept is not None
        self._waited = trio.current_time() - self._began
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
            joined: Literal["join", "room"] = "room" if self.channel.status == "joined" else "join"
            awaited = joined if self.channel._socket.status == "connected" else "connection"
            self.channel._socket._pushes.leave_line(self)
            self.fail(PushTimeout(topic, self.event, timeout, sent=False, waited=timeout, awaited=awaited))
        else:
            # Where its frame still waits for the writer, it will be sent.
            self.result.fail(PushTimeout(topic, self.event, timeout, sent=True, waited=self._waited))
            self.channel._socket._pushes.give_up(self, "timeout")

    def span(self, payload: Any) -> Span:
        """Return its telemetry span."""
        emitter, told = self.channel._socket._emitter, (self.channel.topic, self.event, payload)
        if self._is_send:
            return Span(emitter, emitter.send, self._stop, ClientSendStart, *told)
        return Span(emitter, emitter.push, self._stop, push_start, *told)

    def _stop(self, first: First, response: Any, error: BaseException | None) -> Record:
        waited = round((trio.current_time() - self._began if self.ref is None else self._waited) * 1e9)
        if self._is_send:
            return ClientSendStop(*first, self.ref, reason_of(error), waited)
        status = "ok" if error is None else getattr(error, "status", None)
        sent = self.ref is not None and getattr(error, "sent", True)
        response = getattr(error, "response", response)
        return push_end(*first, self.ref, status, response, reason_of(error), sent, waited)


@final
class Pushes:
    """The pushes and sends of one socket."""

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        # Sets that keep their order; a plain dict looks for its first key behind all that were taken out.
        self._lines: dict[Channel, OrderedDict[Call, None]] = {}
        self._tickets: deque[Channel] | None = None  # made when a call has to wait
        self._pending: dict[str, Call] = {}
        self._by_channel: dict[Channel, dict[str, Call]] = {}
        self._given_up: OrderedDict[str, GivenUp] = OrderedDict()

    # Waiting for a turn

    def wait_in_line(self, call: Call) -> None:
        """Let a call wait for its turn."""
        self._lines.setdefault(call.channel, OrderedDict())[call] = None
        self._socket._timer.add(call.deadline, call)
        self.admit(call.channel, 1)

    def leave_line(self, call: Call) -> None:
        """Give up a call, if it waits in line."""
        line = self._lines.get(call.channel)
        if line is not None and call in line:
            del line[call]
            if not line:
                del self._lines[call.channel]

    def fail_line(self, channel: "Channel") -> None:
        """Fail the calls of a channel that wait in its line, as there is nothing to wait for."""
        for call in list(self._lines.get(channel, ())):
            self.leave_line(call)
            call.fail(channel._closed_error())

    def admit(self, channel: "Channel", calls: int | None = None) -> None:
        """Let so many calls of a channel wait for room, or all that waited for its join."""
        if channel.status == "joined":
            calls = len(self._lines.get(channel, ())) if calls is None else calls
            if calls:
                self._tickets = self._tickets or deque()
                self._tickets.extend([channel] * calls)
            self.serve()

    @trio.lowlevel.enable_ki_protection
    def serve(self) -> None:
        """Let the next calls take their turns, while there is room; the writer goes on with those that are left."""
        connection = self._socket._connection
        assert connection is not None  # nobody has a turn before there is one
        if connection.handling:
            connection.afterwards(self.serve)
            return
        left = CALLS_A_STEP
        while self._tickets and left and connection.is_open and connection.writer.has_room:
            channel = self._tickets.popleft()
            call = next(iter(self._lines.get(channel, ())), None)
            if call is not None and channel.status == "joined":
                self.leave_line(call)
                left -= 1
                call.take_turn(connection)
        if not left:
            connection.writer.wake()  # also where none of these has put a frame
        joins = self._socket._joins
        if joins._users and not self._tickets:
            joins.pump()  # these wait for room, too

    # Waiting for a reply

    def add(self, push: Call, ref: str, *, timed: bool) -> None:
        """Await the reply to a push; whether its deadline was not added yet."""
        self._pending[ref] = push
        of_channel = self._by_channel.get(push.channel)
        if of_channel is None:
            of_channel = self._by_channel[push.channel] = {}  # kept while the channel lasts: it will push again
        of_channel[ref] = push
        if timed:
            self._socket._timer.add(push.deadline, push)

    def reply_received(self, reply: ReplyReceived) -> None:
        """Give a push its reply, or tell that it came too late."""
        push = self._pending.get(reply.ref)
        if push is not None:
            del self._pending[reply.ref], self._by_channel[push.channel][reply.ref]
            if reply.status == "ok":
                push.result.succeed(reply.response)
            else:
                push.result.fail(PushError(push.channel.topic, push.event, reply.status, reply.response))
            return
        why = self._given_up.pop(reply.ref, None)
        if why is not None:
            late = (reply.topic, reply.ref, reply.status, reply.response)
            self._socket._emitter.emit(ReplyOrphaned, *late, why)

    def give_up(self, push: Call, why: GivenUp) -> None:
        """Await the reply no longer; should it come, it will be recognised."""
        if push.ref is None or self._pending.pop(push.ref, None) is None:
            return  # not queued yet; or settled, or given up, after the cancellation and before its task ran again
        del self._by_channel[push.channel][push.ref]
        self._given_up[push.ref] = why
        if len(self._given_up) > REMEMBERED:
            self._given_up.popitem(last=False)

    def fail_channel(self, channel: "Channel", reason: str) -> None:
        """Fail the pushes of a channel that has ended."""
        # Out of the tables first: a result may be told to code that ends other channels.
        pushes = self._by_channel.pop(channel, {})
        for ref in pushes:
            del self._pending[ref]
        for push in pushes.values():
            push.result.fail(ChannelClosed(channel.topic, reason, push.event))

    def connection_ended(self, lost: ConnectionLost, taken: int) -> Iterator[None]:
        """Fail all pushes, as their connection has ended, one a step; `taken` frames of it may have been sent."""
        pending = list(self._pending.values())
        self._pending.clear()
        self._by_channel.clear()
        self._given_up.clear()
        self._tickets = None
        for push in pending:
            push.result.fail(again(lost, sent=push.number <= taken))
            yield


# What tasks of users call


@trio.lowlevel.enable_ki_protection
async def request_push(
    channel: "Channel",
    event: str,
    payload: Any,
    timeout: float | None,
    tell: Callable[[str, Any, Exception | None], None],
) -> str:
    """Push, and return the ref when that is queued; raises as `Channel.push` does until then.

    `tell` is called once with the ref, the response and the error, one of which is None, when the push has ended.
    """

    def told(result: Result[Any]) -> None:
        error = result.error
        assert error is None or isinstance(error, Exception)
        response = getattr(error, "response", result.value)
        span.end(response, error)
        tell(call.ref or "", response, error)

    call = Call(channel, event, timeout, queued=Result(), result=Result(told))
    span = call.span(payload)
    span.begin()
    try:
        ref: str = await settled(call, payload)
        return ref
    except BaseException as error:
        span.end(error=error)
        raise


async def send(channel: "Channel", event: str, payload: Any) -> None:
    """Push, and return when it is queued."""
    call = Call(channel, event, None, is_send=True)
    queue = partial(settled, call, payload)
    await (call.span(payload).around(queue) if channel._socket._emitter.send.active else queue())


@trio.lowlevel.enable_ki_protection
async def settled(call: Call, payload: Any) -> Any:
    """Queue a call, and return what its task waits for: its ref, or its result; at once where it need not wait."""
    await checkpoint_if_cancelled()
    call.queue(payload)
    awaited = call._queued or call.result
    if not awaited.settled:
        await call.settling()
    result = awaited.get()
    if call._is_send:
        # Its place in the order is that of the call, so others run after it is queued.
        await trio.lowlevel.cancel_shielded_checkpoint()
    return result
