"""The page of a load test: plots of its seconds and of its latencies, in one file that needs nothing else."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from ..trace.text import duration
from .bench_result import Result, quantiles

__all__ = ["page"]

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 220, 70, 10, 24
COLOURS: Final = ("#3b6fb6", "#d98b2b", "#b6403b", "#5a9c53")
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
svg { width: 100%; height: auto; background: #fafafa } text { font-size: 12px; fill: #555 }
pre { background: #f4f4f4; padding: 1rem; overflow: auto }
@media (prefers-color-scheme: dark) { body {
  body { background: #1b1b1b; color: #ddd } svg, pre { background: #252525 } text { fill: #aaa } }
"""

Lines = dict[str, Sequence[tuple[float, float]]]


def page(result: Result) -> str:
    """Return a page of HTML."""
    seconds = sorted(result.seconds.items())
    first = seconds[0][0] if seconds else 0
    times = [(at - first, quantiles(second.latencies)) for at, second in seconds]
    by_time: Lines = {
        name: [(at, value) for at, its in times if (value := its[name]) is not None] for name in ("p50", "p99", "max")
    }
    rates: Lines = {
        name: [(at - first, second.counts[name]) for at, second in seconds]
        for name in ("due", "replies", "messages", "errors")
    }
    by_share: Lines = {
        name: [(step / 10, each.get_value_at_percentile(100 - 10 ** (2 - step / 10)) / 1e6) for step in range(51)]
        for name, each in result.latencies.items()
        if each.total_count
    }
    second = "{:.0f} s".format
    plans = "\n".join(", ".join(f"{name} {value}" for name, value in plan.items()) for plan in result.plans)
    summary = "\n".join(result.summary())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>slipstream bench</title><style>{STYLE}</style>"
        f"<h1>Load test</h1><p>{escape(plans)}</p><pre>{escape(summary)}</pre>"
        f"<h2>Latency of pushes, by second</h2>{_plot(by_time, second, _lasting, logarithmic=True)}"
        f"<h2>Latencies, by percentile</h2>{_plot(by_share, _share, _lasting, logarithmic=True, steps=5)}"
        f"<h2>Pushes, replies, messages and errors a second</h2>{_plot(rates, second, '{:,.0f}'.format)}</html>\n"
    )


def _lasting(seconds: float) -> str:
    return duration(seconds * 1e9)


def _share(nines: float) -> str:
    return f"{100 * (1 - 10**-nines):.6g} %"


def _plot(
    lines: Lines,
    across: Callable[[float], str],
    up: Callable[[float], Any],
    *,
    logarithmic: bool = False,
    steps: int = 4,
) -> str:
    """Return a plot of lines as SVG; `across` and `up` write the values of the axes."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return "<p>nothing to show</p>"
    scale: Callable[[float], float] = (lambda value: math.log10(max(value, 1e-6))) if logarithmic else float
    right = max(1e-9, *(x for x, _ in points))
    low = math.floor(min(scale(y) for _, y in points)) if logarithmic else 0.0
    high = max(math.ceil(max(scale(y) for _, y in points)), low + 1)
    marks = range(low, high + 1) if logarithmic else [high * part / 4 for part in range(5)]  # type: ignore[arg-type]

    def place(x: float, y: float) -> str:
        down = (high - y) / (high - low)
        return f"{LEFT + x / right * (WIDTH - LEFT):.1f},{TOP + down * (HEIGHT - TOP - BOTTOM):.1f}"

    axes: list[str] = []
    for mark in marks:
        x, y = place(0, mark).split(",")
        text = up(10.0**mark if logarithmic else mark)
        axes.append(
            f'<path d="M{x},{y}H{WIDTH}" stroke="#8884"/><text x="{LEFT - 6}" y="{y}" text-anchor="end">{text}</text>'
        )
    axes += _below([across(right * part / steps) for part in range(steps + 1)])
    curves = [" ".join(place(x, scale(y)) for x, y in line) for line in lines.values()]
    drawn = "".join([*axes, *_drawn(dict(zip(lines, curves, strict=True)))])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{drawn}</svg>'


def _below(texts: Sequence[str]) -> Iterator[str]:
    """Give the texts of the lower axis."""
    last = len(texts) - 1
    for part, text in enumerate(texts):
        at, anchor = LEFT + part / last * (WIDTH - LEFT), {0: "start", last: "end"}.get(part, "middle")
        yield f'<text x="{at}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>'


def _drawn(curves: Mapping[str, str]) -> Iterator[str]:
    """Give curves and their names, in colours."""
    for number, (name, path) in enumerate(curves.items()):
        colour, x = COLOURS[number % len(COLOURS)], LEFT + 10 + 90 * number
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        yield f'<text x="{x}" y="{TOP + 14}" style="fill:{colour}">{escape(name)}</text>'
