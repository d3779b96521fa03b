"""What waits for a consumer: bounded, and never in the way of the receive loop."""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, Protocol

import trio
from attrs import evolve, frozen

from ..errors import SlowConsumer
from ..protocol import Message

__all__ = ["Buffer", "Crowd", "Gap", "Overflow", "merged"]

MESSAGES_A_TURN: Final = 1024
SECONDS_A_TURN: Final = 0.005
"""After so many messages, or so long, a consumer lets other tasks run."""

Overflow = Literal["raise", "drop_oldest", "drop_newest"]
"""What happens when messages come for a consumer whose buffer is full."""


@frozen
class Gap:
    """A place in a stream where messages may be missing.

    Attributes:
        reason: "reconnected" (the connection was lost), "rejoined" (the channel had crashed, or been closed by the
            server), or "overflow".
        since: when it began, in UTC.
        until: when it ended; with "overflow", when the last message was dropped.
        dropped: how many messages are known to be missing.
    """

    reason: Literal["reconnected", "rejoined", "overflow"]
    since: datetime
    until: datetime
    dropped: int = 0


class Crowd(Protocol):
    """What the receive loop has to know of a buffer that it fills."""

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        ...

    def __len__(self) -> int: ...


class Buffer:
    """A bounded queue from the receive loop to the tasks that share one stream.

    What does not fit is dropped, and a `Gap` marks the place. Until somebody first reads, the oldest messages are
    dropped, whatever the policy: nobody is slow, nobody is there.

    Parameters:
        topic: for errors.
        limit: how many messages it holds.
        policy: what is dropped; "raise" drops the newest, and raises where they are missing.
        now: the time, for gaps.
        overflowed: called when a message is dropped: with the gap that marks it, and whether it is the first of a row.
        told: called with each gap of dropped messages when a reader comes to it, or with what is left at the end.
    """

    def __init__(
        self,
        topic: str,
        limit: int,
        policy: Overflow,
        *,
        now: Callable[[], datetime],
        overflowed: Callable[[Gap, bool], None],
        told: Callable[[Gap], None],
    ) -> None:
        self._topic = topic
        self._limit = limit
        self._policy = policy
        self._now = now
        self._overflowed = overflowed
        self._told = told
        self._untold = 0
        self._items: deque[Message | Gap] = deque()
        self._messages = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._read = False
        self._turn = 0
        self._turn_began = 0.0
        self._end: Callable[[], BaseException] | None = None
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_open(self) -> bool:
        """Whether it takes messages: it has no end yet."""
        return self._end is None

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        return self._read and self._messages * 2 > self._limit

    def put(self, message: Message) -> None:
        """Add a message, or drop one."""
        if self._messages < self._limit:
            self._add(message)
        elif self._read and self._policy != "drop_oldest":
            self._drop(at_head=False)
        else:
            self._drop(at_head=True)
            self._add(message)

    def mark(self, gap: Gap) -> None:
        """Add a gap; it is merged with one that ends the buffer."""
        if self._items and isinstance(self._items[-1], Gap):
            gap = merged(self._items.pop(), gap)
        self._items.append(gap)
        self._readers.unpark()

    def open(self) -> None:
        """Take messages (again); iteration goes on."""
        self._end = None

    def close(self, end: Callable[[], BaseException]) -> None:
        """End: when what is buffered is read, readers are raised what `end` returns."""
        self._end = end
        self._readers.unpark_all()
        left = [item for item in self._items if isinstance(item, Gap)]
        if self._untold:
            self._tell(evolve(left[0], until=left[-1].until, dropped=self._untold))

    async def get(self) -> Message:
        """Return the next message; gaps are passed over, but for losses with the policy "raise".

        Raises:
            SlowConsumer: messages were dropped here; the next call goes on after them.
            BaseException: what the end was given.
        """
        while True:
            item = await self.get_item()
            if isinstance(item, Message):
                return item

    async def get_item(self) -> Message | Gap:
        """Return the next message or gap; raises as `get`."""
        self._read = True
        await self._let_others_run()
        while not self._items:
            if self._end is not None:
                raise self._end()
            await self._readers.park()
            self._begin_turn()
        item = self._items.popleft()
        if isinstance(item, Message):
            self._messages -= 1
        elif item.dropped:
            return self._lost(item)
        return item

    def _lost(self, gap: Gap) -> Gap:
        if self._policy == "raise" and gap.reason != "overflow":
            self._items.appendleft(evolve(gap, dropped=0))  # a lost connection is told too
        self._tell(gap)
        if self._policy == "raise":
            raise SlowConsumer(self._topic, gap.dropped)
        return gap

    def _tell(self, gap: Gap) -> None:
        """Tell of the messages of a gap, unless that was done when the channel ended."""
        untold = min(gap.dropped, self._untold)
        self._untold -= untold
        if untold:
            self._told(evolve(gap, reason="overflow", dropped=untold))

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

    def _add(self, message: Message) -> None:
        self._items.append(message)
        self._messages += 1
        if self._readers:
            self._readers.unpark()

    def _drop(self, *, at_head: bool) -> None:
        """Drop the oldest message, or one that is not in the buffer, and mark the place."""
        self.dropped += 1
        self._untold += 1
        now = self._now()
        gap = Gap("overflow", now, now, 1)
        items = self._items
        if at_head:
            first = items.popleft()
            if isinstance(first, Gap):
                items.popleft()  # gaps are never side by side: this is the oldest message
            self._messages -= 1
            neighbour = first if isinstance(first, Gap) else None
        else:
            neighbour = items.pop() if isinstance(items[-1], Gap) else None  # type: ignore[assignment]
        whole = gap if neighbour is None else merged(neighbour, gap)
        if not at_head:
            items.append(whole)
        elif items and isinstance(items[0], Gap):
            whole = items[0] = merged(whole, items[0])
        else:
            items.appendleft(whole)
        self._overflowed(whole, neighbour is None or not neighbour.dropped)


def merged(first: Message | Gap, second: Gap) -> Gap:
    """Return one gap that tells of two, of which `first` came first."""
    assert isinstance(first, Gap)
    reason = first.reason if first.reason != "overflow" else second.reason
    return evolve(first, reason=reason, until=max(first.until, second.until), dropped=first.dropped + second.dropped)
