"""Leaving: what tasks call, and the exits of channel blocks, which share a time limit if they follow one another.

What a leave means for a channel is decided in `join`.
"""

import math
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio

from ..telemetry import ClientLeaveStart
from .block import Block
from .join import Departure, join
from .spans import Span, leave_stop

if TYPE_CHECKING:
    from .channel import Channel
    from .socket import Socket


@final
class Exits(trio.abc.Instrument):
    """The exits of a socket's channel blocks.

    Four nested blocks whose leaves are not answered cost one `leave_timeout`, not four. Exits belong together if no
    task ran between them: as an instrument of Trio, this notices when one does. It is attached between two exits only.
    """

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._deadline: float | None = None

    async def exit(self, channel: "Channel") -> None:
        """Leave a channel at the end of its block; wait until the deadline of the first exit of the row."""
        deadline = self._take_deadline()
        left = deadline - trio.current_time()
        if left > 0:
            await leave(channel, None if left == math.inf else left)
        else:
            await request_leave(channel)
        self._deadline = deadline
        trio.lowlevel.add_instrument(self)

    def final_limit(self, limit: float, grace: float) -> float:
        """Return until when to wait for leaves at the end of the socket's block.

        Where the block's end follows the exits of its channels, and these have left all there is, their deadline holds
        for it too, but for a short `grace` for the leaves that were sent after it. Otherwise it is `limit`.
        """
        deadline, channels = self._deadline, self._socket._channels.values()
        if deadline is None or any(channel.status != "leaving" for channel in channels):
            return limit
        return min(limit, max(deadline, trio.current_time() + grace))

    def end(self) -> None:
        """Let the next exit have a time limit of its own: the socket is used otherwise."""
        if self._deadline is not None:
            self._take_deadline()

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Take note that a task runs after the latest exit."""
        self._take_deadline()

    def _take_deadline(self) -> float:
        """Return the deadline of this row of exits, which is a new one unless another exit has just ended."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            trio.lowlevel.remove_instrument(self)
            return deadline
        timeout = self._socket._options.leave_timeout
        return math.inf if timeout is None else trio.current_time() + timeout


@final
class JoinedBlock(Block["Channel"]):
    """The block of a joined channel: what `Socket.join` returns. A generator would take half a KiB more."""

    __slots__ = ("_asked", "_channel", "_socket")

    def __init__(self, socket: "Socket", *asked: Any) -> None:
        self._socket = socket
        self._asked: tuple[Any, ...] = asked

    @property
    def _use(self) -> str:
        return f"socket.join({self._asked[0]!r}) as channel" if self._asked else "socket.join(…) as channel"

    async def __aenter__(self) -> "Channel":
        (topic, payload, timeout), self._asked = self._asked, ()
        self._channel = self._socket.channel(topic, payload)
        await join(self._channel, timeout)
        return self._channel

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                await self._socket._exits.exit(self._channel)
        except BaseException:
            self._channel.leave_soon()  # the leave was cancelled before it was sent, perhaps
            raise
        if error is not None:
            self._channel.leave_soon()


async def leave(channel: "Channel", timeout: float | None) -> None:
    """Leave, and wait until that is confirmed or given up."""
    if channel._socket._emitter.leave.active:
        await _span(channel).around(partial(_leave, channel, timeout))
    else:
        await _leave(channel, timeout)


async def _leave(channel: "Channel", timeout: float | None) -> Departure:
    await trio.lowlevel.checkpoint()
    channel._socket._joins.leave_soon(channel, timeout)
    return await _until_left(channel)


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
