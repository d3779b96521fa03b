"""Exits of channel blocks that follow one another share the time limit of the first."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.held import objects_held
from tests.recovery.support import Outcomes, settle, until
from tests.scheduling import in_any_order, play
from trio.testing import MockClock

from slipstream_trio import Channel, Socket, connect
from slipstream_trio.protocol import CloseConnection, LeaveTopic
from slipstream_trio.testing.kit import Answer, FakeServer
from slipstream_trio.transport import OpenRequest, Transport

MUTE: Final[frozenset[Answer]] = frozenset({"connect", "join", "heartbeat", "push"})


async def nested(socket: Socket) -> None:
    async with socket.join("1"), socket.join("2"), socket.join("3"):
        pass


async def stacked(socket: Socket) -> None:
    async with AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(socket.join(str(number)))


async def in_a_loop(socket: Socket) -> None:
    for number in range(3):
        async with socket.join(str(number)):
            pass


async def with_a_pause_between(socket: Socket) -> None:
    async with socket.join("1"):
        async with socket.join("2"):
            pass
        await trio.lowlevel.checkpoint()


async def with_a_push_between(socket: Socket) -> None:
    async with socket.join("1") as channel:
        async with socket.join("2"):
            pass
        await channel.push("event")


async def with_code_between(socket: Socket) -> None:
    async with socket.join("1"):
        async with socket.join("2"):
            pass
        sum(range(1000))


async def with_a_new_channel_between(socket: Socket) -> None:
    async with socket.join("1"):
        async with socket.join("2"):
            pass
        socket.channel("3")


@pytest.mark.parametrize(
    ("program", "seconds"),
    [
        (nested, 5),
        (stacked, 5),
        (in_a_loop, 15),
        (with_a_pause_between, 10),
        (with_a_push_between, 10),
        (with_code_between, 5),
        (with_a_new_channel_between, 10),
    ],
)
async def test_a_row_of_exits_costs_one_leave_timeout(
    program: Callable[[Socket], Awaitable[None]], seconds: float, autojump_clock: MockClock
) -> None:
    async with FakeServer(answers=MUTE) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        began = trio.current_time()
        await program(socket)
        assert trio.current_time() - began == pytest.approx(seconds)
        await trio.sleep(0.1)
        joined = [message.topic for message in connection.messages if message.event == "phx_join"]
        left = [message.topic for message in connection.messages if message.event == "phx_leave"]
        assert sorted(joined) == sorted(left)


class Steps(trio.abc.Instrument):
    """Counts how often a task runs."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


