"""Streams: what readers see of buffers, and the one place that makes gaps."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, final

import trio
from attrs import define, field

from ..errors import ConfigurationError
from ..protocol import Message
from ..telemetry import GapOpened
from .buffer import Buffer, ByteLimit, Consumer, EndOfStream, Gap, Overflow
from .configuration import checked_overflow, checked_size
from .presence import PresenceTracker
from .spans import Emitter

if TYPE_CHECKING:
    from .socket import Socket


@final
class Stream:
    """An async iterator over messages, and gaps where some may be missing: what `stream` gives."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __repr__(self) -> str:
        return repr(self._buffer).replace("Messages", "Stream", 1)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message | Gap]:
        """Return the next message or gap; raises as `Subscription.__anext__`."""
        return self._buffer.__anext__(gaps=True)


@final
class Subscription:
    """An async iterator over a channel's messages with certain events, with a buffer of its own.

    Tasks that iterate over the same subscription share its messages.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __repr__(self) -> str:
        return repr(self._buffer).replace("Messages", "Subscription", 1)

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
        return self._buffer.__anext__()


@final
@define(eq=False, repr=False)
class Streams:
    """The buffers of a channel, its presences, and the one place that makes gaps."""

    topic: str
    _limit: int
    _policy: Overflow
    emitter: Emitter
    byte_limit: ByteLimit
    last_gap: Gap | None = field(default=None, init=False)
    dropped: int = field(default=0, init=False)  # of the own buffer, or that of the client
    subscribed: dict[str | None, list[Buffer]] = field(factory=dict, init=False)  # by event; None is all events
    # Since when messages may be missing, and when the streams ended, on Trio's clock.
    _missing: tuple[Literal["reconnected", "rejoined"], float] | None = field(default=None, init=False)
    _ended_at: float = field(default=0.0, init=False)
    _own: Buffer | None = field(default=None, init=False)
    _end: EndOfStream | None = field(default=None, init=False)  # of an own buffer that is not made yet
    _presences: PresenceTracker | None = field(default=None, init=False)

    @property
    def buffer(self) -> Buffer:
        """The messages that wait for those who iterate over the channel; made when it is asked for."""
        if self._own is None:
            own = Buffer(self, self._limit, self._policy, "channel")
            if self._end is not None:
                own.close(self._end)  # first: an interrupt may come in between, as this is a task of the user's
            self._own = own
        return self._own

    def presences(self, socket: "Socket") -> PresenceTracker:
        """Return what tracks the channel's presences; made for the first one, or when it is asked for."""
        if self._presences is None:
            self._presences = PresenceTracker(self.topic, socket)
        return self._presences

    def open(self) -> None:
        """Take messages, also after an end, as a join is sent."""
        if self._presences is not None:
            self._presences.rejoined()
        self._end = None
        for buffer in self.made():
            buffer.open()

    def put_subscribed(self, message: Message, size: int) -> Buffer | None:
        """Buffer a message for the subscriptions to its event; returns one that is more than half full."""
        crowded = None
        for key in (None, message.event):
            for buffer in self.subscribed.get(key, ()):
                crowded = buffer.put_sized(message, size) or crowded
        return crowded

    @contextmanager
    @trio.lowlevel.enable_ki_protection
    def subscribe(
        self, events: tuple[str, ...], limit: int | None, policy: Overflow | None, changed: Callable[[], None]
    ) -> Iterator[Buffer]:
        """Give a buffer that gets these events (all, if there are none) for a `with` block; `changed` is told."""
        check_names("events", events)
        buffer = Buffer(self, *checked_bounds(limit, policy, self._limit, self._policy), "subscription")
        keys: tuple[str | None, ...] = tuple(dict.fromkeys(events)) or (None,)
        for key in keys:
            self.subscribed.setdefault(key, []).append(buffer)
        changed()
        try:
            yield buffer
        finally:
            for key in keys:
                self.subscribed[key].remove(buffer)
                if not self.subscribed[key]:
                    del self.subscribed[key]
            changed()
            buffer.close(StopAsyncIteration)

    def close(self, end: EndOfStream) -> None:
        """End those that have not ended: readers are still to be told of an end before."""
        self._ended_at = trio.current_time()
        if self._end is None:
            self._end = end
        for buffer in self.made():
            if buffer._end is None:
                buffer.close(end)
        if self._presences is not None:
            self._presences.close()

    def made(self) -> list[Buffer]:
        """Return the channel's buffer, if it is made, and those of subscriptions, each once."""
        own = () if self._own is None else (self._own,)
        return list(dict.fromkeys([*own, *(each for some in self.subscribed.values() for each in some)]))

    def _all(self) -> list[Buffer]:
        """Return the same, and the channel's buffer in any case: its reader may come later, and should know."""
        return [self.buffer, *self.made()[1:]]  # where it is made, it is the first

    # Gaps

    def lost(self, reason: Literal["reconnected", "rejoined"], since: float) -> None:
        """Take note that messages may be missing since a time on Trio's clock, until they are `resumed`."""
        if self._presences is not None:
            self._presences.lost()
        self._missing = (reason, since)  # the only one: what is lost already is not lost again before it is resumed

    def forget(self) -> None:
        """Take note that the user has left: nothing is missing that was not given up."""
        self._missing = None

    def resumed(self) -> Gap | None:
        """Mark where messages may be missing, now that they come again; returns the gap, None if there is none.

        After a leave, that is where a reader has not come to the end yet: it would not notice the time between.
        """
        marked = self.made() if self._missing is None else self._all()
        reason, since = self._missing or ("rejoined", self._ended_at)
        if self._missing is None:
            marked = [buffer for buffer in marked if buffer.is_lagging]
        if not marked:
            return None
        now = self.emitter.utc_now()
        gap = Gap(reason, now - timedelta(seconds=trio.current_time() - since), now)
        self.last_gap, self._missing = gap, None
        for buffer in marked:
            buffer.mark(gap)
        self.emit(gap)
        return gap

    def new_overflow(self) -> Gap:
        """Return the gap of a message that is dropped now."""
        now = self.emitter.utc_now()
        return Gap("overflow", now, now, 1)

    def overflowed(self, gap: Gap, consumer: Consumer) -> None:
        """Take note of a dropped message."""
        self.last_gap = gap
        if consumer != "subscription":
            self.dropped += 1

    def emit(self, gap: Gap) -> None:
        """Tell of a gap, or of how many messages are missing."""
        self.emitter.emit(GapOpened, self.topic, gap.reason, gap.since, gap.until, gap.dropped)


def check_names(argument: str, value: Sequence[Any]) -> None:
    """Raise `ConfigurationError` unless all names are strings."""
    for name in value:
        if not isinstance(name, str):
            raise ConfigurationError(argument, f"names, each a string; not {type(name).__name__}")


def checked_bounds(buffer: Any, overflow: Any, default_buffer: int, default_overflow: Overflow) -> tuple[int, Overflow]:
    """Return a buffer's size and policy, by default those given last; raises `ConfigurationError` for others."""
    size = default_buffer if buffer is None else checked_size("buffer", buffer)
    return size, default_overflow if overflow is None else checked_overflow("overflow", overflow)
