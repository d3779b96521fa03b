"""The inbox of a client: callbacks to call, in the order in which things happened.

A callback may take long, or never return, while connections come and go. Its inbox is bounded all the same: what
becomes outdated before it is told is left out, or merged with what is told.

* Messages: `buffer` of each channel; the others are dropped, as `overflow` says.
* Connections: of one that ended before its `handle_connect` was called, only the end; of several ends, the last.
* A channel's `handle_join`: the first (messages may follow it) and the last. Its gaps likewise; those between are
  merged into the first, which then tells of more than one. Its `handle_topic_close`: the last.
* A topic that is joined and left again before its last `handle_leave` was called is left out.
* Casts and infos: `buffer`, the next is refused. Replies: pushes of other tasks wait while `buffer` are to be handled.
* Calls are dropped when their callers give up. They are read from the first `handle_connect` on.

So what is told last is true, everything that was missed has its gap, and after an end follows what came after it.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import trio

from ...protocol import Message
from ..buffer import LIGHT, Gap, merged
from ..channel import Channel
from ..spans import Episode
from ..turn import turn_of_this_run

POSTS: Final = "casts and infos"
"""The kind of entries that others post without waiting for them."""


class Entry(NamedTuple):
    """A callback to call."""

    callback: str
    arguments: tuple[Any, ...]
    kind: Hashable = None  # the entries that it is counted with; None where nobody counts
    size: int = 0  # bytes of the frame of a heavy message


class Inbox:
    """A queue of callbacks to call. One task reads it; others put entries into it, and never wait for that."""

    def __init__(self) -> None:
        self.limit: int = 1024  # of the messages of one channel, of posts, and of replies
        self.closed: bool = False
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._numbers: dict[Hashable, deque[int]] = {}
        self._early_calls: dict[int, Entry] | None = {}  # None from the first handle_connect on
        self._count = 0
        self._replies = 0
        self._finished = False
        self._reader = trio.lowlevel.ParkingLot()
        self._pushers = trio.StrictFIFOLock()
        self._replied = trio.lowlevel.ParkingLot()
        self._turn = turn_of_this_run()

    def bound(self, limit: int) -> None:
        """Let so many messages of a channel, posts, and replies wait."""
        self.limit = limit

    # Entries

    def waiting(self, kind: Hashable) -> Sequence[int]:
        """Return the numbers of the entries of a kind, in order."""
        return self._numbers.get(kind, ())

    def put(self, entry: Entry, *, most: float = math.inf) -> int:
        """Add an entry; returns its number. Where `most` of its kind wait, it takes the place of the latest."""
        self._count += 1
        if self.closed:
            return self._count
        if self._early_calls is not None and entry.callback == "handle_call":
            self._early_calls[self._count] = entry
            return self._count
        if entry.kind is not None:
            numbers = self._numbers.setdefault(entry.kind, deque())
            if len(numbers) >= most:
                del self._entries[numbers.pop()]
            numbers.append(self._count)
        self._entries[self._count] = entry
        if self._reader:
            self._reader.unpark()
        return self._count

    def replace(self, number: int, entry: Entry) -> None:
        """Put an entry in the place of another one that waits."""
        before = self._entries[number]
        self._entries[number] = entry
        if entry.kind != before.kind:
            self._uncount(number, before.kind)
            self._numbers.setdefault(entry.kind, deque()).append(number)

    def remove(self, number: int) -> None:
        """Take an entry back, if it still waits."""
        entry = self._entries.pop(number, None)
        if entry is not None:
            self._uncount(number, entry.kind)
        elif self._early_calls is not None:
            self._early_calls.pop(number, None)

    def remove_all(self, *kinds: Hashable) -> None:
        """Take back all entries of these kinds."""
        for kind in kinds:
            for number in self._numbers.pop(kind, ()):
                del self._entries[number]

    def _uncount(self, number: int, kind: Hashable) -> None:
        if kind is not None:
            numbers = self._numbers[kind]
            numbers.remove(number)
            if not numbers:
                del self._numbers[kind]

    # Replies

    @property
    def has_room_for_reply(self) -> bool:
        """Whether a push may bring another reply at once: fewer than `limit` are to be handled, and no push waits."""
        return self._is_room_for_reply and not self._pushers.locked()

    @property
    def _is_room_for_reply(self) -> bool:
        return self._replies < self.limit or self._finished

    async def room_for_reply(self) -> None:
        """Wait, first come, first served, until a push may bring another reply."""
        # Trio promises no order among tasks that it wakes together. The lock wakes one, which goes on without a
        # checkpoint when it has been served; only then does the next one run.
        async with self._pushers:
            while not self._is_room_for_reply:
                await self._replied.park()

    def expect_reply(self) -> None:
        """Take note of a push whose reply will be put."""
        self._replies += 1

    def forget_reply(self) -> None:
        """Take note that a reply that was expected has been handled, or will not come."""
        self._replies -= 1
        self._replied.unpark_all()

    # The end

    def finish(self) -> None:
        """Let the reader know that it may end when everything is read."""
        self._finished = True
        self._reader.unpark()
        self._replied.unpark_all()

    def close(self) -> None:
        """Drop everything, and take nothing any more."""
        self.closed = True
        self._entries.clear()
        self._numbers.clear()  # early calls are taken back by their callers
        self._reader.unpark()

    # Reading

    async def get(self) -> Entry | None:
        """Return the next entry, None at the end."""
        if next(self._turn.free, 0) or self._turn.frees_more():
            await trio.lowlevel.checkpoint_if_cancelled()
        else:  # callbacks that wait for nothing must not keep other tasks from running
            await self._turn.let_others_run()
        while not self._entries:
            if self.closed or self._finished:
                return None
            await self._reader.park()
            self._turn.begin()
        number, entry = self._entries.popitem(last=False)
        self._uncount(number, entry.kind)
        if entry.callback == "handle_reply":
            self.forget_reply()
        elif entry.callback == "handle_connect":  # the calls that waited for the first are read next
            if self._early_calls:
                self._entries = OrderedDict([*self._early_calls.items(), *self._entries.items()])
            self._early_calls = None
        elif entry.callback == "handle_message":
            entry.arguments[0]._backlog.was_read(entry.size)
        return entry


class ChannelBacklog:
    """The entries of one channel: its channel tells it what happens, as it happens.

    Messages that do not fit are dropped by the policy. One entry tells of all that are dropped in a row, at the place
    of the first of them.
    """

    def __init__(self, inbox: Inbox, channel: Channel) -> None:
        configuration = channel._socket._configuration
        self.heavy: int = 0
        self._inbox = inbox
        self._channel = channel
        self._limit = configuration.buffer
        self._policy = configuration.overflow
        self._episode = Episode(channel._socket._emitter, channel.topic, self._policy, self._limit, "client")
        self._messages, self._losses, self._gaps, self._joins, self._closes = self._kinds = [
            (kind, channel) for kind in ("messages", "losses", "gaps", "joins", "closes")
        ]

    @property
    def waiting(self) -> int:
        """The number of messages that wait."""
        return len(self._inbox.waiting(self._messages))

    @property
    def crowded(self) -> bool:
        """Whether it is more than half full."""
        return self.waiting * 2 > self._limit

    def joined(self, response: Any) -> None:
        """Take note that the topic is joined, for the first time or again."""
        self._inbox.put(Entry("handle_join", (self._channel, response), self._joins), most=2)

    def closed(self, reason: Exception) -> None:
        """Take note that the topic could not be joined, or is joined no longer; it may be joined again."""
        self._episode.end()
        self._inbox.put(Entry("handle_topic_close", (self._channel.topic, reason), self._closes), most=1)

    def gap(self, gap: Gap) -> None:
        """Take note that messages may be missing here."""
        waiting = self._inbox.waiting(self._gaps)
        if len(waiting) == 2:
            first, latest = waiting
            whole = merged(self._gap_at(first), self._gap_at(latest))
            self._inbox.replace(first, self._gap_entry(whole, self._gaps))
        self._inbox.put(self._gap_entry(gap, self._gaps), most=2)

    def left(self) -> None:
        """Take note that the topic is left, as the user has asked for it."""
        self._episode.end()
        kind = ("leaves", self._channel.topic)
        if self._inbox.waiting(kind):
            for number in self._inbox.waiting(self._losses):
                self._channel._streams.emit(self._gap_at(number))
            self._inbox.remove_all(*self._kinds)
            self.heavy = 0
        else:
            self._inbox.put(Entry("handle_leave", (self._channel.topic,), kind))

    def put_sized(self, message: Message, size: int = 0) -> "ChannelBacklog | None":
        """Take a message whose frame has so many bytes, or drop one; returns this if it is more than half full."""
        size = 0 if size <= LIGHT else size
        if size:
            self._channel._streams.byte_limit.make_room(size)
        drops = self.waiting >= self._limit
        if drops:
            self._drop(waits=self._policy == "drop_oldest")
        if not drops or self._policy == "drop_oldest":
            self._inbox.put(Entry("handle_message", (self._channel, message), self._messages, size))
            self.heavy += size
        return self if self.crowded else None

    put = put_sized

    def shed(self) -> None:
        """Drop a message that waits, as too many bytes do."""
        self._drop(waits=True)

    def was_read(self, size: int) -> None:
        """Take note that the inbox has given a message away."""
        self.heavy -= size
        if self._episode.lasts and not self.crowded:
            self._episode.end()

    def _drop(self, *, waits: bool) -> None:
        """Drop the oldest message, the newest that waits, or one that is not here, and mark the place."""
        inbox, messages, losses = self._inbox, self._inbox.waiting(self._messages), self._inbox.waiting(self._losses)
        drops_oldest = self._policy == "drop_oldest"
        dropped = (messages[0] if drops_oldest else messages[-1]) if waits else None
        last = messages[-1] if dropped is None or drops_oldest else messages[-2] if len(messages) > 1 else 0
        # The gap that this loss belongs to stands before all messages, or behind them.
        place = losses[-1] if losses and (drops_oldest or losses[-1] > last) else None
        gap = self._channel._streams.new_overflow()
        if place is not None:
            gap = merged(self._gap_at(place), gap)
        self._channel._streams.overflowed(gap, "client")
        self._episode.drop()
        entry = self._gap_entry(gap, self._losses)
        if dropped is not None:
            self.heavy -= inbox._entries[dropped].size
            if place is None:
                place = dropped
            else:
                inbox.remove(dropped)
        if place is None:
            inbox.put(entry)
        else:
            inbox.replace(place, entry)

    def _gap_entry(self, gap: Gap, kind: Hashable) -> Entry:
        return Entry("handle_gap", (self._channel, gap), kind)

    def _gap_at(self, number: int) -> Gap:
        return self._inbox._entries[number].arguments[1]  # type: ignore[no-any-return]
