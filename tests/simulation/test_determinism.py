"""One seed is one run, to the byte."""

import os
import random
import secrets
import subprocess
import sys
import time

import pytest
import trio
from tests.simulation.visits import ALL

from slipstream_trio.testing.simulation import Scenario
from slipstream_trio.testing.simulation.determinism import deterministic

WHOLE = {"steps": 4, "faults": 4, "clients": 2}


def digest(seed: int) -> str:
    return ALL.run(ALL.draw(seed, **WHOLE)).digest


def test_a_seed_makes_one_run() -> None:
    assert digest(3) == digest(3)


def test_another_seed_makes_another_run() -> None:
    assert digest(3) != digest(4)


@pytest.mark.once
def test_neither_hashes_nor_addresses_change_a_run() -> None:
    code = (
        "import sys; junk = [object() for _ in range(int(sys.argv[1]))]\n"
        "from tests.simulation.test_determinism import digest\n"
        "print(digest(3))"
    )
    [printed] = {
        subprocess.check_output(
            [sys.executable, "-c", code, hashes], text=True, env={**os.environ, "PYTHONHASHSEED": hashes}
        ).strip()
        for hashes in ("1", "2000")
    }
    assert printed == digest(3)


def test_everything_that_is_drawn_comes_from_the_seed() -> None:
    def draw() -> list[object]:
        with deterministic(7, float):
            return [os.urandom(4), secrets.token_hex(4), random.random(), secrets.randbelow(1000), time.perf_counter()]

    assert draw() == draw()


def test_what_was_replaced_is_put_back() -> None:
    before = os.urandom, time.perf_counter, random._urandom, random.getstate()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), deterministic(7, float):
        raise ZeroDivisionError
    assert before == (os.urandom, time.perf_counter, random._urandom, random.getstate())  # type: ignore[attr-defined]


def test_other_threads_are_left_alone() -> None:
    drawn: list[bytes] = []

    async def draw() -> None:
        drawn.append(await trio.to_thread.run_sync(os.urandom, 8))

    for _ in range(2):
        with deterministic(7, float):
            trio.run(draw)
    assert drawn[0] != drawn[1]


def test_a_scenario_is_drawn_from_its_seed_and_may_be_given_in_part() -> None:
    assert ALL.draw(5) == ALL.draw(5)
    assert ALL.draw(5, seconds=86_400.0).features == ALL.draw(5).features
    with pytest.raises(ValueError, match="not 'lightning'"):
        Scenario(1, features=("lightning",))
