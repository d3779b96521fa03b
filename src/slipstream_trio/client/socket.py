"""A socket, as its user sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from ..protocol import State
from .channel import DEFAULT, Channel, Timeout, check_topic
from .connection import Connection
from .membership import Membership
from .operations import start_recovery
from .session import Session
from .status import Status, StatusChanges

__all__ = ["Socket"]


@final
class Socket:
    """A connection to a Phoenix server, and the channels on it: what `connect` gives."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<Socket {self.socket_id} {self.status}>"

    @asynccontextmanager
    async def join(self, topic: str, payload: Any = None, *, timeout: Timeout = DEFAULT) -> AsyncIterator[Channel]:
        """Join a topic for the time of an `async with` block, and leave it then.

        When the block is left by an exception or a cancellation, the leave is sent but not waited for.

        Parameters:
            topic: the topic, such as "room:lobby".
            payload: the join's payload, a JSON value, or a (sync or async) function that returns it; None is {}.
            timeout: seconds to wait for the answer, None for ever; by default `join_timeout`.

        Raises:
            ConfigurationError: `timeout` is no number of seconds above 0.
            AlreadyJoined: this socket holds the topic.
            JoinError: the server refused.
            JoinTimeout: it did not answer in time.
            ChannelClosed: the channel ended, or another task left it, before the answer.
            ConnectionLost: the connection ended first.
            SerializationError: the topic is no string, or the payload not a JSON value.
        """
        channel = self.channel(topic, payload)
        await channel.join(timeout=timeout)
        try:
            yield channel
            await channel.leave()
        except BaseException:
            channel.leave_soon()  # also where the leave was cancelled before it was sent
            raise

    def channel(self, topic: str, payload: Any = None) -> Channel:
        """Return a channel that is not joined yet: subscribe on it first, then `await channel.join()`.

        Parameters:
            topic: the topic.
            payload: as with `join`.

        Raises:
            SerializationError: the topic is no string.
        """
        check_topic(topic)
        return Channel(Membership(self._session, topic, {} if payload is None else payload, start_recovery))

    async def ping(self) -> float:
        """Send a heartbeat, or take the one that is outstanding, and wait for the answer.

        Returns the round trip in seconds.

        Raises:
            ConnectionLost: the connection has ended, or ends before the answer.
        """
        return await self._session.ping()

    async def disconnect(self) -> None:
        """Close the connection for good: streams end, pushes raise `ConnectionLost`, the block's body runs on."""
        await self._session.disconnect()

    async def wait_connected(self) -> None:
        """Wait until the socket is connected.

        Raises:
            ConnectionLost: it never will be.
        """
        await trio.lowlevel.checkpoint()
        await self._session.until_open()

    def status_changes(self) -> StatusChanges:
        """Iterate over the status of now, and every one that follows, up to "closed"."""
        return StatusChanges(self._session.statuses)

    @property
    def status(self) -> Status:
        """One of "connecting", "connected", "reconnecting", "closing", "closed"."""
        return self._session.status

    @property
    def state(self) -> State:
        """The state of the connection; while there is none, that of the last one. So are the ids."""
        return self._connection.state

    @property
    def socket_id(self) -> str:
        """The socket's id, 16 hex digits."""
        return self._session.socket_id

    @property
    def connection_id(self) -> str:
        """The connection's id, 16 hex digits."""
        return self.state.connection_id

    @property
    def trace_id(self) -> str:
        """The id of the connection's trace, 32 hex digits."""
        return self.state.trace_id

    @property
    def generation(self) -> int:
        """The number of the connection on this socket, from 1."""
        return self.state.generation

    @property
    def _connection(self) -> Connection:
        connection = self._session.shown or self._session.connection
        if connection is None:
            raise RuntimeError("there is no connection yet: await wait_connected() first")
        return connection
