"""The messages of a channel: bounded buffers that never hold up the receive loop, and the gaps in them."""

from collections import deque
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Literal, Self, final

import trio
from attrs import evolve, frozen
from trio.lowlevel import checkpoint_if_cancelled

from ..errors import SlowConsumer
from ..protocol import Message
from .spans import Emitter, Episode
from .turn import turn_of_this_run

__all__ = ["Buffer", "Consumer", "Gap", "Overflow", "Stream", "Streams", "Subscription", "merged"]

Overflow = Literal["raise", "drop_oldest", "drop_newest"]
"""The treatment of messages for a consumer whose buffer is full."""

Consumer = Literal["channel", "subscription", "client"]

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
        is_lagging: whether it was opened again before its reader came to the end, and nothing marks that place yet.
    """

    def __init__(self, streams: "Streams", limit: int, policy: Overflow, consumer: Consumer) -> None:
        self.dropped: int = 0
        self._streams = streams
        self._limit = limit
        self._half = limit // 2
        self._policy: Overflow = policy
        self._consumer: Consumer = consumer
        self._untold = 0
        self._episode: Episode | None = None
        self._eased = -1  # how many messages are left when the episode ends: one comparison a message
        self._items: deque[Message | Gap] = deque()
        self._messages = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._parked = 0  # how many of them wait: to ask the lot takes longer than to count, and every message asks
        self._read = False
        self._turn = turn_of_this_run()
        self._end: EndOfStream | None = None
        self._end_told = False
        self.is_lagging: bool = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        return self._read and self._messages > self._half

    def put(self, message: Message) -> "Buffer | None":
        """Add a message, or drop one; returns the buffer if it is crowded."""
        messages = self._messages
        if messages < self._half and not self._parked:
            self._items.append(message)
            self._messages = messages + 1
            return None
        if messages >= self._limit:
            at_head = not self._read or self._policy == "drop_oldest"
            self._drop(at_head=at_head)
            if not at_head:
                return self
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
            gap = merged(self._items.pop(), gap)
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
                return item
            if item.dropped:
                self._lost(item)
            if gaps:
                return item

    async def _first(self) -> Message | Gap:
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

    def _drop(self, *, at_head: bool) -> None:
        """Drop the oldest message, or one that is not in the buffer, and mark the place."""
        self.dropped += 1
        self._untold += 1
        gap, items = self._streams.new_overflow(), self._items
        before = items.popleft() if at_head else items.pop() if isinstance(items[-1], Gap) else None
        if at_head:
            self._messages -= 1
            if isinstance(before, Gap):
                items.popleft()  # gaps are never side by side: this is the oldest message
        whole = merged(before, gap) if isinstance(before, Gap) else gap
        if at_head and items and isinstance(items[0], Gap):
            whole = merged(whole, items.popleft())
        (items.appendleft if at_head else items.append)(whole)
        self._episode = self._streams.overflowed(whole, self._policy, self._limit, self._consumer, self._episode)
        self._eased = self._half


@final
class Stream:
    """An async iterator over messages, and gaps where some may be missing: what `stream` gives."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message | Gap]:
        """Return the next message or gap; raises as `Subscription.__anext__`."""
        return self._buffer.get(gaps=True)


@final
class Subscription:
    """An async iterator over a channel's messages with certain events, with a buffer of its own.

    Tasks that iterate over the same subscription share its messages.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    @property
    def dropped(self) -> int:
        """The number of messages that did not fit into its buffer so far."""
        return self._buffer.dropped

    def stream(self) -> Stream:
        """Iterate over the messages, and the gaps between them."""
        return Stream(self._buffer)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        """Return the next message.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; iteration may go on.
            ChannelClosed: the channel crashed, and is not joined again.
            JoinError: joining it again was refused, and given up.
            ConnectionLost: the connection ended for good, and that was not asked for.
        """
        return self._buffer.get(gaps=False)  # type: ignore[return-value] # gaps are passed over


@final
class Streams:
    """The buffers of a channel, and the one place that makes gaps.

    Parameters:
        topic: the channel's.
        limit: how many messages a buffer holds, unless a subscription asks for another size.
        policy: what a full buffer drops, likewise.
        emitter: tells of gaps and losses.

    Attributes:
        topic: the channel's.
        last_gap: the latest place where messages may be missing.
        dropped: how many messages did not fit into the channel's own buffer, or its client's, so far.
        subscribed: the buffers of subscriptions, by event; None is all events.
    """

    def __init__(self, topic: str, limit: int, policy: Overflow, emitter: Emitter) -> None:
        self.topic: str = topic
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
        if self._own is not None or self.subscribed:
            for buffer in self._buffers():
                buffer.open()

    def put_subscribed(self, message: Message) -> Buffer | None:
        """Buffer a message for the subscriptions to its event; returns one that is more than half full."""
        crowded = None
        for key in (None, message.event):
            for buffer in self.subscribed.get(key, ()):
                crowded = buffer.put(message) or crowded
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

        return buffer, end

    def close(self, end: EndOfStream, *, anew: bool = True) -> None:
        """End all of them, or those that have not ended."""
        self._ended_at = trio.current_time()
        for buffer in self._buffers():
            if anew or buffer._end is None:
                buffer.close(end)

    def _buffers(self) -> list[Buffer]:
        """The channel's buffer, and those of subscriptions, each once."""
        return list(dict.fromkeys([self.buffer, *(each for some in self.subscribed.values() for each in some)]))

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
        marked = self._buffers() if self._missing is not None or self._own is not None or self.subscribed else []
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


def merged(first: Message | Gap, second: Message | Gap) -> Gap:
    """Return one gap that tells of two, of which `first` came first."""
    assert isinstance(first, Gap)
    assert isinstance(second, Gap)
    reason = first.reason if first.reason != "overflow" else second.reason
    return evolve(first, reason=reason, until=max(first.until, second.until), dropped=first.dropped + second.dropped)
