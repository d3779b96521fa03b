"""Numbers in tables: a section for each kind that `trace.stats` counts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final, Literal

from attrs import frozen

from ..trace.stats import KEYS, QUANTILES, Group, Summary
from ..trace.text import duration, printable
from .output import BOLD, FAINT, Output, cells, fit

__all__ = ["print_tables", "size"]

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
    "drops": "messages dropped: without a receiver, malformed, or never sent",
    "overflows": "full buffers, an episode each, and the policy applied",
    "errors": "errors",
}
EXPENDABLE: Final = ("min", "a second", "p90", "bytes")
"""Columns to leave out on a narrow terminal, in this order."""

Align = Literal["<", ">"]


@frozen
class Column:
    """A column as it is printed: its head, then its cells."""

    texts: Sequence[str]
    align: Align = ">"

    @property
    def width(self) -> int:
        """As wide as it needs to be."""
        return max(map(cells, self.texts))


def print_tables(output: Output, summary: Summary, *, sections: Collection[str] = tuple(KEYS), top: int = 0) -> None:
    """Print the sections that have something; `top` rows of each, 0: all."""
    for name in sections:
        groups = summary.sections[name]
        if not groups:
            continue
        shown = dict(list(groups.items())[: top or None])
        columns = [*_keys(name, shown), *_numbers(name, shown, summary.seconds)]
        output.print()
        output.print(TITLES[name], BOLD)
        width = None if output.width is None else output.width - 1
        for number, line in enumerate(_lines(columns, width)):
            output.print(line, *([FAINT] if number == 0 else []))
        if len(groups) > len(shown):
            output.print(f"  and {len(groups) - len(shown):,} more: --top 0 shows all", FAINT)


def _keys(name: str, groups: dict[tuple[str, ...], Group]) -> Iterator[Column]:
    for place, key in enumerate(KEYS[name]):
        yield Column(["" if key == "direction" else key, *(printable(its[place]) for its in groups)], "<")


def _numbers(name: str, groups: dict[tuple[str, ...], Group], seconds: float) -> Iterator[Column]:
    def column(head: str, cell: Callable[[Group], str], align: Align = ">") -> Column:
        return Column([head, *map(cell, groups.values())], align)

    def timed(head: str, value: Callable[[Group], int]) -> Column:
        return column(head, lambda group: duration(value(group)) if group.times.count else "")

    yield column("count", lambda group: f"{group.count:,}")
    if name in ("messages", "pushes", "handling"):
        yield column("a second", lambda group: f"{group.count / seconds:,.1f}" if seconds else "")
    if name == "messages":
        yield column("bytes", lambda group: size(group.size))
    if name not in ("drops", "overflows", "errors"):
        yield timed("min", lambda group: group.times.least)
        for share in QUANTILES:
            yield timed(f"p{share * 100:g}", partial(_quantile, share))
        yield timed("max", lambda group: group.times.most)
    if name not in ("messages", "heartbeats", "handling"):
        yield column("outcomes", _outcomes, "<")


def _quantile(share: float, group: Group) -> int:
    return group.times.quantile(share)


def _outcomes(group: Group) -> str:
    shown = [f"{printable(outcome)} {count:,}" for outcome, count in group.outcomes.most_common(6)]
    return ", ".join(shown) + (", …" if len(group.outcomes) > len(shown) else "")


def _lines(columns: Sequence[Column], width: int | None) -> Iterator[str]:
    """Give head and rows; on narrow terminals expendable columns are left out, and long topics cut."""

    def needs(widths: Sequence[int]) -> int:
        return sum(widths) + 2 * len(widths)

    for head in EXPENDABLE:
        if width is None or needs([column.width for column in columns]) <= width:
            break
        columns = [column for column in columns if column.texts[0] != head]
    widths = [column.width for column in columns]
    texts = [place for place, column in enumerate(columns) if column.align == "<"]
    while width is not None and texts and needs(widths) > width:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    for row in zip(*(column.texts for column in columns), strict=True):
        shown = [
            fit(text, its) if column.align == "<" else " " * (its - cells(text)) + text
            for text, its, column in zip(row, widths, columns, strict=True)
        ]
        yield f"  {'  '.join(shown)}".rstrip()


def size(count: float) -> str:
    """Return a size: "812 B", "1.2 kB", "3.4 MB"."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.0f} GB" if count >= 99.95 else f"{count:.1f} GB"
