"""Wherever a program is cancelled, raises or is interrupted, nothing is left, torn, or told wrongly.

Each program is run once to count its moments, then struck at some of them; with `nox -s everywhere` at all of them.
"""

from typing import get_args

import pytest
from tests.drawing import FACTOR
from tests.everywhere.programs import VISITED, crowd, loopback, visit
from tests.everywhere.runs import STRIKES, count, problems, run, spread
from tests.everywhere.strike import Moments, Strike, Way
from tests.everywhere.talking import call_back
from tests.everywhere.world import Play, wrong_with

pytestmark = pytest.mark.once

RAISING = ("raise", "interrupt in the body")
ON_A_SOCKET = [(way, moments) for way, moments in STRIKES if moments == "waiting" or way in RAISING]

WANTED = max(1, round(FACTOR))
"""At how many moments a program is struck in each way."""


@pytest.mark.parametrize("play", [visit, crowd, call_back, loopback])
def test_a_program_that_is_not_struck_comes_to_its_end(play: Play) -> None:
    played = run(play, Strike("cancel"), real=play is loopback)
    assert played.world.log[-1] in ("disconnected", "over", "terminate")
    assert played.world.log == VISITED or play is not visit
    assert played.raised is None
    assert wrong_with(played.world, cut=False) == []


@pytest.mark.parametrize("moments", get_args(Moments))
@pytest.mark.parametrize("play", [visit, crowd, call_back])
def test_a_program_has_the_same_moments_each_time(play: Play, moments: Moments) -> None:
    assert [run(play, Strike("leave", moments)).strike.count for _ in range(3)] == 3 * [count(play, moments)]


@pytest.mark.parametrize(("way", "moments"), STRIKES)
@pytest.mark.parametrize("play", [visit, crowd, call_back])
def test_a_program_is_struck(play: Play, way: Way, moments: Moments) -> None:
    total = count(play, moments, raises=way in RAISING)
    strike_at(play, way, moments, total)


@pytest.mark.parametrize(("way", "moments"), ON_A_SOCKET)
def test_a_program_on_a_real_socket_is_struck(way: Way, moments: Moments) -> None:
    total = count(loopback, moments, raises=way in RAISING, real=True)
    strike_at(loopback, way, moments, total - 1)  # the last is not the same in each run


def strike_at(play: Play, way: Way, moments: Moments, total: int) -> None:
    """Strike a program at some of its moments, or at all."""
    chosen = spread(total, WANTED, STRIKES.index((way, moments)) / len(STRIKES))
    found = {
        at: problems(play, way, moments, at, groups=play in (crowd, loopback), real=play is loopback) for at in chosen
    }
    wrong = {at: problems for at, problems in found.items() if problems}
    print(f"{play.__name__}, {way} ({moments}): {len(found) - len(wrong)} of {len(found)}, of {total}")  # noqa: T201
    assert wrong == {}