async def test_a_late_exit_of_a_row_passes_the_scheduler(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server, connect(server.url, transport=server.connector()) as socket:
        await server.accept()
        steps, counts = Steps(trio.lowlevel.current_task()), list[int]()
        async with AsyncExitStack() as stack:
            for number in range(4):
                stack.callback(lambda: counts.append(steps.count))
                await stack.enter_async_context(socket.join(str(number)))
            trio.lowlevel.add_instrument(steps)
            stack.callback(lambda: counts.append(steps.count))
        trio.lowlevel.remove_instrument(steps)
        assert counts == sorted(set(counts))


async def test_the_end_of_the_socket_waits_no_second_time_for_them(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server:
        async with connect(server.url, transport=server.connector()) as socket:
            await server.accept()
            async with socket.join("1"), socket.join("2"):
                began = trio.current_time()
        assert 5 <= trio.current_time() - began < 6


async def test_a_leave_sent_at_the_end_of_a_row_has_a_moment_to_be_answered(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server, trio.open_nursery() as nursery:
        async with connect(server.url, transport=server.connector()) as socket:
            connection = await server.accept()

            async def answer() -> None:
                leave = await connection.expect_leave("1", within=10)  # the outer one's, sent when the time is over
                assert trio.current_time() - began == pytest.approx(5)
                await trio.sleep(0.45)
                await leave.confirm()

            async with socket.join("1"), socket.join("2"):
                began = trio.current_time()
                nursery.start_soon(answer)
        assert trio.current_time() - began == pytest.approx(5.45)


async def test_a_channel_without_a_block_has_its_time_behind_a_row_of_exits(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server:
        async with connect(server.url, transport=server.connector(), leave_timeout=2) as socket:
            await server.accept()
            await socket.channel("0").join()
            async with socket.join("1"):
                began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(4)


async def test_a_leave_that_sends_nothing_has_ended_with_its_block_also_when_the_time_is_over(
    autojump_clock: MockClock,
) -> None:
    connector, recorder = Scripted(), Recorder()
    async with connect(URL, transport=connector, telemetry=recorder.bus, leave_timeout=2) as socket:
        async with socket.join("1"):
            async with socket.join("2"):
                connector.peer.end()
                await until(lambda: socket.status != "connected")
            autojump_clock.jump(3)
        assert [stop.metadata["topic"] for stop in recorder.named("leave", "stop")] == ["2", "1"]


async def test_an_answered_leave_of_a_row_does_not_wait(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE | {"leave"}) as server:
        async with connect(server.url, transport=server.connector()) as socket:
            await server.accept()
            began = trio.current_time()
            await stacked(socket)
            assert trio.current_time() == began


async def test_a_leave_is_awaited_for_less_than_a_second_too(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server:
        async with connect(server.url, transport=server.connector(), leave_timeout=0.5) as socket:
            await server.accept()
            async with socket.join("1"):
                began = trio.current_time()
            assert trio.current_time() - began == pytest.approx(0.5)


async def test_exits_of_two_tasks_have_limits_of_their_own(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=MUTE) as server, connect(server.url, transport=server.connector()) as socket:
        await server.accept()
        took: list[float] = []

        async def hold(topic: str, seconds: float) -> None:
            async with socket.join(topic):
                await trio.sleep(seconds)
                began = trio.current_time()
            took.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, "1", 1)
            nursery.start_soon(hold, "2", 3)
        assert took == [pytest.approx(5), pytest.approx(5)]


@pytest.mark.parametrize("answers_close", [True, False])
async def test_a_transport_that_is_never_left_is_given_up_in_time(
    answers_close: bool, autojump_clock: MockClock
) -> None:
    class Stuck(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as peer:
                yield peer
                await trio.sleep_forever()

    connector = Stuck()
    with trio.fail_after(20):
        async with connect(URL, transport=connector, close_timeout=5):
            connector.peer.answers_close = answers_close
            await trio.sleep(1)
    assert trio.current_time() == pytest.approx(6)


async def test_a_close_for_which_the_leaves_left_no_time_is_in_the_trace(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with connect(URL, transport=Scripted(), telemetry=recorder.bus) as socket:
        for number in range(100):
            await socket.channel(str(number)).join()
        jump = partial(autojump_clock.jump, 100)  # as though the leaves took so long
        recorder.bus.attach("jump", ("slipstream", "connection", "handle", "stop"), lambda _: jump())
    handled = [record.raw_message for record in recorder.named("connection", "handle", "start")]
    assert CloseConnection(1000, "closed_by_client") in handled


async def test_the_leave_of_a_block_without_a_limit_has_none(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, leave_timeout=None) as (socket, _), socket.join("room"):
        pass
    handled = [record.raw_message for record in recorder.named("connection", "handle", "start")]
    assert [given.timeout for given in handled if isinstance(given, LeaveTopic)] == [None]


async def test_a_socket_whose_channels_had_blocks_is_not_kept(autojump_clock: MockClock) -> None:
    async def visit() -> int:
        async with FakeServer(answers=MUTE | {"leave"}) as server:
            async with connect(server.url, transport=server.connector()) as socket:
                await nested(socket)
        return objects_held()

    first = await visit()
    assert [await visit() for _ in range(2)] == [first, first]


async def test_the_error_of_a_cancelled_block_comes_out_though_its_end_is_cut_off(autojump_clock: MockClock) -> None:
    connector = Scripted()
    with pytest.raises(KeyError, match="mine"), trio.CancelScope() as scope:
        async with connect(URL, transport=connector, close_timeout=1, heartbeat_interval=None):
            connector.peer.answers_close = False
            scope.cancel()
            raise KeyError("mine")
    assert trio.current_time() == 1


@in_any_order
def test_the_end_of_a_block_does_not_leave_what_another_task_joins_then(order: object) -> None:
    play(_leave_and_join)


async def _leave_and_join() -> None:
    async with (
        scripted(answers={"phx_join"}, heartbeat_interval=None) as (socket, peer),
        trio.open_nursery() as nursery,
    ):
        done = Outcomes(nursery)

        async def join(channel: Channel) -> None:
            leave = await peer.wait_sent("phx_leave")
            done.start("join", channel.join)
            await settle()
            peer.reply(leave)
            peer.end_channel("room")

        async with socket.join("room") as channel:
            nursery.start_soon(join, channel)
        await settle()
        assert done.by == {"join": {}}
        channel.leave_soon()
        peer.reply(await peer.wait_sent("phx_leave", 2))
        peer.end_channel("room")
