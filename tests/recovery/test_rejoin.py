"""After a reconnect, and after a crash, channels are joined again; what refuses for good ends."""

from typing import Any

import pytest
import trio
from tests.recovery.support import Outcomes, connected_again, reading, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import AlreadyJoined, Backoff, ChannelClosed, JoinError
from slipstream_trio.testing.server import Refuse


def asked_at(there: Any, topic: str = "room:1") -> list[float]:
    return [round(at, 2) for at, asked, _ in there.asked if asked == topic]


# After a reconnect


async def test_every_channel_that_was_joined_is_joined_again(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channels = [socket.channel(f"room:{number}", {"n": number}) for number in range(20)]
            for channel in channels:
                await channel.join()
            left = socket.channel("room:left")
            await left.join()
            await left.leave()
            unjoined = socket.channel("room:never")
            there.asked.clear()
            for generation in (2, 3):
                there.connection.drop()
                await connected_again(there, socket, generation)
                assert {channel.status for channel in channels} == {"joined"}
                assert sorted(payload["n"] for _, _, payload in there.asked) == list(range(20))
                assert set(there.connection.channels) == {channel.topic for channel in channels}
                there.asked.clear()
            assert (left.status, unjoined.status) == ("closed", "closed")


async def test_it_is_the_same_channel_with_a_new_join(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:0"), socket.join("room:1") as channel:
            assert channel.join_ref == "2"
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert channel.join_ref in ("3", "4")
            assert channel.join_ref == socket.state.joins["room:1"]
            with pytest.raises(AlreadyJoined):
                await socket.channel("room:1").join()
            with pytest.raises(AlreadyJoined):
                await channel.join()


async def test_a_channel_that_waits_holds_its_topic(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1"):
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            with pytest.raises(AlreadyJoined):
                await socket.channel("room:1").join()


async def test_the_statuses_of_a_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            seen = [channel.status]

            def look(_: Any) -> None:
                if channel.status != seen[-1]:
                    seen.append(channel.status)

            with there.telemetry.listen(look):
                await channel.join()
                there.connection.drop()
                await connected_again(there, socket, 2)
                await channel.leave()
    assert seen == ["closed", "joining", "joined", "errored", "joining", "joined", "leaving", "closed"]


# Refused rejoins


async def test_a_refused_rejoin_backs_off_and_then_succeeds(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.joins["room:1"].extend(["refuse"] * 4)
            there.connection.drop()
            await until(lambda: socket.generation == 2 and channel.status == "joined")
            assert await channel.push("echo", 1) == 1
    assert asked_at(there) == [0, 1, 2, 4, 9, 14]
    assert there.told("rejoin_scheduled", "topic", "delay", "attempt", "reason") == [
        ("room:1", delay, attempt, "refused") for attempt, delay in enumerate([1, 2, 5, 5], 1)
    ]


async def test_a_join_that_crashes_is_a_refusal(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append("crash")
            there.connection.drop()
            await until(lambda: socket.generation == 2 and channel.status == "joined")
    assert asked_at(there) == [0, 1, 2]


@pytest.mark.parametrize(("options", "attempts"), [({"rejoin": None}, 1), ({"limit": 0}, 1), ({"limit": 2}, 3)])
async def test_a_refused_rejoin_that_is_given_up_ends_the_streams_with_join_error(
    options: dict[str, Any], attempts: int, autojump_clock: MockClock
) -> None:
    if "limit" in options:
        options = {"rejoin": Backoff((1,), jitter=0, limit=options["limit"])}
    async with world() as there:
        async with there.connect(**options) as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            there.joins["room:1"].extend(["refuse"] * 10)
            streams = [reading(nursery, channel.stream())]
            async with channel.subscribe() as subscription:
                streams.append(reading(nursery, subscription))
                await settle()
                there.connection.drop()
                for stream in streams:
                    await stream.done.wait()
                    assert isinstance(stream.ended, JoinError)
                    assert stream.ended.response == {"reason": "no"}
                    assert stream.items == []
            assert status_of(channel) == "closed"
            with pytest.raises(ChannelClosed) as caught:
                await channel.push("echo")
            assert caught.value.reason == "join_refused"
            there.joins.clear()
            await channel.join()  # anew
            assert await channel.push("echo", 1) == 1
    assert len(there.asked) == 1 + attempts + 1


async def test_refusals_of_one_channel_are_nothing_to_another(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as one, socket.join("room:2") as other:
            there.joins["room:1"].extend(["refuse"] * 3)
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert (one.status, other.status) == ("errored", "joined")
            assert await other.push("echo", 1) == 1


async def test_the_backoff_of_a_channel_outlives_another_loss(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin=Backoff((100,), jitter=0)) as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append("refuse")
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert status_of(channel) == "errored"
            there.connection.drop()
            await connected_again(there, socket, 3)
            assert status_of(channel) == "errored"
            await trio.sleep(300)
            assert status_of(channel) == "joined"
    assert len(there.asked) == 3


async def test_the_backoff_begins_anew_after_a_join_that_has_lasted_until_a_loss(autojump_clock: MockClock) -> None:
    async with world() as there:
        backoff = Backoff((1, 20), jitter=0, reset_after=60)
        async with there.connect(rejoin=backoff) as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append("refuse")
            there.connection.drop()
            await until(lambda: socket.generation == 2 and channel.status == "joined")
            await trio.sleep(100)
            there.connection.drop()
            await connected_again(there, socket, 3)
            assert status_of(channel) == "joined"
            await trio.sleep(5)
            with pytest.raises(ChannelClosed):
                await channel.push("crash")
            await trio.sleep(2)
            assert status_of(channel) == "joined"
    assert there.told("rejoin_scheduled", "delay", "reason") == [(1, "refused"), (1, "crashed")]


async def test_another_loss_during_a_rejoin_rejoins_with_the_next_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            for generation in (2, 3, 4):
                there.joins["room:1"].append("hang")
                there.connection.drop()
                await until(lambda generation=generation: len(there.asked) == generation)  # type: ignore[misc]
                assert status_of(channel) == "joining"
            there.connection.drop()
            await connected_again(there, socket, 5)
            assert status_of(channel) == "joined"
    assert len(there.asked) == 5


async def test_backoffs_without_a_delay_do_not_spin(autojump_clock: MockClock) -> None:
    calls = 0

    def payload() -> Any:
        nonlocal calls
        calls += 1
        if 1 < calls < 50:
            raise LookupError("not yet")
        return {}

    async with world() as there:
        async with there.connect(rejoin=Backoff((0,))) as socket, socket.join("room:1", payload) as channel:
            there.connection.drop()
            await until(lambda: socket.generation == 2 and channel.status == "joined")
        assert len(there.told("rejoin_scheduled", "attempt")) == 48
        calls = 1
        with pytest.raises(ChannelClosed):
            async with (
                there.connect(rejoin=Backoff((0,), limit=5)) as socket,
                socket.join("room:1", lambda: {} if not there.server.connections[1:] else payload()) as channel,
            ):
                calls = 1
                there.connection.drop()
                await until(lambda: socket.status == "reconnecting")
                await channel.push("echo", timeout=100)
                raise ChannelClosed("room:1", "not reached")


# Leaving


async def test_leaving_while_disconnected_sends_nothing_and_cancels_the_rejoin(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel.stream())
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            began = trio.current_time()
            await channel.leave()
            assert trio.current_time() == began
            assert status_of(channel) == "closed"
            await stream.done.wait()
            assert isinstance(stream.ended, StopAsyncIteration)
            assert stream.items == []
            await connected_again(there, socket, 2)
            await trio.sleep(60)
            assert [message.event for message in there.connection.received if message.topic != "phoenix"] == []
    assert len(there.asked) == 1


@pytest.mark.parametrize("seed", range(20))
async def test_leaving_at_the_very_moment_of_the_reconnect_sends_no_join(seed: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            await channel.join()
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            await socket.wait_connected()
            channel.leave_soon()
            await channel.leave()
            await settle()
            assert status_of(channel) == "closed"
            assert socket.state.joins == {}
            await channel.join()
            assert await channel.push("echo", 1) == 1


async def test_leaving_during_the_backoff_cancels_the_rejoin(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            await channel.join()
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await channel.leave()
            assert status_of(channel) == "closed"
            await trio.sleep(60)
            await channel.join()
    assert len(there.asked) == 2


async def test_leaving_during_a_rejoin_takes_it_back(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel)
            there.joins["room:1"].append(1.0)
            there.connection.drop()
            await until(lambda: len(there.asked) == 2)
            assert status_of(channel) == "joining"
            done = Outcomes(nursery)
            done.start("push", channel.push, "echo")
            await settle()
            done.start("leave", channel.leave)
            await settle()
            assert status_of(channel) == "leaving"
            await until(lambda: len(done.by) == 2)
            assert isinstance(done.by["push"], ChannelClosed)
            assert status_of(channel) == "closed"
            await stream.done.wait()
            assert isinstance(stream.ended, StopAsyncIteration)
            assert there.connection.channels == {}
            await trio.sleep(60)
    assert len(there.asked) == 2


async def test_a_leave_that_the_loss_overtakes_is_complete(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel)
            there.connection.pause_reading()
            done = Outcomes(nursery)
            done.start("leave", channel.leave)
            await settle()
            assert status_of(channel) == "leaving"
            there.connection.drop()
            await until(lambda: "leave" in done.by)
            assert done.by["leave"] is None
            await stream.done.wait()
            assert isinstance(stream.ended, StopAsyncIteration)  # asked for, whatever became of it
            await connected_again(there, socket, 2)
            assert status_of(channel) == "closed"
            with pytest.raises(ChannelClosed):
                await channel.push("echo")
    assert len(there.asked) == 1
    assert [record.metadata["outcome"] for record in there.records_of("client", "leave", "stop")] == ["lost"]


async def test_a_block_left_while_disconnected_leaves(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            async with socket.join("room:1"):
                there.upgrades.append(Refuse(500))
                there.connection.drop()
                await until(lambda: socket.status == "reconnecting")
            async with socket.join("room:1") as again:
                assert socket.generation == 2
                assert status_of(again) == "joined"
    assert len(there.asked) == 2


# A channel that the server closes


async def test_a_channel_that_the_server_closes_is_joined_again_by_choice(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin_closed=True) as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel.stream())
            there.connection.channels["room:1"].stop("normal")
            await until(lambda: status_of(channel) == "errored")
            assert await channel.push("echo", 1) == 1
            assert status_of(channel) == "joined"
            assert [getattr(item, "reason", item) for item in stream.items] == ["rejoined"]
            await channel.leave()
    assert asked_at(there) == [0, 1]


async def test_without_delays_it_ends_as_without_the_choice(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin_closed=True, rejoin=None) as socket, socket.join("room:1") as channel:
            there.connection.channels["room:1"].stop("normal")
            assert [message async for message in channel] == []
            with pytest.raises(ChannelClosed) as caught:
                await channel.push("echo")
            assert caught.value.reason == "closed"
