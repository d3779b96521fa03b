"""Runs of programs in simulated worlds: one, or a swarm of them."""

import logging
import math
import re
import signal
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from inspect import iscoroutinefunction, isfunction, unwrap
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import trio
from attrs import Factory, frozen
from trio.testing import MockClock

from ...errors.base import leaves
from ...telemetry import ClientPushStop
from .determinism import deterministic
from .oracles import ORACLES, Oracle, Violation
from .scenario import FEATURES, TRANSPORT, Run, Scenario
from .world import Contexts, Mounts, Program, World

_HISTORY: Final = 30
# SIGINT counts also where a shell made it ignored, for what runs in the background; SIGTERM ends no process where it
# comes as the world is left, and Trio hands it on.
_SIGNALS: Final[Mapping[str | None, Any]] = {
    "interrupt": (signal.SIGINT, signal.default_int_handler),
    "terminate": (signal.SIGTERM, signal.SIG_IGN),
}
_DAY: Final = 86_400.0
# Once a process, as keys take longer to make than a run.
_made: Final[Callable[[Callable[[], Contexts]], Contexts]] = cache(lambda tls: tls())


@frozen
class Report:
    """The result of a run.

    Attributes:
        digest: of everything that happened: the same for the same scenario, on every machine.
        seconds: the virtual time that it took.
        counts: the number of "pushes", "messages", "faults" and "checks".
        faults: how often each kind of fault happened.
        history: the notes around the first violation whose moment is known, or the last ones.
        steps: the number of steps of Trio's at which it could be interrupted, if its scenario says how.
        command: runs it again; an expression of Python's, where the simulation has no name in a module.
        original: of a scenario that was made smaller, what runs the one that was drawn.
    """

    scenario: Scenario
    digest: str
    violations: tuple[Violation, ...]
    seconds: float
    counts: Counter[str]
    faults: Counter[str]
    history: tuple[str, ...]
    steps: int
    command: str
    original: str | None = None

    def __str__(self) -> str:
        found = [f"  {each}" for each in self.violations[:12]]
        head = f"seed {self.scenario.seed}: {len(self.violations)} violations"
        smaller = [f"made smaller from: {self.original}"] if self.original is not None else []
        return "\n".join([head, *found, "history:", *self.history, *smaller, self.command])


