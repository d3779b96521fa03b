"""Who is there, as a user sees it."""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar, final

import trio

from ..protocol import Message, Presence, PresenceChange, Presences

__all__ = ["ChannelPresence", "PresenceTracker"]

T = TypeVar("T")
F = TypeVar("F")

logger: Final = logging.getLogger("slipstream_trio")


@final
class ChannelPresence(Mapping[str, Mapping[str, Any]]):
    """Who is on a channel: a mapping from key to presence, `{"metas": […]}`, kept up to date.

    Iterate over it asynchronously for the changes: `async for change in presence`. Callbacks can be given too; they are
    called synchronously, one that raises is logged.

    Attributes:
        dropped: how many changes did not fit into the buffer of the async iteration; the oldest go first.
    """

    def __init__(self, topic: str, presence: Presence, buffer: int) -> None:
        self.dropped: int = 0
        self._topic = topic
        self._closed = False
        self._presence = presence
        self._changes: deque[PresenceChange] = deque(maxlen=buffer)
        self._readers = trio.lowlevel.ParkingLot()
        self._joined: list[Callable[[PresenceChange], object]] = []
        self._left: list[Callable[[PresenceChange], object]] = []
        self._synced: list[Callable[[Presences], object]] = []

    def __repr__(self) -> str:
        return f"<ChannelPresence {self._topic!r} {len(self)} present>"

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._presence.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._presence.entries)

    def __len__(self) -> int:
        return len(self._presence.entries)

    @property
    def synced(self) -> bool:
        """Whether the server's state has come since the latest join."""
        return self._presence.synced

    def list(self, by: Callable[[str, Mapping[str, Any]], T]) -> list[T]:
        """Return what `by` makes of every key and presence, such as `lambda key, presence: presence["metas"][0]`."""
        return [by(key, presence) for key, presence in self._presence.entries.items()]

    def on_join(self, callback: Callable[[PresenceChange], object]) -> None:
        """Call `callback` whenever a presence, or a meta of one, has come.

        Raises:
            TypeError: it is async.
        """
        self._joined.append(_synchronous(callback))

    def on_leave(self, callback: Callable[[PresenceChange], object]) -> None:
        """Call `callback` whenever a presence, or a meta of one, has gone.

        Raises:
            TypeError: it is async.
        """
        self._left.append(_synchronous(callback))

    def on_sync(self, callback: Callable[[Presences], object]) -> None:
        """Call `callback` with all presences whenever a message of the server has been taken in.

        Raises:
            TypeError: it is async.
        """
        self._synced.append(_synchronous(callback))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceChange:
        """Return the next change; iteration ends with the channel."""
        await trio.lowlevel.checkpoint()
        while not self._changes:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        return self._changes.popleft()

    def update(self, presence: Presence, changes: tuple[PresenceChange, ...]) -> None:
        """Take in what is known now, and what has changed; the channel calls this."""
        self._presence = presence
        self._closed = False
        for change in changes:
            if len(self._changes) == self._changes.maxlen:
                self.dropped += 1
            self._changes.append(change)
            self._readers.unpark()
            for callback in self._joined if change.kind == "join" else self._left:
                self._call(callback, change)
        if presence.synced:
            for listener in self._synced:
                self._call(listener, presence.entries)

    def close(self) -> None:
        """End the iteration; the channel calls this when it ends."""
        self._closed = True
        self._readers.unpark_all()

    def _call(self, callback: Callable[[Any], object], argument: Any) -> None:
        try:
            callback(argument)
        except Exception:
            logger.exception("a presence callback of %r failed", self._topic)


def _synchronous(callback: F) -> F:
    """Return a callback that can be called as callbacks are; raises TypeError for another one."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError("a callback is a function that is not async: to await something, iterate over the changes")
    return callback


@final
class PresenceTracker:
    """The presences of one channel, from its join on, and the users that follow them."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._presence = Presence()
        self._followers: list[ChannelPresence] = []

    def received(self, message: Message) -> None:
        """Take in a message that carries presences; raises `ProtocolError` for a malformed one."""
        self._presence, changes = self._presence.received(message.event, message.payload)
        self._update(changes)

    def rejoined(self) -> None:
        """Take note that a join was sent: its state is still to come."""
        self._presence = self._presence.rejoined()
        self._update(())

    @contextmanager
    def follow(self, buffer: int) -> Iterator[ChannelPresence]:
        """Let a user follow the presences, with room for so many changes that wait."""
        follower = ChannelPresence(self._topic, self._presence, buffer)
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)
            follower.close()

    def close(self) -> None:
        """End the iterations, as the channel has ended."""
        for follower in self._followers:
            follower.close()

    def _update(self, changes: tuple[PresenceChange, ...]) -> None:
        for follower in list(self._followers):
            follower.update(self._presence, changes)
