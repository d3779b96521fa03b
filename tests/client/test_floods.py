"""Many frames at once: they are handled in order, some at a time, and all else goes on meanwhile."""

from itertools import count, pairwise
from typing import Any

import pytest
import trio
from tests.client.support import scripted
from tests.held import blocks_held
from tests.protocol import wire
from tests.recovery.support import Outcomes
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Channel, JoinTimeout
from slipstream_trio.client.turn import FRAMES_A_LOOK, MESSAGES_A_TURN, Turn, turn_of_this_run
from slipstream_trio.telemetry import Telemetry


def slow_turn() -> None:
    """Let the clock of turns say that a millisecond has passed whenever somebody looks."""
    ticks = count()
    turn_of_this_run(Turn(lambda: next(ticks) / 1000))


@pytest.mark.parametrize("watched", [False, True])
async def test_others_run_while_a_batch_is_handled(watched: bool, autojump_clock: MockClock) -> None:
    slow_turn()
    bus, handled = Telemetry(), 0

    def handle(_: Any) -> None:
        nonlocal handled
        handled += 1

    if watched:
        bus.attach("handle", ("slipstream", "connection", "handle", "stop"), handle)
    seen: list[int] = []
    async with scripted(telemetry=bus, buffer=2000) as (socket, peer), trio.open_nursery() as nursery:

        async def look() -> None:
            while True:
                seen.append(handled)
                await trio.lowlevel.checkpoint()

        async with socket.join("room") as channel:
            nursery.start_soon(look)
            while not seen:  # or it would look when all is handled
                await trio.lowlevel.checkpoint()
            peer.feed(*(wire.text(None, None, "room", "event", number) for number in range(1000)))
            received = [(await channel.receive()).payload for _ in range(1000)]
        nursery.cancel_scope.cancel()
    assert received == list(range(1000))
    if watched:
        assert (
            max(after - before for before, after in pairwise(seen)) <= 2 * 7 * FRAMES_A_LOOK
        )  # two turns, as the order of tasks is random


async def test_what_ran_while_a_batch_was_handled_takes_nothing_from_the_time_of_the_next_join(
    autojump_clock: MockClock,
) -> None:
    slow_turn()
    handed_over = False

    def note() -> None:
        nonlocal handed_over
        handed_over = True

    async def work() -> None:
        while not handed_over:
            await trio.lowlevel.checkpoint()
        autojump_clock.jump(3)

    async with scripted(answers={"phx_leave"}, join_timeout=10) as (socket, peer), trio.open_nursery() as nursery:
        done = Outcomes(nursery)
        for topic in ("first", "next"):
            done.start(topic, socket.channel(topic).join)
            await wait_all_tasks_blocked()
        ref = peer.sent[0].ref
        peer.handing_over = note
        nursery.start_soon(work)
        elsewhere = wire.text(None, None, "elsewhere", "event", 0)
        peer.feed(*[elsewhere] * 1000, wire.text(ref, ref, "first", "phx_reply", {"status": "ok", "response": {}}))
    assert done.by["first"] == {}
    assert isinstance(done.by["next"], JoinTimeout)
    assert done.at == {"first": 3, "next": 13}


async def test_a_flood_of_small_frames_is_not_handled_in_the_step_that_read_it(autojump_clock: MockClock) -> None:
    async with scripted(buffer=10_000) as (socket, peer), socket.join("room") as channel:
        passed = False

        def note() -> None:
            nonlocal passed
            passed = True

        peer.handing_over = lambda: trio.lowlevel.current_trio_token().run_sync_soon(note)
        peer.feed(*[wire.text(None, None, "room", "event", 0)] * (MESSAGES_A_TURN + 1))
        assert (await channel.receive()).payload == 0
        assert passed


async def test_slow_consumers_hold_up_the_receive_loop_for_50_ms_at_most(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, taken = 0.0, 0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    async def read(channel: Channel) -> None:
        nonlocal now, taken
        async for _ in channel:
            taken += 1
            now += 0.006  # longer than a turn, so each takes one in a pass of the scheduler

    async with scripted(buffer=1000) as (socket, peer), socket.join("slow") as slow, socket.join("quick") as quick:
        peer.feed(*[wire.text(None, None, "slow", "event", 0)] * 1000)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(30):  # of whom one at least runs between two steps of the receive loop, in whatever order
                nursery.start_soon(read, slow)
            while not taken:
                await trio.lowlevel.checkpoint()
            peer.message("slow", "event")  # now that it is read, its buffer is more than half full
            peer.message("quick", "event")
            await quick.receive()
            assert taken <= 200
            nursery.cancel_scope.cancel()


async def test_what_comes_in_a_batch_after_a_close_is_dropped(autojump_clock: MockClock) -> None:
    slow_turn()
    async with scripted(buffer=2000) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.feed(*(wire.text(None, None, "room", "event", number) for number in range(1000)))
        await trio.lowlevel.checkpoint()
        await socket.disconnect()
        await wait_all_tasks_blocked()
        assert socket.status == "closed"


async def test_what_is_handled_before_a_deadline_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with scripted() as (_, peer):

        async def handle() -> int:
            for _ in range(1000):
                peer.message("elsewhere", "event")
            await wait_all_tasks_blocked()
            return blocks_held()

        held = [await handle() for _ in range(5)]
        # Python keeps some blocks of its own now and then; an entry for each message would be thousands every time.
        assert min(after - before for before, after in pairwise(held)) < 500
