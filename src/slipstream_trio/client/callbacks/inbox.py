"""What waits for the callbacks of a client, in the order in which it came.

A callback may take long, or never return, while connections come and go. What waits for it is bounded all the same:
whatever has become outdated before it was told is not told, or told as one.

* Messages wait in backlogs, `buffer` for each channel; what does not fit is dropped, as `overflow` says.
* Of a connection that ended before its `handle_connect` was called, only the end is told; of several ends, the last.
* Of a channel's `handle_join` that wait, the first (messages may follow it) and the last are told; so with gaps, and
  those between are merged into the first, which then tells of more than one. Of its `handle_topic_close`, the last is.
* A topic that is joined and left again before its last `handle_leave` was called is not told of.
* Posts are refused, and pushes of other tasks wait, while `buffer` of them have not been handled.

So what is told last is true, what was missed has its gap, and who was told of an end is told of what follows.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import trio

from ...protocol import Message
from ..buffer import Gap, merged
from ..channel import Channel
from ..turn import turn_of_this_run

__all__ = ["POSTS", "ChannelBacklog", "Entry", "Inbox"]

POSTS: Final = frozenset({"handle_cast", "handle_info"})
"""The callbacks for what others post, and do not wait for."""


class Entry(NamedTuple):
    """A callback to call, and with what."""

    callback: str
    arguments: tuple[Any, ...]
    backlog: "ChannelBacklog | None" = None


class Inbox:
    """A queue of callbacks to call. One task reads it; whoever writes never waits.

    Attributes:
        limit: how many messages of one channel, how many posts, and how many replies, wait at most.
        leaves: topic to the number of the `handle_leave` that waits.
        closed: whether nothing is read or taken any more.
    """

    def __init__(self) -> None:
        self.limit = 1024
        self.leaves: dict[str, int] = {}
        self.closed: bool = False
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._count = 0
        self._posts = 0
        self._replies = 0
        self._finished = False
        self._reader = trio.lowlevel.ParkingLot()
        self._pushers = trio.lowlevel.ParkingLot()
        self._turn = turn_of_this_run()

    def bound(self, limit: int) -> None:
        """Let so many messages of a channel, posts, and replies wait."""
        self.limit = limit

    @property
    def has_room(self) -> bool:
        """Whether another post may be put."""
        return self._posts < self.limit

    @property
    def has_room_for_reply(self) -> bool:
        """Whether fewer replies than `limit` are expected or wait, or nothing is read any more."""
        return self._replies < self.limit or self.closed or self._finished

    async def room_for_reply(self) -> None:
        """Wait until there is room for another reply."""
        while not self.has_room_for_reply:
            await self._pushers.park()

    def expect_reply(self) -> None:
        """Take note of a push whose reply will be put."""
        self._replies += 1

    def waits(self, number: int) -> bool:
        """Tell whether the entry of this number waits; none has the number 0."""
        return number in self._entries

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
        self._pushers.unpark_all()

    def close(self) -> None:
        """Drop what waits, and take no more."""
        self.closed = True
        self._entries.clear()
        self.leaves.clear()
        self._reader.unpark()
        self._pushers.unpark_all()

    async def get(self) -> Entry | None:
        """Return the next entry, None if there is none any more."""
        await self._turn.take()  # callbacks that wait for nothing must not keep other tasks from running
        while not self._entries:
            if self.closed or self._finished:
                return None
            await self._reader.park()
            self._turn.begin()
        number, entry = self._entries.popitem(last=False)
        self._took(number, entry)
        return entry

    def _took(self, number: int, entry: Entry) -> None:
        if entry.backlog is not None:
            entry.backlog.took(number, entry)
        elif entry.callback in POSTS:
            self._posts -= 1
        elif entry.callback == "handle_reply":
            self._replies -= 1
            self._pushers.unpark_all()
        elif entry.callback == "handle_leave":
            self.leaves.pop(entry.arguments[0], None)


class FirstAndLatest:
    """The entries of one kind, of which two wait at most: the first that nobody has been told of, and the latest.

    Parameters:
        merge: makes one entry of the first and the one that was the latest, to stand in place of the first; None: the
            latter is dropped.
    """

    def __init__(self, inbox: Inbox, merge: Callable[[Entry, Entry], Entry] | None = None) -> None:
        self._inbox = inbox
        self._merge = merge
        self._first = 0
        self._latest = 0

    @property
    def waits(self) -> bool:
        """Whether any of them waits."""
        return self._inbox.waits(self._first) or self._inbox.waits(self._latest)

    def put(self, entry: Entry) -> None:
        """Add an entry, which is the latest now."""
        inbox = self._inbox
        if not inbox.waits(self._first):
            self._first = self._latest
        elif inbox.waits(self._latest):
            if self._merge is not None:
                inbox.replace(self._first, self._merge(inbox.at(self._first), inbox.at(self._latest)))
            inbox.remove(self._latest)
        self._latest = inbox.put(entry)

    def drop(self) -> None:
        """Take back what waits."""
        self._inbox.remove(self._first)
        self._inbox.remove(self._latest)


class Latest:
    """The entries of one kind, of which one waits at most."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._number = 0

    def put(self, entry: Entry) -> None:
        """Add an entry, in place of the one that waits; it stands at the end."""
        self.drop()
        self._number = self._inbox.put(entry)

    def drop(self) -> None:
        """Take back what waits."""
        self._inbox.remove(self._number)


