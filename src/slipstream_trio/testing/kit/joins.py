"""Which joins a client waits for, and which have led to a channel."""

from typing import TYPE_CHECKING

from .channel import FakeChannel

if TYPE_CHECKING:
    from .connection import FakeConnection

__all__ = ["Joins"]


class Joins:
    """The joins of one client: of each topic the latest that has no answer, and the channel that was joined.

    Answers may be late, or given twice. One to a join that the client has left, or replaced by another, joins nothing.

    Parameters:
        connection: the client's connection.

    Attributes:
        channels: the channels that are joined, by topic.
    """

    def __init__(self, connection: "FakeConnection") -> None:
        self.channels: dict[str, FakeChannel] = {}
        self._connection = connection
        self._awaited: dict[str, str | None] = {}

    def ask(self, topic: str, join_ref: str | None) -> None:
        """Take note of a join that has come; one of the same topic that came before is over."""
        self._awaited[topic] = join_ref

    def answer(self, topic: str, join_ref: str | None, *, accepted: bool) -> FakeChannel:
        """Take note of an answer; returns the channel of its join, which is joined only if the client waited for it."""
        known = self.channels.get(topic)
        if known is not None and known.join_ref == join_ref:
            return known  # whatever is said a second time changes nothing
        channel = FakeChannel(self._connection, topic, join_ref)
        if self._is_awaited(topic, join_ref):
            del self._awaited[topic]
            if accepted:
                self.channels[topic] = channel
        return channel

    def leave(self, topic: str, join_ref: str | None) -> FakeChannel | None:
        """Take note of a leave that is confirmed; returns the channel that ends with it, which stays until it has."""
        channel = self.channels.get(topic)
        if self._is_awaited(topic, join_ref) or join_ref is None:
            self._awaited.pop(topic, None)
        return channel if channel is not None and join_ref in (channel.join_ref, None) else None

    def end(self, channel: FakeChannel) -> None:
        """Take note of a channel's end."""
        if channel.joined:
            del self.channels[channel.topic]

    def clear(self) -> None:
        """Take note of the connection's end."""
        self.channels.clear()
        self._awaited.clear()

    def _is_awaited(self, topic: str, join_ref: str | None) -> bool:
        return topic in self._awaited and self._awaited[topic] == join_ref
