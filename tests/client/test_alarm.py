"""The alarm that all timers of a Trio run share."""

import math
import random
from typing import Any

import pytest
import trio
from tests.client.support import living_tasks, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio.client.timer import SWEEP_ABOVE, Alarm


class Woken:
    """Stands for a timer."""

    def __init__(self) -> None:
        self.next = 0.0
        self.wanted = 0.0
        self.rang: list[float] = []

    def ring(self) -> None:
        self.wanted, self.next = self.next, -math.inf
        self.rang.append(trio.current_time())


async def test_sockets_that_end_leave_no_task_behind(autojump_clock: MockClock) -> None:
    await wait_all_tasks_blocked()
    before = living_tasks()
    async with scripted(), scripted():
        pass
    await wait_all_tasks_blocked()
    assert living_tasks() == before


async def test_each_timer_is_woken_when_it_wanted_to_be_last(autojump_clock: MockClock) -> None:
    alarm = Alarm()
    for _ in range(20):
        timers: list[Any] = [Woken() for _ in range(SWEEP_ABOVE)]
        alarm.add()
        for timer in timers * 4:
            timer.next = trio.current_time() + random.randrange(1, 1000)
            alarm.set(timer.next, timer)
        await trio.sleep(1001)
        alarm.remove()
        assert [timer.rang for timer in timers] == [[pytest.approx(timer.wanted)] for timer in timers]
