"""Pushes and sends: those that wait to be queued, and those whose reply is awaited.

What is pushed on a channel leaves in the order of the calls, whatever a call waited for. So each channel has a line,
and a call that has to wait (for the join, for a reconnect, for room in the writer's queue) takes a place in it. Turns
are taken first come, first served, where room is made: Trio promises no order among tasks that are woken together.
"""

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ..errors import ChannelClosed, ConnectionLost, PushError, PushTimeout
from ..protocol import Message, PushMessage, ReplyReceived
from ..telemetry import ClientPushStart, ClientSendStart
from .line import Place
from .result import Result, again
from .spans import push_stop, send_stop

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection
    from .socket import Socket

__all__ = ["Pushes", "push", "request_push", "send"]

CALLS_A_STEP: Final = 64
"""How many calls take their turns before other tasks run."""

REMEMBERED: Final = 1024
"""How many pushes that were given up are remembered, so that their late replies can be told from others."""

T = TypeVar("T")

GivenUp = Literal["cancelled", "timeout"]


@final
class PendingPush:
    """A push that was asked for, and then awaits its reply.

    Parameters:
        channel: the channel.
        event: the event.
        timeout: seconds from now, None for ever.
        told: called with the result when it is settled, where nobody awaits it.

    Attributes:
        channel: the channel.
        event: the event.
        deadline: when its time is up.
        ref: its ref, None until it is queued.
        number: the number of its frame in the writer's queue.
        waited: for how many seconds it waited to be queued.
        result: the response, or the error to raise.
    """

    __slots__ = ("channel", "deadline", "event", "number", "ref", "result", "timeout", "waited")

    def __init__(
        self,
        channel: "Channel",
        event: str,
        timeout: float | None,
        told: Callable[[Result[Any]], None] | None = None,
    ) -> None:
        self.channel: Channel = channel
        self.event: str = event
        self.timeout: float | None = timeout
        self.deadline: float = math.inf if timeout is None else trio.current_time() + timeout
        self.ref: str | None = None
        self.number: int = sys.maxsize
        self.waited: float = 0.0
        self.result: Result[Any] = Result(told)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.result.settled

    @property
    def may_be_sent(self) -> bool:
        """Whether its frame has gone to the transport."""
        connection = self.channel._socket._connection
        return connection is not None and self.number <= connection.writer.taken

    def submit(self, connection: "Connection", payload: Any, waited: float) -> None:
        """Queue it now, after so many seconds."""
        self.waited, self.number = waited, connection.writer.number + 1
        self.ref = connection.push(PushMessage(self.channel.topic, self.event, payload))
        self.channel._socket._pushes.add(self, self.ref)

    def expire(self) -> None:
        """Give up: its time is up."""
        topic, sent = self.channel.topic, self.may_be_sent
        self.result.fail(PushTimeout(topic, self.event, self.timeout or 0.0, sent=sent, waited=self.waited))
        self.channel._socket._pushes.give_up(self, "timeout")


