"""How a channel ends: leaves, the server's phx_close, crashes; and what its streams do then."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, running, scripted
from tests.protocol import wire
from trio.testing import MockClock, assert_checkpoints

from slipstream_trio import Backoff, Channel, ChannelClosed, ConnectionLost, JoinTimeout, connect
from slipstream_trio.transport import OpenRequest

QUIET = frozenset({"phx_join", "heartbeat"})


async def events(stream: Channel) -> list[str]:
    return [message.event async for message in stream]


async def test_a_leave_waits_for_the_close_of_its_join(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        await channel.join()
        left = trio.Event()

        async def leave() -> None:
            await channel.leave()
            left.set()

        nursery.start_soon(leave)
        peer.reply(await peer.wait_sent("phx_leave"))
        await trio.testing.wait_all_tasks_blocked()
        assert not left.is_set()
        assert channel.status == "leaving"
        peer.end_channel("room")
        await left.wait()
        assert channel.status == "closed"  # type: ignore[comparison-overlap]


async def test_a_leave_that_is_not_confirmed_ends_at_its_timeout(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET, leave_timeout=3) as (socket, _):
        channel = socket.channel("room")
        for options, seconds in (({}, 3), ({"timeout": 1}, 1)):
            await channel.join()
            started = trio.current_time()
            await channel.leave(**options)
            assert trio.current_time() - started == pytest.approx(seconds)
            assert channel.status == "closed"


async def test_a_leave_without_a_limit_waits(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        with trio.move_on_after(100) as scope:
            await channel.leave(timeout=None)
        assert scope.cancelled_caught
        assert channel.status == "leaving"
        peer.end_channel("room")


async def test_two_tasks_may_leave_one_channel(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.leave)
        nursery.start_soon(channel.leave)
    assert peer.count("phx_leave") == 1


async def test_leaving_what_is_not_joined_does_nothing(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        await channel.leave()
        channel.leave_soon()
        assert not peer.sent


async def test_a_leave_while_the_connection_ends_returns(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outside:
        with pytest.raises(ConnectionLost):
            async with scripted(answers=QUIET) as (socket, peer):
                channel = socket.channel("room")
                await channel.join()
                outside.start_soon(channel.leave)
                await peer.wait_sent("phx_leave")
                peer.end()
                await trio.sleep_forever()
    assert channel.status == "closed"


async def test_messages_are_delivered_until_the_leave_is_complete(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.message("room", "before")
        channel.leave_soon()
        await peer.wait_sent("phx_leave")
        peer.message("room", "between")
        peer.end_channel("room")
        peer.message("room", "after")
        assert await events(channel) == ["before", "between"]
        assert await events(channel) == []


async def test_a_close_by_the_server_ends_iteration_after_what_is_buffered(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        peer.message("room", "one")
        peer.message("room", "two")
        peer.end_channel("room")
        assert await events(channel) == ["one", "two"]
        assert channel.status == "closed"
        with pytest.raises(ChannelClosed, match="closed"):
            await channel.push("event")


async def test_a_close_wakes_all_who_iterate(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, channel.subscribe() as messages:

        async def iterate() -> None:
            assert [message async for message in messages] == []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(events, channel)
            nursery.start_soon(events, channel)
            nursery.start_soon(iterate)
            await trio.testing.wait_all_tasks_blocked()
            peer.end_channel("room")


async def test_a_crash_raises_in_iteration_after_what_is_buffered(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, channel.subscribe() as messages:
        peer.message("room", "one")
        peer.end_channel("room", "phx_error")
        for stream in (aiter(channel), messages):
            assert (await anext(stream)).event == "one"
            for _ in range(2):
                with pytest.raises(ChannelClosed) as raised:
                    await anext(stream)
                assert (raised.value.topic, raised.value.reason) == ("room", "crashed")
        assert channel.status == "errored"
        assert repr(channel) == "<Channel 'room' errored>"


@pytest.mark.parametrize("end", ["phx_error", "phx_close", "leave"])
async def test_after_its_end_a_channel_can_be_joined_again_and_its_streams_go_on(
    end: str, autojump_clock: MockClock
) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        async with channel.subscribe("two") as messages:
            await channel.join()
            stream = aiter(channel)
            peer.message("room", "one")
            await anext(stream)
            if end == "leave":
                await channel.leave()
            else:
                peer.end_channel("room", end)
            for ended in (stream, messages):
                with pytest.raises((ChannelClosed, StopAsyncIteration)):
                    await anext(ended)
            assert await channel.join() == {}
            assert channel.status == "joined"
            peer.message("room", "two")
            for resumed in (stream, messages):
                assert (await anext(resumed)).event == "two"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, messages)
                await trio.testing.wait_all_tasks_blocked()
                peer.message("room", "two")
            assert await channel.push("echo", 1) == 1


async def test_frames_of_an_older_join_touch_nothing_and_are_reported(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        await channel.leave()
        await channel.join()
        peer.feed(
            wire.text("1", "1", "room", "phx_close", {}),
            wire.text("1", "1", "room", "phx_error", {}),
            wire.text("1", None, "room", "event", {}),
            wire.text(None, None, "elsewhere", "event", {}),
            wire.text(None, None, "room", "phx_close", {"named": "so"}),
        )
        message = await anext(aiter(channel))
        assert (message.event, message.payload) == ("phx_close", {"named": "so"})
        assert channel.status == "joined"
    dropped = [(record.topic, record.event, record.reason) for record in recorder.named("message_dropped")]
    assert dropped == [
        ("room", "phx_close", "outdated_join_ref"),
        ("room", "phx_error", "outdated_join_ref"),
        ("room", "event", "outdated_join_ref"),
        ("elsewhere", "event", "not_joined"),
    ]


@pytest.mark.parametrize("watched", [True, False])
async def test_a_frame_that_is_no_message_costs_itself_alone(
    watched: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    if not watched:
        recorder.bus.detach("recorder")
        recorder.bus.attach("dropped", ("slipstream", "client", "message_dropped"), recorder.records.append)
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        peer.feed("", "nonsense", "[]", "null", b"", b"\x09", wire.text(None, "7", "room", "phx_reply", None))
        peer.message("room", "fine")
        assert (await anext(aiter(channel))).event == "fine"
        connection_id = socket.connection_id
    dropped = recorder.named("message_dropped")
    assert len(dropped) == 7
    assert {record.direction for record in dropped} == {"in"}
    assert {record.topic for record in dropped} == {None}
    logged = [entry.getMessage() for entry in caplog.records if entry.name == "slipstream_trio"]
    assert all(connection_id in entry for entry in logged)
    assert ["a frame was rejected" in logged[0], "6 frames were rejected" in logged[1]] == [True, True]


async def test_malformed_frames_are_logged_once_a_second(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted() as (_, peer):
        for seconds in (0, 0.4, 0.5, 0.9, 1, 5):
            await trio.sleep(seconds)
            peer.feed("nonsense", "nonsense")
            await trio.testing.wait_all_tasks_blocked()
        logged = [entry.getMessage() for entry in caplog.records if entry.name == "slipstream_trio"]
        numbers = [line.split(": ")[1].split(" ")[0] for line in logged]
    assert numbers == ["a", "6", "2", "2"]


async def test_a_channel_of_the_server_that_stops_or_crashes(autojump_clock: MockClock) -> None:
    async with running() as server, connect(URL, transport=server.connector(), rejoin=None) as socket:
        async with socket.join("lab:1") as channel:
            with pytest.raises(ChannelClosed, match="closed"):
                await channel.push("stop")
            assert await events(channel) == []
            await channel.join()
            with pytest.raises(ChannelClosed, match="crashed"):
                await channel.push("crash")
            with pytest.raises(ChannelClosed, match="crashed"):
                await events(channel)
            await channel.join()
            assert await channel.push("echo", 1) == 1


async def test_asking_for_more_after_the_end_lets_others_run(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _), socket.join("room") as channel:
        await channel.leave()
        for _ in range(2):
            with assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(channel)


async def test_a_channel_of_a_socket_that_has_ended_has_ended(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        await socket.disconnect()
        with assert_checkpoints():
            await socket.disconnect()
        with trio.fail_after(1):
            assert await events(socket.channel("room")) == []


async def test_a_leave_fails_at_once_what_waits_for_the_join(autojump_clock: MockClock) -> None:
    async with scripted(answers=()) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")

        async def fails(operation: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(ChannelClosed):
                await operation()

        nursery.start_soon(fails, channel.join)
        await peer.wait_sent("phx_join")
        nursery.start_soon(fails, partial(channel.push, "event"))
        await trio.testing.wait_all_tasks_blocked()
        channel.leave_soon()
        await trio.testing.wait_all_tasks_blocked()
        assert channel.status == "leaving"
        assert not nursery.child_tasks


async def test_what_was_dropped_is_told_once_be_it_read_after_the_end(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"buffer": 2, "overflow": "drop_oldest", "telemetry": recorder.bus}
    async with scripted(**options) as (socket, peer), socket.join("room") as channel:
        for number in range(5):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        await channel.leave()
        assert len(await events(channel)) == 2
    assert [record.dropped for record in recorder.named("client", "gap")] == [3]


async def test_a_join_that_is_never_sent_hides_no_end_that_is_still_to_be_told(autojump_clock: MockClock) -> None:
    async def opening(_: OpenRequest) -> None:
        if connector.peers:
            await trio.sleep(10)

    connector = Scripted(opening=opening)
    async with connect(URL, transport=connector, rejoin=None, reconnect=Backoff((1,), jitter=0)) as socket:
        channel = socket.channel("room")
        await channel.join()
        connector.peer.end_channel("room", "phx_error")
        connector.peer.end()
        await trio.sleep(2)
        with pytest.raises(JoinTimeout):
            await channel.join(timeout=1)
        with pytest.raises(ChannelClosed, match="crash"):
            await anext(channel)
        await channel.join()
        connector.peer.message("room", "event", 1)
        assert (await anext(channel)).payload == 1
