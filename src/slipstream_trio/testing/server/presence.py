"""The topics of a server: its broadcasts, and its presences with their diffs."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ...protocol.message import Frame
from .framing import frame_bytes

if TYPE_CHECKING:
    from .process import Process

__all__ = ["ChannelPresence", "Presence", "PubSub"]

DIFF: Final = "presence_diff"

_Tracked = tuple[str, dict[str, Any]]
"""A key, and a meta under it."""


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


@attrs.define(eq=False)
class _Entry:
    """One meta that a channel tracks under a key."""

    owner: "Process"
    meta: dict[str, Any]


class Presence:
    """All presences of a server.

    As Phoenix does, a diff is broadcast by a task of its own, a moment after the change: a handler that returns
    its reply at once has its reply before its own diff, one that awaits in between has it after.

    Attributes:
        topics: by topic and key.
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self.topics: dict[str, dict[str, list[_Entry]]] = {}
        self._refs = count(1)
        self._diffs: deque[tuple[str, dict[str, Any]]] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def next_ref(self) -> str:
        """Return the phx_ref of a new meta."""
        return f"F{next(self._refs):015x}"

    def untrack(self, owner: "Process", key: str | None = None) -> None:
        """Remove the channel's meta under a key, or, with None, under every key, in one diff."""
        keys = self.topics.get(owner.topic, {})
        leaves: list[_Tracked] = []
        for name in list(keys) if key is None else [key]:
            entries = keys.get(name, [])
            leaves += [(name, entry.meta) for entry in entries if entry.owner is owner]
            keys[name] = [entry for entry in entries if entry.owner is not owner]
            if not keys[name]:
                del keys[name]
        if not keys:
            self.topics.pop(owner.topic, None)
        if leaves:
            self.tell(owner.topic, leaves=leaves)

    def tell(self, topic: str, joins: Sequence[_Tracked] = (), leaves: Sequence[_Tracked] = ()) -> None:
        """Have a diff broadcast."""
        self._diffs.append((topic, {"joins": _by_key(joins), "leaves": _by_key(leaves)}))
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


def _by_key(metas: Sequence[_Tracked]) -> dict[str, Any]:
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
        self._check(meta or {})
        if self._find(key) is not None:
            raise ValueError(f"this channel tracks {key!r} already: use update")
        entry = _Entry(self._process, {"phx_ref": self._presence.next_ref(), **(meta or {})})
        self._presence.topics.setdefault(self._process.topic, {}).setdefault(key, []).append(entry)
        self._presence.tell(self._process.topic, joins=[(key, entry.meta)])

    def update(self, key: str, meta: Mapping[str, Any]) -> None:
        """Replace the meta under `key`.

        Raises:
            ValueError: this channel does not track it.
            SerializationError: the meta is not JSON.
        """
        self._check(meta)
        entry = self._find(key)
        if entry is None:
            raise ValueError(f"this channel does not track {key!r}: use track")
        old = entry.meta
        entry.meta = {"phx_ref": self._presence.next_ref(), "phx_ref_prev": old["phx_ref"], **meta}
        self._presence.tell(self._process.topic, joins=[(key, entry.meta)], leaves=[(key, old)])

    def untrack(self, key: str) -> None:
        """Stop tracking `key`; does nothing where it is not tracked."""
        self._presence.untrack(self._process, key)

    def list(self) -> dict[str, Any]:
        """Return the topic's presences, as `presence_state` has them: key → {"metas": […]}."""
        # A list that already shows what no diff has told would have clients count a presence twice.
        self._presence.flush()
        keys = self._presence.topics.get(self._process.topic, {})
        return {key: {"metas": [dict(entry.meta) for entry in keys[key]]} for key in sorted(keys)}

    def _find(self, key: str) -> _Entry | None:
        entries = self._presence.topics.get(self._process.topic, {}).get(key, [])
        return next((entry for entry in entries if entry.owner is self._process), None)

    def _check(self, meta: Mapping[str, Any]) -> None:
        self._process.check_joined()
        self._process.connection.wire.encode_broadcast(self._process.topic, DIFF, dict(meta))
