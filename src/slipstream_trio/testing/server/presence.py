"""The topics of a server: its broadcasts, and its presences with their diffs."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ...protocol.message import Frame
from .framing import frame_bytes

if TYPE_CHECKING:
    from .channel import Process

__all__ = ["ChannelPresence", "Presence", "PubSub"]

DIFF: Final = "presence_diff"

Meta: TypeAlias = dict[str, Any]
_Tracker: TypeAlias = "tuple[Process, str]"
"""A channel, and a key."""


class PubSub:
    """The topics of a server, and the channels joined to each."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[Process, None]] = {}

    def subscribe(self, process: "Process") -> None:
        """Let a channel get the broadcasts to its topic."""
        self._topics.setdefault(process.topic, {})[process] = None

    def unsubscribe(self, process: "Process") -> None:
        """Let a channel get no more broadcasts."""
        subscribers = self._topics.get(process.topic, {})
        subscribers.pop(process, None)
        if not subscribers:
            self._topics.pop(process.topic, None)

    def broadcast(self, topic: str, event: str, payload: Any, *, exclude: "Process | None" = None) -> bool:
        """Queue a message for each channel of a topic, encoded once per serializer; else `SerializationError`.

        Returns whether some client has much to read still: the caller should then pass the scheduler.
        """
        processes = [process for process in self._topics.get(topic, ()) if process is not exclude]
        frames: dict[str, tuple[Frame, bytes]] = {}
        for process in processes:
            wire = process.connection.wire
            if wire.vsn not in frames:
                frame = wire.encode_broadcast(topic, event, payload)
                frames[wire.vsn] = frame, frame_bytes(frame)
        congested = False
        for process in processes:
            frame, shared = frames[process.connection.wire.vsn]
            congested |= process.connection.deliver(frame, shared)
        return congested


class Presence:
    """All presences of a server.

    As Phoenix does, a diff is broadcast by a task of its own, a moment after the change: a handler that returns
    its reply at once has its reply before its own diff, one that awaits in between has it after.

    Attributes:
        topics: of each topic the metas, by the channel that tracks them and their key.
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self.topics: dict[str, dict[_Tracker, Meta]] = {}
        self._refs = count(1)
        self._diffs: deque[tuple[str, dict[str, Any]]] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def next_ref(self) -> str:
        """Return the phx_ref of a new meta."""
        return f"F{next(self._refs):015x}"

    def untrack(self, owner: "Process", key: str | None = None) -> None:
        """Remove the channel's meta under a key, or, with None, under every key, in one diff."""
        metas = self.topics.get(owner.topic, {})
        gone = [at for at in metas if at[0] is owner and key in (None, at[1])]
        leaves = [(at[1], metas.pop(at)) for at in gone]
        if not metas:
            self.topics.pop(owner.topic, None)
        if leaves:
            self.tell(owner.topic, leaves=leaves)

    def tell(self, topic: str, joins: Iterable[tuple[str, Meta]] = (), leaves: Iterable[tuple[str, Meta]] = ()) -> None:
        """Have a diff broadcast."""
        self._diffs.append((topic, {"joins": by_key(joins), "leaves": by_key(leaves)}))
        self._changed.unpark_all()

    def flush(self) -> None:
        """Broadcast the diffs that wait."""
        while self._diffs:
            topic, diff = self._diffs.popleft()
            self._pubsub.broadcast(topic, DIFF, diff)

    async def run(self) -> None:
        """Broadcast diffs until cancelled."""
        while True:
            self.flush()
            await self._changed.park()


def by_key(metas: Iterable[tuple[str, Meta]]) -> dict[str, Any]:
    """Return metas as messages have them: key → {"metas": […]}."""
    merged: dict[str, Any] = {}
    for key, meta in metas:
        merged.setdefault(key, {"metas": []})["metas"].append(meta)
    return merged


class ChannelPresence:
    """The presences of a channel's topic, and its own ones among them; `Channel.presence`."""

    def __init__(self, presence: Presence, process: "Process") -> None:
        self._presence = presence
        self._process = process

    def track(self, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Track `key` with a meta for as long as this channel lives.

        Raises:
            ValueError: this channel tracks it already.
            SerializationError: the meta is not JSON.
        """
        if self._own(key, meta or {}) is not None:
            raise ValueError(f"this channel tracks {key!r} already: use update")
        new = {"phx_ref": self._presence.next_ref(), **(meta or {})}
        self._presence.topics.setdefault(self._process.topic, {})[self._process, key] = new
        self._presence.tell(self._process.topic, joins=[(key, new)])

    def update(self, key: str, meta: Mapping[str, Any]) -> None:
        """Replace the meta under `key`.

        Raises:
            ValueError: this channel does not track it.
            SerializationError: the meta is not JSON.
        """
        old = self._own(key, meta)
        if old is None:
            raise ValueError(f"this channel does not track {key!r}: use track")
        new = {"phx_ref": self._presence.next_ref(), "phx_ref_prev": old["phx_ref"], **meta}
        self._presence.topics[self._process.topic][self._process, key] = new
        self._presence.tell(self._process.topic, joins=[(key, new)], leaves=[(key, old)])

    def untrack(self, key: str) -> None:
        """Stop tracking `key`; does nothing where it is not tracked."""
        self._presence.untrack(self._process, key)

    def list(self) -> dict[str, Any]:
        """Return the topic's presences, as `presence_state` has them: key → {"metas": […]}."""
        # A list that already shows what no diff has told would have clients count a presence twice.
        self._presence.flush()
        metas = self._presence.topics.get(self._process.topic, {})
        return by_key(sorted(((key, dict(meta)) for (_, key), meta in metas.items()), key=itemgetter(0)))

    def _own(self, key: str, new: Mapping[str, Any]) -> Meta | None:
        """Return the meta that the channel tracks under a key, once a new one was checked."""
        self._process.check_joined()
        self._process.connection.wire.encode_broadcast(self._process.topic, DIFF, dict(new))
        return self._presence.topics.get(self._process.topic, {}).get((self._process, key))
