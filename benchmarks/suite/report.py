"""The figures as tables and plots."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from .programs import PROGRAMS, PYTHON_PEERS
from .scenarios import DEFAULT, FAST, JAVASCRIPT, OURS, SCENARIOS, Results, Scenario

__all__ = ["ROWS", "markdown", "picture", "plots", "rows", "summary"]

Figure = Callable[[Results, str], float]
"""Returns a figure of the results by one of their metrics; raises KeyError where it was not measured."""


@frozen
class Row:
    """A measure of the project.

    Attributes:
        name: what is compared.
        figure: computes it.
        least: what it must be.
        aim: what it should be.
        unit: "×": how many times as fast, the more the better; or that of a cost, the less the better.
    """

    name: str
    figure: Figure
    least: float
    aim: float
    unit: str = "×"


def median(results: Results, scenario: str, program: str, metric: str) -> float:
    """Return the median of the rounds."""
    return statistics.median(results[scenario][program][metric])


def paired(combine: Callable[..., float], scenario: str, *programs: str) -> Figure:
    """Combine the programs' figures of each round, as these were made one after the other; returns the median."""
    return lambda results, metric: statistics.median(
        map(combine, *(results[scenario][program][metric] for program in programs))
    )


def faster(scenario: str, ours: str, *peers: str) -> Figure:
    """Compare us with the best of peers: above 1, we are faster."""
    return paired(lambda our, *theirs: min(theirs) / our, scenario, ours, *peers)


def growth(many: str, few: str, program: str = FAST) -> Figure:
    """Compare an operation among many with one among few."""
    return lambda results, metric: median(results, many, program, metric) / median(results, few, program, metric)


def above(scenario: str, program: str) -> Figure:
    """Return what a kind of telemetry adds."""
    return paired(lambda watched, alone: watched - alone, scenario, program, FAST)


def cost(scenario: str, program: str, metric: str, scale: float = 1) -> Figure:
    """Return a cost, which has one metric."""
    return lambda results, given: median(results, scenario, program, metric) * scale if given == "cpu" else math.nan


BURST, ECHO, ONE = "burst 100 B", "echo 100 B, 64 in flight", "echo 100 B, 1 in flight"
NO_OP, RECORDER = "one no-op handler on handle", "recorder"
LOUD_BURST, LOUD_ECHO = "telemetry: burst 100 B", "telemetry: echo, 64 in flight"
TRIO_WEBSOCKET, SANS_IO = "bare trio-websocket", "bare websockets, Sans-I/O over Trio"
GROWS = "× cost"
held = partial(cost, "connections: 5,000", metric="memory")

