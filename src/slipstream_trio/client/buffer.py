"""What waits for a consumer: bounded, and never in the way of the receive loop."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from attrs import define

from ..errors import SlowConsumer
from ..protocol import Message

__all__ = ["Buffer"]

MESSAGES_A_TURN: Final = 1024
SECONDS_A_TURN: Final = 0.005
"""After so many messages, or so long, a consumer lets other tasks run."""


@define(eq=False)
class _Loss:
    """The place in a buffer where messages are missing."""

    dropped: int


class Buffer:
    """A bounded queue from the receive loop to the tasks that share one stream.

    When it is full, what comes is dropped, and the consumer is told at that very place in the stream, by
    `SlowConsumer`. Until somebody first reads, the oldest messages are dropped in place of the newest: nobody is slow,
    nobody is there.

    Parameters:
        topic: for errors.
        limit: how many messages it holds.
        overflowed: called at the first message of a row that is dropped.
    """

    def __init__(self, topic: str, limit: int, overflowed: Callable[[], None]) -> None:
        self._topic = topic
        self._limit = limit
        self._overflowed = overflowed
        self._items: deque[Message | _Loss] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._read = False
        self._unread_loss: _Loss | None = None
        self._turn = 0
        self._turn_began = 0.0
        self._end: Callable[[], BaseException] | None = None
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        return self._read and len(self._items) * 2 > self._limit

    def put(self, message: Message) -> None:
        """Add a message, or drop one."""
        items = self._items
        if len(items) < self._limit:
            items.append(message)
            if self._readers:
                self._readers.unpark()
        elif self._read:
            self._drop_newest()
        else:
            self._drop_oldest(message)

    def open(self) -> None:
        """Take messages (again); iteration goes on."""
        self._end = None

    def close(self, end: Callable[[], BaseException]) -> None:
        """End: when what is buffered is read, readers are raised what `end` returns."""
        self._end = end
        self._readers.unpark_all()

    async def get(self) -> Message:
        """Return the next message.

        Raises:
            SlowConsumer: messages were dropped here; the next call goes on after them.
            BaseException: what the end was given.
        """
        self._begin_reading()
        await self._let_others_run()
        while not self._items:
            if self._end is not None:
                raise self._end()
            await self._readers.park()
            self._begin_turn()
        item = self._items.popleft()
        if isinstance(item, _Loss):
            raise SlowConsumer(self._topic, item.dropped)
        return item

    def _begin_reading(self) -> None:
        if not self._read:
            self._read = True
            if self._unread_loss is not None:
                self._items.appendleft(self._unread_loss)
                self._unread_loss = None

    async def _let_others_run(self) -> None:
        self._turn += 1
        if self._turn >= MESSAGES_A_TURN or time.perf_counter() - self._turn_began >= SECONDS_A_TURN:
            await trio.lowlevel.checkpoint()
            self._begin_turn()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _begin_turn(self) -> None:
        self._turn = 0
        self._turn_began = time.perf_counter()

    def _drop_newest(self) -> None:
        self.dropped += 1
        last = self._items[-1]
        if isinstance(last, _Loss):
            last.dropped += 1
        else:
            self._items.append(_Loss(1))
            self._overflowed()

    def _drop_oldest(self, message: Message) -> None:
        self.dropped += 1
        self._items.popleft()
        self._items.append(message)
        if self._unread_loss is None:
            self._unread_loss = _Loss(0)
            self._overflowed()
        self._unread_loss.dropped += 1
