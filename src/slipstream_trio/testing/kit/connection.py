"""One client's connection, in the hands of a test."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Final, Literal

import trio
from attrs import frozen

from ...protocol.message import Frame, Message
from ...trace.text import Secrets
from ..server import Connection, Request
from .channel import FakeChannel, FakeJoin, FakeLeave, FakePush
from .expectations import ANY, PATIENCE, Arrival, Expectation, ExpectationFailed, kind_of, mismatch, secrets_in, shown

if TYPE_CHECKING:
    from .server import FakeServer

_SHOWN: Final = 20


@frozen
class Disconnection:
    """A connection's end: the code of the first close frame (1006 without one), and the side that ended it."""

    code: int
    by: Literal["client", "server", "lost"]

    def __str__(self) -> str:
        whose = {"client": "the client closed it", "server": "the server closed it", "lost": "it was lost"}
        return f"{whose[self.by]}, code {self.code}"


class FakeConnection:
    """A client's connection: tests expect its messages, and send it others.

    Expectations are selective: each takes the first message that is as expected, and leaves the others, which other
    expectations may still take. Patterns are told in `mismatch`; a topic and an event may have a `*` for any text.
    `within` is in seconds of Trio's clock; for expectations, None is the server's `timeout`.

    Attributes:
        number: its number among the server's connections, from 1.
        request: the request that opened it: path, params, headers, auth_token.
        channels: the channels that the client has joined, by topic.
        disconnection: its end; None while it is open.
        arrivals: the client's messages in order, kept without limit; for the kit alone.
        asked: of each topic the latest join that has no answer; for the kit alone.
    """

    def __init__(self, server: "FakeServer", number: int, connection: Connection) -> None:
        self.server: FakeServer = server
        self.number: int = number
        self.request: Request = connection.request
        self.channels: dict[str, FakeChannel] = {}
        self.disconnection: Disconnection | None = None
        self.arrivals: list[Arrival] = []
        self.asked: dict[str, FakeChannel] = {}
        self._changed = trio.lowlevel.ParkingLot()  # a message came, or the connection ended
        self._connection = connection

    def __repr__(self) -> str:
        state = f"ended: {self.disconnection}" if self.disconnection else f"topics={list(self.channels)}"
        return f"<FakeConnection {self.number} {state}>"

    @property
    def vsn(self) -> str:
        """The version of the protocol that the client chose: "2.0.0" or "1.0.0"."""
        return self._connection.wire.vsn

    @property
    def messages(self) -> list[Message]:
        """The client's messages."""
        return [arrival.message for arrival in self.arrivals]

    @property
    def unexpected(self) -> list[Message]:
        """The client's messages neither expected nor answered automatically."""
        return [arrival.message for arrival in self.arrivals if arrival.fate == "was neither expected nor answered"]

    async def expect_join(self, topic: Any = ANY, payload: Any = ANY, *, within: float | None = None) -> FakeJoin:
        """Return the next join that is like this.

        Parameters:
            topic: the pattern of the topic, `"room:*"` for example.
            payload: the pattern of the payload.
            within: the seconds to wait; None is the server's `timeout`.

        Raises:
            ExpectationFailed: it did not come.
        """
        return FakeJoin(self, await self.take(Expectation("join", topic, payload=payload), within))

    async def expect_push(
        self, topic: Any = ANY, event: Any = ANY, payload: Any = ANY, *, within: float | None = None
    ) -> FakePush:
        """Return the next push that is like this; see `expect_join`."""
        return FakePush(self, await self.take(Expectation("push", topic, event, payload), within))

    async def expect_leave(self, topic: Any = ANY, *, within: float | None = None) -> FakeLeave:
        """Return the next leave that is like this; see `expect_join`. By default it has been answered already."""
        return FakeLeave(self, await self.take(Expectation("leave", topic), within))

    async def expect_message(
        self, topic: Any = ANY, event: Any = ANY, payload: Any = ANY, *, within: float | None = None
    ) -> FakePush:
        """Return the next message of any kind, heartbeats included, that is like this; see `expect_join`."""
        return FakePush(self, await self.take(Expectation("message", topic, event, payload), within))

    async def expect_disconnect(self, code: Any = ANY, *, by: Any = ANY, within: float | None = None) -> Disconnection:
        """Wait for the connection's end, and return how it ended.

        Parameters:
            code: the pattern of the close code.
            by: the pattern of the side that ended it: "client", "server", or "lost".
            within: the seconds to wait; None is the server's `timeout`.

        Raises:
            ExpectationFailed: it did not end, or in another way.
        """
        within = self.server.timeout if within is None else within
        wanted = "a disconnect" + ("" if code is ANY else f" with code {shown(code)}")
        wanted += ("" if by is ANY else f" by {shown(by)}") + f" of connection {self.number}"
        with trio.move_on_after(within):
            await self._connection.wait_closed()
        if (ended := self.disconnection) is None:
            raise ExpectationFailed(f"expected {wanted}: it is open after {within:g} s\n{self.history()}")
        if problem := mismatch(code, ended.code, "the code") or mismatch(by, ended.by, "who ended it"):
            raise ExpectationFailed(f"expected {wanted}: {ended} - {problem}")
        return ended

    async def refute_join(self, topic: Any = ANY, payload: Any = ANY, *, within: float = PATIENCE) -> None:
        """Check that no join like this comes; see `refute_push`."""
        await self.refute(Expectation("join", topic, payload=payload), within)

    async def refute_push(
        self, topic: Any = ANY, event: Any = ANY, payload: Any = ANY, *, within: float = PATIENCE
    ) -> None:
        """Check that no push like this comes for a while, and that none waits to be expected.

        Parameters:
            topic: the pattern of the topic.
            event: the pattern of the event.
            payload: the pattern of the payload.
            within: the seconds to watch.

        Raises:
            ExpectationFailed: one came.
        """
        await self.refute(Expectation("push", topic, event, payload), within)

    async def refute_leave(self, topic: Any = ANY, *, within: float = PATIENCE) -> None:
        """Check that no leave like this comes; see `refute_push`."""
        await self.refute(Expectation("leave", topic), within)

    async def refute_message(
        self, topic: Any = ANY, event: Any = ANY, payload: Any = ANY, *, within: float = PATIENCE
    ) -> None:
        """Check that no message of any kind that is like this comes; see `refute_push`."""
        await self.refute(Expectation("message", topic, event, payload), within)

    async def refute_disconnect(self, *, within: float = PATIENCE) -> None:
        """Check that the connection stays open; see `refute_push`."""
        with trio.move_on_after(within):
            await self._connection.wait_closed()
        if (ended := self.disconnection) is not None:
            raise ExpectationFailed(f"expected connection {self.number} to stay open for {within:g} s, but {ended}")

    # To the client

    async def push(
        self, topic: str, event: str, payload: Any = None, *, join_ref: str | None = None, ref: str | None = None
    ) -> None:
        """Send any message, as a broadcast without join_ref; `FakeChannel.push` adds it.

        Parameters:
            topic: the topic.
            event: the event; reserved ones too.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.
            join_ref: the ref of the join that it belongs to.
            ref: the ref of what it answers.

        Raises:
            SerializationError: it cannot be encoded.
            RuntimeError: the connection has ended.
        """
        message = Message(join_ref, ref, topic, event, {} if payload is None else payload)
        await self.send_raw(self._connection.wire.encode(message))

    async def reply(self, to: Message, status: str, response: Any = None) -> None:
        """Answer any message of the client's; see `FakePush.reply`."""
        response = {} if response is None else response
        await self.send_raw(self._connection.wire.encode_reply(to.join_ref, to.ref, to.topic, status, response))

    def channel(self, topic: str) -> FakeChannel:
        """Return the channel that the client has joined.

        Raises:
            LookupError: it has joined no such topic.
        """
        if (channel := self.channels.get(topic)) is None:
            joined = ", ".join(map(repr, self.channels)) or "none"
            raise LookupError(f"the client of connection {self.number} has not joined {topic!r}; joined: {joined}")
        return channel

    async def send_raw(self, *frames: Frame) -> None:
        """Send frames of any content: `str` as text frames, `bytes` as binary ones."""
        await self._send(self._connection.send_raw, *frames)

    async def send_bytes(self, data: bytes) -> None:
        """Send any bytes, also invalid frames."""
        await self._send(self._connection.send_bytes, data)

    async def close(self, code: int = 1000, reason: str = "") -> Disconnection:
        """Close it with a close code, and a reason of up to 123 bytes of UTF-8; wait for its end."""
        self._connection.close(code, reason)
        return await self.wait_closed()

    async def drop(self) -> Disconnection:
        """Cut it without a close frame, as a TCP reset does, and wait for its end."""
        self._connection.drop()
        return await self.wait_closed()

    async def wait_closed(self) -> Disconnection:
        """Wait for its end, and return it."""
        await self._connection.wait_closed()
        assert self.disconnection is not None
        return self.disconnection

    def partition(self) -> AbstractContextManager[object]:
        """Let no more bytes through, in either direction, until `heal`; nothing is lost, and the connection stays open.

        As with a pulled cable, neither side notices. In a `with` statement it heals at the block's end:

            with connection.partition():
                await trio.sleep(60)
        """
        self._connection.pause_reading()
        self._connection.pause_writing()
        block = ExitStack()
        block.callback(self.heal)
        return block

    def heal(self) -> None:
        """End a partition: the held bytes go through."""
        self._connection.resume_reading()
        self._connection.resume_writing()

    # For the kit

    async def handle(self, message: Message) -> None:
        """Take a message from the client; for the server alone."""
        arrival = Arrival(message, trio.current_time() - (self.server.began or 0.0))
        kind, join = kind_of(message), FakeJoin(self, message)
        if kind == "join" and isinstance(message.topic, str):  # it may be a list
            self.asked[message.topic] = join.channel
        try:
            if kind in self.server.answers:
                arrival.fate = "the server answered it"
                if kind == "leave":
                    await FakeLeave(self, message).confirm()
                elif kind == "join":
                    await join.reply_ok()
                else:
                    await self.reply(message, "ok")
        finally:
            # Behind the answer, so that the test's next step comes after it: a partition, for example.
            self.arrivals.append(arrival)
            self._changed.unpark_all()

    def ended(self) -> None:
        """Called at the connection's end; for the server alone."""
        code, by = self._connection.close_code, self._connection.closed_by
        assert code is not None
        assert by is not None
        self.disconnection = Disconnection(code, by)
        self.channels.clear()
        self.asked.clear()
        self._changed.unpark_all()

    async def take(self, expectation: Expectation, within: float | None) -> Message:
        """Take the first message that is as expected; raises `ExpectationFailed`."""
        within = self.server.timeout if within is None else within
        if (found := await self._await(expectation, within)) is not None:
            # No checkpoint from here on: a taken message is handed over, also if the task is being cancelled.
            found.fate = "was expected before"
            return found.message
        ended = self.disconnection
        why = f"the connection has ended: {ended}" if ended else f"it did not come within {within:g} s"
        wanted = expectation.describe(self._secrets(expectation))
        raise ExpectationFailed(f"expected {wanted} on connection {self.number}: {why}\n{self.history(expectation)}")

    async def refute(self, expectation: Expectation, within: float) -> None:
        """Watch for `within` seconds, or to the connection's end; raises `ExpectationFailed` if one comes."""
        if (found := await self._await(expectation, within)) is not None:
            secrets = self._secrets(expectation)
            unwanted = f"message like {expectation.describe(secrets)} on connection {self.number} within {within:g} s"
            raise ExpectationFailed(f"expected no {unwanted}, but it came:\n  {found.describe(secrets)}")

    def history(self, expectation: Expectation | None = None) -> str:
        """Return the messages, line by line, and why each is not the expected one."""
        if not self.arrivals:
            return "Nothing had come from this client."
        left_out = len(self.arrivals) - _SHOWN
        lines = [f"  … {left_out} earlier ones"] if left_out > 0 else []
        secrets = self._secrets(expectation)
        for arrival in self.arrivals[-_SHOWN:]:
            remark = None
            if expectation is not None and arrival.fate != "was expected before":
                remark = expectation.mismatch(arrival.message, secrets)
            lines.append(f"  {arrival.describe(secrets)}  - {remark or arrival.fate}")
        return "\n".join(["What came from this client:", *lines])

    async def _await(self, expectation: Expectation, within: float) -> Arrival | None:
        looked = 0  # each message is held against the expectation once, however many come meanwhile
        with trio.move_on_after(within):
            await trio.lowlevel.checkpoint()
            while (found := self._find(expectation, looked)) is None and self.disconnection is None:
                looked = len(self.arrivals)
                await self._changed.park()
            return found
        return self._find(expectation, looked)  # what came at the last moment has come in time

    def _find(self, expectation: Expectation, after: int) -> Arrival | None:
        new = (one for one in self.arrivals[after:] if one.fate != "was expected before")
        return next((one for one in new if expectation.mismatch(one.message) is None), None)

    def _secrets(self, expectation: Expectation | None = None) -> Secrets:
        """Return the values below names of secrets, in payloads that came or were expected."""
        came = [arrival.message.payload for arrival in self.arrivals]
        return Secrets.of(secrets_in([*came, None if expectation is None else expectation.payload]))

    async def _send(self, send: Callable[..., Awaitable[None]], *what: Frame) -> None:
        """Send, and wait until all is written, so that the next step of the test comes after it: a partition, say."""
        if self.disconnection is not None:
            raise RuntimeError(f"connection {self.number} has ended: {self.disconnection}")
        await send(*what)
        with trio.move_on_after(self.server.timeout):  # a client that does not read must not hang the test
            await self._connection.wait_written()