ROWS: Final = (
    Row("burst 100 B, fast transport, against phoenix.js", faster(BURST, FAST, JAVASCRIPT), 0.9, 1.4),
    Row("burst 100 B, default transport, against the best Python peer", faster(BURST, DEFAULT, *PYTHON_PEERS), 8, 15),
    Row("burst 100 B, default transport, against bare trio-websocket", faster(BURST, DEFAULT, TRIO_WEBSOCKET), 5, 10),
    Row(
        "burst 64 KiB, default transport, against the best Python peer",
        faster("burst 64 KiB", DEFAULT, *PYTHON_PEERS),
        1.5,
        2.5,
    ),
    Row("echo, 64 in flight, fast transport, against phoenix.js", faster(ECHO, FAST, JAVASCRIPT), 1.2, 1.7),
    Row(
        "echo, 64 in flight, default transport, against the best Python peer",
        faster(ECHO, DEFAULT, *PYTHON_PEERS),
        3,
        5,
    ),
    Row(
        "echo, 1 in flight, default transport, against bare trio-websocket",
        faster(ONE, DEFAULT, TRIO_WEBSOCKET),
        0.9,
        1,
    ),
    Row("echo, 1 in flight, fast transport, against bare websockets over Trio", faster(ONE, FAST, SANS_IO), 0.6, 0.8),
    Row("nothing attached, a message", cost("telemetry: nothing attached", FAST, "cpu", 1000), 40, 10, "ns"),
    Row("one no-op handler on `handle`, a message", above(LOUD_BURST, NO_OP), 2.5, 1.5, "µs"),
    Row("recorder, a message", above(LOUD_BURST, RECORDER), 8, 5, "µs"),
    Row("recorder, an echo", above(LOUD_ECHO, RECORDER), 50, 25, "µs"),
    Row("idle connection with a joined channel, at 5,000, fast transport", held(program=FAST), 24, 16, "KiB"),
    Row("idle connection with a joined channel, at 5,000, default transport", held(program=DEFAULT), 36, 28, "KiB"),
    Row(
        "connections a second, 50 at once, default transport, against bare trio-websocket",
        faster("connections: 1,000", DEFAULT, TRIO_WEBSOCKET),
        0.8,
        1,
    ),
    Row(
        "a message, one consumer over 1,000 channels against 1",
        growth("one consumer: 1,000 channels", "one consumer: 1 channels"),
        1.3,
        1.1,
        GROWS,
    ),
    Row(
        "a message, 1,000 consumers on 1,000 channels against 1 on 1",
        growth("a consumer each: 1,000 channels", "a consumer each: 1 channels"),
        2,
        1.5,
        GROWS,
    ),
    Row("the 10,000th join against the 100th", growth("joins: the 10,000th", "joins: the 100th"), 1.3, 1.1, GROWS),
    Row(
        "leaving 10,000 channels against 100 × leaving 100",
        growth("joins: 10,000 leaves, one", "joins: 100 leaves, one"),
        1.3,
        1.1,
        GROWS,
    ),
    Row(
        "an echo, 10,000 in flight against 64",
        growth("in flight: 10,000 pushes", "in flight: 64 pushes"),
        1.5,
        1.2,
        GROWS,
    ),
    Row("an echo, 1,000 sockets against 1", growth("sockets: 1,000 sockets", "sockets: 1 sockets"), 1.3, 1.1, GROWS),
)


def rows(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the measures that were measured."""
    for row in ROWS:
        found: dict[str, float | None] = {}
        for metric in ("cpu", "wall"):
            try:
                figure = row.figure(results, metric)
            except KeyError:
                continue
            if not math.isnan(figure):
                found[metric] = figure
        if found:
            yield {"name": row.name, **found, "least": row.least, "aim": row.aim, "unit": row.unit}


def shown(figure: float | None, unit: str) -> str:
    """Return a figure as text."""
    if figure is None:
        return "–"
    text = f"{figure:,.2f}" if abs(figure) < 10 else f"{figure:,.0f}"
    return text + ("×" if "×" in unit else f" {unit}")


def table(heads: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines)) + "\n"


def measures(found: list[dict[str, Any]]) -> Iterator[Sequence[str]]:
    """Yield the lines of the table of measures."""
    for row in found:
        unit, sign = row["unit"], "≥ " if row["unit"] == "×" else "≤ "
        limits = [f"{sign}{row[limit]:g}{'×' if '×' in unit else f' {unit}'}" for limit in ("least", "aim")]
        yield (row["name"], shown(row.get("cpu"), unit), shown(row.get("wall"), unit), *limits)


def grid(results: Results, group: str, metric: str) -> str:
    """Return the medians of a group, with a line for each program and a column for each scenario."""
    names = [scenario.name for scenario in SCENARIOS if scenario.group == group]
    names += [name for name in results if name.startswith(f"{group}: ") and name not in names]
    names = [name for name in names if any(metric in figures for figures in results.get(name, {}).values())]
    programs = dict.fromkeys(program for name in names for program in results[name])

    def lines() -> Iterator[Sequence[str]]:
        for program in programs:
            figures = [results[name].get(program, {}).get(metric) for name in names]
            yield (program, *("–" if not each else f"{statistics.median(each):,.1f}" for each in figures))

    return table([""] + [name.removeprefix(f"{group}: ") for name in names], lines()) if names else ""


def summary(found: list[dict[str, Any]]) -> str:
    """Return the table of measures."""
    return table(("", "by CPU", "by wall time", "at least", "aim"), measures(found))


def markdown(results: Results, found: list[dict[str, Any]], notes: Sequence[str]) -> str:
    """Return all tables, that of the measures first."""
    groups = dict.fromkeys(scenario.group for scenario in SCENARIOS)
    parts = [summary(found)]
    for metric, unit in (("cpu", "µs of the client's CPU"), ("wall", "µs of wall time"), ("memory", "KiB")):
        for group in groups:
            if text := grid(results, group, metric):
                parts += [f"{group}, {unit}, each:\n", text]
    if busy := [(max(f["server"]), s, p) for s, of in results.items() for p, f in of.items() if "server" in f]:
        share, scenario, program = max(busy)
        parts.append(f"The server was busy for {share:.0%} of the time at most ({scenario}, {program}).\n")
    parts += [f"- {note}\n" for note in notes]
    return "\n".join(parts)


def plots(results: Results, folder: Path) -> None:
    """Write the plots: bars for bursts and echoes, and the curves."""
    set_up()
    measured = [scenario for scenario in SCENARIOS if scenario.name in results]
    if compared := [scenario for scenario in measured if scenario.group in {"burst", "echo"}]:
        bars(results, compared, folder / "clients.svg")
    if points := [scenario for scenario in measured if scenario.x and scenario.group != "connections"]:
        curves(results, points, folder / "curves.svg")


def set_up() -> None:
    """Let plots be small, and the same for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "suite", "font.size": 9, "axes.titlesize": 9})


