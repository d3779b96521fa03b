"""A few clients for a short while of virtual time; `nox -s soak` has the whole of it."""

import pytest
from attrs import evolve
from tests.soak.figures import Figures, Held
from tests.soak.soaking import Plan, soak
from trio.testing import MockClock


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
    ],
)
def test_a_soak_says_what_is_wrong(spoil: object, sentence: str) -> None:
    figures = Figures(before=WARM, warm=WARM, last=WARM, after=WARM)
    figures.counts.update({"received": 1, "connected": 1, "joined": 1, "left": 1})
    assert figures.judge(growth=0.1) == []
    spoil(figures)  # type: ignore[operator]
    assert figures.judge(growth=0.1) == [sentence]