@frozen(kw_only=True)
class Simulation:
    """A program, and the world that it is to live in; to run it in several processes, all have to be picklable.

    Attributes:
        program: what each client does.
        mounts: returns the sockets of a server.
        name: its name for the command, "module:attribute"; None: that under which a module of the process has it.
        oracles: the guarantees to check.
        transports: the names of the transports that clients have, one of which each seed draws.
        tls: returns the contexts of servers and clients; without it, scenarios have no feature "tls".
    """

    program: Program
    mounts: Mounts
    name: str | None = None
    oracles: tuple[Oracle, ...] = Factory(lambda: ORACLES)
    transports: tuple[str, ...] = (TRANSPORT,)
    tls: Callable[[], Contexts] | None = None

    def __attrs_post_init__(self) -> None:
        program: Any = self.program
        mounts: Any = self.mounts
        # Callable objects and lambdas may return what is awaited; a plain function hardly does, and is a slip.
        plain = isfunction(program) and program.__name__ != "<lambda>"
        if not callable(program) or (plain and not iscoroutinefunction(unwrap(program))):
            raise TypeError(f"program: give a function such as `async def buy(client)`, not {program!r}")
        if not callable(mounts) or iscoroutinefunction(mounts):
            raise TypeError(f"mounts: give a function such as `def mounts(world)`, not {mounts!r}")

    def draw(self, seed: int, **given: Any) -> Scenario:
        """Return the scenario of a seed; attributes of `Scenario` that are `given` are not drawn.

        One with an `interrupt` is played without it first, so that it comes at one of the steps that there are.
        """
        # Two, so that a seed makes the same world with other transports.
        of_world, random = (Random(f"{seed}:{name}") for name in ("scenario", "simulation"))  # noqa: S311 - reproduced
        share = of_world.choice((0.05, 0.1, 0.25, 0.5))  # of all features
        drawn = {
            "transport": random.choice(self.transports),
            "features": [name for name in FEATURES if of_world.random() < share and (self.tls or name != "tls")],
            "clients": of_world.randint(1, 3),
            "nodes": of_world.randint(1, 3),
        }
        scenario = Scenario(seed, **{**drawn, **given})
        if scenario.interrupt is None or "at" in given:
            return scenario
        return attrs.evolve(scenario, at=random.randint(1, max(1, self.run(scenario).steps)))

    def run(self, scenario: Scenario) -> Report:
        """Play a scenario, and judge what came of it; an interrupt that it does not ask for ends that."""
        run, clock, logger = Run(scenario), MockClock(autojump_threshold=0), logging.getLogger("slipstream_trio")
        with ExitStack() as stack:
            # The library shall log nothing: connections are lost all the time.
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(deterministic(scenario.seed, clock.current_time))
            contexts = _made(self.tls) if self.tls is not None and "tls" in scenario.features else None
            if scenario.interrupt in _SIGNALS:
                number, handler = _SIGNALS[scenario.interrupt]
                stack.callback(signal.signal, number, signal.signal(number, handler))
            try:
                world = World(run, clock, self.mounts, Path(directory), contexts)
                instruments = [] if scenario.interrupt is None else [world]
                trio.run(world.play, self.program, clock=clock, instruments=instruments)
            except BaseException as error:
                if scenario.interrupt != "interrupt" and any(type(each) is KeyboardInterrupt for each in leaves(error)):
                    raise
                run.raised = error
            return self._judged(run)

    def check(self, scenario: Scenario) -> Report:
        """Play a scenario; of one that breaks a guarantee, return the report of the smallest found that does so too."""
        report, candidates, tries = self.run(scenario), scenario.smaller(), 0
        broken, original = {_kind(violation) for violation in report.violations[:1]}, report.command
        while broken and tries < 60 and (smaller := next(candidates, None)) is not None:
            tries += 1
            found = self.run(smaller)
            if not broken.isdisjoint(map(_kind, found.violations)):
                report, candidates = attrs.evolve(found, original=original), smaller.smaller()
        return report

    def swarm(
        self,
        seeds: Iterable[int] = range(100),
        *,
        jobs: int = 1,
        progress: Callable[[Report], object] = lambda _: None,
        everywhere: bool = False,
        busy_days: int | None = None,
        **given: Any,
    ) -> "Swarm":
        """Play the scenarios of many seeds; those that break a guarantee are made smaller.

        Parameters:
            seeds: a run for each.
            jobs: the number of processes.
            progress: is told of each run.
            everywhere: whether each scenario is interrupted at each of its steps, a run for each, and not at one.
            busy_days: ends once so many days of virtual time had much to do: 1,000 pushes and 20 faults.
            given: attributes of `Scenario` that are not to be drawn.
        """
        total, given = Swarm(), {**given, "at": 0} if everywhere else given
        scenarios = (self.draw(seed, **given) for seed in seeds)
        if everywhere:
            scenarios = (attrs.evolve(each, at=at) for each in scenarios for at in range(1, self.run(each).steps + 1))
        with ExitStack() as stack:
            if jobs == 1:
                reports: Iterator[Report] = map(self.check, scenarios)
            else:
                pool = stack.enter_context(ProcessPoolExecutor(jobs, get_context("spawn")))
                parts = iter(lambda: [*islice(scenarios, 100 * jobs)], [])
                reports = (report for part in parts for report in pool.map(self.check, part, chunksize=4))
            for report in reports:
                progress(report)
                total = Swarm(
                    total.runs + 1,
                    total.days + report.seconds / _DAY,
                    total.counts + report.counts,
                    total.faults + report.faults,
                    (*total.failures, report) if report.violations else total.failures,
                )
                if busy_days is not None and total.counts["busy days"] >= busy_days:
                    break
        return total

    def _judged(self, run: Run) -> Report:
        judged = [found for oracle in self.oracles for found in _asked(oracle, run)]
        violations = tuple(filter(None, judged))
        pushes, faults = sum(1 for _ in run.all_of(ClientPushStop)), run.faults.total()
        counts = Counter(checks=len(judged), messages=sum(1 for _ in run.noted("got")), pushes=pushes, faults=faults)
        counts["busy days"] = int(run.seconds >= _DAY and pushes >= 1000 and faults >= 20)
        moment = next((violation.at for violation in violations if violation.at is not None), math.inf)
        shown = max(bisect_right(run.notes, moment, key=lambda note: note.at) + 5, _HISTORY)  # and 5 after it
        history = tuple(map(str, run.notes[:shown][-_HISTORY:]))
        name, command = self.name or next(self._names(), None), f"SIMULATION.run({run.scenario!r})"
        if name is not None:
            command = f"python -m slipstream_trio.testing.simulation {name} {run.scenario.arguments()}"
        told = (run.digest, violations, run.seconds, counts, run.faults, history, run.steps)
        return Report(run.scenario, *told, command)

    def _names(self) -> Iterator[str]:
        """Give the names by which the command finds it."""
        own = self.program.__module__
        for module, loaded in sorted(sys.modules.items(), key=lambda item: item[0] != own):
            for name, value in list(getattr(loaded, "__dict__", {}).items()):
                if type(value) is Simulation and value == self:
                    main = module in ("__main__", "__mp_main__")
                    yield f"{Path(loaded.__file__ or '').stem if main else module}:{name}"


def _asked(oracle: Oracle, run: Run) -> Iterator[Violation | None]:
    """Give what an oracle finds, and that it fails."""
    name = oracle.__name__
    try:
        for wrong in oracle(run):
            yield None if wrong is None else Violation(name, *((wrong,) if isinstance(wrong, str) else wrong))
    except Exception as error:  # noqa: BLE001 - it may be the user's
        yield Violation(name, f"the oracle raised {error!r}")


def _kind(violation: Violation) -> tuple[str, str]:
    """Return what two violations by one bug have in common: their sentence without names and numbers."""
    return violation.oracle, re.sub(r"'[^']*'|\S*\d\S*", "…", violation.sentence)


@frozen
class Swarm:
    """The sum of many runs, with their virtual time in days.

    `failures` are the reports of those that broke a guarantee, made smaller.
    """

    runs: int = 0
    days: float = 0.0
    counts: Counter[str] = Factory(Counter)
    faults: Counter[str] = Factory(Counter)
    failures: tuple[Report, ...] = ()

    def __str__(self) -> str:
        told = [f"{self.runs} runs, {self.days:,.1f} days", *(f"{n:,} {what}" for what, n in self.counts.items())]
        faults = ", ".join(f"{n:,} {name}" for name, n in sorted(self.faults.items()))
        return "\n\n".join([f"{', '.join(told)}\nfaults: {faults}", *map(str, self.failures)])

    def check(self) -> None:
        """Raise AssertionError with the reports, if any run broke a guarantee."""
        if self.failures:
            raise AssertionError(str(self))
