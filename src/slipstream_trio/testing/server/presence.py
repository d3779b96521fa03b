"""The topics of a server: its broadcasts, and its presences with their diffs."""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ...protocol.message import Message
from .wire import frame_bytes

if TYPE_CHECKING:
    from .channel import Channel, Process

DIFF: Final = "presence_diff"

Meta: TypeAlias = dict[str, Any]


class PubSub:
    """The topics of a server, the channels joined to each, and the diffs of their presences.

    As Phoenix does, a diff is broadcast by a task of its own, a moment after the change: a handler that returns
    its reply at once has its reply before its own diff, one that awaits in between has it after.
    """

    def __init__(self) -> None:
        self.topics: dict[str, dict[Process, None]] = {}
        self.refs: Iterator[int] = count(1)  # of metas
        self._diffs: deque[tuple[str, dict[str, Any]]] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def subscribe(self, process: "Process") -> None:
        """Let a channel get the broadcasts to its topic."""
        self.topics.setdefault(process.topic, {})[process] = None

    def unsubscribe(self, process: "Process") -> None:
        """Let a channel get no more broadcasts."""
        subscribers = self.topics.get(process.topic, {})
        subscribers.pop(process, None)
        if not subscribers:
            self.topics.pop(process.topic, None)

    def broadcast(self, topic: str, event: str, payload: Any, *, exclude: "Channel | None" = None) -> bool:
        """Queue a message for each channel of a topic, encoded once per serializer; else `SerializationError`.

        Returns whether some client has much to read still: the caller should then pass the scheduler.
        """
        told = [process.connection for process in self.topics.get(topic, ()) if process.channel is not exclude]
        wires = {connection.wire.vsn: connection.wire for connection in told}
        frames = {vsn: wire.encode(Message(None, None, topic, event, payload)) for vsn, wire in wires.items()}
        shared = {vsn: frame_bytes(frame) for vsn, frame in frames.items()}
        congested = [each.deliver(frames[each.wire.vsn], shared[each.wire.vsn]) for each in told]
        return any(congested)

    def tell(self, topic: str, joins: Mapping[str, Meta], leaves: Mapping[str, Meta]) -> None:
        """Have a diff of one channel's presences broadcast."""
        diff = {"joins": joins, "leaves": leaves}
        shown = {name: {key: {"metas": [meta]} for key, meta in metas.items()} for name, metas in diff.items()}
        self._diffs.append((topic, shown))
        self._changed.unpark_all()

    def flush(self) -> None:
        """Broadcast the diffs that wait."""
        while self._diffs:
            topic, diff = self._diffs.popleft()
            self.broadcast(topic, DIFF, diff)

    async def run(self) -> None:
        """Broadcast diffs until cancelled."""
        while True:
            self.flush()
            await self._changed.park()


class ChannelPresence:
    """The presences of a channel's topic, and its own ones among them, by key: `metas`; `Channel.presence`."""

    def __init__(self, process: "Process") -> None:
        self._pubsub = process.connection.server.pubsub
        self._process = process
        self.metas: dict[str, Meta] = {}

    def track(self, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Track `key` with a meta for as long as this channel lives.

        Raises:
            ValueError: this channel tracks it already.
            SerializationError: the meta is not JSON.
        """
        self._check(meta or {})
        if key in self.metas:
            raise ValueError(f"this channel tracks {key!r} already: use update")
        self.metas[key] = {"phx_ref": f"F{next(self._pubsub.refs):015x}", **(meta or {})}
        self._pubsub.tell(self._process.topic, {key: self.metas[key]}, {})

    def update(self, key: str, meta: Mapping[str, Any]) -> None:
        """Replace the meta under `key`.

        Raises:
            ValueError: this channel does not track it.
            SerializationError: the meta is not JSON.
        """
        self._check(meta)
        if (old := self.metas.get(key)) is None:
            raise ValueError(f"this channel does not track {key!r}: use track")
        self.metas[key] = {"phx_ref": f"F{next(self._pubsub.refs):015x}", "phx_ref_prev": old["phx_ref"], **meta}
        self._pubsub.tell(self._process.topic, {key: self.metas[key]}, {key: old})

    def untrack(self, key: str) -> None:
        """Stop tracking `key`; does nothing where it is not tracked."""
        if key in self.metas:
            self._pubsub.tell(self._process.topic, {}, {key: self.metas.pop(key)})

    def list(self) -> dict[str, Any]:
        """Return the topic's presences, as `presence_state` has them: key → {"metas": […]}."""
        # A list that already shows what no diff has told would have clients count a presence twice.
        self._pubsub.flush()
        listed: dict[str, Any] = {}
        subscribers = self._pubsub.topics.get(self._process.topic, ())
        metas = (pair for process in subscribers for pair in process.channel.presence.metas.items())
        for key, meta in sorted(metas, key=itemgetter(0)):
            listed.setdefault(key, {"metas": []})["metas"].append(dict(meta))
        return listed

    def end(self) -> None:
        """Stop tracking all, in one diff; for the server alone."""
        metas, self.metas = self.metas, {}
        if metas:
            self._pubsub.tell(self._process.topic, {}, metas)

    def _check(self, new: Mapping[str, Any]) -> None:
        self._process.check_joined()
        self._process.connection.wire.encode(Message(None, None, self._process.topic, DIFF, dict(new)))
