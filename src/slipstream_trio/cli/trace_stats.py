"""`slipstream trace stats`: what recordings come to in numbers."""

import json
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from attrs import evolve, frozen

from ..trace.quantiles import EXACT, Quantiles
from ..trace.selection import look
from ..trace.source import sources
from ..trace.stats import KEYS, QUANTILES, Group, Statistics, Summary
from ..trace.text import duration, printable
from .reading import SELECTING, Notices, add_reading_arguments, quiet_pipe, reading_all, selection_of
from .status import OK
from .timeline import cells, fit, wants_colour

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "NAME", "NEEDS", "add_arguments", "run"]

NAME: Final = "stats"
HELP: Final = "counts, rates, sizes and latencies, by topic and event"
DESCRIPTION: Final = f"""\
Counts what happened on connections, and measures how long it took: connections
and how they ended, joins, pushes from call to reply, messages and their sizes,
heartbeat round trips, reconnects, gaps, drops and errors. Memory does not grow
with the recording: quantiles are exact for up to {EXACT:,} values, and within 1 %
for more."""
EPILOG: Final = f"""\
{SELECTING}

examples:
  slipstream trace stats trace.jsonl
  slipstream trace stats trace.jsonl --topic 'room:*' --merge-topics --top 0
  slipstream trace stats trace.jsonl --json | jq .pushes"""
NEEDS: Final = ()

TITLES: Final = {
    "connections": "connections, and how they ended",
    "connects": "connecting, from asking to connected",
    "heartbeats": "heartbeat round trips",
    "joins": "joins, from asking to the answer",
    "leaves": "leaves",
    "pushes": "pushes, from the call to the reply",
    "messages": "messages, and how long each was handled",
    "callbacks": "callbacks of clients",
    "handling": "handling, by what was handled",
    "reconnects": "reconnects, and their delays",
    "rejoins": "rejoins, and their delays",
    "gaps": "gaps, and their lengths",
    "drops": "messages dropped: nobody's, malformed, or never sent",
    "overflows": "buffers that were full, an episode each, and what was done",
    "errors": "what went wrong",
}
QUIET: Final = frozenset({"drops", "overflows", "errors"})
"""Sections that have no durations."""

Align = Literal["<", ">"]

_LEFT: Final[Sequence[Align]] = ("<", "<", "<")

EXPENDABLE: Final = ("min", "a second", "p90", "bytes")
"""Columns that are left out where a terminal is too narrow, the first first."""

FAINT, BOLD, BAD = 90, 1, 31


@frozen
class Table:
    """A section as it is printed."""

    title: str
    head: Sequence[str]
    align: Sequence[Align]
    rows: Sequence[Sequence[str]]
    left: int


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_reading_arguments(parser)
    parser.add_argument("--merge-topics", action="store_true", help="count room:1 and room:2 together, as room:*")
    parser.add_argument("--top", type=_count, default=20, metavar="N", help="rows a section; 20 by default, 0: all")
    parser.add_argument("--json", action="store_true", help="one JSON object; durations are nanoseconds")


def run(options: Namespace) -> int:
    """Count, and print what it came to.

    Raises:
        RecordingError: a file is no recording, or cannot be read.
    """
    statistics = Statistics(merge_topics=options.merge_topics)
    notices = Notices()
    with reading_all(sources(options.paths), notices.told) as recordings:
        for glance in look(recordings, selection_of(options)):
            statistics.feed(glance)
    summary = statistics.summary()
    with quiet_pipe():
        if options.json:
            print(json.dumps({**summary.as_dict(), "notices": notices.summary()}, indent=2))
        else:
            _print(summary, notices.summary(), options.top)
    return OK


def _print(summary: Summary, notices: Sequence[str], top: int) -> None:
    colour = wants_colour(sys.stdout)
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else None

    def style(text: str, *codes: int) -> str:
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if colour and text else text

    for line in _opening(summary):
        print(line)
    for notice in notices:
        print(style(f"! {printable(notice)}", BAD))
    for table in _tables(summary, top):
        print()
        print(style(table.title, BOLD))
        for number, line in enumerate(_aligned(_narrowed(table, width), width)):
            print(style(line, FAINT) if number == 0 else line)
        if table.left:
            print(style(f"  and {table.left:,} more: --top 0 shows all", FAINT))