def picture(results: Results, path: Path) -> None:
    """Write the plot of the README: a burst of small messages, and echoes."""
    set_up()
    shown = [scenario for scenario in SCENARIOS if scenario.name in {BURST, ECHO} and scenario.name in results]
    bars(results, shown, path, wide=len(shown))


def panels(count: int, *, sharey: bool = False, wide: int = 4) -> tuple[Any, list[Any]]:
    """Return a figure, and its axes, `wide` a line."""
    import matplotlib.pyplot as plt

    lines = -(-count // wide)
    size = (10 if wide == 4 else 8), 2.2 * lines + 0.3
    figure, axes = plt.subplots(lines, wide, figsize=size, layout="constrained", sharey=sharey)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat)


def bars(results: Results, compared: Sequence[Scenario], path: Path, wide: int = 4) -> None:
    """Plot operations a second of CPU, `wide` scenarios a line."""
    figure, axes = panels(len(compared), sharey=True, wide=wide)
    for axis, scenario in zip(axes, compared, strict=False):
        programs = [name for name in reversed(PROGRAMS) if name in results[scenario.name]]
        rates = [1e6 / median(results, scenario.name, program, "cpu") for program in programs]
        axis.barh(programs, rates, color=["C1" if program in OURS else "#94a3b8" for program in programs])
        axis.set_title(scenario.name)
        axis.locator_params(axis="x", nbins=3)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.supxlabel("a second of the client's CPU")
    figure.savefig(path, metadata={"Date": None})


def curves(results: Results, points: Sequence[Scenario], path: Path) -> None:
    """Plot each curve: CPU an operation over how many there are."""
    groups = list(dict.fromkeys(scenario.group for scenario in points))
    figure, axes = panels(len(groups))
    colours = {DEFAULT: "C0", FAST: "C1", JAVASCRIPT: "#94a3b8"}
    for axis, group in zip(axes, groups, strict=False):
        for program, colour in colours.items():
            at = [(s.x, s.name) for s in points if s.group == group and program in results[s.name]]
            costs = [median(results, name, program, "cpu") for _, name in at]
            axis.plot([x for x, _ in at], costs, color=colour, marker=".", label=program)
        axis.set(xscale="log", title=group)
        axis.set_ylim(bottom=0) if "size" not in group else axis.set_yscale("log")
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.supylabel("µs of CPU each")
    figure.savefig(path, metadata={"Date": None})
