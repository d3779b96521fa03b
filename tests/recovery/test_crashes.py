"""What the server does to a single channel: crashes are recovered from, closes end it, old frames are nobody's."""

import json
from typing import Any

import pytest
import trio
from tests.recovery.support import Outcomes, connected_again, reading, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import Backoff, ChannelClosed, ConnectionLost, PushError


async def test_a_crash_fails_pending_pushes_at_once_and_new_ones_wait(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            done.start("pending", channel.push, "late", 100, timeout=1000)
            await settle()
            with pytest.raises(ChannelClosed) as caught:
                await channel.push("crash")
            assert caught.value.reason == "crashed"
            assert trio.current_time() == 0
            await settle()
            assert isinstance(done.by["pending"], ChannelClosed)
            assert status_of(channel) == "errored"
            assert await channel.push("echo", 1) == 1
            assert trio.current_time() == pytest.approx(1)
            assert socket.generation == 1
    assert there.told("rejoin_scheduled", "topic", "delay", "attempt", "reason") == [("room:1", 1, 1, "crashed")]


async def test_a_crash_of_one_channel_is_nothing_to_another(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as one, socket.join("room:2") as other:
            async with trio.open_nursery() as nursery:
                done = Outcomes(nursery)
                done.start("other", other.push, "late", 0.5)
                await one.send("crash")
                await until(lambda: "other" in done.by)
                assert done.by["other"] == {}
                assert other.last_gap is None


async def test_a_channel_that_crashes_over_and_over_backs_off_and_one_that_lives_begins_anew(
    autojump_clock: MockClock,
) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            for _ in range(4):
                await channel.send("crash")
                await until(lambda: channel.status == "errored")
                await until(lambda: channel.status == "joined")
            await trio.sleep(10.1)
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await until(lambda: channel.status == "joined")
    assert there.told("rejoin_scheduled", "delay") == [1, 2, 5, 5, 1]
    assert there.told("rejoin_scheduled", "attempt") == [1, 2, 3, 4, 1]


async def test_a_channel_that_crashes_right_after_every_join_is_given_up_at_the_limit(
    autojump_clock: MockClock,
) -> None:
    async with world() as there:
        async with there.connect(rejoin=Backoff((1,), jitter=0, limit=3)) as socket, trio.open_nursery() as nursery:
            there.joins["room:1"].extend(["die"] * 10)
            channel = socket.channel("room:1")
            stream = reading(nursery, channel.stream())
            await channel.join()
            await stream.done.wait()
            assert isinstance(stream.ended, ChannelClosed)
            assert stream.ended.reason == "crashed"
            assert status_of(channel) == "errored"
            with pytest.raises(ChannelClosed):
                await channel.push("echo")
            there.joins.clear()
            await channel.join()
            assert await channel.push("echo", 1) == 1
    assert len(there.asked) == 5


async def test_without_rejoin_a_crash_ends_the_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin=None) as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel)
            await channel.send("crash")
            await stream.done.wait()
            assert isinstance(stream.ended, ChannelClosed)
            assert status_of(channel) == "errored"
            # What is left of it holds nothing.
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert socket.state.joins == {}
            await channel.join()


async def test_without_rejoin_a_lost_connection_is_recovered_from_all_the_same(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin=None) as socket, socket.join("room:1") as channel:
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert status_of(channel) == "joined"


async def test_a_close_of_the_server_ends_the_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel.stream())
            done = Outcomes(nursery)
            done.start("push", channel.push, "late", 100, timeout=1000)
            await settle()
            await channel.send("stop")
            await stream.done.wait()
            assert isinstance(stream.ended, StopAsyncIteration)
            assert status_of(channel) == "closed"
            await settle()
            assert done.by["push"].reason == "closed"
            await trio.sleep(100)
            assert len(there.asked) == 1
            with pytest.raises(ChannelClosed) as caught:
                await channel.push("echo")
            assert caught.value.reason == "closed"
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert len(there.asked) == 1
            await channel.leave()


async def test_a_crash_during_the_backoff_of_another_loss(autojump_clock: MockClock) -> None:
    """The connection is lost while a crashed channel waits."""
    async with world() as there:
        async with there.connect(rejoin=Backoff((50,), jitter=0)) as socket, socket.join("room:1") as channel:
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert status_of(channel) == "errored"  # its back-off outlives the connection
            await trio.sleep(60)
            assert status_of(channel) == "joined"
            await trio.sleep(200)
    assert len(there.asked) == 2


