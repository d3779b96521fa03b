"""A loss of so much that it takes several steps to tell of all shows as a small one does."""

from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from tests.client.support import URL, Scripted
from tests.recovery.support import settle
from trio.testing import MockClock

from slipstream_trio import Backoff, Client, ConnectionLost, JoinTimeout, Reply, connect, run_client
from slipstream_trio.telemetry import ReconnectScheduled, Telemetry
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


async def test_a_channel_that_is_left_as_many_are_to_be_joined_again_is_not(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket:
        channels = [socket.channel(f"room:{number}") for number in range(300)]
        for channel in channels:
            await channel.join()
        connector.peer.end()
        await settle()
        await socket.wait_connected()
        channels[-1].leave_soon()
        await trio.sleep(1)
        assert {channel.status for channel in channels[:-1]} == {"joined"}
        assert channels[-1].status == "closed"
        assert [message.topic for message in connector.peer.sent] == [channel.topic for channel in channels[:-1]]


async def test_others_run_while_many_joins_that_wait_are_told_of_a_loss(autojump_clock: MockClock) -> None:
    steps, outcomes, scheduled, bus = 40, Counter[str](), trio.Event(), Telemetry()
    bus.attach(ReconnectScheduled, lambda _: scheduled.set())
    options: Any = {"join_window": 1, "reconnect": Backoff((100,), jitter=0), "telemetry": bus}
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), **options) as socket,
    ):

        async def join(number: int) -> None:
            try:
                await socket.channel(f"room:{number}").join()
            except (ConnectionLost, JoinTimeout) as error:
                outcomes[type(error).__name__] += 1

        async with trio.open_nursery() as nursery:
            for number in range(1 + steps * 64):
                nursery.start_soon(join, number)
            connection = await server.accept()
            await connection.expect_join()
            await connection.drop()
            passes = 0
            while not scheduled.is_set():
                passes += socket.status == "reconnecting"
                await trio.lowlevel.checkpoint()
        assert 1.8 * steps <= passes <= 2.2 * steps  # joins, and then channels
    assert outcomes == {"ConnectionLost": 1, "JoinTimeout": steps * 64}


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
