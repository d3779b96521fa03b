"""The presences of a channel: what it keeps of them, and what a user sees.

What the library knows, and what it hands out, share no object that could be edited: frames are decoded anew for it, and
who asks gets copies. Inside, an entry is never changed in place, so that what is known may be shared.
"""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

import trio
from attrs import evolve

from ..protocol import Frame, Message, Presence, PresenceChange, Presences
from ..protocol.presence import MOST_PENDING, STATE, check_presence
from ..protocol.state import View

if TYPE_CHECKING:
    from .socket import Socket

MOST_PENDING_BYTES: Final = 2**20
"""Bytes of diffs that are kept for a state to come; the latest is kept, however large."""

_ATOMS: Final = frozenset({str, int, float, bool, type(None), bytes})

T = TypeVar("T")
F = TypeVar("F")

logger: Final = logging.getLogger("slipstream_trio")


class PresenceTracker:
    """The presences on a channel's topic, as far as its messages tell.

    Most channels have presences that nobody ever asks for, so frames are kept as they are. They are folded into entries
    when somebody follows, or when what came after a state is larger than that: then the entries are what is smaller.
    """

    def __init__(self, topic: str, socket: "Socket") -> None:
        self._topic = topic
        self._socket = socket
        self._known = Presence()
        self._synced = False
        self._frames: list[Frame] = []
        """Knowledge beyond `_known`: diffs, and a state if they came for one."""
        self._state_size = self._diffs_size = 0
        self._pending: list[Frame] = []
        self._pending_size = 0
        self._followers: dict[int, ChannelPresence] = {}  # by id, as two mappings of the same are equal

    def received(self, message: Message, frame: Frame) -> None:
        """Take in one of `PRESENCE_EVENTS`; raises `ProtocolError` if it is not what Phoenix sends."""
        check_presence(message.event, message.payload)
        if message.event == STATE:
            # To followers the state is told as a difference to what is known; else it is all there is to know.
            self._known = self._known.rejoined() if self._followers else Presence()
            self._frames = [*self._pending, frame]
            self._state_size, self._diffs_size = _size(frame), self._pending_size
            self._drop_pending()
            self._synced = True
        elif self._synced:
            self._frames.append(frame)
            self._diffs_size += _size(frame)
        else:
            pending = self._pending
            pending.append(frame)
            self._pending_size += _size(frame)
            while len(pending) > MOST_PENDING or (self._pending_size > MOST_PENDING_BYTES and len(pending) > 1):
                self._pending_size -= _size(pending.pop(0))  # of a thousand, at most
            return
        if self._followers or self._diffs_size > self._state_size:
            self._show(self._fold())

    def rejoined(self) -> None:
        """A join was sent: what is known is shown until its state comes, and the channel is open again."""
        self._drop_pending()
        for follower in self._followers.values():
            follower.reopen()
        self.lost()

    def lost(self) -> None:
        """The server tells of no change any more: the connection is lost, or the channel on the server."""
        self._synced = False
        self._show(())

    def close(self) -> None:
        """The channel has ended: end the iterations of followers."""
        self.lost()
        for follower in self._followers.values():
            follower.close()

    @contextmanager
    @trio.lowlevel.enable_ki_protection
    def follow(self, buffer: int) -> Iterator["ChannelPresence"]:
        """Show who is there, for the time of a `with` block; `buffer` changes wait for who iterates over it."""
        self._fold()
        presence = ChannelPresence(self._topic, self._socket, self._shown(), buffer)
        self._followers[id(presence)] = presence
        try:
            yield presence
        finally:
            del self._followers[id(presence)]
            presence.close()

    def _drop_pending(self) -> None:
        self._pending.clear()
        self._pending_size = 0

    def _fold(self) -> tuple[PresenceChange, ...]:
        frames, self._frames, self._diffs_size = self._frames, [], 0
        # Anew: what a frame was decoded to is its reader's, who may change it.
        messages = map(self._socket._serializer.decode, frames)
        self._known, changes = self._known.received_all((message.event, message.payload) for message in messages)
        return changes

    def _shown(self) -> Presence:
        return evolve(self._known, synced=self._synced)

    def _show(self, changes: tuple[PresenceChange, ...]) -> None:
        shown = self._shown() if self._followers else self._known
        for follower in list(self._followers.values()):
            follower.update(shown, changes)


