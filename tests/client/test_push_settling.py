"""What settles a push besides its reply: the end of its channel, one way or another. And back-pressure."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.recovery.support import Outcomes
from trio.testing import MockClock

from slipstream_trio import Channel, ChannelClosed, ConnectionLost, JoinTimeout, PushTimeout, connect
from slipstream_trio.transport import OpenRequest, Transport

QUIET = frozenset({"phx_join", "phx_leave", "heartbeat"})
FRAMES = 256
BYTES = 2**20
"""How many frames of users, or bytes, are queued before the next has to wait."""


class Waiting:
    """Pushes in tasks of their own, and how they ended."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.ended: list[str] = []

    async def push(self, channel: Channel, event: str = "event", **options: Any) -> None:
        self.nursery.start_soon(self._push, channel, event, options)
        await trio.testing.wait_all_tasks_blocked()

    async def _push(self, channel: Channel, event: str, options: Any) -> None:
        try:
            self.ended.append(f"replied {await channel.push(event, **options)}")
        except ChannelClosed as error:
            self.ended.append(error.reason)
        except (ConnectionLost, PushTimeout) as error:
            self.ended.append(type(error).__name__)


@pytest.mark.parametrize(("event", "reason"), [("phx_close", "closed"), ("phx_error", "crashed")])
async def test_the_end_of_the_channel_settles_its_pushes_and_no_others(
    event: str, reason: str, autojump_clock: MockClock
) -> None:
    async with scripted(answers=QUIET) as (socket, peer), socket.join("other") as other:
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as nursery:
            waiting = Waiting(nursery)
            await waiting.push(channel)
            await waiting.push(channel, timeout=None)
            await waiting.push(other)
            peer.end_channel("room", event)
            await trio.testing.wait_all_tasks_blocked()
            assert waiting.ended == [reason, reason]
            peer.reply(await peer.wait_sent("event", 3))
        assert waiting.ended[2:] == ["replied {}"]
        with pytest.raises(ChannelClosed, match=reason):
            await channel.push("event")


async def test_a_reply_that_comes_after_the_end_of_the_channel_is_passed_over(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET | {"echo"}) as (socket, peer), trio.open_nursery() as nursery:
        channel, other = socket.channel("room"), socket.channel("other")
        await channel.join()
        await other.join()
        waiting = Waiting(nursery)
        await waiting.push(channel)
        peer.end_channel("room", "phx_error")
        peer.reply(await peer.wait_sent("event"))
        assert await other.push("echo", 5) == 5
        assert waiting.ended == ["crashed"]


