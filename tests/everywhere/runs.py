"""Runs of a program, each struck at another moment, and what is wrong with them."""

import warnings
from functools import cache

import trio
from attrs import frozen
from tests.everywhere.programs import payload
from tests.everywhere.strike import Moments, Strike, Way
from tests.everywhere.world import Play, World, play_out, wrong_with
from trio.testing import MockClock

from slipstream_trio.testing.simulation.determinism import deterministic

__all__ = ["STRIKES", "Run", "count", "problems", "run", "spread"]

STRIKES: tuple[tuple[Way, Moments], ...] = (
    ("cancel", "waiting"),
    ("cancel", "resuming"),
    ("cancel", "all"),
    ("leave", "waiting"),
    ("leave", "resuming"),
    ("leave", "all"),
    ("raise", "resuming"),
    ("interrupt", "waiting"),
    ("interrupt", "resuming"),
    ("interrupt", "all"),
    ("interrupt in the body", "resuming"),
    ("interrupt in the library", "calls"),
    ("interrupt in the library", "commands"),
)
"""How a program is struck, and at which moments."""


@frozen
class Run:
    """What came of a run."""

    world: World
    strike: Strike
    raised: BaseException | None


def run(play: Play, strike: Strike, *, real: bool = False) -> Run:
    """Run a program from its beginning, as it was scheduled the last time.

    Parameters:
        real: in real time; otherwise in virtual.
    """
    clock = None if real else MockClock(autojump_threshold=0)
    world = World()
    raised = None
    try:
        with deterministic(0, float):  # the clock by which iterators take turns stands still; Trio's own goes on
            trio.run(play_out, world, play, strike, clock=clock, instruments=[strike])
    except BaseException as error:  # noqa: BLE001 - what is struck raises anything
        raised = error
    return Run(world, strike, raised)


@cache
def count(play: Play, moments: Moments, *, raises: bool = False, once: bool = False, real: bool = False) -> int:
    """Return how many moments there are to strike at, or to raise at."""
    way: Way = "raise" if raises else "cancel"
    run(play, Strike("cancel"), real=real)  # the first run does some things for all that follow
    return run(play, Strike(way, moments, once=once), real=real).strike.count


def spread(total: int, wanted: int, start: float = 0.0) -> list[int]:
    """Return so many of the numbers from 1 to `total`, evenly spread; all of them if so many are wanted.

    Parameters:
        start: where in an even share the first one is: 0 is its beginning, 1 its end.
    """
    if wanted >= total:
        return list(range(1, total + 1))
    return [1 + int((number + start) * total / wanted) for number in range(wanted)]


def problems(
    play: Play,
    way: Way,
    moments: Moments,
    at: int,
    *,
    groups: bool = False,
    once: bool = False,
    goes_on: bool = False,
    real: bool = False,
) -> list[str]:
    """Strike a program at a moment; returns what is wrong then.

    Parameters:
        groups: whether the program has a nursery of its own, from which exceptions come in a group.
        once: see `Strike`.
        goes_on: whether the program goes on where it was interrupted.
        real: in real time; otherwise in virtual.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        struck = run(play, Strike(way, moments, at, once=once), real=real)
    wrong = [f"warning: {warning.message}" for warning in warned if not _is_about_payload(warning)]
    # Who interrupts the leaving itself wishes to be gone at once: that cuts the connection.
    impatient = way in ("interrupt", "interrupt in the library") and struck.strike.leaving
    wrong += wrong_with(struck.world, cut=impatient)
    if goes_on:
        wrong += [] if struck.raised is None else [f"it did not go on: {struck.raised!r}"]
    else:
        wrong += _wrong_exception(struck, groups=groups)
    if not struck.strike.struck:
        wrong.append("it was not struck")
    return [f"{way} at {at} ({moments}): {problem}" for problem in wrong]


def _is_about_payload(warning: warnings.WarningMessage) -> bool:
    """Tell whether a warning says that the user's function was called and, as an interrupt came, never awaited."""
    return str(warning.message) == f"coroutine '{payload.__name__}' was never awaited"


def _wrong_exception(struck: Run, *, groups: bool) -> list[str]:
    raised, way = struck.raised, struck.strike.way
    while groups and isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
        raised = raised.exceptions[0]
    expected = {"cancel": raised is None, "leave": raised is None, "raise": raised is struck.strike.error}
    return [] if expected.get(way, type(raised) is KeyboardInterrupt) else [f"what came out is {struck.raised!r}"]
