"""Disconnecting, leaving the block and cancelling, in every status: nothing hangs, nothing is left.

What is left is looked for by `world` at its end: tasks, streams, and traces without an end.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.peers import RECONNECT, World
from tests.recovery.support import Outcomes, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import Channel, ChannelClosed, ConnectionLost, Socket
from slipstream_trio.testing.server import Refuse

Stage = Callable[[World, Socket, Channel], Awaitable[None]]


async def connected(there: World, socket: Socket, channel: Channel) -> None:
    assert status_of(socket) == "connected"


async def sleeping(there: World, socket: Socket, channel: Channel) -> None:
    """Between two attempts."""
    there.connection.drop()
    await until(lambda: socket.status == "reconnecting")


async def dialing(there: World, socket: Socket, channel: Channel) -> None:
    """In the middle of an upgrade."""
    there.upgrades.append("hang")
    there.connection.drop()
    await until(lambda: len(there.requests) == 2)
    assert status_of(socket) == "reconnecting"


async def retrying(there: World, socket: Socket, channel: Channel) -> None:
    """After a refused upgrade."""
    there.upgrades.append(Refuse(503, [("retry-after", "3600")]))
    there.connection.drop()
    await until(lambda: len(there.requests) == 2)
    await trio.sleep(5)


async def rejoining(there: World, socket: Socket, channel: Channel) -> None:
    """With a rejoin that is not answered."""
    there.joins["room:1"].append("hang")
    there.connection.drop()
    await until(lambda: len(there.asked) == 2)
    assert status_of(channel) == "joining"


async def backing_off(there: World, socket: Socket, channel: Channel) -> None:
    """With a channel that waits to be joined again."""
    there.joins["room:1"].append("refuse")
    there.connection.drop()
    await until(lambda: len(there.asked) == 2)
    await settle()
    assert status_of(channel) == "errored"


async def crashed(there: World, socket: Socket, channel: Channel) -> None:
    await channel.send("crash")
    await until(lambda: channel.status == "errored")


async def silent(there: World, socket: Socket, channel: Channel) -> None:
    """In the second in which a server that has not answered a heartbeat may answer the close."""
    there.connection.pause_reading()
    with trio.fail_after(30):
        while socket.state.status != "closing":  # noqa: ASYNC110 - polled
            await trio.sleep(0.1)
    assert status_of(socket) == "connected"


async def lost_a_moment_ago(there: World, socket: Socket, channel: Channel) -> None:
    there.connection.drop()


STAGES = [connected, sleeping, dialing, retrying, rejoining, backing_off, crashed, silent, lost_a_moment_ago]
stages = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)


@asynccontextmanager
async def staged(stage: Stage) -> AsyncIterator[tuple[World, Socket, Channel]]:
    async with world() as there:
        async with there.connect(close_timeout=2, leave_timeout=1, heartbeat_interval=10) as socket:
            channel = socket.channel("room:1")
            await channel.join()
            await stage(there, socket, channel)
            yield there, socket, channel
        assert status_of(socket) == "closed"
        assert status_of(channel) == "closed"
        for connection in there.server.connections:
            connection.drop()


# Disconnecting


@stages
async def test_disconnecting_is_final(stage: Stage, autojump_clock: MockClock) -> None:
    async with staged(stage) as (there, socket, channel), trio.open_nursery() as nursery:
        done = Outcomes(nursery)
        new = socket.channel("room:2")
        done.start("push", channel.push, "silence")
        done.start("iterate", aiter(channel).__anext__)
        done.start("stream", aiter(channel.stream()).__anext__)
        done.start("join", _join_slowly, there, new)
        done.start("wait", _wait_closed, socket)
        await settle()
        attempts = len(there.attempts)
        with trio.fail_after(4):
            await socket.disconnect()
        assert status_of(socket) == "closed"
        await settle()
        assert (channel.status, new.status) == ("closed", "closed")
        for key in ("push", "join"):
            error = done.by[key]
            assert isinstance(error, ConnectionLost | ChannelClosed)
        assert done.by["wait"][-1] == "closed"
        assert isinstance(done.by["stream"], StopAsyncIteration)
        for operation in (channel.push("echo"), channel.send("echo"), new.join(), socket.ping()):
            with pytest.raises(ConnectionLost) as caught:
                await operation
            assert (caught.value.reason, caught.value.ended_by) == ("disconnected", "client")
        with pytest.raises(ConnectionLost):
            await socket.wait_connected()
        await channel.leave()
        await trio.sleep(100)
        assert len(there.attempts) <= attempts  # the body runs on, and nobody reconnects


async def _iterate(channel: Channel) -> None:
    async for _ in channel:
        pass


async def _follow_a_subscription(channel: Channel) -> None:
    async with channel.subscribe("tick") as ticks:
        async for _ in ticks:
            pass


async def _follow_presences(channel: Channel) -> None:
    async with channel.presence() as presence:
        async for _ in presence:
            pass


READINGS = (_iterate, _follow_a_subscription, _follow_presences)


@pytest.mark.parametrize("before", ["never joined", "left"])
async def test_streams_of_a_channel_that_is_not_joined_end_with_the_socket(
    before: str, autojump_clock: MockClock
) -> None:
    async with world() as there, there.connect() as socket, trio.open_nursery() as nursery:
        done = Outcomes(nursery)
        channel = socket.channel("room:1")
        if before == "left":
            await channel.join()
            await channel.leave()
        for read in READINGS:
            done.start(read, read, channel)
        await settle()
        await socket.disconnect()
        await settle()
        for read in READINGS:
            done.start((read, "afterwards"), read, channel)
        await settle()
        assert list(done.by.values()) == [None] * 6
        nursery.cancel_scope.cancel()


async def test_streams_of_a_channel_that_is_not_joined_tell_of_a_loss_for_good(autojump_clock: MockClock) -> None:
    async with world() as there, trio.open_nursery() as outer:
        done = Outcomes(outer)
        with pytest.raises(ConnectionLost):
            async with there.connect(reconnect=None) as socket:
                for read in READINGS:
                    done.start(read, read, socket.channel("room:1"))
                await settle()
                there.connection.drop()
                await trio.sleep_forever()
        await settle()
        assert [type(done.by[read]) for read in READINGS] == [ConnectionLost, ConnectionLost, type(None)]
        outer.cancel_scope.cancel()


async def _join_slowly(there: World, channel: Channel) -> Any:
    there.joins["room:2"].append("hang")
    return await channel.join()


async def _wait_closed(socket: Socket) -> list[str]:
    return [status async for status in socket.status_changes()]


@stages
async def test_disconnecting_twice_and_from_many_tasks(stage: Stage, autojump_clock: MockClock) -> None:
    async with staged(stage) as (_, socket, _channel), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(socket.disconnect)
        with trio.fail_after(4):
            await socket.disconnect()
            await socket.disconnect()


async def test_disconnecting_may_be_cancelled_and_goes_on(autojump_clock: MockClock) -> None:
    async with staged(connected) as (there, socket, _):
        there.connection.pause_reading()
        with trio.move_on_after(0.1) as waiting:
            await socket.disconnect()
        assert waiting.cancelled_caught
        assert status_of(socket) == "closing"
        await trio.sleep(3)
        assert status_of(socket) == "closed"


async def test_a_graceful_disconnect_closes_with_1000(autojump_clock: MockClock) -> None:
    async with staged(connected) as (there, socket, _):
        connection = there.connection
        await socket.disconnect()
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")
    (stop,) = there.records_of("connection", "connect", "stop")
    assert stop.metadata["termination_reason"] == "disconnected"


async def test_a_push_answered_before_the_close_is_answered(autojump_clock: MockClock) -> None:
    async with staged(connected) as (_, socket, channel), trio.open_nursery() as nursery:
        done = Outcomes(nursery)
        done.start("push", channel.push, "echo", 1)
        await trio.lowlevel.checkpoint()
        await socket.disconnect()
        await settle()
        assert done.by["push"] == 1 or isinstance(done.by["push"], ConnectionLost)


# Leaving the block


@stages
async def test_the_block_can_be_left(stage: Stage, autojump_clock: MockClock) -> None:
    with trio.fail_after(120):
        async with staged(stage) as (_, socket, _channel):
            began = trio.current_time()
    assert status_of(socket) == "closed"
    assert trio.current_time() - began <= 70  # two for the client; the server's hanging upgrade takes 60


@stages
async def test_the_block_can_be_left_while_others_wait(stage: Stage, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outside:
        done = Outcomes(outside)
        async with staged(stage) as (there, _, channel):
            done.start("push", channel.push, "silence", timeout=1000)
            done.start("iterate", aiter(channel).__anext__)
            await settle()
        with trio.fail_after(10):
            await until(lambda: len(done.by) == 2)
    assert isinstance(done.by["push"], ConnectionLost | ChannelClosed)
    assert isinstance(done.by["iterate"], StopAsyncIteration)
    assert there is not None


@stages
async def test_an_exception_leaves_the_block_unchanged(stage: Stage, autojump_clock: MockClock) -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with staged(stage) as (there, _, _channel):
            there.server.close_timeout = 0.1
            try:
                raise error
            finally:
                for connection in there.server.connections[:-1]:
                    connection.drop()
    assert caught.value is error


# Cancelling


@stages
async def test_the_block_can_be_cancelled(stage: Stage, autojump_clock: MockClock) -> None:
    async with world() as there:
        with trio.move_on_after(500) as scope:
            async with there.connect(close_timeout=2, heartbeat_interval=10) as socket:
                channel = socket.channel("room:1")
                await channel.join()
                await stage(there, socket, channel)
                scope.cancel()
                began = trio.current_time()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - began <= 2.1
        assert status_of(socket) == "closed"
        assert status_of(channel) == "closed"
        for connection in there.server.connections:
            connection.drop()


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_it_can_be_cancelled_at_any_moment_of_a_reconnect(turns: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        with trio.CancelScope() as scope:
            async with there.connect(close_timeout=2) as socket:
                async with socket.join("room:1"):
                    there.connection.drop()
                    await trio.sleep(0.999)
                    with trio.CancelScope() as waiting:
                        waiting.deadline = trio.current_time() + 0.001
                        await trio.sleep_forever()
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_connecting_can_be_cancelled_while_it_retries(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.extend(Refuse(500) for _ in range(100))
        with trio.move_on_after(2.5) as scope:
            async with there.connect(retry_first=True):
                pytest.fail("the body ran")
        assert scope.cancelled_caught
    assert there.attempts_at() == [0, 1]


async def test_connecting_can_be_cancelled_in_the_upgrade(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.append("hang")
        with trio.move_on_after(2.5) as scope:
            async with there.connect(retry_first=True):
                pytest.fail("the body ran")
        assert scope.cancelled_caught
    stops = there.records_of("client", "connect", "stop")
    assert [stop.metadata["outcome"] for stop in stops] == ["cancelled"]


async def test_the_end_for_good_cancels_the_body_and_settles_everybody(autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    async with world() as there:
        with pytest.raises(ConnectionLost):
            async with there.connect(reconnect=None) as socket:
                channel = socket.channel("room:1")
                await channel.join()
                async with trio.open_nursery() as nursery:
                    done = Outcomes(nursery)
                    nursery.cancel_scope.shield = True
                    done.start("push", channel.push, "silence")
                    done.start("iterate", aiter(channel).__anext__)
                    done.start("statuses", _wait_closed, socket)
                    done.start("wait", socket.wait_connected)
                    await settle()
                    there.connection.drop()
                    await until(lambda: len(done.by) == 4)
                seen.extend([done.by["push"], done.by["iterate"]])
                assert done.by["statuses"][-1] == "closed"
                await trio.sleep_forever()
    assert [type(error) for error in seen] == [ConnectionLost, ConnectionLost]
    assert seen[0].sent is True


async def test_a_reconnect_during_the_exit_does_not_happen(autojump_clock: MockClock) -> None:
    async with world() as there, trio.open_nursery() as nursery:
        async with there.connect(reconnect=RECONNECT, close_timeout=100) as socket:
            await socket.channel("room:1").join()
            there.connection.pause_reading()
            nursery.start_soon(_drop_later, there)
        assert status_of(socket) == "closed"
        await trio.sleep(10)
    assert there.attempts_at() == [0]


async def _drop_later(there: World) -> None:
    await trio.sleep(1)
    there.connection.drop()
