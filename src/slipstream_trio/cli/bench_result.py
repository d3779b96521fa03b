"""The results of a load test: counts, histograms of latencies, and a series by the second, which can be merged."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from attrs import Factory, define

from ..trace.text import duration

__all__ = ["Result", "Second", "histogram", "quantiles"]

FORMAT: Final = "slipstream bench 1"
LATENCIES: Final = ("connect", "join", "push")
"""What is timed: each from the moment at which the plan has it, so that a server which is late is not asked less."""

QUANTILES: Final = (50, 90, 99, 99.9, 100)
DIGITS: Final = 3
LONGEST: Final = 3600 * 10**6
"""Significant digits that histograms keep, and the longest latency, in microseconds."""


def histogram() -> Any:
    """Return an empty histogram of microseconds."""
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(1, LONGEST, DIGITS)


def quantiles(latencies: Any) -> dict[str, float | None]:
    """Return a histogram's quantiles, in seconds."""
    empty = not latencies.total_count
    names = ["max" if share == 100 else f"p{share}" for share in QUANTILES]
    values = [None if empty else latencies.get_value_at_percentile(share) / 1e6 for share in QUANTILES]
    return dict(zip(names, values, strict=True))


@define
class Second:
    """A second of a load test."""

    counts: Counter[str] = Factory(Counter)  # "due", "replies", "messages", …
    open: int = 0  # connections, at its end
    latencies: Any = Factory(histogram)  # of the pushes that were answered in it


@define
class Result:
    """A load test, several, or what a process tells of a second."""

    plans: list[dict[str, Any]] = Factory(list)  # the load, as it was asked for
    seconds: dict[int, Second] = Factory(dict)  # by Unix time
    latencies: dict[str, Any] = Factory(lambda: {name: histogram() for name in LATENCIES})
    errors: Counter[str] = Factory(Counter)  # failed pushes, joins and connects, by kind

    @property
    def counts(self) -> Counter[str]:
        """What happened in all."""
        return sum((second.counts for second in self.seconds.values()), Counter())

    def to_json(self, indent: int | None = 1) -> str:
        """Return it as JSON, which `add` reads: sums and quantiles for readers, histograms for merging."""
        seconds = {
            str(at): {"counts": second.counts, "open": second.open, **_as_dict(second.latencies)}
            for at, second in sorted(self.seconds.items())
        }
        latencies = {name: _as_dict(each) for name, each in self.latencies.items()}
        told = {"plans": self.plans, "counts": self.counts, "errors": self.errors, "latencies": latencies}
        return json.dumps({"format": FORMAT, **told, "seconds": seconds}, indent=indent)

    def add(self, text: str | bytes) -> None:
        """Add a result that is given as JSON; raises `ValueError`, or what else comes of JSON that is none."""
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
        """Give the lines of a report."""
        counts, seconds = self.counts, max(len(self.seconds), 1)
        yield f"{'':10}{'count':>10}" + "".join(f"{name:>10}" for name in quantiles(histogram()))
        for name, each in self.latencies.items():
            times = [("" if value is None else duration(value * 1e9)) for value in quantiles(each).values()]
            yield f"{name:10}{each.total_count:>10,}" + "".join(f"{time:>10}" for time in times)
        told = ", ".join(f"{counts[name]:,} {name}" for name in ("due", "replies", "messages", "reconnects", "gaps"))
        yield f"pushes: {told}; {counts['replies'] / seconds:,.1f} replies a second"
        yield "errors: " + (", ".join(f"{count:,} {kind}" for kind, count in self.errors.most_common()) or "none")


def _as_dict(latencies: Any) -> dict[str, Any]:
    return {**quantiles(latencies), "histogram": latencies.encode().decode()}
