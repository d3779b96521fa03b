"""Buffers that overflow: who is told, when, and how much is missing."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from tests.client.support import URL, Peer, Recorder, Scripted, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, Gap, Message, SlowConsumer, connect
from slipstream_trio.client.turn import FRAMES_A_LOOK
from slipstream_trio.telemetry import Telemetry


def virtual_time() -> Telemetry:
    """Return a bus whose records have the time of Trio's clock."""
    return Telemetry(time_ns=lambda: int(trio.current_time() * 1e9))


class Channeled:
    """A channel of a scripted peer, and what is told of its overflows."""

    def __init__(self, channel: Channel, peer: Peer, recorder: Recorder) -> None:
        self.channel = channel
        self.peer = peer
        self.recorder = recorder

    @property
    def overflows(self) -> int:
        """How often it was told that a buffer is full."""
        return [phase for phase, _ in self.told].count("began")

    @property
    def told(self) -> list[tuple[str, int]]:
        """What was told of overflows: the phase, and how many messages were dropped."""
        return [(record.phase, record.dropped) for record in self.recorder.named("client", "overflow")]

    async def put(self, *numbers: int) -> None:
        for number in numbers:
            self.peer.message("room", "event", number)
        await wait_all_tasks_blocked()

    async def take(self, count: int) -> list[Any]:
        """Return the next payloads, and -n where n messages are missing."""
        taken, stream = [], aiter(self.channel)
        with trio.fail_after(1):
            for _ in range(count):
                try:
                    taken.append((await anext(stream)).payload)
                except SlowConsumer as error:
                    taken.append(-error.dropped)
        return taken


@asynccontextmanager
async def channeled(buffer: int) -> AsyncIterator[Channeled]:
    """Join a channel with a small buffer; at the end nothing may be left in it."""
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, buffer=buffer) as (socket, peer), socket.join("room") as channel:
        yield Channeled(channel, peer, recorder)
        with trio.move_on_after(1) as nothing_is_left:
            await anext(channel.stream())
        assert nothing_is_left.cancelled_caught


async def test_a_full_buffer_gives_what_it_has_then_tells_once_and_goes_on(autojump_clock: MockClock) -> None:
    async with channeled(3) as it:
        await it.put(0)
        assert await it.take(1) == [0]
        await it.put(1, 2, 3, 4, 5)
        assert it.channel.dropped == 2
        assert await it.take(2) == [1, 2]
        await it.put(6)
        assert await it.take(3) == [3, -2, 6]
        assert it.overflows == 1


async def test_each_loss_is_told_at_its_place(autojump_clock: MockClock) -> None:
    async with channeled(2) as it:
        await it.put(0)
        await it.take(1)
        await it.put(1, 2, 3, 4)
        assert await it.take(3) == [1, 2, -2]
        await it.put(5, 6, 7)
        assert await it.take(3) == [5, 6, -1]
        assert it.channel.dropped == 3
        assert it.overflows == 2


async def test_a_loss_ends_when_there_is_room_again(autojump_clock: MockClock) -> None:
    async with channeled(1) as it:
        await it.put(0)
        await it.take(1)
        await it.put(1, 2)
        assert await it.take(1) == [1]
        await it.put(3)
        assert await it.take(2) == [-1, 3]
        await it.put(4)
        assert await it.take(1) == [4]
        assert it.overflows == 1


async def test_an_overflow_is_told_at_its_first_drop_every_ten_seconds_and_when_half_is_read(
    autojump_clock: MockClock,
) -> None:
    async with channeled(4) as it:
        await it.put(*range(6))
        assert it.told == [("began", 1)]
        for _ in range(9):
            await trio.sleep(2.5)
            await it.put(0)
        assert it.told == [("began", 1), ("lasts", 6), ("lasts", 10)]
        assert await it.take(2) == [-11, 0]
        assert len(it.told) == 3
        await it.put(7, 8)
        assert await it.take(1) == [0]
        assert len(it.told) == 3
        assert await it.take(1) == [0]
        assert it.told[3:] == [("ended", 12)]
        assert await it.take(3) == [0, 7, -1]


async def test_an_overflow_ends_with_its_stream(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, buffer=2) as (socket, peer), socket.join("room"):
        for number in range(5):
            peer.message("room", "event", number)
        await wait_all_tasks_blocked()
    assert [(each.phase, each.dropped) for each in recorder.named("client", "overflow")] == [("began", 1), ("ended", 3)]


async def test_what_nobody_reads_keeps_its_newest_and_tells_the_first_reader(autojump_clock: MockClock) -> None:
    async with channeled(3) as it:
        await it.put(*range(10))
        assert it.channel.dropped == 7
        assert it.overflows == 1
        assert await it.take(4) == [-7, 7, 8, 9]
        await it.put(10)
        assert await it.take(1) == [10]


