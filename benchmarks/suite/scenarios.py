"""The scenarios, measured in rounds in which the programs take turns, so that a busy moment of the machine hits all.

A figure is the cost of one operation: a message, an echo, a connection, a join. `cpu` and `wall` are in microseconds,
of the client alone; `memory` is in KiB; `server` is the part of the time that the server was busy.
"""

import sys
import timeit
from collections.abc import Callable, Iterator
from typing import Any, Final, final

from attrs import field, frozen

from slipstream_trio.telemetry import Telemetry

from .programs import PEERS, PROGRAMS, PYTHON_PEERS, Program, Server, cpu_to_run

__all__ = ["DEFAULT", "FAST", "JAVASCRIPT", "OURS", "SCENARIOS", "Results", "Scenario", "Suite"]

Results = dict[str, dict[str, dict[str, list[float]]]]
"""By scenario, program and metric: a value a round."""

DEFAULT, FAST, JAVASCRIPT = "slipstream, default transport", "slipstream, fast transport", "phoenix.js"
WATCHED: Final = ("one no-op handler on handle", "recorder", "OpenTelemetry spans")
CLIENTS: Final = tuple(name for name in PROGRAMS if name not in WATCHED)
OURS: Final = (DEFAULT, FAST)
AT_ONCE: Final = 50
"""How many connections are opened at once."""


@frozen
class Scenario:
    """Something to be measured.

    Attributes:
        name: what it is called.
        group: the table or plot it belongs to.
        programs: those that it is measured with.
        command: what they are told.
        how: the method of `Suite` that measures it.
        x: its place on the axis of a curve.
        thorough: whether `--quick` leaves it out.
    """

    name: str
    group: str
    programs: tuple[str, ...]
    command: dict[str, Any] = field(factory=dict)
    how: str = "rounds"
    x: int = 0
    thorough: bool = False


def curve(group: str, name: str, key: str, values: tuple[int, ...], programs: tuple[str, ...], **command: Any) -> Any:
    """Return the scenarios of a curve; negative values are for thorough runs."""
    how = "channels" if command["do"] == "channels" else "rounds"
    for value in values:
        x = abs(value)
        yield Scenario(f"{group}: {x:,} {name}", group, programs, {**command, key: x}, how, x, thorough=value < 0)


def scenarios() -> Iterator[Scenario]:
    """Yield everything, in order."""
    for size, name in ((100, "100 B"), (1024, "1 KiB"), (65536, "64 KiB")):
        yield Scenario(f"burst {name}", "burst", CLIENTS, {"do": "burst", "size": size})
    for size, name in ((100, "100 B"), (1024, "1 KiB")):
        for at_once in (1, 64):
            command = {"do": "echo", "size": size, "at_once": at_once}
            yield Scenario(f"echo {name}, {at_once} in flight", "echo", CLIENTS, command)
    watched = (FAST, *WATCHED)
    yield Scenario("telemetry: burst 100 B", "telemetry", watched, {"do": "burst", "size": 100})
    yield Scenario("telemetry: echo, 64 in flight", "telemetry", watched, {"do": "echo", "size": 100, "at_once": 64})
    yield Scenario("telemetry: nothing attached", "telemetry", (FAST,), how="truth_test")
    for count in (1000, 5000, 10_000):
        command = {"count": count}
        yield Scenario(f"connections: {count:,}", "connections", CLIENTS, command, "hold", count, thorough=True)
    yield Scenario("import", "import", (), how="imports")
    many = (1, -10, -100, 1000, -10_000)
    channels = {"do": "channels", "size": 100}
    yield from curve("one consumer", "channels", "topics", many, (FAST,), **channels)
    yield from curve("a consumer each", "channels", "topics", many, (FAST,), **channels, each=True)
    yield Scenario("joins: 10,000", "joins", (FAST,), {"do": "joins", "count": 10_000}, "joins", thorough=True)
    yield from curve("sockets", "sockets", "sockets", (1, -10, -100, -1000), OURS, do="echo", size=100, at_once=1)
    compared = (*OURS, JAVASCRIPT)
    yield from curve("in flight", "pushes", "at_once", (1, -8, 64, -1000, -10_000), compared, do="echo", size=100)
    sizes = (100, -1024, -10_240, 65_536, -(2**20))
    yield from curve("burst by size", "bytes", "size", sizes, compared, do="burst")
    yield from curve("echo by size", "bytes", "size", sizes, compared, do="echo", at_once=1)


SCENARIOS: Final = tuple(scenarios())


