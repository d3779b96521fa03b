"""The messages of a channel: bounded buffers that never hold up the receive loop, and their limit of bytes."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial, reduce
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, TypeAlias, final, overload

import trio
from attrs import evolve, frozen
from trio.lowlevel import checkpoint_if_cancelled, reschedule

from ..errors import SlowConsumer
from ..protocol import Frame, Message
from .spans import Episode
from .turn import turn_of_this_run

if TYPE_CHECKING:
    from .callbacks.inbox import ChannelBacklog
    from .stream import Streams

LIGHT: Final = 2048
CHARGE: Final = 2560
"""Bytes of the largest frame that is not weighed, and bytes that each of these counts for."""

LEAST_BETWEEN_LOOKS: Final = 1024
"""Messages: where the limit is nearly reached, a look at all buffers for each of them would take long."""

Overflow = Literal["raise", "drop_oldest", "drop_newest"]
"""The treatment of messages for a consumer whose buffer is full."""

Consumer = Literal["channel", "subscription", "client"]

Backlog: TypeAlias = "Buffer | ChannelBacklog"
"""A consumer's messages that wait."""

EndOfStream = Callable[[], BaseException]
"""Returns what a reader is raised at the end: an exception of its own."""


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

    def __str__(self) -> str:
        lost = f"{self.dropped} messages were dropped" if self.dropped else "messages may be missing"
        since, until = (time.isoformat(" ", "milliseconds") for time in (self.since, self.until))
        return f"{lost} ({self.reason}) from {since} to {until}"


def merged(first: Gap, second: Gap) -> Gap:
    """Return one gap that tells of two in one place; its reason is that of the first, unless that is "overflow"."""
    reason = first.reason if first.reason != "overflow" else second.reason
    since, until = min(first.since, second.since), max(first.until, second.until)  # an older place may overflow now
    return Gap(reason, since, until, first.dropped + second.dropped)


class Heavy(NamedTuple):
    """A message that was weighed, in a buffer, and the bytes of its frame."""

    message: Message
    size: int


