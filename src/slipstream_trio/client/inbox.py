"""What waits for the callbacks of a client, in the order in which it came."""

import time
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple

import trio
from attrs import evolve

from ..protocol import Message
from ..telemetry import BufferOverflowed
from .buffer import MESSAGES_A_TURN, SECONDS_A_TURN, Gap
from .channel import Channel
from .membership import Membership
from .spans import moment

__all__ = ["POSTS", "Entry", "Inbox", "Lane"]

POSTS: Final = frozenset({"handle_cast", "handle_info"})
"""The callbacks for what others post, and do not wait for."""


class Entry(NamedTuple):
    """A callback to call, and with what."""

    callback: str
    arguments: tuple[Any, ...]
    lane: "Lane | None" = None


class Inbox:
    """A queue of callbacks to call. One task reads it; whoever writes never waits.

    Messages are bounded by their lanes, posts by `has_room`; everything else is as much as there were connections,
    joins and pushes.

    Attributes:
        limit: how many messages of one channel, and how many posts, wait at most.
        closed: whether nothing is read or taken any more.
    """

    def __init__(self) -> None:
        self.limit = 1024
        self.closed: bool = False
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._count = 0
        self._posts = 0
        self._finished = False
        self._reader = trio.lowlevel.ParkingLot()
        self._turn = 0
        self._turn_began = 0.0

    @property
    def has_room(self) -> bool:
        """Whether another post may be put."""
        return self._posts < self.limit

    def put(self, entry: Entry) -> int:
        """Add an entry; returns its number."""
        self._count += 1
        if not self.closed:
            self._entries[self._count] = entry
            self._posts += entry.callback in POSTS
            if self._reader:
                self._reader.unpark()
        return self._count

    def at(self, number: int) -> Entry:
        """Return an entry that waits."""
        return self._entries[number]

    def replace(self, number: int, entry: Entry) -> None:
        """Put an entry in the place of another one that waits."""
        self._entries[number] = entry

    def remove(self, number: int) -> None:
        """Take an entry back, if it still waits."""
        self._entries.pop(number, None)

    def finish(self) -> None:
        """Let the reader know that it may end when everything is read."""
        self._finished = True
        self._reader.unpark()

    def close(self) -> None:
        """Drop what waits, and take no more."""
        self.closed = True
        self._entries.clear()
        self._reader.unpark()

    async def get(self) -> Entry | None:
        """Return the next entry, None if there is none any more."""
        await self._let_others_run()
        while not self._entries:
            if self.closed or self._finished:
                return None
            await self._reader.park()
            self._begin_turn()
        number, entry = self._entries.popitem(last=False)
        self._posts -= entry.callback in POSTS
        if entry.lane is not None:
            entry.lane.took(number)
        return entry

    async def _let_others_run(self) -> None:
        """A reader whose callbacks wait for nothing must not keep the others from running."""
        self._turn += 1
        if self._turn >= MESSAGES_A_TURN or time.perf_counter() - self._turn_began >= SECONDS_A_TURN:
            await trio.lowlevel.checkpoint()
            self._begin_turn()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _begin_turn(self) -> None:
        self._turn = 0
        self._turn_began = time.perf_counter()


class Lane:
    """The entries of one channel: a `ChannelTap` whose messages are bounded, each channel's on their own.

    Messages that do not fit are dropped by the policy, and one entry tells of all that are dropped in a row. It stands
    where the first of them would have come.

    Attributes:
        channel: the channel.
    """

    def __init__(self, inbox: Inbox, membership: Membership) -> None:
        configuration = membership.session.configuration
        self.channel: Channel = Channel(membership)
        self._inbox = inbox
        self._membership = membership
        self._limit = configuration.buffer
        self._policy = configuration.overflow
        self._messages: deque[int] = deque()
        self._gap: int | None = None

    # As what fills up

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def crowded(self) -> bool:
        """Whether it is more than half full."""
        return len(self._messages) * 2 > self._limit

    def took(self, number: int) -> None:
        """Take note that the reader has taken an entry."""
        if number == self._gap:
            self._gap = None
        elif self._messages and self._messages[0] == number:
            self._messages.popleft()

    # As a tap

    def joined(self, response: Any) -> None:
        """See `ChannelTap`."""
        self._inbox.put(Entry("handle_join", (self.channel, response)))

    def message(self, message: Message) -> "Lane | None":
        """See `ChannelTap`."""
        if self._inbox.closed:
            return None
        if len(self._messages) < self._limit:
            if self._policy != "drop_oldest":
                self._gap = None  # what is dropped from now on is missing behind this message
            self._add(message)
        elif self._policy == "drop_oldest":
            self._drop_oldest()
            self._add(message)
        else:
            self._drop_newest()
        return self if self.crowded else None

    def gap(self, gap: Gap) -> None:
        """See `ChannelTap`."""
        self._inbox.put(Entry("handle_gap", (self.channel, gap)))

    def closed(self, reason: Exception) -> None:
        """See `ChannelTap`."""
        self._inbox.put(Entry("handle_topic_close", (self._membership.topic, reason)))

    def left(self) -> None:
        """See `ChannelTap`."""
        self._inbox.put(Entry("handle_leave", (self._membership.topic,)))

    # Inside

    def _add(self, message: Message) -> None:
        self._messages.append(self._inbox.put(Entry("handle_message", (self.channel, message), self)))

    def _drop_oldest(self) -> None:
        oldest = self._messages.popleft()
        entry = self._dropped()
        if self._gap is None:
            self._gap = oldest
            self._inbox.replace(oldest, entry)
        else:
            self._inbox.remove(oldest)
            self._inbox.replace(self._gap, entry)

    def _drop_newest(self) -> None:
        entry = self._dropped()
        if self._gap is None:
            self._gap = self._inbox.put(entry)
        else:
            self._inbox.replace(self._gap, entry)

    def _dropped(self) -> Entry:
        """Return the entry that tells of all that is dropped so far, one more message included."""
        membership = self._membership
        now = membership.session.utc_now()
        if self._gap is None:
            gap = Gap("overflow", now, now, 1)
            self._tell_overflow()
        else:
            before: Gap = self._inbox.at(self._gap).arguments[1]
            gap = evolve(before, until=now, dropped=before.dropped + 1)
        membership.last_gap = gap
        membership.buffer.dropped += 1
        return Entry("handle_gap", (self.channel, gap), self)

    def _tell_overflow(self) -> None:
        session = self._membership.session
        point = session.telemetry.point(BufferOverflowed.name)
        if point.handlers:
            topic = self._membership.topic
            point.emit(BufferOverflowed(*moment(session), topic, self._policy, self._limit, "client"))