async def test_a_close_during_a_rejoin_ends_the_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            stream = reading(nursery, channel)
            there.joins["room:1"].append(0.5)  # its answer comes after the crash
            there.connection.drop()
            await until(lambda: len(there.asked) == 2)
            ref = channel.join_ref
            there.connection.outbox.release()
            await there.connection.send_raw(json.dumps([ref, ref, "room:1", "phx_close", {}]))
            await stream.done.wait()
            assert isinstance(stream.ended, StopAsyncIteration)
            assert status_of(channel) == "closed"
            there.connection.drop()


async def test_a_crash_during_a_rejoin_backs_off(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append(0.5)  # its answer comes after the crash
            there.connection.drop()
            await until(lambda: len(there.asked) == 2)
            ref = channel.join_ref
            there.connection.outbox.release()
            await there.connection.send_raw(json.dumps([ref, ref, "room:1", "phx_error", {}]))
            await until(lambda: channel.status == "errored")
            await until(lambda: channel.status == "joined")
    assert there.told("rejoin_scheduled", "reason") == ["crashed"]


def frame(join_ref: Any, ref: Any, event: str, payload: Any = None, topic: str = "room:1") -> str:
    return json.dumps([join_ref, ref, topic, event, {} if payload is None else payload])


async def test_frames_of_an_older_join_are_nobodys_and_telemetry_says_so(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            old = channel.join_ref
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await until(lambda: channel.status == "joined")
            assert old != channel.join_ref
            stream = reading(nursery, aiter(channel))
            await there.connection.send_raw(
                frame(old, None, "tick", {"old": True}),
                frame(old, old, "phx_close"),
                frame(old, old, "phx_error"),
                frame(old, None, "presence_state", {"a": {"metas": [{"phx_ref": "1"}]}}),
                frame(channel.join_ref, None, "tick", {"old": False}),
                frame(None, None, "shout", {}),
            )
            await settle()
            assert stream.shape == [("tick", {"old": False}), ("shout", {})]
            assert status_of(channel) == "joined"
            dropped = there.told("message_dropped", "direction", "topic", "event", "reason")
            nursery.cancel_scope.cancel()
    assert dropped == [("in", "room:1", event, "outdated_join_ref") for event in ("tick", "phx_close", "phx_error")] + [
        ("in", "room:1", "presence_state", "outdated_join_ref")
    ]


async def test_frames_for_a_channel_that_waits_are_nobodys(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await there.connection.send_raw(frame(None, None, "shout"), frame(channel.join_ref, None, "tick"))
            await settle()
            assert there.told("message_dropped", "event", "reason") == [("shout", "not_joined"), ("tick", "not_joined")]


async def test_a_late_answer_to_a_rejoin_counts(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(join_timeout=0.5) as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append(1.0)  # a second
            await channel.send("crash")
            await until(lambda: len(there.asked) == 2)
            late = channel.join_ref
            await trio.sleep(0.7)
            assert status_of(channel) == "joining"  # late, and not asked again
            await until(lambda: channel.status == "joined")
            assert channel.join_ref == late
            await trio.sleep(5)
            assert status_of(channel) == "joined"
            assert await channel.push("echo", 1) == 1
            assert set(there.connection.channels) == {"room:1"}
    assert [record.metadata["outcome"] for record in there.records_of("client", "join", "stop")] == ["ok", "ok"]


async def test_an_error_reply_is_no_crash(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await there.connection.send_raw(
                frame(channel.join_ref, "2", "phx_reply", {"status": "error", "response": {"no": 1}})
            )
            with pytest.raises(PushError):
                await channel.push("silence")
            assert status_of(channel) == "joined"


async def test_everything_at_once_is_settled(autojump_clock: MockClock) -> None:
    """A crash, a close and a drop in one breath."""
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            channels = [socket.channel(f"room:{number}") for number in range(3)]
            for channel in channels:
                await channel.join()
            done = Outcomes(nursery)
            for channel, event in zip(channels, ("crash", "stop", "drop"), strict=True):
                done.start(event, channel.push, event)
            await until(lambda: len(done.by) == 3)
            assert {type(error) for error in done.by.values()} <= {ChannelClosed, ConnectionLost}
            await connected_again(there, socket, 2)
            assert channels[2].status == "joined"
            assert channels[0].status == "joined"
            assert channels[1].status in ("joined", "closed")
