"""The deadlines of pushes: when they time out, and that nothing stays of them."""

import gc
from collections import Counter
from typing import Any
from weakref import ref

import pytest
import trio
import trio.lowlevel
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.held import blocks_held, objects_held
from tests.recovery.support import Outcomes
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Channel,
    PushTimeout,
    Socket,
    connect,
)
from slipstream_trio.protocol import TimerTicked

QUIET = frozenset({"phx_join", "phx_leave", "heartbeat"})


async def test_a_push_that_is_not_answered_times_out(autojump_clock: MockClock) -> None:
    async with scripted(push_timeout=3) as (socket, _peer), socket.join("room") as channel:
        for timeout, options in ((3, {}), (7, {"timeout": 7}), (0.5, {"timeout": 0.5})):
            started = trio.current_time()
            with pytest.raises(PushTimeout) as raised:
                await channel.push("event", **options)
            assert trio.current_time() - started == pytest.approx(timeout)
            error = raised.value
            assert (error.topic, error.event, error.timeout) == ("room", "event", timeout)


async def test_pushes_that_were_answered_are_forgotten_before_their_deadline(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        ended: list[float] = []

        async def wait() -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=50)
            ended.append(trio.current_time())

        async def push(count: int) -> int:
            for number in range(count):
                await channel.push("echo", timeout=100 + number)
            peer.sent.clear()
            peer.batches.clear()
            return blocks_held()

        nursery.start_soon(wait)
        before = await push(100)
        # The deadlines of some dozens of answered pushes may wait to be swept.
        assert await push(500) - before < 1000
        await trio.sleep_until(60)
        assert ended == [50]


async def test_the_earliest_deadline_of_those_that_are_left_comes_first(autojump_clock: MockClock) -> None:
    ended: list[tuple[float, float]] = []
    async with scripted() as (socket, _), socket.join("room") as channel, trio.open_nursery() as nursery:

        async def wait(timeout: float) -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=timeout)
            ended.append((timeout, trio.current_time()))

        await channel.push("echo", timeout=1)
        for timeout in (5, 2):
            nursery.start_soon(wait, timeout)
            await wait_all_tasks_blocked()
        for _ in range(40):  # after which those that were answered are swept
            await channel.push("echo", timeout=100)
    assert ended == [(2, 2), (5, 5)]


async def test_pushes_that_were_given_up_are_forgotten(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:

        async def give_up(count: int) -> int:
            for number in range(count):
                if number % 2:
                    with pytest.raises(PushTimeout):
                        await channel.push("event", timeout=1)
                else:
                    with trio.move_on_after(1):
                        await channel.push("event")
            peer.sent.clear()
            peer.batches.clear()
            return objects_held()

        before = await give_up(10)
        assert await give_up(100) <= before + 5


@pytest.mark.parametrize("options", [{"push_timeout": None}, {"push_timeout": 1}])
async def test_a_push_without_a_limit_waits(options: Any, autojump_clock: MockClock) -> None:
    async with scripted(**options) as (socket, _peer), socket.join("room") as channel:
        with trio.move_on_after(500) as scope:
            await channel.push("event", timeout=None)
        assert scope.cancelled_caught


async def test_each_of_many_pushes_has_its_own_deadline(autojump_clock: MockClock) -> None:
    ended: list[tuple[int, float]] = []
    async with scripted() as (socket, _peer), socket.join("room") as channel:
        started = trio.current_time()

        async def push(timeout: int) -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=timeout)
            ended.append((timeout, trio.current_time() - started))

        async with trio.open_nursery() as nursery:
            for timeout in (5, 1, 4, 2, 3):
                nursery.start_soon(push, timeout)
    assert [timeout for timeout, _ in ended] == [1, 2, 3, 4, 5]
    assert [after for _, after in ended] == pytest.approx([1, 2, 3, 4, 5])


async def test_waiting_for_the_join_counts_towards_the_timeout(autojump_clock: MockClock) -> None:
    async with scripted(answers=()) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        await peer.wait_sent("phx_join")
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=2)
        assert trio.current_time() == pytest.approx(2)
        assert peer.count("event") == 0
        peer.reply(peer.sent[0])
        peer.answers.update(QUIET)


