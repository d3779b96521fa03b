"""Where messages may be missing, it is said: in the stream, on the channel, in telemetry."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
import trio
from tests.peers import EPOCH
from tests.recovery.support import connected_again, reading, settle, until, world
from trio.testing import MockClock

from slipstream_trio import ChannelClosed, Gap, Overflow, SlowConsumer


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(EPOCH + seconds, UTC)


async def test_a_lost_connection_is_a_gap_at_its_place(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            async with channel.subscribe("tick") as subscription, channel.subscribe("else") as other:
                await channel.join()
                streams = [reading(nursery, stream) for stream in (channel.stream(), subscription.stream())]
                empty = reading(nursery, other.stream())
                await trio.sleep(5)
                await channel.push("burst", {"n": 1})
                there.connection.drop()
                await connected_again(there, socket, 2)
                await channel.push("burst", {"n": 2})
                await settle()
                for stream in streams:
                    assert stream.shape == [
                        ("tick", {"n": 0}),
                        ("reconnected", 0),
                        ("tick", {"n": 0}),
                        ("tick", {"n": 1}),
                    ]
                    assert stream.items[1] == channel.last_gap
                assert empty.shape == [("reconnected", 0)]
                gap = channel.last_gap
                assert gap is not None
                assert (gap.reason, gap.since, gap.dropped) == ("reconnected", at(5), 0)
                assert gap.until == at(6)
            await channel.leave()
    assert there.told("gap", "topic", "reason", "since", "until", "dropped") == [
        ("room:1", "reconnected", at(5), at(6), 0)
    ]


async def test_a_crash_is_a_gap(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel.stream())
            await channel.send("crash")
            await until(lambda: channel.last_gap is not None)
            await settle()
            assert stream.items == [Gap("rejoined", at(0), at(1))]
            await channel.leave()
    assert there.told("gap", "topic", "reason") == [("room:1", "rejoined")]


async def test_one_loss_is_one_gap_however_long_it_takes(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel.stream())
            await trio.sleep(20)
            there.upgrades.append(ConnectionRefusedError("nobody"))
            there.joins["room:1"].extend(["refuse", "hang"])
            there.connection.drop()
            await until(lambda: len(there.asked) == 3)
            there.connection.drop()
            await until(lambda: channel.status == "joined")
            await settle()
            (gap,) = stream.items
            assert isinstance(gap, Gap)
            assert gap.reason == "reconnected"
            assert abs(gap.since - at(0)) < timedelta(milliseconds=1)
            assert at(27) < gap.until <= at(trio.current_time())
            await channel.leave()
    assert len(there.told("gap", "topic")) == 1


async def test_two_losses_between_two_reads_are_one_gap_in_the_stream(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            for generation in (2, 3):
                there.connection.drop()
                await connected_again(there, socket, generation)
            await channel.push("burst", {"n": 1})
            stream = channel.stream()
            gap = await anext(stream)
            assert isinstance(gap, Gap)
            assert gap.since == at(0)
            assert channel.last_gap is not None
            assert gap.until == channel.last_gap.until
            message = await anext(stream)
            assert not isinstance(message, Gap)
    assert len(there.told("gap", "topic")) == 2


async def test_every_channel_has_its_own_gap(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1"), socket.join("room:2"):
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert sorted(there.told("gap", "topic")) == ["room:1", "room:2"]


async def test_where_nothing_was_missed_there_is_no_gap(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            await channel.join()
            await channel.leave()
            there.connection.drop()
            await connected_again(there, socket, 2)
            await channel.join()  # of its own accord
            assert channel.last_gap is None
            await channel.push("burst", {"n": 1})
            assert not isinstance(await anext(channel.stream()), Gap)
    assert there.told("gap", "topic") == []


@pytest.mark.parametrize("end", ["crash", "stop"])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_channel_that_had_ended_and_is_joined_by_hand_has_a_gap(
    end: str, cancelled: bool, autojump_clock: MockClock
) -> None:
    async with world() as there:
        async with there.connect(rejoin=None) as socket:
            channel = socket.channel("room:1")
            await channel.join()
            async with channel.subscribe("tick") as ticks:
                await channel.push("burst", {"n": 1})
                with pytest.raises(ChannelClosed):
                    await channel.push(end)  # whoever reads is busy, and does not see the end
                since = trio.current_time()
                if cancelled:
                    there.joins["room:1"].append("hang")
                    with trio.move_on_after(1):
                        await channel.join()
                    there.connection.drop()
                    await connected_again(there, socket, 2)
                await trio.sleep(1)
                await channel.join()
                await channel.push("burst", {"n": 1})
                stream = ticks.stream()
                with trio.fail_after(1):
                    before, gap, after = [await anext(stream) for _ in range(3)]
            assert isinstance(gap, Gap)
            assert not isinstance(before, Gap)
            assert not isinstance(after, Gap)
            assert (gap.reason, gap.since) == ("rejoined", at(since))
            assert channel.last_gap == gap
            assert len(there.told("gap", "topic")) == 1
            await channel.leave()
            await channel.join()
    assert len(there.told("gap", "topic")) == 2  # as the channel's own messages were not read before it was left


async def test_what_was_buffered_before_the_loss_is_still_read(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await channel.push("burst", {"n": 3})
            there.connection.drop()
            await connected_again(there, socket, 2)
            items = [await anext(channel.stream()) for _ in range(4)]
            assert [isinstance(item, Gap) for item in items] == [False, False, False, True]


# Overflow


async def burst(channel: Any, count: int) -> None:
    await channel.push("burst", {"n": count})


@pytest.mark.parametrize("policy", get_args(Overflow))
async def test_nothing_missed_is_ever_silent(policy: Overflow, autojump_clock: MockClock) -> None:
    """Whoever reads knows of every number: it came, or it is counted at the place where it is missing."""
    async with world() as there:
        async with there.connect(buffer=8, overflow=policy) as socket, socket.join("room:1") as channel:
            async with channel.subscribe("tick") as subscription:
                for stream in (channel.stream(), subscription.stream()):
                    await burst(channel, 1)
                    await anext(stream)
                total = 2
                told: dict[int, int] = {0: 1, 1: 1}
                for count in (5, 20, 3, 9, 50):
                    await burst(channel, count)
                    total += count
                    if count == 3:
                        there.connection.drop()
                        await connected_again(there, socket, 2)
                        await until(lambda: channel.status == "joined")
                for number, stream in enumerate((channel.stream(), subscription.stream())):
                    with trio.move_on_after(1):  # when nothing is left
                        while True:
                            try:
                                item = await anext(stream)
                            except SlowConsumer as error:
                                told[number] += error.dropped
                            else:
                                told[number] += item.dropped if isinstance(item, Gap) else 1
                # The channel saw both first messages, the subscription too, and one each was read by then.
                assert told == {0: total, 1: total}
                assert channel.dropped > 0
                assert subscription.dropped > 0
                assert channel.last_gap is not None


@pytest.mark.parametrize("policy", get_args(Overflow))
async def test_an_episode_is_told_once(policy: Overflow, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(buffer=4, overflow="raise") as socket, socket.join("room:1") as channel:
            async with channel.subscribe("tick", buffer=2, overflow=policy) as subscription:
                await burst(channel, 1)
                await anext(subscription)
                await burst(channel, 3)
                await burst(channel, 5)
                assert subscription.dropped == 6
                told = there.told("overflow", "consumer", "policy", "buffer", "topic")
                assert told == [("subscription", policy, 2, "room:1"), ("channel", "raise", 4, "room:1")]
                assert channel.last_gap is not None
                assert channel.last_gap.reason == "overflow"
                with trio.move_on_after(1):
                    while True:
                        try:
                            await anext(subscription.stream())
                        except SlowConsumer:
                            continue
                await burst(channel, 3)
                assert there.told("overflow", "consumer", "phase", "dropped")[2:] == [
                    ("subscription", "ended", 6),
                    ("subscription", "began", 1),
                ]


async def test_slow_consumer_is_raised_where_the_messages_are_missing(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(buffer=2) as socket, socket.join("room:1") as channel:
            messages = aiter(channel)
            await burst(channel, 1)
            assert (await anext(messages)).payload == {"n": 0}
            await burst(channel, 5)
            assert [(await anext(messages)).payload["n"] for _ in range(2)] == [0, 1]
            with pytest.raises(SlowConsumer) as caught:
                await anext(messages)
            assert (caught.value.topic, caught.value.dropped) == ("room:1", 3)
            await burst(channel, 1)
            assert (await anext(messages)).payload == {"n": 0}


async def test_a_channel_that_nobody_reads_fails_nobody(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(buffer=4) as socket, socket.join("room:1") as channel:
            await burst(channel, 100)
            assert channel.dropped == 96
            assert await channel.push("echo", 1) == 1
            messages = aiter(channel)
            with pytest.raises(SlowConsumer) as caught:
                await anext(messages)
            assert caught.value.dropped == 96
            assert [(await anext(messages)).payload["n"] for _ in range(4)] == [96, 97, 98, 99]
    assert there.told("overflow", "policy", "consumer")[:1] == [("raise", "channel")]
    assert there.told("overflow", "phase") == ["began", "ended"]


@pytest.mark.once
async def test_a_slow_consumer_stalls_nobody(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(buffer=2, heartbeat_interval=1) as socket, socket.join("room:1") as channel:
            await burst(channel, 1)
            await anext(aiter(channel))
            for _ in range(40):
                await burst(channel, 100)
                await trio.sleep(1)
            assert socket.generation == 1
            assert channel.dropped >= 3998


async def test_a_subscription_to_many_events_gets_each_message_and_each_gap_once(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            async with channel.subscribe("tick", "tick", "tock") as subscription:
                await channel.join()
                stream = reading(nursery, subscription.stream())
                await burst(channel, 1)
                there.connection.drop()
                await connected_again(there, socket, 2)
                assert stream.shape == [("tick", {"n": 0}), ("reconnected", 0)]
            await channel.leave()
            nursery.cancel_scope.cancel()


async def test_of_two_gaps_in_one_place_the_reason_is_that_of_the_first(autojump_clock: MockClock) -> None:
    async with world() as there, there.connect() as socket:
        channel = socket.channel("room:1")
        await channel.join()
        await channel.send("crash")
        await until(lambda: channel.last_gap is not None)
        first = channel.last_gap
        there.connection.drop()
        await connected_again(there, socket, 2)
        await until(lambda: channel.last_gap is not first)
        gap, last = await anext(channel.stream()), channel.last_gap
        assert isinstance(gap, Gap)
        assert first is not None
        assert last is not None
        assert (gap.reason, gap.since, gap.until) == ("rejoined", first.since, last.until)


def test_a_gap_says_how_many_messages_are_missing_if_that_is_known() -> None:
    times = " from 2026-01-01 00:00:00.000+00:00 to 2026-01-01 00:00:01.500+00:00"
    since, until = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert str(Gap("overflow", since, until, 3)) == "3 messages were dropped (overflow)" + times
    assert str(Gap("rejoined", since, until)) == "messages may be missing (rejoined)" + times
