"""A few clients for a short while of virtual time; `nox -s soak` has the whole of it."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.soak.figures import Figures, Held
from tests.soak.guests import Listener, numbered
from tests.soak.soaking import Plan, soak
from trio.testing import MockClock

from slipstream_trio import Gap, Message, SlowConsumer

pytestmark = pytest.mark.once


async def test_on_a_bad_network_nothing_is_lost_in_silence(autojump_clock: MockClock) -> None:
    reports: list[str] = []
    figures = await soak(Plan(clients=6, seconds=30, pace=1, real=False), reports.append)
    assert figures.judge(growth=1) == []
    assert figures.counts["received"] > 100
    assert figures.counts["faults injected"] > 5
    assert figures.counts["stock taken"] > 5
    assert "quiet: everybody leaves" in reports


WARM = Held(resident=1000, blocks=100, tasks=5, files=3)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda figures: figures.fail("something"), "it failed: something"),
        (lambda figures: figures.violations.append("odd"), "a trace is broken: odd"),
        (lambda figures: figures.counts.update({"lost in silence": 3}), "3 messages were lost and not announced"),
        (lambda figures: figures.counts.update({"out of order": 1}), "1 messages came twice or out of order"),
        (lambda figures: figures.counts.pop("received"), "nothing was received"),
        (lambda figures: setattr(figures, "after", evolve(WARM, tasks=7)), "2 tasks are left"),
        (lambda figures: setattr(figures, "after", evolve(WARM, files=4)), "1 files are left open"),
        (lambda figures: setattr(figures, "last", evolve(WARM, blocks=111)), "memory grew: blocks from 100 to 111"),
        (
            lambda figures: setattr(figures, "last", evolve(WARM, resident=1101)),
            "memory grew: resident from 1,000 to 1,101",
        ),
    ],
)
def test_a_soak_says_what_is_wrong(spoil: object, sentence: str) -> None:
    figures = Figures(before=WARM, warm=WARM, last=WARM, after=WARM)
    figures.counts.update({"received": 1, "connected": 1, "joined": 1, "left": 1})
    assert figures.judge(growth=0.1) == []
    spoil(figures)  # type: ignore[operator]
    assert figures.judge(growth=0.1) == [sentence]


GAP = Gap("reconnected", datetime.now(UTC), datetime.now(UTC))


def number(value: int) -> Message:
    return Message(None, None, "hall:1", "number", numbered(value))


@pytest.mark.parametrize(
    ("items", "counted"),
    [
        ([number(5), number(6)], {"received": 2}),
        ([number(6)], {"received": 1, "lost in silence": 1, "failures": 1}),
        ([number(5), number(9)], {"received": 2, "lost in silence": 3, "failures": 1}),
        (
            [number(5), GAP, number(9), number(11)],
            {"received": 3, "lost and announced": 3, "lost in silence": 1, "failures": 1},
        ),
        (
            [number(5), SlowConsumer("hall:1", 3), number(9)],
            {"received": 2, "lost and announced": 3, "slow consumers told": 1},
        ),
        ([number(5), number(5)], {"received": 2, "out of order": 1}),
        ([number(5)._replace(payload={"n": 5})], {"received damaged": 1, "failures": 1}),
    ],
)
async def test_a_listener_finds_out_what_is_missing(items: list[Any], counted: dict[str, int]) -> None:
    class Items:
        """What raises goes on afterwards, which a generator cannot."""

        def __init__(self) -> None:
            self.left = list(items)

        def __aiter__(self) -> "Items":
            return self

        async def __anext__(self) -> Any:
            if not self.left:
                raise StopAsyncIteration
            item = self.left.pop(0)
            if isinstance(item, Exception):
                raise item
            return item

    figures = Figures()
    listener = Listener(figures, strict=True, pause=0)
    listener.start_at(5)
    await listener.listen(SimpleNamespace(stream=Items))  # type: ignore[arg-type]
    assert dict(figures.counts) == counted


async def test_what_never_came_at_the_end_is_missing_unless_it_was_announced() -> None:
    listener = Listener(Figures(), strict=True, pause=0)
    assert listener.missing(9) == 0
    listener.start_at(5)
    assert listener.missing(5) == 0
    assert listener.missing(9) == 4
