"""Listeners: the messages of topics that a socket has not joined."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from ..errors import ConfigurationError
from ..protocol import Message, MessageDropped
from .buffer import Buffer, Streams
from .configuration import checked_events, checked_overflow, checked_size
from .stream import Overflow, Subscription

if TYPE_CHECKING:
    from .socket import Socket

__all__ = ["Listeners"]


@final
class Listeners:
    """The listeners of one socket."""

    __slots__ = ("_listeners", "_socket")

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._listeners: list[Listener] = []

    @contextmanager
    def listen(self, topics: tuple[str, ...], buffer: int | None, overflow: Overflow | None) -> Iterator[Subscription]:
        """Add a listener for the time of a `with` block; gives what its user reads."""
        checked_events("topics", topics)
        if not topics:
            raise ConfigurationError("topics", "at least one, such as '__absinthe__:doc:*'")
        listener = Listener(self._socket, topics, buffer, overflow)
        self._listeners.append(listener)
        try:
            yield Subscription(listener.buffer)
        finally:
            self._listeners.remove(listener)
            listener.close()
            listener.buffer.release()

    def message_dropped(self, dropped: MessageDropped, size: int) -> None:
        """Give a message that no channel takes, of so many bytes, to the listeners; tell of one that none takes."""
        message, took = dropped.message, False
        if message.join_ref is None and message.ref is None and message.topic not in self._socket._channels:
            for listener in self._listeners:
                took = listener.took(message, size) or took
        if not took:
            self._socket._emitter.dropped("in", message, dropped.reason)

    def buffers(self) -> Iterator[Buffer]:
        """Give the buffers of all."""
        return (listener.buffer for listener in self._listeners)

    def connection_lost(self) -> None:
        """Take note that messages may be missing from now on."""
        for listener in self._listeners:
            listener.connection_lost()

    def connection_opened(self) -> None:
        """Mark where messages may be missing."""
        for listener in self._listeners:
            listener.connection_opened()

    def close(self) -> None:
        """End, as the socket has."""
        for listener in self._listeners:
            listener.close()


@final
class Listener:
    """A stream of messages on topics that are not joined.

    Parameters:
        socket: the socket.
        topics: names, or beginnings of names with a `*` behind them.
        buffer: how many messages wait; None: as the socket's option says.
        overflow: what is dropped when there are more; likewise.

    Attributes:
        buffer: what its user reads.
    """

    def __init__(
        self, socket: "Socket", topics: tuple[str, ...], buffer: int | None, overflow: Overflow | None
    ) -> None:
        configuration = socket._configuration
        limit = configuration.buffer if buffer is None else checked_size("buffer", buffer)
        policy = configuration.overflow if overflow is None else checked_overflow("overflow", overflow)
        self._socket = socket
        self._names = frozenset(topics)
        self._beginnings = tuple(topic[:-1] for topic in topics if topic.endswith("*"))
        self._streams = Streams(", ".join(topics), limit, policy, socket._emitter, socket._byte_limit)
        self.buffer: Buffer = self._streams.buffer
        if socket.status == "closed":
            self.close()

    def took(self, message: Message, size: int) -> bool:
        """Take a message if it is on one of the topics; returns whether it is."""
        if message.topic not in self._names and not message.topic.startswith(self._beginnings):
            return False
        self.buffer.put_sized(message, size)
        return True

    def connection_lost(self) -> None:
        """Take note that messages may be missing from now on."""
        self._streams.lost("reconnected", self._socket._received_at)

    def connection_opened(self) -> None:
        """Mark where messages may be missing."""
        self._streams.resumed()

    def close(self) -> None:
        """End, as the block or the socket has."""
        self._streams.close(self._socket._ending.of_streams, anew=False)
