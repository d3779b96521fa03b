"""Room in the writer's queue: how much there is, who gets it, and what a call is told that waits for it in vain."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from tests.client.support import URL, Peer, Recorder, Scripted, scripted
from tests.recovery.support import Outcomes, settle
from tests.scheduling import in_any_order, play
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, ConnectionLost, PushTimeout, SerializationError, connect
from slipstream_trio.protocol import Frame, Message, V2Serializer
from slipstream_trio.transport import TransportEnded

FRAMES, BYTES = 256, 2**20


async def until_full(channel: Channel, peer: Peer, payload: Any) -> int:
    """Let the writer begin a write that does not end, then send until there is no room; returns how much there was."""
    peer.pause()
    await channel.send("taken")
    await settle()
    sent = 0
    while True:
        with trio.move_on_after(1) as scope:
            await channel.send("fill", payload)
        if scope.cancelled_caught:
            return sent
        sent += 1


@pytest.mark.parametrize(("size", "room"), [(0, FRAMES), (BYTES // 4 - 60, 5), (BYTES // 4, 4), (3 * BYTES, 1)])
async def test_there_is_room_for_so_many_frames_and_bytes(size: int, room: int, autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        assert await until_full(channel, peer, "x" * size) == room
        peer.resume()
        await settle()
        assert peer.count("fill") == room
        assert await until_full(channel, peer, "x" * size) == room  # what was written makes room
        peer.resume()


@pytest.mark.parametrize("waits_for", ["room", "join"])
async def test_a_push_that_is_not_queued_in_time_says_what_it_waited_for(
    waits_for: str, autojump_clock: MockClock
) -> None:
    answers = {"phx_leave", "echo"} | ({"phx_join"} if waits_for == "room" else set())
    async with scripted(answers=answers, heartbeat_interval=None) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        await peer.wait_sent("phx_join")
        await settle()
        if waits_for == "room":
            await until_full(channel, peer, 0)
        with pytest.raises(PushTimeout) as caught:
            await channel.push("echo", timeout=3)
        assert (caught.value.sent, caught.value.waited, caught.value.awaited) == (False, 3, waits_for)
        peer.resume()
        if waits_for == "join":
            peer.reply(await peer.wait_sent("phx_join"))


@in_any_order
def test_a_call_that_waited_for_room_goes_before_one_that_comes_as_there_is_room(order: object) -> None:
    play(_wait_and_come)


async def _wait_and_come() -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), trio.open_nursery() as nursery:
        first, second, written = socket.channel("1"), socket.channel("2"), trio.Event()
        await first.join()
        await second.join()
        peer.pause()
        await first.send("taken")
        await settle()
        for _ in range(FRAMES):
            await first.send("fill")
        nursery.start_soon(first.push, "echo", "waited")
        await settle()

        async def come() -> None:
            await written.wait()
            await second.push("echo", "came")

        nursery.start_soon(come)
        await settle()
        write = peer.send

        async def tell_and_write(frames: Sequence[Frame]) -> None:
            written.set()
            await write(frames)

        peer.send = tell_and_write  # type: ignore[method-assign] # called as the frames were taken out of the queue
        peer.resume()
        await settle()
        assert [message.payload for message in peer.sent if message.event == "echo"] == ["waited", "came"]


async def test_a_call_that_comes_while_others_take_their_turns_goes_behind_them(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), trio.open_nursery() as nursery:
        first, second = socket.channel("1"), socket.channel("2")
        await first.join()
        await second.join()
        await until_full(first, peer, 0)
        for _ in range(100):
            nursery.start_soon(first.send, "waited")
        await settle()
        write, sends = peer.send, iter([second.send])

        async def send_and_write(frames: Sequence[Frame]) -> None:
            for send in sends:  # as there is room, and not all of those that waited have had their turns
                nursery.start_soon(send, "came")
                await settle()
            await write(frames)

        peer.send = send_and_write  # type: ignore[method-assign]
        peer.resume()
        await trio.sleep(1)
        assert [message.event for message in peer.sent[-101:]] == ["waited"] * 100 + ["came"]


async def test_a_call_whose_turn_comes_to_nothing_leaves_it_to_the_next(autojump_clock: MockClock) -> None:
    too_long = "e" * 256  # for a binary frame, as is found out in its turn
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            await until_full(channel, peer, 0)
            done = Outcomes(nursery)
            done.start("first", channel.push, too_long, b"data")
            await settle()
            done.start("second", channel.push, "echo", 2)
            await settle()
            peer.resume()
        assert (type(done.by["first"]), done.by["second"]) == (SerializationError, 2)


async def test_a_push_in_flight_can_be_given_up_while_others_wait_for_room(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            async with trio.open_nursery() as in_flight:
                in_flight.start_soon(channel.push, "not answered")
                await settle()
                await until_full(channel, peer, 0)
                done.start("waits", channel.push, "echo", 5)
                await settle()
                in_flight.cancel_scope.cancel()
            peer.resume()
        assert done.by == {"waits": 5}


async def test_a_call_that_waits_for_room_waits_on_where_its_channel_crashes(autojump_clock: MockClock) -> None:
    async with (
        scripted(heartbeat_interval=None, rejoin=Backoff((1,), jitter=0)) as (socket, peer),
        socket.join("room") as channel,
        trio.open_nursery() as nursery,
    ):
        await until_full(channel, peer, 0)
        done = Outcomes(nursery)
        done.start("push", channel.push, "echo", 5)
        await settle()
        peer.end_channel("room", "phx_error")
        await settle()
        peer.resume()
        await trio.sleep(2)
        assert done.by == {"push": 5}
        assert [message.event for message in peer.sent[-2:]] == ["phx_join", "echo"]


async def test_a_join_of_a_user_waits_for_room_too(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            await until_full(channel, peer, 0)
            nursery.start_soon(socket.channel("other").join)
            await settle()
            assert set(socket.state.joins) == {"room"}
            peer.resume()
            resumed = trio.current_time()
        assert trio.current_time() == resumed
        assert set(socket.state.joins) == {"room", "other"}


async def test_a_join_waits_for_room_also_where_nothing_else_does(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        peer.pause()
        await channel.send("taken")
        await settle()
        for _ in range(FRAMES):
            await channel.send("fill")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.channel("other").join)
            await settle()
            assert set(socket.state.joins) == {"room"}
            peer.resume()


async def test_telemetry_tells_how_long_a_push_has_waited_for_room(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(heartbeat_interval=None, telemetry=recorder.bus) as (socket, peer), socket.join("room") as room:
        await trio.sleep(10)
        await until_full(room, peer, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.push, "echo")
            await trio.sleep(3)
            peer.resume()
    [stop] = recorder.named("slipstream", "client", "push", "stop")
    assert stop.waited == 3_000_000_000


async def test_a_push_may_have_been_sent_once_it_is_queued(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        peer.pause()
        async with trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            for event in ("taken", "queued"):
                done.start(event, channel.push, event, timeout=3)
                await settle()
        assert {event: error.sent for event, error in done.by.items()} == {"taken": True, "queued": True}
        peer.resume()
        await settle()
        assert (peer.count("taken"), peer.count("queued")) == (1, 1)  # as nothing takes a frame back


async def test_telemetry_tells_that_a_push_cancelled_in_the_queue_may_be_sent(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(heartbeat_interval=None, telemetry=recorder.bus) as (socket, peer), socket.join("room") as room:
        peer.pause()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.push, "taken")
                await settle()
                nursery.start_soon(room.push, "queued")
        peer.resume()
        await settle()
        assert peer.count("queued") == 1
    stops = recorder.named("slipstream", "client", "push", "stop")
    assert {(stop.start.event, stop.sent) for stop in stops} == {("taken", True), ("queued", True)}


async def test_the_connection_is_closed_when_what_is_being_written_is_written(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        await channel.join()
        peer.pause()
        await channel.send("event")
        await settle()
        nursery.start_soon(socket.disconnect)
        await settle()
        closed: list[Any] = [peer.closed_with]
        peer.resume()
        await settle()
        assert [*closed, peer.closed_with] == [None, (1000, "")]
        assert peer.count("event") == 1


async def test_calls_that_waited_for_room_are_queued_in_parts(autojump_clock: MockClock) -> None:
    async with (
        scripted(heartbeat_interval=None) as (socket, peer),
        socket.join("room") as channel,
        trio.open_nursery() as nursery,
    ):
        await until_full(channel, peer, 0)
        for _ in range(200):
            nursery.start_soon(channel.send, "waited")
        await settle()
        written = len(peer.batches)
        peer.resume()
        await settle()
        assert [len(batch) for batch in peer.batches[written + 2 :]] == [64, 64, 64, 8]


async def test_a_push_that_waits_for_room_waits_on_where_the_connection_is_cut_off(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_: Sequence[Frame]) -> None:
        await written.wait()
        raise TransportEnded(1006)

    connector, written = Scripted(), trio.Event()
    async with (
        connect(URL, transport=connector, heartbeat_interval=None, reconnect=Backoff((1,), jitter=0)) as socket,
        socket.join("room") as channel,
        trio.open_nursery() as nursery,
    ):
        monkeypatch.setattr(connector.peer, "send", breaks)
        await until_full(channel, connector.peer, 0)
        done = Outcomes(nursery)
        done.start("push", channel.push, "echo", 5)
        await settle()
        written.set()  # the write fails, and nothing comes that tells why
        await trio.sleep(10)
        assert done.by == {"push": 5}


async def test_calls_that_waited_and_cannot_be_sent_do_not_hold_up_those_behind_them(autojump_clock: MockClock) -> None:
    class Picky(V2Serializer):
        def encode(self, message: Message) -> Frame:
            if message.event == "refused":
                raise SerializationError("no", "payload")
            return super().encode(message)

    async def push(event: str) -> None:
        try:
            await channel.push(event, timeout=10)
        except SerializationError:
            ended.append(trio.current_time() - began)

    ended: list[float] = []
    async with scripted(answers={"phx_leave", "echo"}, serializer=Picky()) as (socket, peer):
        channel = socket.channel("room")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.join)
            await peer.wait_sent("phx_join")
            began = trio.current_time()
            for event in ["refused"] * 200 + ["echo"]:
                nursery.start_soon(push, event)
            await trio.sleep(1)
            peer.reply(await peer.wait_sent("phx_join"))
    assert ended == [1] * 200


async def test_what_waits_for_room_is_not_sent_once_the_connection_is_being_closed(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        await channel.join()
        await until_full(channel, peer, 0)
        done = Outcomes(nursery)
        done.start("push", channel.push, "echo", 5)
        await settle()
        nursery.start_soon(socket.disconnect)
        await settle()
        peer.resume()
        await settle()
        error = done.by["push"]
        assert (type(error), error.reason, error.sent) == (ConnectionLost, "disconnected", False)
        assert peer.count("echo") == 0


async def test_a_join_of_a_user_goes_behind_all_calls_that_wait_for_room(autojump_clock: MockClock) -> None:
    async with (
        scripted(heartbeat_interval=None) as (socket, peer),
        socket.join("room") as channel,
        trio.open_nursery() as nursery,
    ):
        await until_full(channel, peer, 0)
        for _ in range(200):
            nursery.start_soon(channel.send, "waited")
        await settle()
        write, joins = peer.send, iter([socket.channel("other").join])

        async def join_and_write(frames: Sequence[Frame]) -> None:
            for join in joins:  # as the first are written, while the rest of them waits
                nursery.start_soon(join)
            await write(frames)

        peer.send = join_and_write  # type: ignore[method-assign]
        peer.resume()
        await settle()
        assert [message.event for message in peer.sent[-201:]] == ["waited"] * 200 + ["phx_join"]


async def test_a_rejoin_needs_no_room(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None, rejoin=Backoff((1,), jitter=0)) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        await until_full(channel, peer, 0)
        peer.end_channel("room", "phx_error")
        await trio.sleep(2)
        peer.resume()
        await settle()
        assert (channel.status, peer.count("phx_join")) == ("joined", 2)


async def test_nobody_waits_for_a_call_that_waited_for_room_on_a_lost_connection(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, heartbeat_interval=None, reconnect=Backoff((1,), jitter=0)) as socket:
        channel = socket.channel("room")
        await channel.join()
        await until_full(channel, connector.peer, 0)
        channel.leave_soon()
        connector.peer.end()
        await trio.sleep(2)
        await socket.channel("other").join(timeout=5)
