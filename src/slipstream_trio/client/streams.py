"""Where a channel's messages go: the buffer of those who iterate over it, and a buffer for each subscription."""

from collections.abc import Callable
from typing import Literal

from ..protocol import Message
from ..telemetry import BufferOverflowed, GapOpened
from .buffer import Buffer, Crowd, Gap, Overflow
from .session import Session
from .spans import moment
from .tap import ChannelTap

__all__ = ["Streams"]

EndOfStream = Callable[[], BaseException]
"""Returns what a reader gets who comes to the end: an exception of its own."""


class Streams:
    """The buffers of a channel.

    Parameters:
        session: the inside of the channel's socket.
        topic: the channel's.

    Attributes:
        buffer: what waits for those who iterate over the channel.
        last_gap: the latest place where messages may be missing.
        tap: who is given the messages in place of `buffer`; None if nobody is.
    """

    def __init__(self, session: Session, topic: str) -> None:
        self.last_gap: Gap | None = None
        self.tap: ChannelTap | None = None
        self._session = session
        self._topic = topic
        self._subscribed: dict[str | None, list[Buffer]] = {}
        self.buffer: Buffer = self._new_buffer("channel", None, None)

    def open(self) -> None:
        """Take messages, also after an end."""
        for buffer in self._buffers():
            buffer.open()

    def put(self, message: Message) -> Crowd | None:
        """Buffer a message; returns a buffer that is more than half full."""
        if self.tap is not None:
            crowded = self.tap.message(message)
        else:
            self.buffer.put(message)
            crowded = self.buffer if self.buffer.crowded else None
        if self._subscribed:
            for key in (None, message.event):
                for buffer in self._subscribed.get(key, ()):
                    buffer.put(message)
                    crowded = buffer if buffer.crowded else crowded
        return crowded

    def subscribe(
        self, events: tuple[str, ...], limit: int | None, policy: Overflow | None
    ) -> tuple[Buffer, Callable[[], None]]:
        """Return a buffer that gets these events (all, if there are none), and what ends that."""
        buffer = self._new_buffer("subscription", limit, policy)
        keys: tuple[str | None, ...] = tuple(dict.fromkeys(events)) or (None,)
        for key in keys:
            self._subscribed.setdefault(key, []).append(buffer)

        def end() -> None:
            for key in keys:
                self._subscribed[key].remove(buffer)
                if not self._subscribed[key]:
                    del self._subscribed[key]
            buffer.close(StopAsyncIteration)

        return buffer, end

    def mark(self, gap: Gap) -> None:
        """Mark a place where messages may be missing, and tell of it."""
        self.last_gap = gap
        for buffer in self._buffers():
            buffer.mark(gap)
        if self.tap is not None:
            self.tap.gap(gap)
        self.tell_gap(gap)

    def tell_gap(self, gap: Gap) -> None:
        """Emit where messages may be missing, or how many are."""
        point = self._session.gap_point
        if point.handlers:
            point.emit(GapOpened(*moment(self._session), self._topic, gap.reason, gap.since, gap.until, gap.dropped))

    def close(self, end: EndOfStream) -> None:
        """End all of them."""
        for buffer in self._buffers():
            buffer.close(end)

    def close_open(self, end: EndOfStream) -> None:
        """End those that have no end yet."""
        for buffer in self._buffers():
            if buffer.is_open:
                buffer.close(end)

    def _buffers(self) -> list[Buffer]:
        """The channel's buffer, and those of subscriptions, each once."""
        subscribed = {id(buffer): buffer for buffers in self._subscribed.values() for buffer in buffers}
        return [self.buffer, *subscribed.values()]

    def _new_buffer(
        self, consumer: Literal["channel", "subscription"], limit: int | None, policy: Overflow | None
    ) -> Buffer:
        session = self._session
        size = session.configuration.buffer if limit is None else limit
        overflow = session.configuration.overflow if policy is None else policy
        point = session.telemetry.point(BufferOverflowed.name)

        def overflowed(gap: Gap, first: bool) -> None:  # noqa: FBT001
            self.last_gap = gap
            if first and point.handlers:
                point.emit(BufferOverflowed(*moment(session), self._topic, overflow, size, consumer))

        buffer = Buffer(self._topic, size, overflow, now=session.utc_now, overflowed=overflowed, told=self.tell_gap)
        if session.status == "closed":
            buffer.close(StopAsyncIteration)  # nothing will ever come
        return buffer
