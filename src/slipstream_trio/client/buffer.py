"""The messages of a channel: bounded buffers that never hold up the receive loop, and the gaps in them."""

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import reduce
from typing import Any, Literal, final

import trio
from attrs import evolve
from trio.lowlevel import checkpoint_if_cancelled

from ..errors import SlowConsumer
from ..protocol import Message
from .byte_limit import LIGHT, ByteLimit, Heavy
from .spans import Emitter, Episode
from .stream import Consumer, Gap, Overflow, merged
from .turn import turn_of_this_run

__all__ = ["Buffer", "Streams"]

EndOfStream = Callable[[], BaseException]
"""Returns what a reader is raised at the end: an exception of its own."""


@final
class Buffer:
    """A bounded queue from the receive loop to the tasks that share one stream.

    Messages that do not fit are dropped, and a `Gap` marks the place. Until somebody first reads, the oldest are.

    Parameters:
        streams: those that it is one of; told of what is dropped.
        limit: how many messages it holds.
        policy: what is dropped; "raise" drops the newest, and raises where they are missing.
        consumer: what reads it, for telemetry.

    Attributes:
        dropped: how many messages were dropped so far.
        heavy: the bytes of the heavy messages that wait.
        is_lagging: whether it was opened again before its reader came to the end, and nothing marks that place yet.
    """

    def __init__(self, streams: "Streams", limit: int, policy: Overflow, consumer: Consumer) -> None:
        self.dropped: int = 0
        self.heavy: int = 0
        self._streams = streams
        self._limit = limit
        self._half = limit // 2
        self._policy: Overflow = policy
        self._consumer: Consumer = consumer
        self._untold = 0
        self._episode: Episode | None = None
        self._eased = -1  # how many messages are left when the episode ends: one comparison a message
        self._items: deque[Message | Heavy | Gap] = deque()
        self._messages = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._parked = 0  # how many of them wait: to ask the lot takes longer than to count, and every message asks
        self._read = False
        self._turn = turn_of_this_run()
        self._end: EndOfStream | None = None
        self._end_told = False
        self.is_lagging: bool = False

    def __repr__(self) -> str:
        return f"of {self._streams.topic!r}, {len(self)} buffered, {self.dropped} dropped"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        return self._read and self._messages > self._half

    @property
    def waiting(self) -> int:
        """The number of messages that wait."""
        return self._messages

    def put_sized(self, message: Message, size: int) -> "Buffer | None":
        """Add a message whose frame has so many bytes, as `put` does."""
        if size <= LIGHT:
            return self.put(message)
        self._streams.byte_limit.make_room(size)
        self.heavy += size
        return self.put(Heavy(message, size))

    def put(self, message: Message | Heavy) -> "Buffer | None":
        """Add a message, or drop one; returns the buffer if it is crowded."""
        messages = self._messages
        if messages < self._half and not self._parked:
            self._items.append(message)
            self._messages = messages + 1
            return None
        if messages >= self._limit:
            at_head = not self._read or self._policy == "drop_oldest"
            if not at_head:
                self._unweighed(message)
                self._drop(at_head=False, waits=False)
                return self
            self._drop(at_head=True, waits=True)
        self._items.append(message)
        self._messages += 1
        self._wake()
        return self if self.crowded else None

    def _wake(self) -> None:
        if self._parked:
            self._parked -= 1
            self._readers.unpark()

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
            self.is_lagging = bool(self._messages) or (self._read and not self._end_told)
            self._end, self._end_told = None, False

    def close(self, end: EndOfStream) -> None:
        """End: when what is buffered is read, readers are raised what `end` returns."""
        self._end = end
        self._parked = 0
        if self._episode is not None:
            self._episode.end()
        self._readers.unpark_all()
        left = [item for item in self._items if isinstance(item, Gap)]
        if self._untold:
            self._tell(evolve(left[0], until=left[-1].until, dropped=self._untold))

    async def get(self, *, gaps: bool) -> Message | Gap:
        """Return the next message, or the next message or gap; losses are raised with the policy "raise".

        Raises:
            SlowConsumer: messages were dropped here; the next call goes on after them.
            BaseException: the end's.
        """
        turn = self._turn
        while True:
            # Flat, as every message comes here: the scheduler is passed at the end of a turn only.
            if turn.is_over():
                await turn.let_others_run()
            else:
                await checkpoint_if_cancelled()
            item = self._items.popleft() if self._items and self._read else await self._first()
            if type(item) is not Gap:
                self._messages = messages = self._messages - 1
                if messages == self._eased and self._episode is not None:
                    self._episode.end()
                return self._unweighed(item) if type(item) is Heavy else item  # type: ignore[return-value] # by then
            if item.dropped:
                self._lost(item)
            if gaps:
                return item

    async def _first(self) -> Message | Heavy | Gap:
        """Take the first message or gap out, and wait for one if there is none."""
        self._read = True
        while not self._items:
            if self._end is not None:
                self._end_told = True
                raise self._end()
            self._parked += 1
            try:
                await self._readers.park()
            except BaseException:
                self._parked -= 1  # whoever is woken is not counted any more, and not cancelled
                raise
            self._turn.begin()
        return self._items.popleft()

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
        self._eased = min(self._half, self._messages // 2)  # it may be less than half full
        if not self._messages and self._episode is not None:
            self._episode.end()

    def release(self) -> None:
        """Weigh nothing any more, as no limit knows of it from now on."""
        self._items = deque(item if isinstance(item, Gap) else self._unweighed(item) for item in self._items)

    def _unweighed(self, item: Message | Heavy) -> Message:
        if isinstance(item, Heavy):
            self.heavy -= item.size
            return item.message
        return item

    def _drop(self, *, at_head: bool, waits: bool) -> None:
        """Drop the oldest message, the newest that waits, or one that is not in the buffer, and mark the place."""
        self.dropped += 1
        self._untold += 1
        pop, put = (self._items.popleft, self._items.appendleft) if at_head else (self._items.pop, self._items.append)
        outer = self._gaps_at_end(pop, at_head=at_head)
        whole, inner = self._streams.new_overflow(), []
        if waits:
            self._unweighed(pop())  # type: ignore[arg-type] # gaps are never side by side
            self._messages -= 1
            inner = self._gaps_at_end(pop, at_head=at_head)
        before, after = (inner, outer) if waits and not at_head else (outer, inner)
        whole = reduce(merged, (*before, whole, *after))
        put(whole)
        self._episode = self._streams.overflowed(whole, self._policy, self._limit, self._consumer, self._episode)
        self._eased = self._half

    def _gaps_at_end(self, pop: Callable[[], Any], *, at_head: bool) -> list[Gap]:
        return [pop()] if self._items and isinstance(self._items[0 if at_head else -1], Gap) else []


@final
class Streams:
    """The buffers of a channel, and the one place that makes gaps.

    Parameters:
        topic: the channel's.
        limit: how many messages a buffer holds, unless a subscription asks for another size.
        policy: what a full buffer drops, likewise.
        emitter: tells of gaps and losses.
        byte_limit: the socket's.

    Attributes:
        topic: the channel's.
        byte_limit: the socket's.
        last_gap: the latest place where messages may be missing.
        dropped: how many messages did not fit into the channel's own buffer, or its client's, so far.
        subscribed: the buffers of subscriptions, by event; None is all events.
    """

    def __init__(self, topic: str, limit: int, policy: Overflow, emitter: Emitter, byte_limit: ByteLimit) -> None:
        self.topic: str = topic
        self.byte_limit: ByteLimit = byte_limit
        self.last_gap: Gap | None = None
        self.dropped: int = 0
        self._limit, self._policy = limit, policy
        self._emitter = emitter
        self.subscribed: dict[str | None, list[Buffer]] = {}
        # Since when messages may be missing, and when the streams ended, on Trio's clock.
        self._missing: tuple[Literal["reconnected", "rejoined"], float] | None = None
        self._ended_at = 0.0
        self._own: Buffer | None = None

    @property
    def buffer(self) -> Buffer:
        """The messages that wait for those who iterate over the channel; made when it is asked for."""
        if self._own is None:
            self._own = Buffer(self, self._limit, self._policy, "channel")
        return self._own

    def open(self) -> None:
        """Take messages, also after an end."""
        for buffer in self.made():
            buffer.open()

    def put_subscribed(self, message: Message, size: int) -> Buffer | None:
        """Buffer a message for the subscriptions to its event; returns one that is more than half full."""
        crowded = None
        for key in (None, message.event):
            for buffer in self.subscribed.get(key, ()):
                crowded = buffer.put_sized(message, size) or crowded
        return crowded

    @trio.lowlevel.enable_ki_protection
    def subscribe(
        self, events: tuple[str, ...], limit: int | None, policy: Overflow | None, changed: Callable[[], None]
    ) -> tuple[Buffer, Callable[[], None]]:
        """Return a buffer that gets these events (all, if there are none), and what ends that; `changed` is told."""
        buffer = Buffer(self, limit or self._limit, policy or self._policy, "subscription")
        keys: tuple[str | None, ...] = tuple(dict.fromkeys(events)) or (None,)
        for key in keys:
            self.subscribed.setdefault(key, []).append(buffer)
        changed()

        @trio.lowlevel.enable_ki_protection
        def end() -> None:
            for key in keys:
                self.subscribed[key].remove(buffer)
                if not self.subscribed[key]:
                    del self.subscribed[key]
            changed()
            buffer.close(StopAsyncIteration)
            buffer.release()

        return buffer, end

    def close(self, end: EndOfStream, *, anew: bool = True) -> None:
        """End all of them, or those that have not ended."""
        self._ended_at = trio.current_time()
        for buffer in self._all():
            if anew or buffer._end is None:
                buffer.close(end)

    def made(self) -> list[Buffer]:
        """Return the channel's buffer, if it is made, and those of subscriptions, each once."""
        own = () if self._own is None else (self._own,)
        return list(dict.fromkeys([*own, *(each for some in self.subscribed.values() for each in some)]))

    def _all(self) -> list[Buffer]:
        """Return the same, and the channel's buffer in any case: its reader may come later, and should know."""
        return self.made() if self._own is not None else [self.buffer, *self.made()[1:]]

    # Gaps

    def lost(self, reason: Literal["reconnected", "rejoined"], since: float) -> None:
        """Take note that messages may be missing since a time on Trio's clock; an earlier one counts."""
        if self._missing is None:
            self._missing = (reason, since)

    def forget(self) -> None:
        """Take note that the user has left: nothing is missing that was not given up."""
        self._missing = None

    def resumed(self) -> Gap | None:
        """Mark where messages may be missing, now that they come again; returns the gap, None if there is none.

        After a leave, that is where a reader has not come to the end yet: it would not notice the time between.
        """
        marked = self.made() if self._missing is None else self._all()
        reason, since = self._missing or ("rejoined", self._ended_at)
        if self._missing is None:
            marked = [buffer for buffer in marked if buffer.is_lagging]
        if not marked:
            return None
        now = self._emitter.utc_now()
        gap = Gap(reason, now - timedelta(seconds=trio.current_time() - since), now)
        self.last_gap, self._missing = gap, None
        for buffer in marked:
            buffer.mark(gap)
        self.emit(gap)
        return gap

    def new_overflow(self) -> Gap:
        """Return the gap of a message that is dropped now."""
        now = self._emitter.utc_now()
        return Gap("overflow", now, now, 1)

    def overflowed(
        self, gap: Gap, policy: Overflow, limit: int, consumer: Consumer, episode: Episode | None
    ) -> Episode:
        """Take note of a dropped message; returns the buffer's episodes."""
        self.last_gap = gap
        if consumer != "subscription":
            self.dropped += 1
        episode = episode or Episode(self._emitter, self.topic, policy, limit, consumer)
        episode.drop()
        return episode

    def emit(self, gap: Gap) -> None:
        """Tell of a gap, or of how many messages are missing."""
        self._emitter.gap(self.topic, gap)
