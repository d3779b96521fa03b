"""Buffers that overflow: who is told, when, and how much is missing."""

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from tests.client.support import Recorder, scripted
from trio.testing import MockClock

from slipstream_trio import Message, SlowConsumer
from slipstream_trio.client.buffer import Buffer, Gap


def message(number: int) -> Message:
    return Message(None, None, "room", "event", number)


class Counted:
    """A buffer, and the number of its overflows."""

    def __init__(self, limit: int) -> None:
        self.overflows = 0
        self.told: list[Gap] = []
        self.buffer = Buffer(
            "room",
            limit,
            "raise",
            now=lambda: datetime.now(UTC),
            overflowed=self._overflowed,
            told=self.told.append,
        )

    def _overflowed(self, gap: Gap, first: bool) -> None:
        self.overflows += first

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.buffer.put(message(number))

    async def take(self, count: int) -> list[Any]:
        """Return the next payloads, and -n where n messages are missing."""
        taken = []
        for _ in range(count):
            try:
                taken.append((await self.buffer.get()).payload)
            except SlowConsumer as error:
                taken.append(-error.dropped)
        return taken


async def test_a_full_buffer_gives_what_it_has_then_tells_once_and_goes_on(autojump_clock: MockClock) -> None:
    counted = Counted(3)
    counted.put(0)
    assert await counted.take(1) == [0]
    counted.put(1, 2, 3, 4, 5)
    assert counted.buffer.dropped == 2
    assert len(counted.buffer) == 4  # the mark of the loss included
    assert await counted.take(2) == [1, 2]
    counted.put(6)
    assert await counted.take(3) == [3, -2, 6]
    assert counted.overflows == 1


async def test_each_loss_is_told_at_its_place(autojump_clock: MockClock) -> None:
    counted = Counted(2)
    counted.put(0)
    await counted.take(1)
    counted.put(1, 2, 3, 4)
    assert await counted.take(3) == [1, 2, -2]
    counted.put(5, 6, 7)
    assert await counted.take(3) == [5, 6, -1]
    assert counted.buffer.dropped == 3
    assert counted.overflows == 2


async def test_a_loss_ends_when_there_is_room_again(autojump_clock: MockClock) -> None:
    counted = Counted(1)
    counted.put(0)
    await counted.take(1)
    counted.put(1, 2)
    assert await counted.take(1) == [1]
    counted.put(3)
    assert await counted.take(2) == [-1, 3]
    counted.put(4)
    assert await counted.take(1) == [4]
    assert counted.overflows == 1


async def test_what_nobody_reads_keeps_its_newest_and_tells_the_first_reader(autojump_clock: MockClock) -> None:
    counted = Counted(3)
    counted.put(*range(10))
    assert len(counted.buffer) == 4  # the mark of the loss included
    assert counted.buffer.dropped == 7
    assert counted.overflows == 1
    assert await counted.take(4) == [-7, 7, 8, 9]
    counted.put(10)
    assert await counted.take(1) == [10]


async def test_only_a_buffer_that_is_read_is_crowded(autojump_clock: MockClock) -> None:
    counted = Counted(4)
    counted.put(0, 1, 2, 3)
    crowded = [counted.buffer.crowded]
    for _ in range(2):
        await counted.take(1)
        crowded.append(counted.buffer.crowded)
    assert crowded == [False, True, False]


async def test_a_slow_consumer_of_a_channel_is_told(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, buffer=4) as (socket, peer), socket.join("room") as channel:
        stream = aiter(channel)
        peer.message("room", "event", 0)
        await anext(stream)
        for number in range(1, 11):
            peer.message("room", "event", number)
            await trio.testing.wait_all_tasks_blocked()
        assert channel.dropped == 6
        assert [(await anext(stream)).payload for _ in range(4)] == [1, 2, 3, 4]
        with pytest.raises(SlowConsumer) as raised:
            await anext(stream)
        assert (raised.value.topic, raised.value.dropped) == ("room", 6)
        peer.message("room", "event", 11)
        assert (await anext(stream)).payload == 11
    (record,) = recorder.named("client", "overflow")
    assert (record.topic, record.policy, record.buffer, record.consumer) == ("room", "raise", 4, "channel")
    assert record.connection_id == socket.connection_id


async def test_a_channel_that_nobody_iterates_fails_nobody(autojump_clock: MockClock) -> None:
    async with scripted(buffer=4) as (socket, peer), socket.join("room") as channel:
        for number in range(10):
            peer.message("room", "event", number)
        assert await channel.push("echo", "fine") == "fine"
        with pytest.raises(SlowConsumer) as raised:
            await anext(aiter(channel))
        assert raised.value.dropped == 6
        assert (await anext(aiter(channel))).payload == 6


async def test_each_buffer_overflows_for_itself(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, buffer=100) as (socket, peer), socket.join("room") as channel:
        async with channel.subscribe("event", buffer=2) as messages:
            for number in range(5):
                peer.message("room", "event", number)
            await trio.testing.wait_all_tasks_blocked()
            assert (channel.dropped, messages.dropped) == (0, 3)
            with pytest.raises(SlowConsumer):
                await anext(messages)
            assert [(await anext(messages)).payload for _ in range(2)] == [3, 4]
    (record,) = recorder.named("client", "overflow")
    assert (record.buffer, record.consumer) == (2, "subscription")


async def test_an_overflow_that_nobody_listens_to_is_counted_all_the_same(autojump_clock: MockClock) -> None:
    async with scripted(buffer=1) as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event", 1)
        peer.message("room", "event", 2)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.dropped == 1


async def test_a_crowded_subscription_is_eased_too(autojump_clock: MockClock) -> None:
    async with scripted(buffer=8) as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        async with channel.subscribe(buffer=64) as messages:
            taken: list[Any] = []

            async def iterate() -> None:
                while len(taken) < 320:
                    taken.append((await anext(messages)).payload)

            nursery.start_soon(iterate)
            await trio.testing.wait_all_tasks_blocked()
            for burst in range(10):
                for number in range(32):
                    peer.message("room", "event", burst * 32 + number)
                await trio.testing.wait_all_tasks_blocked()
            assert taken == list(range(320))
            assert messages.dropped == 0


async def test_the_receive_loop_does_not_wait_for_a_consumer_that_makes_no_progress(
    autojump_clock: MockClock,
) -> None:
    async with scripted(buffer=4) as (socket, peer), socket.join("room") as channel, socket.join("other") as other:
        peer.message("room", "event", 0)
        await anext(aiter(channel))
        for number in range(1000):
            peer.message("room", "event", number)
        peer.message("other", "event", "through")
        assert (await anext(aiter(other))).payload == "through"
        assert trio.current_time() == 0


async def test_the_receive_loop_waits_for_a_consumer_that_makes_progress(autojump_clock: MockClock) -> None:
    async with scripted(buffer=32) as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        taken: list[Any] = []

        async def iterate() -> None:
            stream = aiter(channel)
            while len(taken) < 240:
                taken.append((await anext(stream)).payload)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(iterate)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(240):
            peer.message("room", "event", number)
            if number % 24 == 23:
                await trio.testing.wait_all_tasks_blocked()
    assert taken == list(range(240))


async def test_the_receive_loop_waits_a_limited_time_for_one_that_does(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipstream_trio.client.connection.EASING", 0.0)
    async with scripted(buffer=4) as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event", 0)
        await anext(aiter(channel))
        for number in range(4):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        assert await channel.push("echo", 1) == 1
