"""A run drawn for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Final, TextIO

from attrs import frozen
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..trace.text import Secrets, duration, printable
from ..trace.view import Direction, Line, Mood
from .tally import INVARIANTS, REMARK, Latencies, Report, SpanKind

__all__ = ["RichScreen"]

ARROWS: Final[Mapping[Direction, str]] = {"out": "→", "in": "←", "here": "·"}
WAYS: Final[Mapping[Direction, str]] = {"out": "cyan", "in": "green", "here": "bright_black"}
MOODS: Final[Mapping[Mood, str]] = {"good": "green", "bad": "red", "plain": ""}
CLIENT: Final = "magenta"
ONCE: Final = "yellow"
FAINT: Final = "bright_black"

SECONDS, SPAN, WHAT, TOOK = 7, 8, 14, 8
FIXED: Final = SECONDS + SPAN + 1 + WHAT + TOOK + 7
"""The columns that are always there, and the spaces between all of them."""


@frozen
class Widths:
    """The widths of those columns that depend on the terminal's."""

    topic: int
    event: int
    detail: int

    @classmethod
    def of(cls, terminal: int) -> "Widths":
        """Return the widths for a terminal of so many columns; the last one stays free."""
        room = max(terminal - 1 - FIXED, 24)
        topic = min(max(room * 2 // 5, 12), 18)
        event = room - topic if room < 64 else 24
        return cls(topic, event, max(room - topic - event - 2, 0))


class RichScreen:
    """Draws on a terminal, as wide as it is at the moment."""

    def __init__(self, output: TextIO, secrets: Secrets) -> None:
        self._console = Console(file=output, highlight=False, markup=False, emoji=False)
        self._secrets = secrets
        self._began: int | None = None
        self._steps = 0

    def begin(self, title: str, about: str) -> None:
        """Show what this run is, and the head of the history."""
        self._print(Text.assemble(("slipstream ", "bold"), (title, "bold cyan"), "  ", (self._clean(about), FAINT)))
        self._print(Text())
        widths = Widths.of(self._console.width)
        detail = " " + "detail" if widths.detail else ""
        head = (
            f"{'seconds':>{SECONDS}} {'span':{SPAN}}   {'what':{WHAT}} {'topic':{widths.topic}} "
            f"{'event':{widths.event}} {'took':>{TOOK}} {detail}"
        )
        self._print(Text(head.rstrip(), f"{FAINT} underline"))

    def step(self, title: str, code: str = "") -> None:
        """Show what the scenario does now."""
        self._steps += 1
        self._print(Text())
        self._print(
            Text.assemble(
                (f"{self._steps:>{SECONDS}} ", "bold yellow"), (title, "bold"), "  ", (self._clean(code), FAINT)
            )
        )

    def line(self, line: Line) -> None:
        """Show a line of history."""
        self._began = line.monotonic_time if self._began is None else self._began
        widths = Widths.of(self._console.width)
        way = CLIENT if line.client else WAYS[line.direction]
        text = Text(f"{(line.monotonic_time - self._began) / 1e9:{SECONDS}.3f} ", FAINT)
        text.append(f"{line.span_id[:SPAN]:{SPAN}} ", FAINT)
        text.append(f"{ARROWS[line.direction]} ", f"bold {way}")
        text.append(f"{fit(line.what, WHAT)} ", what_style(line, way))
        text.append(f"{fit(line.topic, widths.topic)} ")
        text.append(event_cell(line, widths.event))
        text.append(f" {duration(line.took) if line.took is not None else '':>{TOOK}}", FAINT)
        if widths.detail:
            text.append(f"  {fit(line.detail(self._secrets), widths.detail)}", FAINT)
        text.rstrip()
        self._print(text)

    def note(self, text: str) -> None:
        """Show what the scenario's own code got to see."""
        self._console.print(hanging("↳", self._clean(text), "yellow"))

    def report(self, report: Report) -> None:
        """Show what the run came to."""
        self._print(Text())
        self._print(Text.assemble((f"{'':{SECONDS}} The trace", "bold")))
        for part in (ids_table(report), spans_table(report)):
            self._console.print(Padding(part, (1, 0, 0, SECONDS + 1)))
        self._print(Text(f"{'':{SECONDS + 1}}{REMARK}", FAINT))
        self._print(Text())
        for text in invariant_lines(report):
            self._print(text)
        for problem in report.problems:
            self._console.print(hanging("✗", self._clean(problem), "red"))
        self._print(Text())
        self._print(verdict(report))

    def _clean(self, text: str) -> str:
        return printable(self._secrets.hide(text))

    def _print(self, text: Text) -> None:
        self._console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
        self._console.file.flush()


def fit(text: str, width: int) -> str:
    """Return the text in exactly so many terminal cells."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def what_style(line: Line, way: str) -> str:
    """Return the style of what a line is about: bad news and what happens once stand out."""
    if line.mood == "bad" and not line.status:
        return MOODS["bad"]
    return way if line.span_id else ONCE


def event_cell(line: Line, width: int) -> Text:
    """Return the event and its status; the status is not cut off while there is room for it."""
    status = fit(line.status, min(cell_len(line.status), width))
    room = width - cell_len(status) - 1
    event = line.event if cell_len(line.event) <= room else fit(line.event, room) if room > 1 else ""
    cell = Text(f"{event} " if event else "").append(status, MOODS[line.mood])
    cell.append(" " * (width - cell.cell_len))
    return cell


def ids_table(report: Report) -> Table:
    """Return the ids of every connection."""
    table = Table.grid(padding=(0, 2))
    for origin in report.origins:
        end = report.ends.get(origin.connection_id or "", "unknown")
        generation = Text(f"generation {origin.generation}, ended: {end}", FAINT)
        table.add_row(Text("socket", FAINT), Text(origin.socket_id))
        table.add_row(Text("connection", FAINT), Text.assemble(str(origin.connection_id), "  ", generation))
        table.add_row(Text("trace", FAINT), Text(str(origin.trace_id)))
    return table


def spans_table(report: Report) -> Table:
    """Return the spans by kind, the pings, and what happened once."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=f"{FAINT} underline", pad_edge=False)
    table.add_column("spans", no_wrap=True)
    for heading in ("count", "min", "median", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("outcomes", overflow="fold")
    for kind in report.kinds:
        style = CLIENT if kind.name.startswith("client") else FAINT if kind.part else ""
        table.add_row(
            Text(f"  {kind.name}" if kind.part else kind.name, style), *latency_cells(kind), outcomes_text(kind)
        )
    if report.pings.count:
        table.add_row("ping round trip", *latency_cells(report.pings), "")
    for name, count in report.once.items():
        table.add_row(Text(name, ONCE), str(count), *[""] * 4)
    return table


def latency_cells(kind: SpanKind) -> Iterator[str]:
    """Return the count, and least, median and most."""
    latencies: Latencies | None = kind.latencies
    yield str(kind.count)
    if latencies is not None:
        yield from (duration(value) for value in (latencies.least, latencies.median, latencies.most))


def outcomes_text(kind: SpanKind) -> Text:
    """Return how spans ended, each outcome in its colour."""
    pieces = [
        Text(f"{outcome} {count}", MOODS["good" if outcome == "ok" else "bad"])
        for outcome, count in kind.outcomes.items()
    ]
    return Text(", ").join(pieces)


def invariant_lines(report: Report) -> Iterator[Text]:
    """Return what was checked."""
    broken = {violation.invariant for violation in report.violations}
    for number, meaning in INVARIANTS.items():
        mark = ("✗", "bold red") if number in broken else ("✓", "bold green")
        yield Text.assemble(" " * (SECONDS + 1), mark, f" {meaning}")


def verdict(report: Report) -> Text:
    """Return the last line."""
    spans = sum(kind.count for kind in report.kinds if not kind.part)
    violations = f"{len(report.violations)} violations" if report.violations else "no violations"
    style = "bold red" if report.problems else "bold green"
    return Text.assemble(f"{'':{SECONDS + 1}}{report.records} records, {spans} spans, ", (violations, style))


def hanging(mark: str, text: str, style: str) -> Table:
    """Return a text under a mark, wrapped where it does not fit into one line."""
    table = Table.grid()
    table.add_row(Text(f"{'':{SECONDS + 1}}{mark} ", style), Padding(Text(text, style), (0, 1, 0, 0)))
    return table
