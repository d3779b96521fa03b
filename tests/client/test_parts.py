"""Parts of the runtime, alone: what no connection shows quickly."""

import math

import pytest
import trio
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, PushTimeout
from slipstream_trio.client.outbox import Outbox
from slipstream_trio.client.pushes import REMEMBERED, SWEEP_ABOVE, PendingPush, PushTable
from slipstream_trio.client.timer import Timer
from slipstream_trio.client.waiter import Waiter


def pending(number: int, timeout: float | None = 1.0) -> PendingPush:
    return PendingPush("room", "event", str(number), number, timeout, Waiter())


async def wait(push: PendingPush) -> None:
    """Wait for what a push is settled with."""
    assert isinstance(push.waiter, Waiter)
    await push.waiter.wait()


async def test_the_heap_of_deadlines_does_not_grow_with_the_traffic(autojump_clock: MockClock) -> None:
    table = PushTable()
    waiting = pending(0)
    table.add(waiting, 50.0)
    for number in range(1, 10_000):
        table.add(pending(number), 100.0 + number)
        assert table.settle(str(number), "ok", None)
    assert len(table) == 1
    assert len(table._deadlines) <= 2 * len(table) + SWEEP_ABOVE + 1
    assert table.expire(49.0) == 50.0
    assert table.expire(50.0) == math.inf
    with pytest.raises(PushTimeout):
        await wait(waiting)


def test_pushes_without_a_limit_have_no_deadline() -> None:
    table = PushTable()
    table.add(pending(1, None), math.inf)
    assert table.expire(10**9) == math.inf
    assert len(table) == 1


def test_only_so_many_abandoned_pushes_are_remembered() -> None:
    table = PushTable()
    for number in range(REMEMBERED + 10):
        push = pending(number)
        table.add(push, 5.0)
        table.abandon(push, "cancelled")
    assert table.was_abandoned("9") is None
    assert table.was_abandoned("10") == "cancelled"
    assert table.was_abandoned("10") is None


def test_a_push_that_is_settled_between_its_cancellation_and_its_task_is_not_abandoned() -> None:
    table = PushTable()
    push = pending(1)
    table.add(push, 5.0)
    assert table.settle("1", "ok", None)
    table.abandon(push, "cancelled")
    assert table.was_abandoned("1") is None


async def test_a_loss_tells_which_pushes_may_have_been_sent(autojump_clock: MockClock) -> None:
    table = PushTable()
    pushes = [pending(number) for number in range(1, 5)]
    for push in pushes:
        table.add(push, 5.0)
    table.fail_all("lost", 1006, taken=2)
    sent = []
    for push in pushes:
        with pytest.raises(ConnectionLost) as raised:
            await wait(push)
        sent.append(raised.value.sent)
    assert sent == [True, True, False, False]
    assert table.expire(100.0) == math.inf


async def test_a_waiter_is_settled_once(autojump_clock: MockClock) -> None:
    waiter = Waiter()
    settled = [waiter.settled]
    waiter.succeed(1)
    waiter.fail(KeyError())
    waiter.succeed(2)
    settled.append(waiter.settled)
    assert settled == [False, True]
    assert await waiter.wait() == 1


async def test_a_waiter_may_be_waited_for_again_after_a_cancellation(autojump_clock: MockClock) -> None:
    waiter = Waiter()
    with trio.move_on_after(1) as scope:
        await waiter.wait()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.wait)
        await trio.testing.wait_all_tasks_blocked()
        waiter.succeed()


async def test_a_waiter_that_is_settled_and_cancelled_at_once_gives_its_result(autojump_clock: MockClock) -> None:
    waiter = Waiter()
    results: list[int] = []

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            results.append(await waiter.wait())

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(wait, scope)
        await trio.testing.wait_all_tasks_blocked()
        waiter.succeed(5)
        scope.cancel()
    assert results == [5]


async def test_a_timer_calls_at_the_earliest_and_as_it_is_told(autojump_clock: MockClock) -> None:
    called: list[float] = []

    def due(now: float) -> float:
        called.append(now)
        return 20.0 if now < 20 else math.inf

    timer = Timer(due)
    timer.arm(10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        await trio.sleep(1)
        timer.arm(15.0)
        timer.arm(5.0)
        await trio.sleep(50)
        assert called == [5.0, 20.0]
        timer.arm(40.0)
        await trio.sleep(1)
        assert called == [5.0, 20.0, 51.0]
        nursery.cancel_scope.cancel()


async def test_an_outbox_that_is_closed_has_room_and_ends_when_it_is_empty(autojump_clock: MockClock) -> None:
    outbox = Outbox()
    outbox.put("one", "note")
    outbox.close()
    assert outbox.has_room
    assert await outbox.take() == ["one"]
    assert await outbox.take() is None
    assert (outbox.taken, outbox.number, outbox.left_over()) == (1, 1, [])


async def test_an_outbox_can_be_woken_for_nothing(autojump_clock: MockClock) -> None:
    outbox = Outbox()
    outbox.wake()
    assert await outbox.take() == []
    with trio.move_on_after(1) as scope:
        await outbox.take()
    assert scope.cancelled_caught


async def test_what_is_left_over_gives_its_notes(autojump_clock: MockClock) -> None:
    outbox = Outbox()
    outbox.put("one", 1)
    await outbox.take()
    outbox.put("two", 2)
    outbox.put("three")
    assert outbox.left_over() == [2, None]
    assert outbox.number == 1
    await trio.testing.wait_all_tasks_blocked()
