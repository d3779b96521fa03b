"""A channel's life, from join to end, as a channel process has it in Phoenix."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from ...protocol.message import CLOSE, ERROR, LEAVE, Message
from .channel import Channel, JoinRefused, NoReply, Outcome, Reply, Stop

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Process"]

_GRACEFUL: Final = frozenset({"normal", "shutdown"})
_CRASH: Final = Stop("crash")


class Process:
    """One channel from its join to its end: its mailbox, its task, its background tasks.

    Attributes:
        join_ref: the join's join_ref, by which the socket knows the channel: in the join's answer, and at its end.
        mailbox: what waits to be handled, each with its size in bytes.
        channel: its own `join_ref` is the join's ref where this is null, as in Phoenix.
    """

    def __init__(self, connection: "Connection", channel: Channel, join: Message) -> None:
        self.connection: Connection = connection
        self.topic: str = join.topic
        self.join_ref: Any = join.join_ref
        self.channel: Channel = channel
        self.settled: trio.Event = trio.Event()
        self.done: trio.Event = trio.Event()
        channel.bind(self, join)
        self._join_message = join
        self._joined = False
        self.mailbox: deque[tuple[Message | Stop, int]] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    # For the connection

    async def run(self) -> None:
        """Live from the join to the end; raises nothing but `trio.Cancelled`."""
        end: Stop | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    if await self._join():
                        end = await self._loop()
                    self._nursery.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - an exception of the user's crashes the channel
            self.connection.server.report(f"channel {self.topic!r} crashed", group)
            end = _CRASH
        finally:
            self._finish(end)

    def cancel(self) -> None:
        """End the channel silently."""
        self._scope.cancel()

    # For the channel

    def check_joined(self) -> None:
        """Raise RuntimeError unless the channel is joined."""
        if not self._joined:
            raise RuntimeError(
                f"{self.topic!r} is not joined: override after_join to act right after the join, "
                "and do nothing with a channel that has ended"
            )

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """See `Channel.spawn`."""
        if self._nursery is None:
            raise RuntimeError("a channel has background tasks only while it lives")
        self._nursery.start_soon(function, *args)

    def post(self, item: Message | Stop, size: int = 0) -> None:
        """Put a message of `size` bytes, or the channel's end, into the mailbox."""
        self.connection.inbox.add(size)
        self.mailbox.append((item, size))
        self._arrived.unpark_all()

    # Its task

    async def _join(self) -> bool:
        try:
            response = await self.channel.join(self._join_message.payload)
        except JoinRefused as refusal:
            self._settle("error", refusal.response)
        except Exception as error:  # noqa: BLE001 - an exception of the user's crashes the join
            self.connection.server.report(f"the join of {self.topic!r} crashed", error)
            self._settle("error", {"reason": "join crashed"})
        else:
            self._joined = True
            self._settle("ok", {} if response is None else response)
        return self._joined

    def _settle(self, status: str, response: Any) -> None:
        self.connection.router.answer_join(self, self._join_message.ref, status, response)
        self.settled.set()

    async def _loop(self) -> Stop:
        await self.channel.after_join()
        while True:
            while self.mailbox:
                item, size = self.mailbox.popleft()
                self.connection.inbox.remove(size)
                stop = item if isinstance(item, Stop) else await self._handle(item)
                if stop is not None:
                    return stop
            await self._arrived.park()

    async def _handle(self, message: Message) -> Stop | None:
        if message.event == LEAVE:
            await self.channel.reply(message.ref)
            return Stop("shutdown")
        if type(message.event) is not str:
            raise TypeError(f"the event must be a string, not {message.event!r}")
        outcome: Outcome = await self.channel.handle_in(message.event, message.payload, message.ref)
        match outcome:
            case None | NoReply():
                return None
            case Reply(response, status):
                await self.channel.reply(message.ref, response, status)
                return None
            case Stop(reply=reply):
                if reply is not None:
                    await self.channel.reply(message.ref, reply.response, reply.status)
                return outcome
        raise TypeError(f"handle_in returned {outcome!r}, not a Reply, NoReply or Stop")

    def _finish(self, end: Stop | None) -> None:
        self._nursery = None
        self.connection.inbox.remove(sum(size for _, size in self.mailbox))
        self.mailbox.clear()
        if not self.settled.is_set() and end is _CRASH:
            self._settle("error", {"reason": "join crashed"})
        elif self._joined and end is not None and not self._scope.cancel_called:
            if end.reason in _GRACEFUL:
                self.connection.put(self.connection.router.control_frame(self, CLOSE, {}))
            else:
                payload = dict(self.connection.server.release.crash_payload)
                self.connection.put(self.connection.router.control_frame(self, ERROR, payload))
        self._joined = False
        self.connection.forget(self)
        self.settled.set()
        self.done.set()