@final
class Pushes:
    """The pushes of one socket."""

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._pending: dict[str, PendingPush] = {}
        self._by_channel: dict[Channel, dict[str, PendingPush]] = {}
        self._given_up: OrderedDict[str, GivenUp] = OrderedDict()
        self._tickets: deque[Channel] | None = None  # made when a call has to wait
        self._serving = False

    # Waiting for a turn

    def ready(self, channel: "Channel") -> "Connection | None":
        """Return the connection if a push can leave now, None if it has to wait; raises if it never can."""
        connection = channel._open_connection()
        if connection is None or self._tickets or channel._line.places:
            return None
        return connection if connection.writer.has_room else None

    @trio.lowlevel.enable_ki_protection
    async def in_turn(self, place: Place, deadline: float) -> Any:
        """Wait until it is a call's turn, and return what its `submit` has returned.

        Raises:
            PushTimeout: it was not by the deadline.
            ChannelClosed: the channel has ended, or ends first.
            ConnectionLost: there is no connection any more.
            BaseException: what `submit` has raised.
        """
        channel = place.channel
        channel._line.enter(place)
        try:
            self._socket._timer.add(deadline, place)
            self._admit(channel, 1)
            return await place.turn.wait()
        finally:
            channel._line.leave(place)

    def readmit(self, channel: "Channel") -> None:
        """Let the calls that waited for a channel's join wait for room."""
        self._admit(channel, len(channel._line))

    def _admit(self, channel: "Channel", calls: int) -> None:
        if channel.status == "joined":
            if calls:
                self._tickets = self._tickets or deque()
                self._tickets.extend([channel] * calls)
            self.serve()

    @trio.lowlevel.enable_ki_protection
    def serve(self) -> None:
        """Let the next calls take their turns, while there is room; the writer goes on with those that are left."""
        connection = self._socket._connection
        if connection is None or self._serving:
            return
        if connection.handling:
            connection.afterwards(self.serve)
            return
        self._serving = True
        try:
            self._serve(connection)
        finally:
            self._serving = False
        queue = self._socket._joins.queue
        if queue._users and not self._tickets:
            queue.pump()  # these wait for room, too

    def _serve(self, connection: "Connection") -> None:
        left = CALLS_A_STEP
        while self._tickets and left and connection.is_open and connection.writer.has_room:
            channel = self._tickets.popleft()
            place = channel._line.first
            if place is not None and channel.status == "joined":
                channel._line.leave(place)
                if not place.over:
                    left -= 1
                    place.take(connection)

    # Waiting for a reply

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, push: PendingPush, ref: str) -> None:
        """Await the reply to a push."""
        self._pending[ref] = push
        of_channel = self._by_channel.get(push.channel)
        if of_channel is None:
            of_channel = self._by_channel[push.channel] = {}  # kept while the channel lasts: it will push again
        of_channel[ref] = push
        self._socket._timer.add(push.deadline, push)

    def reply_received(self, reply: ReplyReceived) -> None:
        """Give a push its reply, or tell that it came too late."""
        push = self._pending.get(reply.ref)
        if push is not None and push.result.given_up:
            self.give_up(push, "cancelled")  # its task will not run before this reply is told of
        elif push is not None:
            del self._pending[reply.ref], self._by_channel[push.channel][reply.ref]
            if reply.status == "ok":
                push.result.succeed(reply.response)
            else:
                push.result.fail(PushError(push.channel.topic, push.event, reply.status, reply.response))
            return
        why = self._given_up.pop(reply.ref, None)
        if why is not None:
            self._socket._emitter.orphaned(reply, why)

    def give_up(self, push: PendingPush, why: GivenUp) -> None:
        """Await the reply no longer; should it come, it will be recognised."""
        if push.ref is None or self._pending.pop(push.ref, None) is None:
            return  # settled, or given up, after the cancellation and before its task ran again
        del self._by_channel[push.channel][push.ref]
        push.result.succeed(None)  # nobody awaits it; its deadline can be swept
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
            push.result.fail(ChannelClosed(channel.topic, reason))

    def connection_ended(self, lost: ConnectionLost, taken: int) -> None:
        """Fail all pushes, as their connection has ended; `taken` frames of it may have been sent."""
        pending = list(self._pending.values())
        self._pending.clear()
        self._by_channel.clear()
        self._given_up.clear()
        self._tickets = None
        for push in pending:
            push.result.fail(again(lost, sent=push.number <= taken))


# Push


def push(channel: "Channel", event: str, payload: Any, timeout: float | None) -> Coroutine[Any, Any, Any]:
    """Push, and wait for the reply; see `Channel.push`. To be awaited at once."""
    emitter, pending = channel._socket._emitter, PendingPush(channel, event, timeout)
    if not emitter.push.active:
        return _push(pending, payload)
    start = ClientPushStart(*emitter.opening(), channel.topic, event, payload)
    return emitter.observed(emitter.push, start, partial(_push, pending, payload), push_stop(start, pending))