async def test_a_push_that_is_not_answered_tells_how_long_it_waited_to_be_sent(autojump_clock: MockClock) -> None:
    async with scripted(answers=QUIET - {"phx_join"}) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        join = await peer.wait_sent("phx_join")
        done = Outcomes(nursery)
        done.start("push", channel.push, "event", timeout=5)
        await trio.sleep(2)
        peer.reply(join)
        await trio.sleep(5)
        error = done.by["push"]
        assert (type(error), error.sent, error.waited, done.at["push"]) == (PushTimeout, True, 2, 5)


async def test_a_deadline_of_another_socket_does_not_put_off_an_earlier_one(autojump_clock: MockClock) -> None:
    async def push(socket: Socket, timeout: float) -> None:
        channel = socket.channel("room")
        await channel.join()
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=timeout)
        ended.append(trio.current_time() - began)

    ended: list[float] = []
    began = trio.current_time()
    async with scripted() as (first, _), scripted() as (second, _), trio.open_nursery() as nursery:
        nursery.start_soon(push, first, 1)
        await trio.sleep(0.1)
        nursery.start_soon(push, second, 20)
    assert ended == pytest.approx([1, 20.1])


async def test_others_run_while_many_pushes_time_out(autojump_clock: MockClock) -> None:
    at_once: list[int] = []
    passes = 0

    async def push(channel: Channel) -> None:
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=1)
        at_once.append(passes)

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with scripted() as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as counting:
            async with trio.open_nursery() as pushing:
                for _ in range(1000):
                    pushing.start_soon(push, channel)
                await wait_all_tasks_blocked()
                counting.start_soon(count)
                autojump_clock.jump(1)
            counting.cancel_scope.cancel()
    assert max(Counter(at_once).values()) <= 2 * 128


async def test_a_push_that_times_out_while_there_is_no_connection_says_so(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((60,), jitter=0)) as socket:
        channel = socket.channel("room")
        await channel.join()
        connector.peer.end()
        await wait_all_tasks_blocked()
        with pytest.raises(PushTimeout) as caught:
            await channel.push("event", timeout=1)
        assert caught.value.awaited == "connection"


@pytest.mark.parametrize(("busy", "answered"), [(15, True), (1000, False)])
async def test_a_push_is_not_overdue_while_the_program_is_busy_but_for_a_while(
    busy: int, answered: bool, autojump_clock: MockClock
) -> None:
    passes = 0

    async def work() -> None:
        nonlocal passes
        await trio.sleep(1)
        message = await peer.wait_sent("event")
        for passes in range(busy):  # noqa: B007 - looked at below
            autojump_clock.jump(0.05)
            await trio.lowlevel.checkpoint()
        peer.reply(message, "in time")

    async with scripted(answers=QUIET, heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            if answered:
                assert await channel.push("event", timeout=1) == "in time"
            else:
                with pytest.raises(PushTimeout):
                    await channel.push("event", timeout=1)
                assert 20 < passes < 100  # one counts for 10 ms, of 250, or for none, as tasks run in any order


async def test_a_push_is_not_overdue_while_much_comes_in_but_for_a_while(autojump_clock: MockClock) -> None:
    passes = 0

    async def flood() -> None:
        nonlocal passes
        await trio.sleep(1)
        for passes in range(1000):  # noqa: B007 - looked at below
            peer.progress += 2**16
            await trio.lowlevel.checkpoint()

    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        peer.progress = 2**24  # a long time ago
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=1)
            assert 50 < passes < 80  # of 64 KiB, in 4 MiB


async def test_sockets_that_have_ended_are_forgotten_while_another_one_lasts(autojump_clock: MockClock) -> None:
    async def ended() -> ref[Socket]:
        async with scripted(heartbeat_interval=1000) as (socket, _):
            return ref(socket)

    async with scripted():
        sockets = [await ended() for _ in range(100)]
        gc.collect()
        assert sum(socket() is not None for socket in sockets) < 50  # the times of some dozens may wait to be swept


async def test_a_push_that_times_out_is_nothing_to_the_connection(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=1)
        assert TimerTicked not in {type(start.raw_message) for start in recorder.named("handle", "start")}
