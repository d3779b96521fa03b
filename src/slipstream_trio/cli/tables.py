"""Numbers in tables: a section for each kind that `trace.stats` counts."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import methodcaller
from typing import Final, Literal

from ..trace.stats import KEYS, QUANTILES, Group, Quantiles, Statistics
from ..trace.text import duration, printable
from .output import BOLD, FAINT, Output, cells, fit

TITLES: Final = {
    "connections": "connections, and how they ended",
    "connects": "connecting, from asking to connected",
    "heartbeats": "heartbeat round trips",
    "joins": "joins, from sending to the answer",
    "leaves": "leaves",
    "pushes": "pushes, from sending to the reply",
    "sends": "sends, from the call until queued",
    "messages": "messages, and how long each was handled",
    "callbacks": "callbacks of clients",
    "handling": "handling, by what was handled",
    "reconnects": "reconnects, and their delays",
    "rejoins": "rejoins, and their delays",
    "silences": "silences: when they began, in seconds, and how long they were",
    "gaps": "gaps, and their lengths",
    "drops": "messages dropped: without a receiver, malformed, or never sent",
    "overflows": "full buffers, an episode each, and the policy applied",
    "errors": "errors",
}
EXPENDABLE: Final = ("min", "a second", "p90", "bytes", "longest")  # columns, the first to leave out first
RATED: Final = ("messages", "pushes", "handling")  # sections that have rates

Column = tuple[Literal["<", ">"], Sequence[str]]  # how a column is aligned, its head, and then its cells


def print_tables(output: Output, summary: Statistics, *, sections: Collection[str] = tuple(KEYS), top: int = 0) -> None:
    """Print the sections that have something; `top` rows of each, 0: all."""
    for name in sections:
        groups = summary.sections[name]
        if not groups:
            continue
        shown = dict(list(groups.items())[: top or None])
        keys: list[Column] = [
            ("<", ["" if key == "direction" else key, *(printable(its[place]) for its in shown)])
            for place, key in enumerate(KEYS[name])
        ]
        columns = [*keys, *_numbers(name, shown, summary.seconds)]
        output.print()
        output.print(TITLES[name], BOLD)
        head, *rows = _lines(columns, math.inf if output.width is None else output.width - 1)
        output.print(head, FAINT)
        for row in rows:
            output.print(row)
        if len(groups) > len(shown):
            output.print(f"  and {len(groups) - len(shown):,} more: --top 0 shows all", FAINT)


def _numbers(name: str, groups: dict[tuple[str, ...], Group], seconds: float) -> Iterator[Column]:
    def lasting(value: Callable[[Quantiles], int]) -> Callable[[Group], str]:
        return lambda group: duration(value(group.times)) if group.times.count else ""

    silences, timed = name == "silences", name not in ("drops", "overflows", "errors", "silences")
    waited = any(group.waits.count for group in groups.values())
    columns: Sequence[tuple[str, bool, Callable[[Group], str]]] = (
        ("count", not silences, lambda group: f"{group.count:,}"),
        ("a second", name in RATED and seconds > 0, lambda group: f"{group.count / seconds:,.1f}"),
        ("bytes", name == "messages", lambda group: size(group.size)),
        ("min", timed, lasting(lambda times: times.least)),
        *((f"p{share * 100:g}", timed, lasting(methodcaller("quantile", share))) for share in QUANTILES),
        ("length" if silences else "max", timed or silences, lasting(lambda times: times.most)),
        ("waited", waited, lambda group: f"{group.waits.count:,}"),
        ("longest", waited, lambda group: duration(group.waits.most) if group.waits.count else ""),
        ("dropped", any(group.dropped for group in groups.values()), lambda group: f"{group.dropped:,}"),
        ("outcomes", name not in ("messages", "heartbeats", "handling", "silences"), _outcomes),
        ("", silences, lambda group: next(iter(group.outcomes))),
    )
    for head, wanted, cell in columns:
        if wanted:
            yield "<" if head in ("outcomes", "") else ">", [head, *map(cell, groups.values())]


def _outcomes(group: Group) -> str:
    shown = [f"{printable(outcome)} {count:,}" for outcome, count in group.outcomes.most_common(6)]
    return ", ".join(shown) + (", …" if len(group.outcomes) > len(shown) else "")


def _lines(columns: Sequence[Column], room: float) -> Iterator[str]:
    """Give head and rows; on narrow terminals expendable columns are left out, and long topics cut."""

    def widths_of(columns: Sequence[Column]) -> list[int]:
        return [max(map(cells, texts)) for _, texts in columns]

    for head in EXPENDABLE:
        if sum(widths_of(columns)) + 2 * len(columns) > room:
            columns = [column for column in columns if column[1][0] != head]
    widths = widths_of(columns)
    words = [place for place, (align, _) in enumerate(columns) if align == "<"]
    while words and sum(widths) + 2 * len(widths) > room:
        widest = max(words, key=widths.__getitem__)
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    for row in zip(*(texts for _, texts in columns), strict=True):
        shown = (
            fit(text, its) if align == "<" else " " * (its - cells(text)) + text
            for text, its, (align, _) in zip(row, widths, columns, strict=True)
        )
        yield f"  {'  '.join(shown)}".rstrip()


def size(count: float) -> str:
    """Return a size: "812 B", "1.2 kB", "3.4 MB"."""
    unit = next((power for power in range(3) if count < 999.5 * 1000**power), 3)
    digits = 0 if unit == 0 or count >= 99.95 * 1000**unit else 1
    return f"{count / 1000**unit:.{digits}f} {('B', 'kB', 'MB', 'GB')[unit]}"
