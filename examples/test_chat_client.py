"""How to test a client: a chat client, and its tests with the kit.

    pytest examples/test_chat_client.py

The client is a plain class that knows nothing of tests. Its tests play the server, step by step, in virtual time: what
takes minutes in life, such as a server that is away, takes milliseconds here. They need the extra `testing`; with
pytest-trio, `trio_mode = true` in the configuration runs async tests.
"""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, ConnectionLost, JoinError, PushError, PushTimeout, connect
from slipstream_trio.testing.kit import ANY, FakeConnection, FakeServer, including

# The client


class ChatClient:
    """Follows a chat room, and says what it is told to say, once.

    Parameters:
        url: of the server's socket.
        room: the room's name.
        options: for `connect`.
    """

    def __init__(self, url: str, room: str, **options: Any) -> None:
        self.url = url
        self.room = room
        self.options = options
        self.transcript: list[str] = []
        self.banned = False
        self.latest = 0
        self._channel: Channel | None = None
        self._ready = trio.Event()

    async def run(self) -> None:
        """Follow the room until the server ends it, or bans this user."""
        async with connect(self.url, **self.options) as socket:
            try:
                async with socket.join(f"room:{self.room}", lambda: {"since": self.latest}) as channel:
                    self._channel = channel
                    self._ready.set()
                    async for message in channel:
                        if message.event == "new_msg":
                            self.latest = message.payload["id"]
                            self.transcript.append(f"{message.payload['from']}: {message.payload['body']}")
            except JoinError as error:
                self.banned = error.response == {"reason": "banned"}
                self._ready.set()

    async def say(self, body: str) -> bool:
        """Say something; returns whether it certainly was said. A refusal is shown in the transcript."""
        await self._ready.wait()
        if self._channel is None:
            return False
        try:
            await self._channel.push("new_msg", {"body": body}, timeout=30)
        except PushError as error:
            self.transcript.append(f"(not said: {error.response['reason']})")
        except (PushTimeout, ConnectionLost):
            self.transcript.append("(perhaps not said)")
        else:
            return True
        return False


# Its tests


@pytest.fixture
def server(fake_server: FakeServer) -> FakeServer:
    """The fixture of slipstream_trio's pytest plugin, by a shorter name."""
    return fake_server


def chat_client(server: FakeServer) -> ChatClient:
    """Return a client of this server, that reconnects after 5 seconds."""
    later = Backoff((5,), jitter=0)
    return ChatClient(server.url, "lobby", transport=server.connector(), reconnect=later, rejoin=later)


pytestmark = pytest.mark.slipstream_verify  # and all traces keep the invariants


async def test_it_joins_and_writes_down_what_is_said(server: FakeServer, autojump_clock: MockClock) -> None:
    """The simplest: one join, some messages, and the server ends the room."""
    async with server, trio.open_nursery() as nursery:
        client = chat_client(server)
        nursery.start_soon(client.run)
        connection = await server.accept()
        channel = await (await connection.expect_join("room:lobby", {"since": 0})).reply_ok()
        await channel.push("new_msg", {"id": 1, "from": "Ada", "body": "hello"})
        await channel.push("typing", {"from": "Bob"})
        await channel.push("new_msg", {"id": 2, "from": "Bob", "body": "hi"})
        await channel.close()
        await connection.expect_disconnect(1000)
        assert client.transcript == ["Ada: hello", "Bob: hi"]


async def test_it_says_what_it_is_told_and_takes_no_for_an_answer(
    server: FakeServer, autojump_clock: MockClock
) -> None:
    """Replies: ok, error, and none."""
    async with server, trio.open_nursery() as nursery:
        client = chat_client(server)
        nursery.start_soon(client.run)
        said: dict[str, bool] = {}

        async def say(body: str) -> None:
            said[body] = await client.say(body)

        for body in ("hello", "rude", "quiet"):
            nursery.start_soon(say, body)
        connection = await server.accept()
        channel = await (await connection.expect_join()).reply_ok()
        await (await channel.expect_push("new_msg", including(body="rude"))).reply_error({"reason": "be nice"})
        await (await channel.expect_push("new_msg", {"body": "hello"})).reply_ok({"id": 1})
        await channel.expect_push("new_msg", ANY)  # and is never answered
        await trio.sleep(31)
        assert said == {"hello": True, "rude": False, "quiet": False}
        assert client.transcript == ["(not said: be nice)", "(perhaps not said)"]
        await channel.close()


async def test_it_gives_up_where_it_is_banned(server: FakeServer, autojump_clock: MockClock) -> None:
    """A join that is refused, for good."""
    async with server, trio.open_nursery() as nursery:
        client = ChatClient(server.url, "lobby", transport=server.connector(), rejoin=None)
        nursery.start_soon(client.run)
        connection = await server.accept()
        await (await connection.expect_join()).reply_error({"reason": "banned"})
        await connection.expect_disconnect(1000)
        assert client.banned
        assert not await client.say("let me in")


async def rejoined(server: FakeServer, *, since: int) -> tuple[FakeConnection, Any]:
    """Expect the client to come back, and to ask for what it has missed."""
    connection = await server.accept(within=120)
    return connection, await (await connection.expect_join("room:lobby", {"since": since})).reply_ok()


async def test_it_comes_back_after_a_restart_and_asks_for_what_it_missed(
    server: FakeServer, autojump_clock: MockClock
) -> None:
    """A deployment: the server goes away for a minute."""
    async with server, trio.open_nursery() as nursery:
        client = chat_client(server)
        nursery.start_soon(client.run)
        _, channel = await rejoined(server, since=0)
        await channel.push("new_msg", {"id": 7, "from": "Ada", "body": "back in a minute"})
        await server.restart(down=60)
        connection, channel = await rejoined(server, since=7)
        await channel.push("new_msg", {"id": 8, "from": "Ada", "body": "here I am"})
        await channel.close()
        await connection.expect_disconnect(1000)
        assert client.transcript == ["Ada: back in a minute", "Ada: here I am"]


async def test_it_does_not_say_things_twice_if_the_line_is_dead(server: FakeServer, autojump_clock: MockClock) -> None:
    """A partition: nobody is told that the line is dead, until a heartbeat is not answered."""
    async with server, trio.open_nursery() as nursery:
        client = chat_client(server)
        nursery.start_soon(client.run)
        dead, channel = await rejoined(server, since=0)
        with dead.partition():
            assert not await client.say("hello?")
            connection, channel = await rejoined(server, since=0)
            await channel.refute_push(within=60)
            assert client.transcript == ["(perhaps not said)"]
        await channel.close()
        await connection.expect_disconnect(1000)


def test_it_can_be_tested_without_pytest_trio_as_well(server: FakeServer) -> None:
    """A plain function that calls `trio.run` itself."""

    async def scenario() -> None:
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(chat_client(server).run)
            _, channel = await rejoined(server, since=0)
            await channel.crash()
            await server.refute_connect(within=10)  # it joins again on the connection that it has
            await (await server.connections[0].expect_join()).reply_ok()
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