def _opening(summary: Summary) -> Iterator[str]:
    if summary.first is None or summary.last is None:
        yield "no records"
        return
    first, last = (datetime.fromtimestamp(at / 1e9, UTC) for at in (summary.first, summary.last))
    period = f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} UTC"
    yield f"{summary.records:,} spans and events in {summary.seconds:,.3f} s, {period}"
    rates = [
        f"{size(total)} {way} ({size(total / summary.seconds)}/s)" if summary.seconds else f"{size(total)} {way}"
        for way, total in (("in", summary.bytes_in), ("out", summary.bytes_out))
    ]
    yield ", ".join(rates)


def _tables(summary: Summary, top: int) -> Iterator[Table]:
    for name, groups in summary.sections.items():
        if not groups:
            continue
        columns = [column for column in _COLUMNS if _has(column, name)]
        keys = KEYS[name]
        rows = [
            [*map(printable, key), *(column.cell(group, summary.seconds) for column in columns)]
            for key, group in list(groups.items())[: top or None]
        ]
        head = [*("" if key == "direction" else key for key in keys), *(column.head for column in columns)]
        align: list[Align] = [*_LEFT[: len(keys)], *(column.align for column in columns)]
        yield Table(TITLES[name], head, align, rows, len(groups) - len(rows))


@frozen
class Column:
    """A column that a section may have."""

    head: str
    cell: Callable[[Group, float], str]
    align: Align = ">"
    timed: bool = False


def _quantile(share: float) -> Callable[[Group, float], str]:
    return lambda group, _: _time(group.times, group.times.quantile(share))


def _time(times: Quantiles, value: int) -> str:
    return duration(value) if times.count else ""


_COLUMNS: Final = (
    Column("count", lambda group, _: f"{group.count:,}"),
    Column("a second", lambda group, seconds: f"{group.count / seconds:,.1f}" if seconds else ""),
    Column("bytes", lambda group, _: size(group.size)),
    Column("min", lambda group, _: _time(group.times, group.times.least), timed=True),
    *(Column(f"p{share * 100:g}", _quantile(share), timed=True) for share in QUANTILES),
    Column("max", lambda group, _: _time(group.times, group.times.most), timed=True),
    Column("outcomes", lambda group, _: _outcomes(group), "<"),
)


def _has(column: Column, section: str) -> bool:
    if column.head == "bytes":
        return section == "messages"
    if column.head == "outcomes":
        return section not in ("messages", "heartbeats", "handling")
    if column.head == "a second":
        return section in ("messages", "pushes", "handling")
    return not (column.timed and section in QUIET)


def _outcomes(group: Group) -> str:
    shown = [f"{printable(outcome)} {count:,}" for outcome, count in group.outcomes.most_common(6)]
    return ", ".join(shown) + (", …" if len(group.outcomes) > len(shown) else "")


def _widths(table: Table) -> list[int]:
    return [max(cells(line[column]) for line in (table.head, *table.rows)) for column in range(len(table.head))]


def _narrowed(table: Table, width: int | None) -> Table:
    """Leave out columns that can be missed, until the table fits onto a narrow terminal."""
    for head in EXPENDABLE:
        if width is None or sum(_widths(table)) + 2 * len(table.head) <= width:
            break
        kept = [number for number, its in enumerate(table.head) if its != head]
        table = evolve(
            table,
            head=[table.head[number] for number in kept],
            align=[table.align[number] for number in kept],
            rows=[[row[number] for number in kept] for row in table.rows],
        )
    return table


def _aligned(table: Table, width: int | None) -> Iterator[str]:
    """Return the head and the rows, the columns as wide as they need; long topics give way on narrow terminals."""
    lines = [table.head, *table.rows]
    widths = _widths(table)
    if width is not None:
        texts = [column for column, way in enumerate(table.align) if way == "<"]
        while (
            sum(widths) + 2 * len(widths) > width
            and (widest := max(texts, key=widths.__getitem__, default=None)) is not None
        ):
            if widths[widest] <= 8:
                break
            widths[widest] -= 1
    for line in lines:
        shown = [
            fit(text, its) if way == "<" else " " * (its - cells(text)) + text
            for text, its, way in zip(line, widths, table.align, strict=True)
        ]
        yield f"  {'  '.join(shown)}".rstrip()


def size(count: float) -> str:
    """Return a size: "812 B", "1.2 kB", "3.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no count: write a number, 0 or more")
    return int(text)
