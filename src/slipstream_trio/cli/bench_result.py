"""The results of a load test: counts, histograms of latencies, and a series by the second, which can be merged.

Their page has a plot of the latencies, and needs nothing else.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from attrs import Factory, define

from ..trace.text import duration

FORMAT: Final = "slipstream bench 1"
QUANTILES: Final[Mapping[str, float]] = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}
DIGITS: Final = 3  # significant ones that histograms keep
LONGEST: Final = 3600 * 10**6  # the longest latency, in microseconds


def histogram() -> Any:
    """Return an empty histogram of microseconds."""
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(1, LONGEST, DIGITS)


def quantiles(latencies: Any) -> dict[str, float | None]:
    """Return a histogram's quantiles, in seconds."""
    empty, value = not latencies.total_count, latencies.get_value_at_percentile
    return {name: None if empty else value(share) / 1e6 for name, share in QUANTILES.items()}


def told(latencies: Any) -> dict[str, str]:
    """Return a histogram's quantiles in words."""
    return {name: "" if value is None else duration(value * 1e9) for name, value in quantiles(latencies).items()}


@define
class Second:
    counts: Counter[str] = Factory(Counter)  # "due", "replies", "messages", …
    open: int = 0  # connections, at its end
    latencies: Any = Factory(histogram)  # of the pushes that were answered in it


@define
class Result:
    """A load test, several, or what a process tells of a second."""

    plans: list[dict[str, Any]] = Factory(list)  # the load, as it was asked for
    seconds: dict[int, Second] = Factory(dict)  # by Unix time
    # Each from the moment at which the plan has it, so that a server which is late is not asked less.
    latencies: dict[str, Any] = Factory(lambda: {name: histogram() for name in ("connect", "join", "push")})
    errors: Counter[str] = Factory(Counter)  # failed pushes, joins and connects, by kind

    @property
    def counts(self) -> Counter[str]:
        return sum((second.counts for second in self.seconds.values()), Counter())

    def to_json(self, indent: int | None = 1) -> str:
        """Return it as JSON, which `add` reads: sums and quantiles for readers, histograms for merging."""
        seconds = {
            str(at): {"counts": second.counts, "open": second.open, **_as_dict(second.latencies)}
            for at, second in sorted(self.seconds.items())
        }
        latencies = {name: _as_dict(each) for name, each in self.latencies.items()}
        whole = {"plans": self.plans, "counts": self.counts, "errors": self.errors, "latencies": latencies}
        return json.dumps({"format": FORMAT, **whole, "seconds": seconds}, indent=indent)

    def add(self, text: str | bytes) -> None:
        """Add a result that is given as JSON; raises `ValueError`, or another error for another form."""
        read = json.loads(text)
        if read["format"] != FORMAT:
            raise ValueError("another format")
        self.plans += read["plans"]
        self.errors.update(read["errors"])
        for name, each in read["latencies"].items():
            self.latencies[name].decode_and_add(each["histogram"])
        for at, each in read["seconds"].items():
            second = self.seconds.setdefault(int(at), Second())
            second.counts.update(each["counts"])
            second.open += each["open"]
            second.latencies.decode_and_add(each["histogram"])

    def summary(self) -> Iterator[str]:
        counts, seconds = self.counts, max(len(self.seconds), 1)
        yield f"{'':10}{'count':>10}" + "".join(f"{name:>10}" for name in QUANTILES)
        for name, each in self.latencies.items():
            yield f"{name:10}{each.total_count:>10,}" + "".join(f"{time:>10}" for time in told(each).values())
        pushes = ", ".join(f"{counts[name]:,} {name}" for name in ("due", "replies", "messages", "reconnects", "gaps"))
        yield f"pushes: {pushes}; {counts['replies'] / seconds:,.1f} replies a second"
        yield f"errors:{'' if self.errors else ' none'}"
        yield from (f"{count:>10,} {kind}" for kind, count in self.errors.most_common())


def _as_dict(latencies: Any) -> dict[str, Any]:
    return {**quantiles(latencies), "histogram": latencies.encode().decode()}


# The page

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 220, 70, 10, 24
STEPS: Final = 5
COLOURS: Final = ("#3b6fb6", "#d98b2b", "#b6403b")
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
svg { width: 100%; height: auto; background: #fafafa } text { font-size: 12px; fill: #555 }
pre { background: #f4f4f4; padding: 1rem; overflow: auto }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd } svg, pre { background: #252525 } text { fill: #aaa } }
"""


def page(result: Result) -> str:
    plans = "\n".join(", ".join(f"{name} {value}" for name, value in plan.items()) for plan in result.plans)
    summary = "\n".join(result.summary())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>slipstream bench</title><style>{STYLE}</style>"
        f"<h1>Load test</h1><p>{escape(plans)}</p><pre>{escape(summary)}</pre>"
        f"<h2>Latency of pushes, by second</h2>{_plot(result)}</html>\n"
    )


def _plot(result: Result) -> str:
    """Return a plot of the latencies by second as SVG; their axis is logarithmic."""
    seconds = sorted(result.seconds.items())
    times = [(at - seconds[0][0], quantiles(second.latencies)) for at, second in seconds]
    curves = {
        name: [(at, math.log10(max(value, 1e-6))) for at, its in times if (value := its[name]) is not None]
        for name in ("p50", "p99", "max")
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return "<p>nothing to show</p>"
    right, low = max(1e-9, *(x for x, _ in points)), math.floor(min(y for _, y in points))
    high = max(math.ceil(max(y for _, y in points)), low + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        down = (high - y) / (high - low)
        return round(LEFT + x / right * (WIDTH - LEFT), 1), round(TOP + down * (HEIGHT - TOP - BOTTOM), 1)

    def drawn() -> Iterator[str]:
        for mark in range(low, high + 1):
            x, y = place(0, mark)
            yield f'<path d="M{x},{y}H{WIDTH}" stroke="#8884"/>'
            yield _text(x - 6, y, "end", duration(10.0**mark * 1e9))
        for step in range(STEPS + 1):
            anchor = {0: "start", STEPS: "end"}.get(step, "middle")
            yield _text(LEFT + step / STEPS * (WIDTH - LEFT), HEIGHT - 6, anchor, f"{right * step / STEPS:.0f} s")
        for number, ((name, curve), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
            path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in curve))
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            yield _text(LEFT + 10 + 90 * number, TOP + 14, "start", name, colour)

    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn())}</svg>'


def _text(x: float, y: float, anchor: str, text: str, colour: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="fill:{colour}">{escape(text)}</text>'