async def test_pushes_may_be_answered_until_the_leave_is_complete(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_join", "heartbeat"}) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as nursery:
            waiting = Waiting(nursery)
            await waiting.push(channel, "answered")
            await waiting.push(channel, "not answered")
            nursery.start_soon(channel.leave)
            await peer.wait_sent("phx_leave")
            await waiting.push(channel, "too late")
            assert waiting.ended == ["left"]
            peer.reply(await peer.wait_sent("answered"), "in time")
            await trio.testing.wait_all_tasks_blocked()
            assert waiting.ended == ["left", "replied in time"]
            peer.end_channel("room")
        assert waiting.ended[2:] == ["left"]


async def test_the_timeout_of_a_leave_settles_pushes_too(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_join", "heartbeat"}) as (socket, _peer):
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as nursery:
            waiting = Waiting(nursery)
            await waiting.push(channel, timeout=None)
            await channel.leave(timeout=2)
        assert trio.current_time() == pytest.approx(2)
        assert waiting.ended == ["leave_timeout"]


async def fill(channel: Channel, peer: Any) -> None:
    """Fill the outbox: one frame being written, and as many as may wait."""
    peer.pause()
    await channel.send("being written")
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(FRAMES):
        await channel.send("queued")


async def test_a_server_that_does_not_read_makes_pushes_wait_and_time_out(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET, heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        await fill(channel, peer)
        async with trio.open_nursery() as nursery:
            waiting = Waiting(nursery)
            for _ in range(3):
                await waiting.push(channel, timeout=3)
        assert waiting.ended == ["PushTimeout"] * 3
        assert trio.current_time() == pytest.approx(3)
        with trio.move_on_after(100) as scope:
            await channel.send("too much")
        assert scope.cancelled_caught
        peer.resume()
        await channel.send("last")
        await peer.wait_sent("last")
        assert peer.count("queued") == FRAMES
        assert peer.count("event") == peer.count("too much") == 0


async def test_bytes_count_as_well_as_frames(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer), socket.join("room") as channel:
        peer.pause()
        await channel.send("being written")
        await trio.testing.wait_all_tasks_blocked()
        await channel.send("big", "x" * BYTES)
        with trio.move_on_after(1) as scope:
            await channel.send("small")
        assert scope.cancelled_caught
        peer.resume()
        await channel.send("small")
        await peer.wait_sent("small")


async def test_those_who_wait_for_room_all_get_their_turn(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer), socket.join("room") as channel:
        await fill(channel, peer)
        async with trio.open_nursery() as nursery:
            for _ in range(2 * FRAMES + 10):
                nursery.start_soon(channel.send, "waited")
            await trio.testing.wait_all_tasks_blocked()
            assert peer.count("waited") == 0
            peer.resume()
        await peer.wait_sent("waited", 2 * FRAMES + 10)
        refs = [int(message.ref or 0) for message in peer.sent]
        assert refs == sorted(refs)


async def test_heartbeats_and_leaves_do_not_wait_for_room(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET, heartbeat_interval=10) as (socket, peer):
        channel, other = socket.channel("room"), socket.channel("other")
        await channel.join()
        await other.join()
        await fill(channel, peer)
        other.leave_soon()
        await trio.sleep(11)
        with trio.move_on_after(1) as scope:
            await socket.channel("third").join()
        assert scope.cancelled_caught
        peer.resume()
        await peer.wait_sent("phx_leave")
        await peer.wait_sent("heartbeat")
        assert peer.count("phx_join") == 2


@pytest.mark.parametrize("end", ["crash", "close", "leave timeout", "lost", "heartbeat"])
async def test_a_push_that_waits_for_room_is_settled_at_the_end_of_its_channel(
    end: str, autojump_clock: MockClock
) -> None:
    expected = {
        "crash": "crashed",
        "close": "closed",
        "leave timeout": "left",
        "lost": "ConnectionLost",
        "heartbeat": "ConnectionLost",
    }[end]
    connector = Scripted(QUIET)
    async with trio.open_nursery() as outside:
        waiting = Waiting(outside)
        try:
            async with connect(URL, transport=connector, close_timeout=1, reconnect=None, rejoin=None) as socket:
                channel, peer = socket.channel("room"), connector.peer
                await channel.join()
                await fill(channel, peer)
                await waiting.push(channel, timeout=None)
                await waiting.push(channel, timeout=None)
                match end:
                    case "crash":
                        peer.end_channel("room", "phx_error")
                    case "close":
                        peer.end_channel("room")
                    case "leave timeout":
                        await channel.leave(timeout=1)
                    case "lost":
                        peer.end()
                await trio.testing.wait_all_tasks_blocked()
                if end != "heartbeat":
                    assert waiting.ended == [expected] * 2
                await trio.sleep(100)
        except ConnectionLost:
            pass
    assert waiting.ended == [expected] * 2
    assert connector.peer.count("event") == 0


@pytest.mark.parametrize("how", ["cancelled", "left", "left and joined again"])
async def test_a_join_that_waits_for_room_can_be_given_up(how: str, autojump_clock: MockClock) -> None:
    ended: list[str] = []
    async with scripted(answers=QUIET) as (socket, peer), socket.join("room") as channel:
        await fill(channel, peer)
        other = socket.channel("other")

        async def join(number: int) -> None:
            with trio.move_on_after(5):
                try:
                    await other.join()
                    ended.append(f"joined {number}")
                except ChannelClosed as error:
                    ended.append(f"{error.reason} {number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, 1)
            await trio.testing.wait_all_tasks_blocked()
            if how == "cancelled":
                await trio.sleep(6)
            else:
                other.leave_soon()
                assert other.status == "closed"
                if how == "left and joined again":
                    nursery.start_soon(join, 2)
                await trio.testing.wait_all_tasks_blocked()
            peer.resume()
        assert sorted(ended) == {"cancelled": [], "left": ["left 1"]}.get(how, ["joined 2", "left 1"])
        await trio.testing.wait_all_tasks_blocked()
        assert peer.count("phx_join") == (2 if how == "left and joined again" else 1)
        await other.leave()


async def test_a_join_that_waits_for_room_is_sent_on_the_next_connection(autojump_clock: MockClock) -> None:
    connector = Scripted(QUIET)
    async with connect(URL, transport=connector, leave_timeout=1) as socket:
        channel, peer = socket.channel("room"), connector.peer
        await channel.join()
        await fill(channel, peer)
        await channel.leave()  # of which nothing is left that could wake others at the loss
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.channel("other").join)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(10):
                peer.end()
                while connector.peer is peer:  # noqa: ASYNC110 - polled
                    await trio.sleep(0.1)
                assert (await connector.peer.wait_sent("phx_join")).topic == "other"
        assert peer.count("phx_join") == 1


async def test_the_time_limit_of_a_join_is_for_the_reply(autojump_clock: MockClock) -> None:
    async with scripted(answers=()) as (socket, _peer):
        with pytest.raises(JoinTimeout):
            await socket.channel("room").join(timeout=2)
        assert trio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("watched", [True, False])
async def test_messages_that_were_queued_and_not_written_at_a_loss_are_dropped(
    watched: bool, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    if not watched:
        recorder.bus.detach("recorder")
        recorder.bus.attach("dropped", ("slipstream", "client", "message_dropped"), recorder.records.append)
    with pytest.raises(ConnectionLost):
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            await fill(channel, peer)
            peer.end(1012)
            await trio.sleep_forever()
    dropped = recorder.named("client", "message_dropped")
    assert [record.ref for record in dropped] == [str(number) for number in range(3, 3 + FRAMES)]
    assert {(record.direction, record.event, record.reason) for record in dropped} == {
        ("out", "queued", "closed_by_server")
    }


async def test_a_push_that_was_queued_and_not_written_at_a_loss_is_told_as_never_sent(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    with pytest.raises(ConnectionLost):
        async with scripted(telemetry=recorder.bus) as (socket, peer), trio.open_nursery() as nursery:
            channel = socket.channel("room")
            await channel.join()
            peer.pause()
            done = Outcomes(nursery)
            for event in ("taken", "queued", "queued next"):
                done.start(event, channel.push, event)
                await trio.testing.wait_all_tasks_blocked()
            peer.end(1012)
            await trio.sleep_forever()
    assert {event: error.sent for event, error in done.by.items()} == {
        "taken": True,
        "queued": False,
        "queued next": False,
    }
    stops = recorder.named("client", "push", "stop")
    assert {stop.start.event: stop.sent for stop in stops} == {"taken": True, "queued": False, "queued next": False}
    assert recorder.named("client", "message_dropped") == []  # the error has told it


async def test_a_push_is_told_of_a_loss_though_its_transport_takes_long_to_be_left(autojump_clock: MockClock) -> None:
    class Slow(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as transport:
                yield transport
            await trio.sleep(60)

    connector = Slow()
    async with connect(URL, transport=connector) as socket, trio.open_nursery() as nursery:
        channel, done = socket.channel("room"), Outcomes(nursery)
        await channel.join()
        done.start("push", channel.push, "event")
        await trio.sleep(1)
        connector.peer.end()
        await trio.sleep(1)
        assert isinstance(done.by["push"], ConnectionLost)