def _merged_gaps(first: Entry, second: Entry) -> Entry:
    channel, gap = first.arguments
    return Entry(first.callback, (channel, merged(gap, second.arguments[1])))


class ChannelBacklog:
    """The entries of one channel, bounded, each channel on its own: its channel tells it what happens, as it happens.

    Messages that do not fit are dropped by the policy, and one entry tells of all that are dropped in a row. It stands
    where the first of them would have come.

    Attributes:
        channel: the channel.
    """

    def __init__(self, inbox: Inbox, channel: Channel) -> None:
        configuration = channel._socket._configuration
        self.channel: Channel = channel
        self._inbox = inbox
        self._streams = channel._streams
        self._limit = configuration.buffer
        self._policy = configuration.overflow
        self._messages: deque[int] = deque()
        self._gap: int | None = None
        self._joins = FirstAndLatest(inbox)
        self._gaps = FirstAndLatest(inbox, _merged_gaps)
        self._closes = Latest(inbox)

    # As what fills up

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def crowded(self) -> bool:
        """Whether it is more than half full."""
        return len(self._messages) * 2 > self._limit

    def took(self, number: int, entry: Entry) -> None:
        """Take note that the reader has taken an entry."""
        if number == self._gap:
            self._gap = None
        if entry.callback == "handle_gap":
            self._streams.emit(entry.arguments[1])
        elif self._messages and self._messages[0] == number:
            self._messages.popleft()

    # What its channel tells

    def joined(self, response: Any) -> None:
        """Take note that the topic is joined, for the first time or again."""
        self._joins.put(Entry("handle_join", (self.channel, response)))

    def message(self, message: Message) -> "ChannelBacklog | None":
        """Take a message; returns this backlog if it is more than half full."""
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
        """Take note that messages may be missing here."""
        self._gaps.put(Entry("handle_gap", (self.channel, gap)))

    def closed(self, reason: Exception) -> None:
        """Take note that the topic could not be joined, or is joined no longer; it may be joined again."""
        self._closes.put(Entry("handle_topic_close", (self.channel.topic, reason)))

    def left(self) -> None:
        """Take note that the topic is left, as the user has asked for it."""
        topic, inbox = self.channel.topic, self._inbox
        if inbox.waits(inbox.leaves.get(topic, 0)):
            self._drop_all()
        else:
            inbox.leaves[topic] = inbox.put(Entry("handle_leave", (topic,)))

    # Inside

    def _drop_all(self) -> None:
        for kind in (self._joins, self._gaps, self._closes):
            kind.drop()
        if self._gap is not None:
            self._streams.emit(self._inbox.at(self._gap).arguments[1])
        for number in (*self._messages, self._gap or 0):
            self._inbox.remove(number)
        self._messages.clear()
        self._gap = None

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
        before: Gap | None = None if self._gap is None else self._inbox.at(self._gap).arguments[1]
        gap = self._streams.new_overflow(before)
        self._streams.overflowed(gap, self._policy, self._limit, "client", first=before is None)
        return Entry("handle_gap", (self.channel, gap), self)
