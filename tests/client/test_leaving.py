"""Leaving the block of `connect`: leaves, the close, the limit of time, and nothing left behind."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, living_tasks, running, scripted
from trio.testing import MockClock, assert_checkpoints

from slipstream_trio import Backoff, Channel, ChannelClosed, ConnectionLost, connect
from slipstream_trio.client.buffer import Buffer
from slipstream_trio.protocol import LeaveTopic
from slipstream_trio.telemetry import ClientJoinStart, Telemetry
from slipstream_trio.testing.server import Channel as ServerChannel, MemoryStream
from slipstream_trio.transport import OpenRequest, Transport
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

QUIET = frozenset({"phx_join"})


async def test_a_normal_exit_leaves_what_is_joined_waits_and_closes_with_1000(autojump_clock: MockClock) -> None:
    async with running() as server:
        async with connect(URL, transport=server.connector(), reconnect=None) as socket:
            for number in range(3):
                await socket.channel(f"lab:{number}").join()
            (connection,) = server.connections
        await connection.wait_closed()
        assert [message.event for message in connection.received] == ["phx_join"] * 3 + ["phx_leave"] * 3
        assert (connection.close_code, connection.closed_by) == (1000, "client")
        assert not connection.channels


async def test_a_normal_exit_waits_for_the_leaves(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET) as (socket, peer):
        await socket.channel("room").join()

        async def confirm() -> None:
            await peer.wait_sent("phx_leave")
            await trio.sleep(2)
            assert peer.closed_with is None
            peer.end_channel("room")

        trio.lowlevel.spawn_system_task(confirm)
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(2)
    assert peer.closed_with == (1000, "")


async def test_leaves_that_are_not_confirmed_are_waited_for_as_long_as_leave_timeout(
    autojump_clock: MockClock,
) -> None:
    async with scripted(answers=QUIET, leave_timeout=2) as (socket, peer):
        await socket.channel("room").join()
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(2)
    assert peer.closed_with == (1000, "")


@pytest.mark.parametrize(
    ("timeouts", "at"),
    [
        ({}, 4),
        ({"close_timeout": 2}, 1.6),
        ({"leave_timeout": None, "close_timeout": 10}, 8),
        ({"leave_timeout": 3, "close_timeout": None}, 3),
    ],
)
async def test_leaves_that_are_never_confirmed_leave_time_for_the_close_frame(
    timeouts: dict[str, Any], at: float, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    async with scripted(answers=QUIET, telemetry=recorder.bus, **timeouts) as (socket, peer):
        for number in range(3):
            await socket.channel(f"room:{number}").join()
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(at)
    assert peer.count("phx_leave") == 3
    assert peer.closed_with == (1000, "")
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.termination_reason == "closed_by_client"


async def test_a_real_server_that_never_confirms_a_leave_gets_a_close_frame(autojump_clock: MockClock) -> None:
    class Stubborn(ServerChannel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> None:
            await trio.sleep_forever()

    async with running(channels={"stubborn": Stubborn}) as server:
        async with connect(URL, transport=server.connector(), reconnect=None) as socket:
            channel = socket.channel("stubborn")
            await channel.join()
            await channel.send("hang")  # a leave waits behind it
            (connection,) = server.connections
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


@pytest.mark.parametrize("how", ["exception", "cancellation"])
async def test_an_exit_by_exception_or_cancellation_sends_the_leaves_and_waits_for_none(
    how: str, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    with trio.CancelScope() as scope:
        with pytest.raises(KeyError) if how == "exception" else trio.CancelScope():
            async with scripted(answers=QUIET) as (socket, peer):
                await socket.channel("one").join()
                async with socket.join("two"):
                    if how == "exception":
                        raise KeyError
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert trio.current_time() == started
    assert [message.topic for message in peer.sent if message.event == "phx_leave"] == ["two", "one"]
    assert peer.closed_with == (1000, "")


async def test_nothing_is_left_behind(autojump_clock: MockClock) -> None:
    before = living_tasks()
    streams: list[MemoryStream] = []
    async with running() as server:

        async def open_stream(_: OpenRequest) -> MemoryStream:
            streams.append(await server.open_stream())
            return streams[-1]

        base = living_tasks()
        async with connect(URL, transport=TrioWebSocketConnector(open_stream)) as socket:
            async with socket.join("lab:1") as channel:
                await channel.push("echo")
            (connection,) = server.connections
        await connection.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert living_tasks() == base
    assert living_tasks() == before
    with pytest.raises(trio.ClosedResourceError):
        await streams[0].receive_some()


async def test_a_dead_server_is_aborted_at_close_timeout(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: Any = {"leave_timeout": None, "close_timeout": 3, "telemetry": recorder.bus}
    async with scripted(answers=QUIET, **options) as (socket, peer):
        await socket.channel("room").join()
        peer.answers_close = False
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(3)
    assert peer.closed_with == (1000, "")
    assert peer.left
    assert socket.state.close_reason == "closed_by_client"
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.termination_reason == "closed_by_client"


async def test_a_server_that_does_not_answer_the_close_is_aborted_at_close_timeout(
    autojump_clock: MockClock,
) -> None:
    async with scripted(close_timeout=3) as (socket, peer):
        peer.answers_close = False
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(3)
    assert peer.closed_with == (1000, "")
    assert socket.state.close_reason == "closed_by_client"


async def test_leaves_and_close_share_one_limit(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET, leave_timeout=2, close_timeout=3) as (socket, peer):
        await socket.channel("room").join()
        peer.answers_close = False
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(3)
    assert peer.closed_with == (1000, "")


async def test_without_limits_leaving_waits_for_the_server(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET, leave_timeout=None, close_timeout=None, heartbeat_interval=None) as (
        socket,
        peer,
    ):
        await socket.channel("room").join()

        async def confirm() -> None:
            await trio.sleep(1000)
            peer.end_channel("room")

        trio.lowlevel.spawn_system_task(confirm)
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(1000)


async def test_a_frame_half_written_at_the_limit_means_abort_and_no_close_frame(autojump_clock: MockClock) -> None:
    async with running(max_frame_size=2**24) as server:
        streams: list[MemoryStream] = []

        async def open_stream(_: OpenRequest) -> MemoryStream:
            streams.append(await server.open_stream())
            return streams[-1]

        connecting = connect(URL, transport=TrioWebSocketConnector(open_stream), close_timeout=3)
        async with connecting as socket:
            channel = socket.channel("lab:1")
            await channel.join()
            (connection,) = server.connections
            connection.pause_reading()
            await channel.send("event", "x" * 2**20)
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(3)
        connection.resume_reading()
        await connection.wait_closed()
        assert [message.event for message in connection.received] == ["phx_join"]
        assert (connection.close_code, connection.closed_by) == (1006, "lost")


async def test_what_is_queued_is_written_before_the_close(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.pause()
        for number in range(100):
            await channel.send("event", number)

        async def resume() -> None:
            await trio.sleep(1)
            peer.resume()

        trio.lowlevel.spawn_system_task(resume)
    assert [message.payload for message in peer.sent if message.event == "event"] == list(range(100))
    assert peer.sent[-1].event == "phx_leave"
    assert peer.closed_with == (1000, "")


async def test_a_leave_that_was_not_confirmed_says_so_though_the_next_join_has_begun(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(answers=QUIET, telemetry=recorder.bus, leave_timeout=1) as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as nursery:
            # Tasks that wake at once run in this order, or in its reverse: one leave is behind the join in either.
            for operation in (channel.leave, channel.join, channel.leave):
                nursery.start_soon(operation)
                await trio.testing.wait_all_tasks_blocked()
    assert channel.status == "closed"
    assert [record.outcome for record in recorder.named("client", "leave", "stop")] == ["timeout", "timeout"]


async def test_sends_that_were_never_written_are_reported_as_dropped(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, close_timeout=1) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.pause()
        await channel.send("first")
        await trio.testing.wait_all_tasks_blocked()
        await channel.send("second", {"secret": 1})
    dropped = recorder.named("client", "message_dropped")
    assert [(record.direction, record.topic, record.event) for record in dropped] == [("out", "room", "second")]
    assert dropped[0].ref == "3"  # as in the span of its handling
    assert dropped[0].reason == "closed_by_client"


async def test_nobody_can_begin_anything_while_the_block_is_left(autojump_clock: MockClock) -> None:
    outcomes: list[Any] = []

    async def try_later(operation: Any) -> None:
        await trio.sleep(1)
        try:
            await operation()
        except Exception as error:  # noqa: BLE001 - compared below
            outcomes.append(type(error).__name__)

    async with trio.open_nursery() as outside:
        async with scripted(answers=QUIET, leave_timeout=2) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            for operation in (socket.channel("other").join, socket.channel("room").join, socket.ping):
                outside.start_soon(try_later, operation)
            outside.start_soon(try_later, lambda: channel.push("event"))
            started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(2)
    assert sorted(outcomes) == ["ChannelClosed"] + ["ConnectionLost"] * 3
    assert peer.count("phx_join") == 1


async def test_a_join_that_waits_for_the_leave_of_its_topic_ends_with_the_connection(
    autojump_clock: MockClock,
) -> None:
    errors: list[ConnectionLost] = []

    async def join(channel: Channel) -> None:
        with pytest.raises(ConnectionLost) as raised:
            await channel.join()
        errors.append(raised.value)

    async with trio.open_nursery() as outside:
        async with scripted(answers=QUIET, leave_timeout=2) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            channel.leave_soon()
            outside.start_soon(join, socket.channel("room"))
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(2)
    assert errors[0].reason == "closed_by_client"
    assert peer.count("phx_join") == 1


async def test_a_leave_ends_in_time_while_its_lost_connection_is_being_closed(autojump_clock: MockClock) -> None:
    timeouts = {"heartbeat_interval": 10, "heartbeat_timeout": 2}
    async with scripted(answers=QUIET, **timeouts) as (socket, peer):
        peer.answers_close = False
        channel = socket.channel("room")
        await channel.join()
        began = trio.current_time()
        await trio.sleep(10)
        await channel.leave(timeout=2.5)
        assert trio.current_time() - began == pytest.approx(12.5)
        assert (socket.state.status, channel.status) == ("closing", "closed")


async def test_a_leave_while_the_payload_is_asked_for_ends_the_join(autojump_clock: MockClock) -> None:
    async def join() -> None:
        with pytest.raises(ChannelClosed) as raised:
            await channel.join()
        assert raised.value.reason == "left"

    async with scripted() as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room", trio.sleep_forever)
        nursery.start_soon(join)
        await trio.sleep(1)
        await channel.leave()
        await trio.sleep(1)
        assert peer.sent == []


async def test_a_leave_of_what_is_not_joined_lets_others_run(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        channel = socket.channel("room")
        with assert_checkpoints():
            await channel.leave()


async def test_others_run_while_many_topics_are_left_at_the_end_of_the_block(autojump_clock: MockClock) -> None:
    passes, bus = 0, Telemetry()
    left: Counter[int] = Counter()

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    def note(record: Any) -> None:
        if isinstance(record.raw_message, LeaveTopic):
            left[passes] += 1

    async with trio.open_nursery() as nursery:
        async with scripted(telemetry=bus) as (socket, _):
            for number in range(300):
                await socket.channel(f"room:{number}").join()
            bus.attach("left", ("slipstream", "connection", "handle", "start"), note)
            nursery.start_soon(count)
        nursery.cancel_scope.cancel()
    assert left.total() == 300
    assert max(left.values()) <= 2 * 64


async def test_a_channel_may_be_left_while_many_are_told_that_the_socket_has_ended(autojump_clock: MockClock) -> None:
    async def leave_the_last() -> None:
        with pytest.raises(ConnectionLost):
            await channels[0].receive()
        status.append(channels[-1].status)
        channels[-1].leave_soon()

    status: list[str] = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectionLost):
            async with scripted() as (socket, peer):
                channels = [socket.channel(f"room:{number}") for number in range(300)]
                for channel in channels:
                    await channel.join()
                nursery.start_soon(leave_the_last)
                await trio.sleep(1)
                peer.end()
                await trio.sleep_forever()
    assert status == ["errored"]
    assert {channel.status for channel in channels} == {"closed"}
    with pytest.raises(ChannelClosed, match="left"):
        await channels[-1].receive()


async def test_a_leave_of_what_is_not_joined_does_not_end_as_the_one_before(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(answers=QUIET, telemetry=recorder.bus, leave_timeout=1) as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        await channel.leave()
        await channel.leave()
    assert [record.outcome for record in recorder.named("client", "leave", "stop")] == ["timeout", "ok"]


async def test_a_transport_that_wakes_the_writer_as_it_is_left_is_given_nothing(autojump_clock: MockClock) -> None:
    class Waking(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as peer:
                try:
                    yield peer
                finally:
                    wake()

    connector = Waking()
    async with connect(URL, transport=connector, close_timeout=1) as socket:
        await socket.channel("room").join()
        connector.peer.answers_close = False
    written = [message.event for message in connector.peer.sent]
    assert (written, len(connector.peer.batches)) == (["phx_join", "phx_leave"], 2)


async def test_an_interrupt_as_a_stream_is_first_read_does_not_lose_its_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    close = Buffer.close

    def interrupted(self: Buffer, end: Any) -> None:
        monkeypatch.setattr(Buffer, "close", close)
        raise KeyboardInterrupt

    async with scripted() as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        await channel.leave()
        monkeypatch.setattr(Buffer, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            await channel.receive()
        with trio.fail_after(1), pytest.raises(ChannelClosed, match="left"):
            await channel.receive()


async def test_a_handler_may_leave_a_topic_as_the_span_of_its_rejoin_begins(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()
    async with scripted(telemetry=telemetry, rejoin=Backoff((1,))) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        telemetry.attach("leave", ClientJoinStart, lambda _: channel.leave_soon())
        peer.end_channel("room", "phx_error")
        await trio.sleep(5)
        telemetry.detach("leave")
        assert channel.status == "closed"
        assert peer.count("phx_join") == 1
        with trio.fail_after(1), pytest.raises(ChannelClosed, match="left"):
            await channel.receive()
        await channel.join()
