"""Losses, leaves and closes that meet: who is told what."""

from typing import Final

import pytest
import trio
from tests.client.support import scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, ChannelClosed, ConnectionLost, Socket, connect
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.kit import Answer, FakeServer

MUTE: Final[frozenset[Answer]] = frozenset({"connect", "join", "heartbeat"})
ANSWERS: Final[frozenset[Answer]] = MUTE | {"leave", "push"}


async def test_a_push_on_a_channel_that_is_being_left_is_told_of_the_loss(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=MUTE) as server,
        connect(server.url, transport=server.connector(), leave_timeout=60) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel, sent = socket.channel("room:1"), list[bool]()
        await channel.join()

        async def push() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await channel.push("event", timeout=None)
            sent.append(caught.value.sent)

        nursery.start_soon(push)
        await connection.expect_push()
        nursery.start_soon(channel.leave)
        await connection.expect_leave()
        await connection.drop()
        await wait_all_tasks_blocked()
        assert sent == [True]


async def test_a_leave_during_the_backoff_gives_up_what_was_missed_and_the_backoff(autojump_clock: MockClock) -> None:
    bus, delays, told = Telemetry(), list[float](), list[Record]()

    def handler(record: Record) -> None:
        delays.append(record.metadata["delay"])

    bus.attach("delays", ("slipstream", "client", "rejoin_scheduled"), handler)
    bus.attach("gaps", ("slipstream", "client", "gap"), told.append)
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(
            server.url, transport=server.connector(), rejoin=Backoff((3, 40), jitter=0, reset_after=100), telemetry=bus
        ) as socket,
    ):
        connection = await server.accept()
        channel = socket.channel("room:1")
        await channel.join()
        for _ in range(2):
            await connection.channel("room:1").crash()
            await wait_all_tasks_blocked()
            await trio.sleep(5)
        assert delays == [3, 40]
        await channel.leave()
        await channel.join()
        gaps = len(told)
        await connection.channel("room:1").push("n", 1)
        assert (await channel.receive()).payload == 1
        assert len(told) == gaps == 1  # of the first crash alone
        await connection.channel("room:1").crash()
        await wait_all_tasks_blocked()
        await trio.sleep(0.1)
        assert delays == [3, 40, 3]


async def test_the_backoff_begins_anew_where_the_channel_had_lasted_until_the_connection_was_lost(
    autojump_clock: MockClock,
) -> None:
    bus, delays = Telemetry(), list[float]()
    bus.attach("delays", ("slipstream", "client", "rejoin_scheduled"), lambda it: delays.append(it.metadata["delay"]))
    rejoin = Backoff((3, 40), jitter=0, reset_after=15)
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), rejoin=rejoin, telemetry=bus) as socket,
    ):
        connection = await server.accept()
        await socket.channel("room:1").join()
        for lasted in (20, 10):
            await connection.channel("room:1").crash()
            await trio.sleep(3.1 + lasted)
            await connection.drop()
            connection = await server.accept(within=5)
            await trio.sleep(1)
        await connection.channel("room:1").crash()
        await wait_all_tasks_blocked()
        assert delays == [3, 3, 40]


async def test_a_second_close_does_not_extend_the_first(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server, trio.open_nursery() as nursery:
        began = 0.0
        async with connect(server.url, transport=server.connector(), close_timeout=5) as socket:
            connection = await server.accept()
            connection.partition()
            began = trio.current_time()
            nursery.start_soon(socket.disconnect)
            await trio.sleep(3)
        assert trio.current_time() - began <= 5
        connection.heal()


async def test_while_the_socket_closes_nothing_is_sent_any_more(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=MUTE) as server,
        connect(server.url, transport=server.connector(), close_timeout=5) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel = socket.channel("room:1")
        await channel.join()
        connection.partition()
        nursery.start_soon(socket.disconnect)
        await trio.sleep(1)
        assert socket.status == "closing"
        began = trio.current_time()
        for operation in (socket.ping, socket.channel("room:2").join):
            with pytest.raises(ConnectionLost) as raised:
                await operation()
            assert (raised.value.reason, raised.value.ended_by) == ("disconnected", "client")
        with pytest.raises((ConnectionLost, ChannelClosed)):
            await channel.push("event")
        assert trio.current_time() == began
        connection.heal()


async def test_disconnecting_in_the_moment_of_a_loss_does_not_change_how_the_block_ends(
    autojump_clock: MockClock,
) -> None:
    async with FakeServer(answers=ANSWERS) as server:
        with pytest.raises(ConnectionLost) as caught:
            async with connect(server.url, transport=server.connector(), reconnect=None) as socket:
                connection = await server.accept()
                await connection.close(4001, "gone")
                async for status in socket.status_changes():
                    if status != "connected":
                        with trio.CancelScope(shield=True):
                            await socket.disconnect()
                        break
                await trio.sleep_forever()
        assert (caught.value.reason, caught.value.code) == ("closed_by_server", 4001)


async def test_while_leaves_are_waited_for_a_ping_tells_that_the_socket_closes(autojump_clock: MockClock) -> None:
    async def ping(socket: Socket) -> None:
        await wait_all_tasks_blocked()
        assert (socket.status, socket.state.status) == ("closing", "open")
        with pytest.raises(ConnectionLost) as caught:
            await socket.ping()
        told.append((caught.value.reason, trio.current_time()))

    told: list[tuple[str, float]] = []
    async with trio.open_nursery() as nursery, scripted(answers={"phx_join", "heartbeat"}) as (socket, _):
        await socket.channel("room:1").join()
        nursery.start_soon(ping, socket)
    assert told == [("closed_by_client", 0)]