@final
class ChannelPresence(Mapping[str, Mapping[str, Any]]):
    """The presences on a channel: a mapping from key to presence, `{"metas": […]}`, kept up to date.

    Iterate over it asynchronously for the changes: `async for change in presence`. Callbacks can be given too; they are
    called synchronously (an async one is refused by a `TypeError`), one that raises is logged. All that it gives are
    copies, which may be changed.

    Attributes:
        dropped: how many changes did not fit into the buffer of the async iteration; the oldest go first.
    """

    def __init__(self, topic: str, socket: "Socket", presence: Presence, buffer: int) -> None:
        self.dropped: int = 0
        self._topic = topic
        self._socket = socket
        self._closed = False
        self._presence = presence
        self._changes: deque[PresenceChange] = deque(maxlen=buffer)
        self._readers = trio.lowlevel.ParkingLot()
        self._callbacks: dict[str, list[Callable[[Any], object]]] = {"join": [], "leave": [], "sync": []}

    def __repr__(self) -> str:
        return f"<ChannelPresence {self._topic!r} {len(self)} present>"

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        presence: Mapping[str, Any] = _copied(self._presence.entries[key])
        return presence

    def __contains__(self, key: object) -> bool:
        return key in self._presence.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._presence.entries)

    def __len__(self) -> int:
        return len(self._presence.entries)

    @property
    def synced(self) -> bool:
        """Whether the server's state of the latest join has come, and that join has not ended since."""
        return self._presence.synced and not self._socket._is_lost

    def list(self, by: Callable[[str, Mapping[str, Any]], T]) -> list[T]:
        """Return what `by` makes of every key and presence, such as `lambda key, presence: presence["metas"][0]`."""
        return [by(key, presence) for key, presence in self.items()]

    def on_join(self, callback: Callable[[PresenceChange], object]) -> None:
        """Call `callback`, a synchronous function, whenever a presence, or a meta of one, has come."""
        self._callbacks["join"].append(_synchronous(callback))

    def on_leave(self, callback: Callable[[PresenceChange], object]) -> None:
        """Call `callback`, a synchronous function, whenever a presence, or a meta of one, has gone."""
        self._callbacks["leave"].append(_synchronous(callback))

    def on_sync(self, callback: Callable[[Presences], object]) -> None:
        """Call `callback`, a synchronous function, with all presences whenever a message of the server was taken in."""
        self._callbacks["sync"].append(_synchronous(callback))

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection  # or an interrupt might lose a change
    async def __anext__(self) -> PresenceChange:
        """Return the next change; iteration ends with the channel."""
        await trio.lowlevel.checkpoint()
        while not self._changes:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        return _copied_change(self._changes.popleft())

    def update(self, presence: Presence, changes: tuple[PresenceChange, ...]) -> None:
        """Take in what is known now, and what has changed; the channel calls this."""
        self._presence = presence
        for change in changes:
            if len(self._changes) == self._changes.maxlen:
                self.dropped += 1
            self._changes.append(change)
            self._readers.unpark()
            for callback in self._callbacks[change.kind]:
                self._call(callback, _copied_change(change))
        if presence.synced:
            for callback in self._callbacks["sync"]:
                self._call(callback, View(presence.entries, _copied))  # most look at few, which are copied then

    def reopen(self) -> None:
        """Let iterations wait for changes again; the channel calls this when it is joined anew."""
        self._closed = False

    def close(self) -> None:
        """End the iteration; the channel calls this when it ends."""
        self._closed = True
        self._readers.unpark_all()

    def _call(self, callback: Callable[[Any], object], argument: Any) -> None:
        try:
            callback(argument)
        except Exception:
            logger.exception("a presence callback of %r failed", self._topic)


def _copied(value: Any) -> Any:
    """Return a deep copy, fast for what JSON has; a serializer of the user's may have decoded to anything."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    return deepcopy(value)


def _copied_change(change: PresenceChange) -> PresenceChange:
    metas = tuple(_copied(meta) for meta in change.metas)
    return PresenceChange(change.kind, change.key, _copied(change.before), metas, _copied(change.after))


def _size(frame: Frame) -> int:
    """Return the bytes of a frame."""
    return len(frame if isinstance(frame, bytes) else frame.encode(errors="replace"))


def _synchronous(callback: F) -> F:
    """Return a callback that can be called as callbacks are; raises TypeError for another one."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError("a callback is a function that is not async: to await something, iterate over the changes")
    return callback
