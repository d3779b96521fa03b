"""An interrupt in the middle of a command leaves nothing half done: all can be used again, and left.

Each command is a program of its own. It is interrupted in the library's code that the user's task runs, wherever
Python looks for signals there, and as tasks of the library's call functions: with `nox -s everywhere` at each place of
the client's code, else at some.
"""

import pytest
from tests.drawing import FACTOR
from tests.everywhere.commands import COMMANDS, INSTRUCTIONS, connecting, disconnecting
from tests.everywhere.runs import count, problems, run, spread
from tests.everywhere.strike import Moments, Strike
from tests.everywhere.world import Play, wrong_with

pytestmark = pytest.mark.once

WANTED = max(1, round(20 * FACTOR))
"""At how many places a command is interrupted."""

ALL = {**COMMANDS, **INSTRUCTIONS, "connecting": connecting, "disconnecting": disconnecting}


@pytest.mark.parametrize("name", ALL)
def test_a_command_that_is_not_interrupted_is_done(name: str) -> None:
    played = run(ALL[name], Strike("cancel"))
    assert (played.raised, played.world.log) == (None, [name])
    assert wrong_with(played.world, cut=False) == []


@pytest.mark.parametrize("moments", ["commands", "calls"])
@pytest.mark.parametrize("name", [*COMMANDS, *INSTRUCTIONS])
def test_after_an_interrupt_in_a_command_all_can_be_used_again(name: str, moments: Moments) -> None:
    interrupt_at(name, moments, goes_on=True)


@pytest.mark.parametrize("moments", ["commands", "calls"])
@pytest.mark.parametrize("name", ["connecting", "disconnecting"])
def test_a_block_that_is_interrupted_is_left_by_that(name: str, moments: Moments) -> None:
    interrupt_at(name, moments, goes_on=False)


def interrupt_at(name: str, moments: Moments, *, goes_on: bool) -> None:
    """Interrupt a command at some places, or at all."""
    play: Play = ALL[name]
    total = count(play, moments, once=True)
    found = {
        at: problems(play, "interrupt in the library", moments, at, once=True, goes_on=goes_on)
        for at in spread(total, WANTED, 0.5)
    }
    wrong = {at: problems for at, problems in found.items() if problems}
    print(f"{name} ({moments}): {len(found) - len(wrong)} of {len(found)}, of {total}")  # noqa: T201
    assert wrong == {}
