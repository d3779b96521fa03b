"""Who has joined which topic, and broadcasts to them."""

from typing import TYPE_CHECKING, Any

from ...protocol.message import Frame
from .framing import frame_bytes

if TYPE_CHECKING:
    from .process import Process

__all__ = ["PubSub"]


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

    def subscribers(self, topic: str) -> "tuple[Process, ...]":
        """Return the channels joined to a topic, in the order of their joins."""
        return tuple(self._topics.get(topic, ()))

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
