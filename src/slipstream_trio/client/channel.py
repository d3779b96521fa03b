"""A channel, as its user sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Final, Literal, Self, final

from ..errors import SerializationError
from ..protocol import RESERVED_EVENTS, Message
from .buffer import Buffer, Gap, Overflow
from .configuration import checked_events, checked_overflow, checked_seconds, checked_size
from .membership import ChannelStatus, Membership
from .operations import join, leave, leave_soon, push, send
from .presence import ChannelPresence

__all__ = ["DEFAULT", "Channel", "Default", "Stream", "Subscription", "Timeout", "check_event", "check_topic", "chosen"]


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: what `connect` was told for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


@final
class Stream:
    """An async iterator over messages, and gaps where some may be missing: what `stream` gives."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        """Return the next message or gap; raises as `Subscription.__anext__`."""
        return await self._buffer.get_item()


@final
class Subscription:
    """An async iterator over a channel's messages with certain events, with a buffer of its own.

    Tasks that iterate over the same subscription share its messages.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    @property
    def dropped(self) -> int:
        """How many messages did not fit into its buffer so far."""
        return self._buffer.dropped

    def stream(self) -> Stream:
        """Iterate over the messages, and the gaps between them."""
        return Stream(self._buffer)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Return the next message.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; iteration may go on.
            ChannelClosed: the channel crashed, and is not joined again.
            JoinError: joining it again was refused, and given up.
            ConnectionLost: the connection ended for good, and that was not asked for.
        """
        return await self._buffer.get()


@final
class Channel:
    """A topic on a socket. It survives reconnects and crashes: it is joined again, as `rejoin` says.

    Iterate over it for its messages: `async for message in channel`. Tasks that do share its messages; `subscribe`
    gives a stream of its own. Its messages are buffered from the join on. Iteration ends when the channel is left or
    the server closes it.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._options = membership.session.options

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self.status}>"

    @property
    def topic(self) -> str:
        """The topic."""
        return self._membership.topic

    @property
    def status(self) -> ChannelStatus:
        """One of "closed", "joining", "joined", "leaving", "errored" (it waits to be joined again, or has crashed)."""
        return self._membership.status

    @property
    def join_ref(self) -> str | None:
        """The ref of the latest join; None before the first."""
        return self._membership.join_ref

    @property
    def join_response(self) -> Any:
        """The server's answer to the latest join."""
        return self._membership.join_response

    @property
    def last_gap(self) -> Gap | None:
        """The latest place where messages may be missing, None if there was none."""
        return self._membership.streams.last_gap

    @property
    def dropped(self) -> int:
        """How many messages did not fit into the channel's own buffer so far."""
        return self._membership.streams.buffer.dropped

    async def join(self, *, timeout: Timeout = DEFAULT) -> Any:
        """Join the topic; returns the server's answer.

        A cancelled join is taken back: the topic is left. A topic that is being left is waited for.

        Parameters:
            timeout: seconds to wait for the answer, None for ever; by default `join_timeout`.

        Raises:
            ConfigurationError: `timeout` is no number of seconds above 0.
            AlreadyJoined: this socket holds the topic.
            JoinError: the server refused.
            JoinTimeout: it did not answer in time.
            ChannelClosed: the channel ended, or another task left it, before the answer.
            ConnectionLost: the connection ended first.
            SerializationError: the payload is not a JSON value.
        """
        return await join(self._membership, chosen(timeout, self._options.join_timeout))

    async def leave(self, *, timeout: Timeout = DEFAULT) -> None:
        """Leave the topic, and wait until the server has confirmed that.

        Does nothing if it is not joined. Pushes that are not answered by then raise `ChannelClosed`.

        Parameters:
            timeout: seconds to wait, None for ever; by default `leave_timeout`. Nothing is raised when they are over.

        Raises:
            ConfigurationError: `timeout` is no number of seconds above 0.
        """
        await leave(self._membership, chosen(timeout, self._options.leave_timeout))

    def leave_soon(self) -> None:
        """Send the leave, without waiting for anything; for clean-up in code that must not await."""
        leave_soon(self._membership, self._options.leave_timeout)

    async def push(self, event: str, payload: Any = None, *, timeout: Timeout = DEFAULT) -> Any:
        """Push a message, and wait for the reply; returns the response of a reply that is "ok".

        A push that is made while the channel is being joined waits for that. A push that is cancelled before it is
        queued was never sent; after that it may have been, and its reply is dropped. It never leaves half a frame.

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.
            timeout: seconds to wait for the reply, None for ever; by default `push_timeout`.

        Raises:
            ValueError: the event is one of the protocol's, such as "phx_leave".
            ConfigurationError: `timeout` is no number of seconds above 0.
            PushError: the reply's status is not "ok".
            PushTimeout: no reply came in time.
            ChannelClosed: the channel is not joined, or ended before the reply.
            ConnectionLost: the connection ended before the reply.
            SerializationError: the event is no string, or the payload no JSON value; nothing was sent.
            ValueError: the event is one of the protocol's.
        """
        check_event(event)
        seconds = self._options.push_timeout if timeout is DEFAULT else checked_seconds("timeout", timeout)
        return await push(self._membership, event, {} if payload is None else payload, seconds)

    async def send(self, event: str, payload: Any = None) -> None:
        """Push a message whose reply, if there is one, is of no interest; returns when it is queued.

        If the connection ends before it is written, telemetry says so (`message_dropped`).

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.

        Raises:
            ValueError: the event is one of the protocol's, such as "phx_leave".
            ChannelClosed: the channel is not joined.
            ConnectionLost: the connection has ended.
            SerializationError: the event is no string, or the payload no JSON value; nothing was sent.
            ValueError: the event is one of the protocol's.
        """
        check_event(event)
        await send(self._membership, event, {} if payload is None else payload)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the channel's messages; see `Subscription.__anext__` for what it raises."""
        return Subscription(self._own_buffer())

    def stream(self) -> Stream:
        """Iterate over the channel's messages, and the gaps where some may be missing.

        It is another view of the channel's own stream: who iterates over the channel and who iterates over this share
        the messages.
        """
        return Stream(self._own_buffer())

    def _own_buffer(self) -> Buffer:
        if self._membership.streams.tap is not None:
            raise RuntimeError("the messages of a Client's channel go to handle_message; or use subscribe()")
        return self._membership.streams.buffer

    @asynccontextmanager
    async def subscribe(
        self, *events: str, buffer: int | None = None, overflow: Overflow | None = None
    ) -> AsyncIterator[Subscription]:
        """Get these events in a buffer of one's own, for the time of an `async with` block.

        It sees what arrives after it opened, however often the topic is joined anew; to miss nothing, open it on
        `socket.channel(topic)`, then `join`. The channel's own stream sees these messages too.

        Parameters:
            events: their names; none means all.
            buffer: how many messages wait; by default what `connect` was told.
            overflow: what happens when there are more; by default what `connect` was told.

        Raises:
            ConfigurationError: an event is no string, or `buffer` or `overflow` cannot be used.
        """
        checked_events("events", events)
        if buffer is not None:
            checked_size("buffer", buffer)
        if overflow is not None:
            checked_overflow("overflow", overflow)
        messages, end = self._membership.streams.subscribe(events, buffer, overflow)
        try:
            yield Subscription(messages)
        finally:
            end()

    @asynccontextmanager
    async def presence(self, *, buffer: int = 1024) -> AsyncIterator[ChannelPresence]:
        """Follow who is there, for the time of an `async with` block.

        Presences are tracked from the join on, so nothing is missed before this is called.

        Parameters:
            buffer: how many changes wait for who iterates over it.

        Raises:
            ConfigurationError: `buffer` is not at least 1.
        """
        checked_size("buffer", buffer)
        membership = self._membership
        presence = ChannelPresence(membership.topic, membership.presence, buffer)
        end = membership.listen_to_presence(presence)
        if membership.session.status == "closed":
            presence.close()
        try:
            yield presence
        finally:
            end()
            presence.close()


def chosen(timeout: Timeout, default: float | None) -> float | None:
    """Return the seconds that a call was given, or else the option's; raises `ConfigurationError` for no timeout."""
    return default if timeout is DEFAULT else checked_seconds("timeout", timeout)


def check_event(event: str) -> None:
    """Raise `SerializationError` for an event that is no string, `ValueError` for one of the protocol's own."""
    if not isinstance(event, str):
        raise SerializationError(f"an event is a string, not {type(event).__name__}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")


def check_topic(topic: str) -> None:
    """Raise `SerializationError` for a topic that is no string: the server would hang up on it."""
    if not isinstance(topic, str):
        raise SerializationError(f"a topic is a string, not {type(topic).__name__}")