@trio.lowlevel.enable_ki_protection
async def _push(pending: PendingPush, payload: Any) -> Any:
    await _queue(pending, payload)
    try:
        return await pending.result.wait()
    except (trio.Cancelled, KeyboardInterrupt):
        pending.channel._socket._pushes.give_up(pending, "cancelled")
        raise


async def request_push(
    channel: "Channel",
    event: str,
    payload: Any,
    timeout: float | None,
    tell: Callable[[str, Any, Exception | None], None],
) -> str:
    """Push, and return the ref when that is queued; raises as `Channel.push` does until then.

    Parameters:
        channel: the channel.
        event: the event.
        payload: the payload.
        timeout: seconds to wait for the reply, None for ever.
        tell: called once with the ref, the response and the error, one of which is None, when the push has ended.
    """
    emitter = channel._socket._emitter
    end: Callable[..., None] | None = None

    def told(result: Result[Any]) -> None:
        error = result.error
        assert error is None or isinstance(error, Exception)
        response = getattr(error, "response", result.value)
        if end is not None:
            end(result=response, error=error)
        tell(pending.ref or "", response, error)

    pending = PendingPush(channel, event, timeout, told)
    if emitter.push.active:
        start = ClientPushStart(*emitter.opening(), channel.topic, event, payload)
        end = partial(emitter.end_span, emitter.push, start, push_stop(start, pending))
        emitter.begin_span(emitter.push, start)
    try:
        await _queue(pending, payload)
    except BaseException as error:
        if end is not None:
            end(error=error)
        raise
    assert pending.ref is not None
    return pending.ref


@trio.lowlevel.enable_ki_protection
async def _queue(pending: PendingPush, payload: Any) -> None:
    """Queue a push, now if possible, else when it is its turn."""
    await checkpoint_if_cancelled()
    channel = pending.channel
    connection = channel._socket._pushes.ready(channel)
    if connection is not None:
        pending.submit(connection, payload, 0.0)
    else:
        await _in_turn(channel, pending.event, payload, pending.timeout, pending.deadline, pending.submit)


# Send


async def send(channel: "Channel", event: str, payload: Any) -> None:
    """Push, and return when it is queued."""
    emitter = channel._socket._emitter
    if not emitter.send.active:
        await _send(channel, event, payload)
        return
    start = ClientSendStart(*emitter.opening(), channel.topic, event, payload)
    await emitter.observed(emitter.send, start, partial(_send, channel, event, payload), send_stop(start))


@trio.lowlevel.enable_ki_protection
async def _send(channel: "Channel", event: str, payload: Any) -> tuple[str, float]:
    """Queue a message; returns its ref, and the seconds that it waited."""
    await trio.lowlevel.checkpoint()
    sent = Message(None, None, channel.topic, event, None)

    def submit(connection: "Connection", payload: Any, waited: float) -> tuple[str, float]:
        return connection.push(PushMessage(channel.topic, event, payload), sent), waited

    connection = channel._socket._pushes.ready(channel)
    if connection is not None:
        return submit(connection, payload, 0.0)
    return await _in_turn(channel, event, payload, None, math.inf, submit)


async def _in_turn(  # noqa: PLR0917 - every push that waits comes here
    channel: "Channel",
    event: str,
    payload: Any,
    timeout: float | None,
    deadline: float,
    submit: Callable[["Connection", Any, float], T],
) -> T:
    """Give `submit` the connection, the payload as it is now, and the seconds waited, in this call's turn."""
    socket = channel._socket
    kept, began = socket._kept(channel.topic, event, payload), trio.current_time()

    def submit_kept(connection: "Connection") -> T:
        return submit(connection, kept.value(), trio.current_time() - began)

    turn: T = await socket._pushes.in_turn(Place(channel, event, timeout, submit_kept), deadline)
    return turn
