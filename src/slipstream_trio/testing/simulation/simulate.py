"""Runs of programs in simulated worlds: one, or a swarm of them."""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from inspect import iscoroutinefunction, isfunction, unwrap
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import trio
from attrs import Factory, frozen
from trio.testing import MockClock

from ...telemetry import ClientPushStop
from .determinism import deterministic
from .oracles import ORACLES, Oracle, Violation
from .scenario import Run, Scenario
from .world import Contexts, Interrupt, Mounts, Program, World

_HISTORY: Final = 30
_SHOWN: Final = 12
_TRIES: Final = 60
_DAY: Final = 86_400.0


@cache
def _made(tls: Callable[[], Contexts]) -> Contexts:
    """Return TLS contexts, once a process: keys take longer to make than a run."""
    return tls()


@frozen
class Report:
    """The result of a run.

    Attributes:
        digest: of everything that happened: the same for the same scenario, on every machine.
        seconds: the virtual time that it took.
        counts: the number of "pushes", "messages", "faults" and "checks".
        faults: how often each kind of fault happened.
        history: the last notes.
        command: runs it again.
    """

    scenario: Scenario
    digest: str
    violations: tuple[Violation, ...]
    seconds: float
    counts: Counter[str]
    faults: Counter[str]
    history: tuple[str, ...]
    command: str

    def __str__(self) -> str:
        found = [f"  {each}" for each in self.violations[:_SHOWN]]
        head = f"seed {self.scenario.seed}: {len(self.violations)} violations"
        return "\n".join([head, *found, "history:", *self.history, self.command])


@frozen(kw_only=True)
class Simulation:
    """A program, and the world that it is to live in; to run it in several processes, all have to be picklable.

    Attributes:
        program: what each client does.
        mounts: returns the sockets of a server.
        name: its name for the command, "module:attribute"; by default, that of the program.
        oracles: the guarantees to check.
        transport: the name of the clients' transport.
        tls: returns the contexts of servers and clients; without it, scenarios have no feature "tls".
    """

    program: Program
    mounts: Mounts
    name: str = Factory(lambda self: f"{self.program.__module__}:{self.program.__name__}", takes_self=True)
    oracles: tuple[Oracle, ...] = Factory(lambda: ORACLES)
    transport: str = "trio_websocket"
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
        """Return the scenario of a seed; attributes of `Scenario` that are `given` are not drawn."""
        return Scenario.draw(seed, without=("tls",) if self.tls is None else (), **given)

    def run(self, scenario: Scenario) -> Report:
        """Play a scenario, and judge what came of it."""
        run, clock, logger = Run(scenario), MockClock(autojump_threshold=0), logging.getLogger("slipstream_trio")
        with ExitStack() as stack:
            # The library shall log nothing: connections are lost all the time.
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(deterministic(scenario.seed, clock))
            contexts = _made(self.tls) if self.tls is not None and "tls" in scenario.features else None
            world = World(run, clock, self.mounts, Path(directory), self.transport, tls=contexts)
            instruments = [Interrupt(world)] if scenario.interrupt is not None else []
            try:
                trio.run(world.play, self.program, clock=clock, instruments=instruments)
            except BaseException as error:
                if scenario.interrupt is None:
                    raise
                run.raised = error
            return self._judged(run)

    def check(self, scenario: Scenario) -> Report:
        """Play a scenario; of one that breaks a guarantee, return the report of the smallest found that does so too."""
        report, candidates, tries = self.run(scenario), scenario.smaller(), 0
        broken = {violation.oracle for violation in report.violations[:1]}
        while broken and tries < _TRIES and (smaller := next(candidates, None)) is not None:
            tries += 1
            found = self.run(smaller)
            if not broken.isdisjoint(violation.oracle for violation in found.violations):
                report, candidates = found, smaller.smaller()
        return report

    def swarm(
        self,
        seeds: Iterable[int] = range(100),
        *,
        jobs: int = 1,
        progress: Callable[[Report], object] = lambda _: None,
        **given: Any,
    ) -> "Swarm":
        """Play the scenarios of many seeds; those that break a guarantee are made smaller.

        Parameters:
            seeds: a run for each.
            jobs: the number of processes.
            progress: is told of each run.
            given: attributes of `Scenario` that are not to be drawn.
        """
        total, scenarios = Swarm(), [self.draw(seed, **given) for seed in seeds]
        with ExitStack() as stack:
            if jobs == 1:
                reports: Iterator[Report] = map(self.check, scenarios)
            else:
                pool = stack.enter_context(ProcessPoolExecutor(jobs, get_context("spawn")))
                reports = pool.map(self.check, scenarios, chunksize=4)
            for report in reports:
                progress(report)
                total = Swarm(
                    total.runs + 1,
                    total.days + report.seconds / _DAY,
                    total.counts + report.counts,
                    total.faults + report.faults,
                    (*total.failures, report) if report.violations else total.failures,
                )
        return total

    def _judged(self, run: Run) -> Report:
        judged = [(oracle.__name__, wrong) for oracle in self.oracles for wrong in oracle(run)]
        pushes, faults = sum(1 for _ in run.all_of(ClientPushStop)), run.faults.total()
        counts = Counter(checks=len(judged), messages=sum(1 for _ in run.noted("got")), pushes=pushes, faults=faults)
        counts["busy days"] = int(run.seconds >= _DAY and pushes >= 1000 and faults >= 20)
        return Report(
            run.scenario,
            run.digest,
            tuple(Violation(name, wrong) for name, wrong in judged if wrong is not None),
            run.seconds,
            counts,
            run.faults,
            tuple(map(str, run.notes[-_HISTORY:])),
            f"python -m slipstream_trio.testing.simulation {self.name} {run.scenario.arguments()}",
        )


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