@final
class Suite:
    """Measures scenarios.

    Parameters:
        rounds: how often each is measured.
        seconds: how long a round is about.

    Attributes:
        results: the figures so far.
        notes: what could not be measured, and why.
    """

    def __init__(self, rounds: int, seconds: float) -> None:
        self.results: Results = {}
        self.notes: list[str] = []
        self._count = rounds
        self._seconds = seconds
        self._server = Server()
        self._programs: dict[str, Program] = {}

    def stop(self) -> None:
        """Stop all processes."""
        for program in self._programs.values():
            program.stop()
        self._server.stop()

    def measure(self, scenario: Scenario) -> None:
        """Measure a scenario; a program that fails at it is left out, and noted."""
        getattr(self, f"_{scenario.how}")(scenario)

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            self._programs[name] = Program(name, self._server)
        return self._programs[name]

    def _keep(self, scenario: str, program: str, **figures: float) -> None:
        kept = self.results.setdefault(scenario, {}).setdefault(program, {})
        for metric, figure in figures.items():
            kept.setdefault(metric, []).append(figure)

    def _keep_each(self, scenario: str, program: str, took: dict[str, Any]) -> None:
        each = {metric: took[metric] / took["count"] * 1e6 for metric in ("cpu", "wall")}
        self._keep(scenario, program, **each, server=took["server"])

    def _in_rounds(self, scenario: Scenario, step: Callable[[str], object], rounds: int) -> None:
        failed: set[str] = set()
        for _ in range(rounds):
            for name in scenario.programs:
                try:
                    if name not in failed:
                        step(name)
                except RuntimeError as error:
                    failed.add(name)
                    self.notes.append(f"{scenario.name}: {error}")
                    self._programs.pop(name).stop()

    def _rounds(self, scenario: Scenario) -> None:
        counts: dict[str, int] = {}

        def step(name: str) -> None:
            program = self._program(name)
            if name not in counts:
                counts[name] = self._calibrated(program, scenario.command)
            self._keep_each(scenario.name, name, program.do({**scenario.command, "count": counts[name]})[0])

        self._in_rounds(scenario, step, self._count)

    def _calibrated(self, program: Program, command: dict[str, Any]) -> int:
        """Return how many operations take a round, and warm the program up."""
        count = least = max(20, command.get("at_once", 1) * command.get("sockets", 1), command.get("topics", 1))
        while True:
            wall: float = program.do({**command, "count": count})[-1]["wall"]
            if wall > self._seconds / 4:
                return max(least, int(count * self._seconds / wall))
            count = max(least, int(count * min(20, self._seconds / 2 / wall)) + 1)

    def _channels(self, scenario: Scenario) -> None:
        """Measure joining many channels at once, and a burst on them."""
        counts: dict[str, int] = {}

        def step(name: str) -> None:
            program = self._program(name)
            if name not in counts:
                first = program.do({**scenario.command, "count": 20_000}, answers=2)[1]
                counts[name] = int(20_000 * self._seconds / first["wall"])
            joined, burst = program.do({**scenario.command, "count": counts[name]}, answers=2)
            self._keep_each(f"{scenario.name}, a join", name, joined)
            self._keep_each(scenario.name, name, burst)

        self._in_rounds(scenario, step, 3)

    def _joins(self, scenario: Scenario) -> None:
        def step(name: str) -> None:
            one_by_one, leaves = self._program(name).do(scenario.command, answers=2)
            self._keep_each("joins: one after the other", name, one_by_one)
            self._keep("joins: the 100th", name, cpu=leaves["early"] * 1e6)
            self._keep("joins: the 10,000th", name, cpu=leaves["late"] * 1e6)
            self._keep("joins: 100 leaves, one", name, cpu=leaves["few"] / 100 * 1e6)
            self._keep_each("joins: 10,000 leaves, one", name, leaves)

        self._in_rounds(scenario, step, 3)

    def _hold(self, scenario: Scenario) -> None:
        count = scenario.command["count"]

        def step(name: str) -> None:
            program = self._programs[f"{name}, held"] = Program(name, self._server)
            took = program.do({"do": "hold", "count": count, "at_once": AT_ONCE})[0]
            self._keep_each(scenario.name, name, took)
            self._keep(scenario.name, name, memory=took["memory"] / 1024 / count)
            self._programs.pop(f"{name}, held").stop()

        self._in_rounds(scenario, step, self._count if count == 1000 and self._count >= 5 else 1)

    def _imports(self, scenario: Scenario) -> None:
        imports = {
            "nothing": (sys.executable, "pass"),
            "trio, trio-websocket, attrs, h11, rpds": (sys.executable, "import trio, trio_websocket, attrs, h11, rpds"),
            "slipstream_trio": (sys.executable, "import slipstream_trio"),
            **{
                name: (str(PEERS / package / "bin" / "python"), f"import {package}")
                for name, package in PYTHON_PEERS.items()
            },
        }
        for _ in range(2 * self._count):
            for name, arguments in imports.items():
                self._keep(scenario.name, name, cpu=cpu_to_run(*arguments) * 1e6)

    def _truth_test(self, scenario: Scenario) -> None:
        """Measure what a handled message pays where nobody listens."""
        watched = Telemetry().span(("slipstream", "connection", "handle"))
        for _ in range(self._count):
            bare, test = (
                min(timeit.repeat(code, globals={"watched": watched}, number=10**6, repeat=5))
                for code in ("pass", "if watched.active: pass")
            )
            self._keep(scenario.name, FAST, cpu=test - bare)