class Passes(trio.abc.Instrument):
    """Counts how often the scheduler was passed."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize(
    ("reader", "passed"),
    [("nobody", [1, 1, 1, 1, 1]), ("channel", [1, 1, 2, 2, 2]), ("subscription", [1, 1, 2, 2, 2])],
)
async def test_the_receive_loop_waits_only_for_a_reader_who_is_more_than_half_a_buffer_behind(
    reader: str, passed: list[int], autojump_clock: MockClock
) -> None:
    passes = Passes()
    handed_over: list[int] = []
    done = trio.Event()
    async with channeled(4) as it, it.channel.subscribe() as messages:
        await it.put(0)
        if reader == "channel":
            await it.take(1)
        elif reader == "subscription":
            await anext(messages)

        def one_after_the_other() -> None:
            handed_over.append(passes.count)
            if len(handed_over) <= 5:
                it.peer.message("room", "event", len(handed_over))
            else:
                done.set()

        it.peer.handing_over = one_after_the_other
        trio.lowlevel.add_instrument(passes)
        it.peer.message("room", "event", 0)
        await done.wait()
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(passes)
        await it.take(5)
    assert [after - before for before, after in pairwise(handed_over[:6])] == passed


async def test_a_slow_consumer_of_a_channel_is_told(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, buffer=4) as (socket, peer), socket.join("room") as channel:
        stream = aiter(channel)
        peer.message("room", "event", 0)
        await anext(stream)
        for number in range(1, 11):
            peer.message("room", "event", number)
            await wait_all_tasks_blocked()
        assert channel.dropped == 6
        assert [(await anext(stream)).payload for _ in range(4)] == [1, 2, 3, 4]
        with pytest.raises(SlowConsumer) as raised:
            await anext(stream)
        assert (raised.value.topic, raised.value.dropped) == ("room", 6)
        peer.message("room", "event", 11)
        assert (await anext(stream)).payload == 11
    record, ended = recorder.named("client", "overflow")
    assert (record.phase, record.dropped, ended.phase, ended.dropped) == ("began", 1, "ended", 6)
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
            await wait_all_tasks_blocked()
            assert (channel.dropped, messages.dropped) == (0, 3)
            with pytest.raises(SlowConsumer):
                await anext(messages)
            assert [(await anext(messages)).payload for _ in range(2)] == [3, 4]
    record, _ = recorder.named("client", "overflow")
    assert (record.buffer, record.consumer) == (2, "subscription")


async def test_an_overflow_that_nobody_listens_to_is_counted_all_the_same(autojump_clock: MockClock) -> None:
    async with scripted(buffer=1) as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event", 1)
        peer.message("room", "event", 2)
        await wait_all_tasks_blocked()
        assert channel.dropped == 1


async def test_a_crowded_subscription_is_eased_too(autojump_clock: MockClock) -> None:
    async with scripted(buffer=8) as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        async with channel.subscribe(buffer=64) as messages:
            taken: list[Any] = []

            async def iterate() -> None:
                while len(taken) < 320:
                    taken.append((await anext(messages)).payload)

            nursery.start_soon(iterate)
            await wait_all_tasks_blocked()
            for burst in range(10):
                for number in range(32):
                    peer.message("room", "event", burst * 32 + number)
                await wait_all_tasks_blocked()
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
        await wait_all_tasks_blocked()
        for number in range(240):
            peer.message("room", "event", number)
            if number % 24 == 23:
                await wait_all_tasks_blocked()
    assert taken == list(range(240))


async def taken_meanwhile(seconds: float, attempts: int) -> list[int]:
    """Return how many messages a consumer took while the receive loop waited for it, where it took any.

    In what order Trio runs the two is random, so often it takes none, and the receive loop goes on.

    Parameters:
        seconds: that the consumer computes for each message.
    """
    counts: list[int] = []
    taken = 0
    async with scripted(buffer=64) as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        before: int | None = None

        async def iterate() -> None:
            nonlocal taken
            async for _ in channel:
                taken += 1
                until = time.perf_counter() + seconds
                while before is not None and time.perf_counter() < until:
                    pass
                if not seconds:
                    await trio.lowlevel.checkpoint()

        def handed_over() -> None:
            nonlocal before
            if before is None:
                before = taken
                peer.message("room", "event", "the next")
            else:
                counts.append(taken - before)
                before = None

        nursery.start_soon(iterate)
        await wait_all_tasks_blocked()
        peer.handing_over = handed_over
        while sum(count > 0 for count in counts) < attempts:
            for number in range(60):
                peer.message("room", "event", number)
            await wait_all_tasks_blocked()
        peer.handing_over = lambda: None
        nursery.cancel_scope.cancel()
    return [count for count in counts if count]


async def test_the_receive_loop_waits_for_as_long_as_a_consumer_makes_progress(autojump_clock: MockClock) -> None:
    taken = await taken_meanwhile(0.0, 40)
    assert 3 <= max(taken) <= 32  # until half of the buffer is free


async def test_the_receive_loop_waits_for_50_ms_at_most(autojump_clock: MockClock) -> None:
    assert max(await taken_meanwhile(0.06, 6)) <= 2 + 60 // FRAMES_A_LOOK  # others run while it goes on


async def test_an_overflow_beside_a_lost_connection_is_one_gap_from_the_first_loss_to_the_rejoin(
    autojump_clock: MockClock,
) -> None:
    connector = Scripted()
    options: dict[str, Any] = {"transport": connector, "telemetry": virtual_time(), "buffer": 1}
    async with connect(URL, overflow="drop_newest", reconnect=Backoff((10,), jitter=0), **options) as socket:
        channel = socket.channel("room")
        await channel.join()
        stream = channel.stream()
        with trio.move_on_after(1):
            await anext(stream)  # now somebody reads
        for number in range(3):  # at 1, 2 and 3 s
            connector.peer.message("room", "event", number)
            await trio.sleep(1)
        connector.peer.end()
        await trio.sleep(20)
        connector.peer.message("room", "event", 3)  # there is no room for this one either
        await wait_all_tasks_blocked()
        assert isinstance(await anext(stream), Message)
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.dropped) == ("reconnected", 3)
        assert (gap.since.timestamp(), gap.until.timestamp()) == (2, 24)


async def test_each_message_wakes_one_of_those_who_wait(autojump_clock: MockClock) -> None:
    got: list[Any] = []
    async with channeled(10) as it:

        async def read() -> None:
            got.extend(await it.take(1))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
            await it.put()
            await it.put(*range(5))
        assert sorted(got) == [0, 1, 2, 3, 4]


async def test_a_gap_that_is_merged_with_an_earlier_one_ends_when_the_last_message_was_dropped(
    autojump_clock: MockClock,
) -> None:
    connector = Scripted()
    options: dict[str, Any] = {"reconnect": Backoff((1,), jitter=0), "overflow": "drop_oldest", "buffer": 1}
    async with connect(URL, transport=connector, **options) as socket:
        channel = socket.channel("room")
        await channel.join()
        connector.peer.message("room", "first")
        await trio.sleep(1)
        connector.peer.end()
        await trio.sleep(10)
        lost = channel.last_gap
        connector.peer.message("room", "second")
        await trio.sleep(1)
        gap = await anext(channel.stream())
        assert isinstance(gap, Gap)
        assert lost is not None
        assert (gap.reason, gap.since) == ("reconnected", lost.since)
        assert gap.until > lost.until
        assert gap == channel.last_gap


def gaps_told(recorder: Recorder) -> list[tuple[str, float, float, int]]:
    return [
        (gap.reason, gap.since.timestamp(), gap.until.timestamp(), gap.dropped)
        for gap in recorder.named("client", "gap")
    ]


async def test_what_was_dropped_in_two_places_is_told_as_one_gap_at_the_end(autojump_clock: MockClock) -> None:
    recorder = Recorder(virtual_time())
    options: dict[str, Any] = {"buffer": 2, "overflow": "drop_newest", "telemetry": recorder.bus}
    async with scripted(**options) as (socket, peer), socket.join("room") as channel:
        it = Channeled(channel, peer, recorder)
        await it.put(0)
        await it.take(1)
        for _ in range(2):
            await trio.sleep(1)
            await it.put(1, 2, 3)
            await it.take(1)
    assert gaps_told(recorder) == [("overflow", 1, 2, 3)]


async def test_a_lost_connection_is_no_part_of_the_overflow_that_is_told_at_the_end(autojump_clock: MockClock) -> None:
    recorder, connector = Recorder(virtual_time()), Scripted()
    options: dict[str, Any] = {"transport": connector, "telemetry": recorder.bus, "overflow": "drop_oldest"}
    async with connect(URL, buffer=3, reconnect=Backoff((1,), jitter=0), **options) as socket:
        async with socket.join("room") as channel:
            await Channeled(channel, connector.peer, recorder).put(1, 2)
            connector.peer.end()
            await trio.sleep(10)
            await Channeled(channel, connector.peer, recorder).put(3, 4)
    assert gaps_told(recorder) == [("reconnected", 0, 1, 0), ("overflow", 10, 10, 1)]


async def test_what_is_dropped_where_losses_were_told_already_is_told_alone(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"buffer": 2, "overflow": "drop_newest", "telemetry": recorder.bus}
    async with scripted(**options) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        it = Channeled(channel, peer, recorder)
        await it.put(0)
        await it.take(1)
        await it.put(1, 2, 3)
        await channel.leave()
        await channel.join()
        await it.put(4)
        gap = [await anext(channel.stream()) for _ in range(3)][-1]
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.dropped) == ("rejoined", 2)
    told = [(gap.reason, gap.dropped) for gap in recorder.named("client", "gap")]
    assert told == [("overflow", 1), ("rejoined", 0), ("overflow", 1)]
