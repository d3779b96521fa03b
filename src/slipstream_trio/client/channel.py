"""A channel, as its user sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Final, Literal, Self, final

from ..protocol import RESERVED_EVENTS, Message
from ..telemetry import (
    ClientJoinStart,
    ClientJoinStop,
    ClientLeaveStart,
    ClientLeaveStop,
    ClientPushStart,
    ClientPushStop,
    Origin,
    Outcome,
    Record,
)
from .buffer import Buffer
from .dial import ask
from .membership import ChannelStatus, Membership
from .spans import observed, opening

__all__ = ["DEFAULT", "Channel", "Default", "Subscription"]


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: what `connect` was told for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Return the next message.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; iteration may go on.
            ChannelClosed: the channel crashed.
            ConnectionLost: the connection ended, and that was not asked for.
        """
        return await self._buffer.get()


@final
class Channel:
    """A topic on a socket.

    Iterate over it for its messages: `async for message in channel`. Tasks that do share its messages; `subscribe`
    gives a stream of its own. Its messages are buffered from the join on. Iteration ends when the channel is left or
    the server closes it.
    """

    def __init__(self, membership: Membership, payload: Any) -> None:
        self._membership = membership
        self._payload = payload
        self._session = membership.session
        telemetry = membership.session.telemetry
        self._join_point = telemetry.span(ClientJoinStart.name[:-1])
        self._leave_point = telemetry.span(ClientLeaveStart.name[:-1])
        self._push_point = telemetry.span(ClientPushStart.name[:-1])

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self.status}>"

    @property
    def topic(self) -> str:
        """The topic."""
        return self._membership.topic

    @property
    def status(self) -> ChannelStatus:
        """One of "closed", "joining", "joined", "leaving", "errored" (it crashed)."""
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
    def dropped(self) -> int:
        """How many messages did not fit into the channel's own buffer so far."""
        return self._membership.buffer.dropped

    async def join(self, *, timeout: Timeout = DEFAULT) -> Any:
        """Join the topic; returns the server's answer.

        A cancelled join is taken back: the topic is left. A topic that is being left is waited for.

        Parameters:
            timeout: seconds to wait for the answer, None for ever; by default `join_timeout`.

        Raises:
            AlreadyJoined: this socket holds the topic.
            JoinError: the server refused.
            JoinTimeout: it did not answer in time.
            ConnectionLost: the connection ended first.
            SerializationError: the payload is not a JSON value.
        """
        seconds = self._session.options.join_timeout if timeout is DEFAULT else timeout
        params = await ask(self._payload)
        joining = self._membership.join(params, seconds)
        if not self._join_point.active:
            return await joining
        start = ClientJoinStart(*opening(self._session), self.topic, params)

        def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
            return ClientJoinStop(start, origin, now, outcome, getattr(error, "response", response))

        return await observed(self._session, self._join_point, start, joining, stop)

    async def leave(self, *, timeout: Timeout = DEFAULT) -> None:
        """Leave the topic, and wait until the server has confirmed that.

        Does nothing if it is not joined. Pushes that are not answered by then raise `ChannelClosed`.

        Parameters:
            timeout: seconds to wait, None for ever; by default `leave_timeout`. Nothing is raised when they are over.
        """
        seconds = self._session.options.leave_timeout if timeout is DEFAULT else timeout
        leaving = self._membership.leave(seconds)
        if not self._leave_point.active:
            await leaving
            return
        start = ClientLeaveStart(*opening(self._session), self.topic, {})

        def stop(origin: Origin, now: int, outcome: Outcome, how: Outcome | None, _: BaseException | None) -> Record:
            return ClientLeaveStop(start, origin, now, how or outcome, None)

        await observed(self._session, self._leave_point, start, leaving, stop)

    def leave_soon(self) -> None:
        """Send the leave, without waiting for anything; for clean-up in code that must not await."""
        self._membership.leave_soon(self._session.options.leave_timeout)

    async def push(self, event: str, payload: Any = None, *, timeout: Timeout = DEFAULT) -> Any:
        """Push a message, and wait for the reply; returns the response of a reply that is "ok".

        A push that is made while the channel is being joined waits for that. A push that is cancelled before it is
        queued was never sent; after that it may have been, and its reply is dropped. It never leaves half a frame.

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.
            timeout: seconds to wait for the reply, None for ever; by default `push_timeout`.

        Raises:
            PushError: the reply's status is not "ok".
            PushTimeout: no reply came in time.
            ChannelClosed: the channel is not joined, or ended before the reply.
            ConnectionLost: the connection ended before the reply.
            SerializationError: the payload is no JSON value; nothing was sent.
        """
        _check_event(event)
        payload = {} if payload is None else payload
        seconds = self._session.options.push_timeout if timeout is DEFAULT else timeout
        if not self._push_point.active:
            return await self._membership.push(event, payload, seconds)
        start = ClientPushStart(*opening(self._session), self.topic, event, payload)
        refs: list[str] = []

        def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
            ref = refs[0] if refs else None
            status = "ok" if error is None else getattr(error, "status", None)
            return ClientPushStop(start, origin, now, outcome, ref, status, getattr(error, "response", response))

        pushing = self._membership.push(event, payload, seconds, refs.append)
        return await observed(self._session, self._push_point, start, pushing, stop)

    async def send(self, event: str, payload: Any = None) -> None:
        """Push a message whose reply, if there is one, is of no interest; returns when it is queued.

        If the connection ends before it is written, telemetry says so (`message_dropped`).

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.

        Raises:
            ChannelClosed: the channel is not joined.
            ConnectionLost: the connection has ended.
            SerializationError: the payload is no JSON value; nothing was sent.
        """
        _check_event(event)
        await self._membership.send(event, {} if payload is None else payload)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the channel's messages; see `Subscription.__anext__` for what it raises."""
        return Subscription(self._membership.buffer)

    @asynccontextmanager
    async def subscribe(self, *events: str, buffer: int | None = None) -> AsyncIterator[Subscription]:
        """Get these events in a buffer of one's own, for the time of an `async with` block.

        It sees what arrives after it opened, however often the topic is joined anew; to miss nothing, open it on
        `socket.channel(topic)`, then `join`. The channel's own stream sees these messages too.

        Parameters:
            events: their names; none means all.
            buffer: how many messages wait; by default what `connect` was told.
        """
        limit = self._session.configuration.buffer if buffer is None else buffer
        messages, end = self._membership.subscribe(events, limit)
        try:
            yield Subscription(messages)
        finally:
            end()


def _check_event(event: str) -> None:
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")
