"""A test's handles: a client's join, push or leave to answer, and a channel to push on."""

from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from ...protocol.message import CLOSE, ERROR, Message
from .expectations import ANY, PATIENCE, Exactly, Expectation

if TYPE_CHECKING:
    from .connection import FakeConnection


class _Received:
    """A message of a client: its `connection`, the whole `message`, and each of its five values."""

    def __init__(self, connection: "FakeConnection", message: Message) -> None:
        self.connection: FakeConnection = connection
        self.message: Message = message
        self.join_ref: str | None = message.join_ref
        self.ref: str | None = message.ref
        self.topic: str = message.topic
        self.event: str = message.event
        self.payload: Any = message.payload

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.event!r} on {self.topic!r} ref={self.ref!r}>"

    async def reply(self, status: str, response: Any = None) -> None:
        """Answer it: now, late, or more than once.

        Parameters:
            status: "ok", "error", or any other string.
            response: a JSON value, or `bytes` for a binary frame; None is {}.

        Raises:
            SerializationError: it cannot be encoded.
            RuntimeError: the connection has ended.
        """
        await self.connection.reply(self.message, status, response)

    async def reply_error(self, response: Any = None) -> None:
        """Answer it with "error"; see `reply`."""
        await self.reply("error", response)


class FakePush(_Received):
    """A push, to be answered or not."""

    async def reply_ok(self, response: Any = None) -> None:
        """Answer it with "ok"; see `reply`."""
        await self.reply("ok", response)


class FakeJoin(_Received):
    """A join, to be answered or not; `channel` is the one that it asks for."""

    def __init__(self, connection: "FakeConnection", message: Message) -> None:
        super().__init__(connection, message)
        # vsn 1.0.0 knows the message's ref only.
        join_ref = self.ref if self.join_ref is None else self.join_ref
        self.channel: FakeChannel = FakeChannel(connection, self.topic, join_ref)

    async def reply_ok(self, response: Any = None) -> "FakeChannel":
        """Let the client join; see `reply`.

        Returns:
            The channel. It is not joined if the client has left or replaced this join, or had its answer before.
        """
        await self.reply("ok", response)
        return self.channel

    async def reply(self, status: str, response: Any = None) -> None:
        """Answer it; "ok" lets the client join, as `reply_ok` does. See there, and `FakePush.reply`."""
        asked, channels = self.connection.asked, self.connection.channels
        # An answer that comes again, or to a join that was left or replaced by another, joins nothing.
        if self.channel in asked.values():
            del asked[self.topic]
            if status == "ok":
                channels[self.topic] = self.channel  # before the reply is sent: the client may answer it at once
        await super().reply(status, response)


class FakeLeave(_Received):
    """A leave, to be confirmed unless the server does that by itself."""

    async def confirm(self) -> None:
        """Confirm it as Phoenix does: the reply, then phx_close."""
        asked, channel = map(self._left, (self.connection.asked, self.connection.channels))
        if asked is not None:
            del self.connection.asked[self.topic]
        await self.reply("ok")
        if channel is not None:  # it stays until then
            await channel.close()

    def _left(self, channels: dict[str, "FakeChannel"]) -> "FakeChannel | None":
        its = (each for each in channels.values() if each.topic == self.topic)
        return next((each for each in its if self.join_ref in (each.join_ref, None)), None)


@frozen(repr=False)
class FakeChannel:
    """The server's side of a channel that a client has joined; every message on it bears the ref of the join."""

    connection: "FakeConnection"
    topic: str
    join_ref: str | None

    def __repr__(self) -> str:
        return f"<FakeChannel {self.topic!r} join_ref={self.join_ref!r} {'joined' if self.joined else 'ended'}>"

    @property
    def joined(self) -> bool:
        """Whether it is joined: not left, closed, crashed, replaced by another join, nor ended with its connection."""
        return self in self.connection.channels.values()

    async def push(self, event: str, payload: Any = None) -> None:
        """Send the client a message on this channel; see `FakeConnection.push`.

        Also on one that has ended: the client then gets a message with an outdated join_ref.
        """
        await self.connection.push(self.topic, event, payload, join_ref=self.join_ref)

    async def crash(self, payload: Any = None) -> None:
        """Let the channel crash: phx_error, with Phoenix's own payload for None: {"reason": "channel_crash"}."""
        await self._end(ERROR, {"reason": "channel_crash"} if payload is None else payload)

    async def close(self) -> None:
        """End the channel: phx_close."""
        await self._end(CLOSE, {})

    async def _end(self, event: str, payload: Any) -> None:
        if self.joined:
            del self.connection.channels[self.topic]
        await self.connection.push(self.topic, event, payload, join_ref=self.join_ref, ref=self.join_ref)

    async def expect_push(self, event: Any = ANY, payload: Any = ANY, *, within: float | None = None) -> FakePush:
        """Return the next push on this channel that is like this; see `FakeConnection.expect_push`."""
        return FakePush(self.connection, await self.connection.take(self._wanted("push", event, payload), within))

    async def expect_leave(self, *, within: float | None = None) -> FakeLeave:
        """Return the client's leave of this channel; see `FakeConnection.expect_leave`."""
        return FakeLeave(self.connection, await self.connection.take(self._wanted("leave"), within))

    async def refute_push(self, event: Any = ANY, payload: Any = ANY, *, within: float = PATIENCE) -> None:
        """Check that no push like this comes on this channel; see `FakeConnection.refute_push`."""
        await self.connection.refute(self._wanted("push", event, payload), within)

    async def refute_leave(self, *, within: float = PATIENCE) -> None:
        """Check that the client does not leave this channel; see `FakeConnection.refute_push`."""
        await self.connection.refute(self._wanted("leave"), within)

    def _wanted(self, kind: Literal["push", "leave"], event: Any = ANY, payload: Any = ANY) -> Expectation:
        join_ref = ANY if self.connection.vsn == "1.0.0" else self.join_ref
        return Expectation(kind, Exactly(self.topic), event, payload, join_ref)
