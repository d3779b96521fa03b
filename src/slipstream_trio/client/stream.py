"""Streams as their readers see them: messages, and gaps where some may be missing."""

from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self, final

from attrs import evolve, frozen

from ..protocol import Message

if TYPE_CHECKING:
    from .buffer import Buffer

__all__ = ["Consumer", "Gap", "Overflow", "Stream", "Subscription", "merged"]

Overflow = Literal["raise", "drop_oldest", "drop_newest"]
"""The treatment of messages for a consumer whose buffer is full."""

Consumer = Literal["channel", "subscription", "client"]


@frozen
class Gap:
    """A place in a stream where messages may be missing.

    Attributes:
        reason: "reconnected" (the connection was lost), "rejoined" (the channel had crashed, or been closed by the
            server), or "overflow".
        since: when it began, in UTC.
        until: when it ended; with "overflow", when the last message was dropped.
        dropped: how many messages are known to be missing.
    """

    reason: Literal["reconnected", "rejoined", "overflow"]
    since: datetime
    until: datetime
    dropped: int = 0

    def __str__(self) -> str:
        lost = f"{self.dropped} messages were dropped" if self.dropped else "messages may be missing"
        since, until = (time.isoformat(" ", "milliseconds") for time in (self.since, self.until))
        return f"{lost} ({self.reason}) from {since} to {until}"


def merged(first: Gap, second: Gap) -> Gap:
    """Return one gap that tells of two, of which `first` came first."""
    reason = first.reason if first.reason != "overflow" else second.reason
    return evolve(first, reason=reason, until=max(first.until, second.until), dropped=first.dropped + second.dropped)


@final
class Stream:
    """An async iterator over messages, and gaps where some may be missing: what `stream` gives."""

    def __init__(self, buffer: "Buffer") -> None:
        self._buffer = buffer

    def __repr__(self) -> str:
        return f"<Stream {self._buffer!r}>"

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message | Gap]:
        """Return the next message or gap; raises as `Subscription.__anext__`."""
        return self._buffer.get(gaps=True)


@final
class Subscription:
    """An async iterator over a channel's messages with certain events, with a buffer of its own.

    Tasks that iterate over the same subscription share its messages.
    """

    def __init__(self, buffer: "Buffer") -> None:
        self._buffer = buffer

    def __repr__(self) -> str:
        return f"<Subscription {self._buffer!r}>"

    @property
    def dropped(self) -> int:
        """The number of messages that did not fit into its buffer so far."""
        return self._buffer.dropped

    def stream(self) -> Stream:
        """Iterate over the messages, and the gaps between them."""
        return Stream(self._buffer)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        """Return the next message.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; iteration may go on.
            ChannelClosed: the channel crashed, and is not joined again.
            JoinError: joining it again was refused, and given up.
            ConnectionLost: the connection ended for good, and that was not asked for.
        """
        return self._buffer.get(gaps=False)  # type: ignore[return-value] # gaps are passed over
