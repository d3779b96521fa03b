"""Moments that come seldom: full queues, leaves that overtake joins, frames after the close, bugs at a reconnect."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.recovery.support import Outcomes, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import AlreadyJoined, ChannelClosed, ConnectionLost, InternalError
from slipstream_trio.protocol import Frame
from slipstream_trio.transport import OpenRequest, Transport


async def test_a_topic_that_is_being_left_is_joined_after_that(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            old, new = socket.channel("room:1"), socket.channel("room:1")
            await old.join()
            with pytest.raises(AlreadyJoined):
                await new.join()
            done = Outcomes(nursery)
            done.start("leave", old.leave)
            done.start("join", new.join)
            await until(lambda: len(done.by) == 2)
            assert (status_of(old), status_of(new)) in (("closed", "joined"), ("closed", "closed"))
            if status_of(new) == "closed":  # it asked before the leave did
                assert isinstance(done.by["join"], AlreadyJoined)
            for _ in range(5):
                old.leave_soon()
                new.leave_soon()
                await new.join()
                assert status_of(new) == "joined"


async def test_a_join_that_waits_for_a_connection_can_be_left(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            channel = socket.channel("room:1")
            done = Outcomes(nursery)
            done.start("join", channel.join)
            await settle()
            assert status_of(channel) == "joining"
            await channel.leave()
            await settle()
            assert isinstance(done.by["join"], ChannelClosed)
            assert done.by["join"].reason == "left"
            done.start("again", channel.join)
            await until(lambda: "again" in done.by)
            assert status_of(channel) == "joined"
    assert len(there.asked) == 1


async def test_a_join_left_and_joined_again_while_waiting_is_one_join(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            channel = socket.channel("room:1")
            done = Outcomes(nursery)
            done.start("first", channel.join)
            await settle()
            channel.leave_soon()
            done.start("second", channel.join)
            await until(lambda: len(done.by) == 2)
            assert isinstance(done.by["first"], ChannelClosed)
            assert done.by["second"] == {"number": 1, "payload": {}}
    assert len(there.asked) == 1


async def test_joins_and_pushes_wait_for_room_over_a_loss(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.connection.pause_reading()
            done = Outcomes(nursery)
            for number in range(600):
                done.start(number, channel.push, "echo", [number, "x" * 1000], timeout=None)
            await settle()
            done.start("join", socket.channel("room:2").join)
            await settle()
            there.connection.drop()
            await until(lambda: len(done.by) == 601)
            assert done.by["join"] == {"number": 3, "payload": {}}
            lost = [value for value in done.by.values() if isinstance(value, ConnectionLost)]
            kept = [value for key, value in done.by.items() if isinstance(key, int) and isinstance(value, list)]
            assert len(lost) + len(kept) == 600
            assert {error.sent for error in lost} == {True, False}
    assert len(there.pushed) == len(kept)


async def test_subscriptions_to_the_same_event_end_each_for_itself(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            async with channel.subscribe("tick") as one:
                async with channel.subscribe("tick", "tock") as other:
                    await channel.push("burst", {"n": 1})
                    assert (await anext(one)).event == (await anext(other)).event == "tick"
                await channel.push("burst", {"n": 1})
                assert (await anext(one)).event == "tick"
                with pytest.raises(StopAsyncIteration):
                    await anext(other)


async def test_a_subscription_ends_with_its_block_for_those_who_wait(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            async with channel.subscribe("tick") as subscription, channel.presence() as presence:
                done.start("subscription", subscription.__anext__)
                done.start("presence", presence.__anext__)
                await settle()
            with trio.fail_after(1):
                await until(lambda: len(done.by) == 2)
            assert {type(error) for error in done.by.values()} == {StopAsyncIteration}


async def test_on_a_closed_socket_there_is_nothing_to_wait_for(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            joined = socket.channel("room:1")
            await joined.join()
            await socket.disconnect()
            with trio.fail_after(1):
                for channel in (joined, socket.channel("room:2")):
                    assert [message async for message in channel] == []
                    async with channel.subscribe() as subscription, channel.presence() as presence:
                        assert [message async for message in subscription] == []
                        assert [change async for change in presence] == []
                    with pytest.raises(ConnectionLost, match="disconnected"):
                        await channel.join()


async def test_dropped_frames_with_nobody_listening(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.telemetry.detach("world")
        async with there.connect() as socket, socket.join("room:1") as channel:
            await there.connection.send_raw('["77", null, "room:1", "tick", {}]', "nonsense", '[null,null,"x","y",{}]')
            await settle()
            assert await channel.push("echo", 1) == 1


# Bugs


class Broken(Transport):
    """A transport with a bug."""

    async def receive(self) -> Sequence[Frame]:
        await trio.sleep(1)
        raise ZeroDivisionError("a bug")

    async def send(self, frames: Sequence[Frame]) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_bug_at_a_reconnect_ends_everything_with_an_internal_error(autojump_clock: MockClock) -> None:
    settled: list[Any] = []

    async with world() as there:
        good = there.connector.open

        @asynccontextmanager
        async def open_(request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            if there.streams:
                yield Broken()
            else:
                async with good(request, wake) as transport:
                    yield transport

        there.connector.open = open_  # type: ignore[method-assign, assignment]
        with pytest.raises(InternalError) as caught:
            async with there.connect(heartbeat_interval=None) as socket:
                channel = socket.channel("room:1")
                await channel.join()
                there.connection.drop()
                await until(lambda: socket.status == "reconnecting")
                try:
                    await channel.push("echo", timeout=100)
                except ConnectionLost as error:
                    settled.append(error)
                await trio.sleep_forever()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert [error.reason for error in settled] == ["internal_error"]
        assert status_of(socket) == "closed"
        assert status_of(channel) == "closed"
