"""Pushes and sends: those that wait to be queued, and those whose reply is awaited.

What is pushed on a channel leaves in the order of the calls, whatever a call waited for. So each channel has a line,
and a call that has to wait (for the join, for a reconnect, for room in the writer's queue) takes a place in it. Turns
are taken first come, first served, where room is made: Trio promises no order among tasks that are woken together.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

import trio

from ..errors import ChannelClosed, ConnectionLost, PushError, PushTimeout
from ..protocol import Message, PushMessage, ReplyReceived
from ..telemetry import ClientPushStart, ClientSendStart
from .line import Place
from .result import Result, again
from .spans import Stop, push_stop, send_stop

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
    """A push whose reply is awaited.

    Attributes:
        topic: the channel's topic.
        event: the event.
        ref: the push's ref.
        number: the number of its frame in the writer's queue.
        waited: for how many seconds it waited to be queued.
        result: the response, or the error to raise.
    """

    __slots__ = ("_pushes", "_timeout", "event", "number", "ref", "result", "topic", "waited")

    def __init__(  # noqa: PLR0917 - one is made for every push, and names cost time
        self,
        pushes: "Pushes",
        command: PushMessage,
        ref: str,
        number: int,
        waited: float,
        timeout: float | None,
        result: Result[Any],
    ) -> None:
        self.topic: str = command.topic
        self.event: str = command.event
        self.ref: str = ref
        self.number: int = number
        self.waited: float = waited
        self.result: Result[Any] = result
        self._pushes = pushes
        self._timeout = timeout

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.result.settled

    @property
    def may_be_sent(self) -> bool:
        """Whether its frame has gone to the transport."""
        return self._pushes.may_be_sent(self)

    def expire(self) -> None:
        """Give up: its time is up."""
        sent = self.may_be_sent
        self.result.fail(PushTimeout(self.topic, self.event, self._timeout or 0.0, sent=sent, waited=self.waited))
        self._pushes.give_up(self, "timeout")


@final
class Pushes:
    """The pushes of one socket."""

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._pending: dict[str, PendingPush] = {}
        self._by_topic: dict[str, dict[str, PendingPush]] = {}
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

    def add(self, push: PendingPush, deadline: float) -> None:
        """Await the reply to a push until `deadline` (infinity: for ever)."""
        self._pending[push.ref] = push
        self._by_topic.setdefault(push.topic, {})[push.ref] = push
        self._socket._timer.add(deadline, push)

    def reply_received(self, reply: ReplyReceived) -> None:
        """Give a push its reply, or tell that it came too late."""
        push = self._pending.get(reply.ref)
        if push is not None and push.result.given_up:
            self.give_up(push, "cancelled")  # its task will not run before this reply is told of
        elif push is not None:
            self._remove(push)
            if reply.status == "ok":
                push.result.succeed(reply.response)
            else:
                push.result.fail(PushError(push.topic, push.event, reply.status, reply.response))
            return
        why = self._given_up.pop(reply.ref, None)
        if why is not None:
            self._socket._emitter.orphaned(reply, why)

    def give_up(self, push: PendingPush, why: GivenUp) -> None:
        """Await the reply no longer; should it come, it will be recognised."""
        if push.ref not in self._pending:
            return  # settled, or given up, after the cancellation and before its task ran again
        self._remove(push)
        push.result.succeed(None)  # nobody awaits it; its deadline can be swept
        self._given_up[push.ref] = why
        if len(self._given_up) > REMEMBERED:
            self._given_up.popitem(last=False)

    def may_be_sent(self, push: PendingPush) -> bool:
        """Tell whether the frame of a push has gone to the transport."""
        connection = self._socket._connection
        return connection is not None and push.number <= connection.writer.taken

    def fail_topic(self, topic: str, reason: str) -> None:
        """Fail the pushes of a channel that has ended."""
        # Out of the table first: a result may be told to code that ends other topics.
        for push in self._by_topic.pop(topic, {}).values():
            del self._pending[push.ref]
            push.result.fail(ChannelClosed(topic, reason))

    def connection_ended(self, lost: ConnectionLost, taken: int) -> None:
        """Fail all pushes, as their connection has ended; `taken` frames of it may have been sent."""
        pending = list(self._pending.values())
        self._pending.clear()
        self._by_topic.clear()
        self._given_up.clear()
        self._tickets = None
        for push in pending:
            push.result.fail(again(lost, sent=push.number <= taken))

    def _remove(self, push: PendingPush) -> None:
        del self._pending[push.ref]
        of_topic = self._by_topic[push.topic]
        del of_topic[push.ref]
        if not of_topic:
            del self._by_topic[push.topic]


# Push


def push(channel: "Channel", event: str, payload: Any, timeout: float | None) -> Coroutine[Any, Any, Any]:
    """Push, and wait for the reply; see `Channel.push`. To be awaited at once."""
    emitter = channel._socket._emitter
    if not emitter.push.active:
        return _push(channel, event, payload, timeout, None)
    start = ClientPushStart(*emitter.opening(), channel.topic, event, payload)
    queued: list[PendingPush] = []
    pushing = partial(_push, channel, event, payload, timeout, queued)
    return emitter.observed(emitter.push, start, pushing, push_stop(start, queued))


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
    queued: list[PendingPush] = []
    start: ClientPushStart | None = None
    stop: Stop | None = None

    def told(result: Result[Any]) -> None:
        error = result.error
        assert error is None or isinstance(error, Exception)
        response = getattr(error, "response", result.value)
        if start is not None and stop is not None:
            emitter.end_span(emitter.push, start, stop, result=response, error=error)
        tell(queued[0].ref, response, error)

    if emitter.push.active:
        start = ClientPushStart(*emitter.opening(), channel.topic, event, payload)
        stop = push_stop(start, queued)
        emitter.begin_span(emitter.push, start)
    try:
        pending = await _queue_push(channel, event, payload, timeout, Result(told))
    except BaseException as error:
        if start is not None and stop is not None:
            emitter.end_span(emitter.push, start, stop, error=error)
        raise
    queued.append(pending)
    return pending.ref


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


@trio.lowlevel.enable_ki_protection
async def _push(
    channel: "Channel", event: str, payload: Any, timeout: float | None, queued: list[PendingPush] | None
) -> Any:
    result: Result[Any] = Result()
    pending = await _queue_push(channel, event, payload, timeout, result)
    if queued is not None:
        queued.append(pending)
    try:
        return await result.wait()
    except (trio.Cancelled, KeyboardInterrupt):
        channel._socket._pushes.give_up(pending, "cancelled")
        raise


@trio.lowlevel.enable_ki_protection
async def _queue_push(
    channel: "Channel", event: str, payload: Any, timeout: float | None, result: Result[Any]
) -> PendingPush:
    """Queue a push, now if possible, else when it is its turn; its reply goes to `result`."""
    await trio.lowlevel.checkpoint_if_cancelled()
    deadline = math.inf if timeout is None else trio.current_time() + timeout
    pushes = channel._socket._pushes

    def submit(connection: "Connection", payload: Any, waited: float) -> PendingPush:
        command = PushMessage(channel._topic, event, payload)
        number = connection.writer.number + 1
        ref = connection.push(command)
        pending = PendingPush(pushes, command, ref, number, waited, timeout, result)
        pushes.add(pending, deadline)
        return pending

    connection = pushes.ready(channel)
    if connection is not None:
        return submit(connection, payload, 0.0)
    return await _in_turn(channel, event, payload, timeout, deadline, submit)


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
