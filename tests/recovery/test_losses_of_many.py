"""A loss of so much that it takes several steps to tell of all shows as a small one does."""

from contextlib import AsyncExitStack

import pytest
import trio
from tests.recovery.support import settle
from trio.testing import MockClock

from slipstream_trio import Client, Reply, connect, run_client
from slipstream_trio.testing.kit import Answer, FakeServer

ANSWERS: frozenset[Answer] = frozenset({"connect", "join", "leave", "heartbeat"})


async def test_all_channels_show_a_loss_at_once_however_many_there_are(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector()) as socket,
        AsyncExitStack() as stack,
    ):
        connection = await server.accept()
        channels = [await stack.enter_async_context(socket.join(f"room:{number}")) for number in range(150)]
        presences = [await stack.enter_async_context(channel.presence()) for channel in channels]
        for channel in channels:
            await connection.channel(channel.topic).push("presence_state", {})
        await settle()
        assert all(presence.synced for presence in presences)
        await connection.drop()
        changes = socket.status_changes()
        while await anext(changes) != "reconnecting":
            pass
        assert {channel.status for channel in channels} == {"errored"}
        assert not any(presence.synced for presence in presences)


@pytest.mark.parametrize("pushes", [1, 64, 150])
async def test_a_client_is_told_of_a_loss_after_all_that_it_settles(pushes: int, autojump_clock: MockClock) -> None:
    told: list[str] = []

    class Lobby(Client):
        async def handle_reply(self, ref: str, reply: Reply) -> None:
            told.append(type(reply.error).__name__)

        async def handle_disconnect(self, reason: Exception) -> None:
            told.append("disconnected")

    client = Lobby()
    async with FakeServer(answers=ANSWERS) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_client(client, server.url, transport=server.connector()))
        connection = await server.accept()
        await client.join("room:1")
        for _ in range(pushes):
            await client.push("room:1", "unanswered")
        await connection.drop()
        await server.accept()
        await settle()
        client.stop()
    assert told == [*["ConnectionLost"] * pushes, "disconnected"]