@final
class ByteLimit:
    """The bytes that wait in all buffers of a socket: at most `buffer_bytes`.

    A buffer is bounded by the number of its messages, which says little where they are large, or the channels many. A
    message of up to `LIGHT` bytes counts for `CHARGE`, what it takes in memory unless it has many objects in it, and is
    not weighed one by one: how many wait is counted when so many have come that the limit may be reached. Heavier ones
    count with what their frames have as well, from when they are put into a buffer until they are taken out.
    """

    __slots__ = ("_buffers", "_limit", "_next_look", "_room", "left")

    def __init__(self, limit: int, buffers: Callable[[], Iterable["Backlog"]]) -> None:
        self._limit = self._room = limit
        self._buffers = buffers
        # Messages between the latest look at all buffers and the next; so many are left, and with none the limit may be
        # near. An attribute, as each batch asks for it.
        self.left: int = max(limit // CHARGE, LEAST_BETWEEN_LOOKS)
        self._next_look: int = self.left

    @property
    def waiting(self) -> int:
        """The bytes that wait in all buffers."""
        return sum(map(_weight, self._buffers()))

    @property
    def crowded(self) -> bool:
        """Whether they are more than half of the limit."""
        return self.waiting > self._limit // 2

    def all_light(self, frames: Sequence[Frame]) -> bool:
        """Take note of messages that are put next; tell whether none of them has to be weighed."""
        if self.left <= 0:
            self.look()
        self.left -= len(frames)
        return max(map(len, frames)) <= LIGHT

    def make_room(self, size: int) -> None:
        """Let a heavy message of a size be put into a buffer."""
        if self._room - (self._next_look - self.left) * CHARGE < size:
            self.look(size)
        self._room -= size

    def look(self, wanted: int = 0) -> None:
        """Look how much waits. If it is too much, those who have the most drop messages, until an eighth is free."""
        heap = [(-_weight(buffer), number, buffer) for number, buffer in enumerate(self._buffers())]
        total = -sum(entry[0] for entry in heap)
        if total + wanted > self._limit:
            heapify(heap)
            most = self._limit - self._limit // 8 - wanted
            while total > most and heap[0][0] < 0:
                before, number, buffer = heap[0]
                buffer.shed()
                heapreplace(heap, (-_weight(buffer), number, buffer))
                total += before + _weight(buffer)
        self._room = self._limit - total
        self._next_look = self.left = max(self._room // CHARGE, LEAST_BETWEEN_LOOKS)


def _weight(buffer: "Backlog") -> int:
    return buffer.heavy + buffer.waiting * CHARGE


@final
class Buffer:
    """A bounded queue from the receive loop to the tasks that share one stream, who iterate over it.

    Messages that do not fit are dropped, and a `Gap` marks the place. Until somebody first reads, the oldest are.
    """

    # Without a dictionary, as with many channels each message finds its buffer outside of the processor's cache.
    __slots__ = (
        *("dropped", "heavy", "is_lagging", "waiting", "_consumer", "_eased", "_end", "_end_told", "_episode", "_half"),
        *("_items", "_limit", "_policy", "_read", "_readers", "_streams", "_turn", "_untold", "_wakes"),
    )

    def __init__(self, streams: "Streams", limit: int, policy: Overflow, consumer: Consumer) -> None:
        self.dropped: int = 0
        self.heavy: int = 0  # bytes of the heavy messages that wait
        self._streams = streams
        self._limit = limit
        self._half = limit // 2
        self._policy: Overflow = policy
        self._consumer: Consumer = consumer
        self._untold = 0
        self._episode = Episode(streams.emitter, streams.topic, policy, limit, consumer)
        self._eased = -1  # how many messages are left when the episode ends: one comparison a message
        self._items: deque[Message | Heavy | Gap] = deque()
        self.waiting: int = 0  # messages
        # The tasks that wait, first come, first served; a ParkingLot takes half as long again to wake one.
        self._readers: list[trio.lowlevel.Task] = []
        self._wakes = False  # whether there may be one to wake, which every message asks: not while the turn holds them
        self._read = False
        self._turn = turn_of_this_run()
        self._end: EndOfStream | None = None
        self._end_told = False
        self.is_lagging: bool = False  # opened again before its reader came to the end, which nothing marks yet

    def __repr__(self) -> str:
        return f"<Messages of {self._streams.topic!r}, {len(self)} buffered, {self.dropped} dropped>"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        return self._read and self.waiting > self._half

    def put_sized(self, message: Message, size: int) -> "Buffer | None":
        """Add a message whose frame has so many bytes, as `put` does."""
        if size <= LIGHT:
            return self.put(message)
        self._streams.byte_limit.make_room(size)
        self.heavy += size
        return self.put(Heavy(message, size))

    def put_all(self, messages: Sequence[Message]) -> bool:
        """Add light messages, if they fit into the first half, and wake readers; tells whether they do."""
        waiting = self.waiting + len(messages)
        if waiting > self._half:
            return False
        self._items.extend(messages)
        self.waiting = waiting
        self._wake()
        return True

    def put(self, message: Message | Heavy) -> "Buffer | None":
        """Add a message, or drop one; returns the buffer if it is crowded."""
        messages = self.waiting
        if messages < self._half:
            self._items.append(message)
            self.waiting = messages + 1
            if self._wakes:
                self._wake()
            return None
        if messages >= self._limit:
            at_head = not self._read or self._policy == "drop_oldest"
            if not at_head:
                self._forget_size(message)
                self._drop(at_head=False, waits=False)
                return self
            self._drop(at_head=True, waits=True)
        self._items.append(message)
        self.waiting += 1
        self._wake()
        return self if self.crowded else None

    def _wake(self) -> None:
        if self._wakes and self._turn.holds:
            self._wakes = False
            self._turn.held.append(self)
        elif self._wakes:
            self.wake(1)

    def wake(self, most: int | None = None) -> None:
        """Wake readers: at most so many, or those for whom there are messages and gaps."""
        woken = self._readers[: len(self._items) if most is None else most]
        del self._readers[: len(woken)]
        self._wakes = bool(self._readers)
        for task in woken:
            reschedule(task)

    def mark(self, gap: Gap) -> None:
        """Add a gap; it is merged with one that ends the buffer."""
        self.is_lagging = False
        if self._items and isinstance(self._items[-1], Gap):
            gap = merged(self._items.pop(), gap)  # type: ignore[arg-type] # as was just seen
        self._items.append(gap)
        self._wake()

    def open(self) -> None:
        """Take messages (again); iteration goes on."""
        if self._end is not None:
            self.is_lagging = bool(self.waiting) or (self._read and not self._end_told)
            self._end, self._end_told = None, False

    def close(self, end: EndOfStream) -> None:
        """End: when what is buffered is read, readers are raised what `end` returns."""
        self._end = end
        self._episode.end()
        self.wake(len(self._readers))
        if self._untold:
            self._tell(reduce(merged, (item for item in self._items if isinstance(item, Gap) and item.dropped)))

    def __aiter__(self) -> Self:
        return self

    @overload
    async def __anext__(self) -> Message: ...
    @overload
    async def __anext__(self, *, gaps: bool) -> Message | Gap: ...
    # An interrupt after a message is taken would lose it; one before the wait, leave a task behind that does not wait.
    @trio.lowlevel.enable_ki_protection
    async def __anext__(self, *, gaps: bool = False) -> Message | Gap:
        """Return the next message, or the next message or gap; raises the end's error, or for losses."""
        turn, items = self._turn, self._items
        while True:
            # Flat, as every message comes here: the scheduler is passed at the end of a turn only.
            if not items:
                await self._wait()
            elif next(turn.free, 0) or turn.frees_more():
                await checkpoint_if_cancelled()
            else:
                await turn.let_others_run()
                continue  # another reader may have taken it
            self._read = True
            item = items.popleft()
            if type(item) is not Gap:
                self.waiting = messages = self.waiting - 1
                if messages == self._eased:
                    self._episode.end()
                if type(item) is Heavy:
                    self.heavy -= item.size
                    return item.message
                return item  # type: ignore[return-value] # by then
            if item.dropped:
                self._lost(item)
            if gaps:
                return item

    async def _wait(self) -> None:
        """Wait until there is a message or gap; raises at the end."""
        self._read = True
        if self._end is not None:
            await trio.lowlevel.checkpoint()  # a reader who asks on and on lets others run
        while not self._items:
            if self._end is not None:
                self._end_told = True
                raise self._end()
            self._wakes = True
            task = trio.lowlevel.current_task()
            self._readers.append(task)
            await trio.lowlevel.wait_task_rescheduled(partial(self._give_up, task))
        self._turn.begin()

    def _give_up(self, task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
        self._readers.remove(task)
        return trio.lowlevel.Abort.SUCCEEDED

    def _lost(self, gap: Gap) -> None:
        """Tell of a gap whose messages are known to be missing; raise for them with the policy "raise"."""
        if self._policy == "raise" and gap.reason != "overflow":
            self._items.appendleft(evolve(gap, dropped=0))  # a lost connection is told too
        self._tell(gap)
        if self._policy == "raise":
            raise SlowConsumer(self._streams.topic, gap.dropped)

    def _tell(self, gap: Gap) -> None:
        """Tell of the messages of a gap, unless that was done when the channel ended."""
        untold = min(gap.dropped, self._untold)
        self._untold -= untold
        if untold:
            self._streams.emit(evolve(gap, reason="overflow", dropped=untold))

    def shed(self) -> None:
        """Drop a message that waits, as too many bytes do."""
        self._drop(at_head=not self._read or self._policy == "drop_oldest", waits=True)
        self._eased = min(self._half, self.waiting // 2)  # it may be less than half full
        if not self.waiting:
            self._episode.end()

    def _forget_size(self, item: Message | Heavy) -> None:
        if isinstance(item, Heavy):
            self.heavy -= item.size

    def _drop(self, *, at_head: bool, waits: bool) -> None:
        """Drop the oldest message, the newest that waits, or one that is not in the buffer, and mark the place."""
        self.dropped += 1
        self._untold += 1
        pop, put = (self._items.popleft, self._items.appendleft) if at_head else (self._items.pop, self._items.append)
        gaps = self._gaps_at_end(pop, at_head=at_head)
        if waits:
            self._forget_size(pop())  # type: ignore[arg-type] # gaps are never side by side
            self.waiting -= 1
            gaps += self._gaps_at_end(pop, at_head=at_head)
        whole = reduce(merged, (*gaps, self._streams.new_overflow()))
        put(whole)
        self._streams.overflowed(whole, self._consumer)
        self._episode.drop()
        self._eased = self._half

    def _gaps_at_end(self, pop: Callable[[], Any], *, at_head: bool) -> list[Gap]:
        return [pop()] if self._items and isinstance(self._items[0 if at_head else -1], Gap) else []
