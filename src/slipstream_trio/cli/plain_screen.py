"""A run as plain lines: no colour, no drawing, nothing cut off."""

from collections.abc import Mapping
from typing import Final, TextIO

from ..trace.text import Secrets, duration, printable
from ..trace.view import Direction, Line
from .tally import INVARIANTS, REMARK, Latencies, Report, SpanKind

__all__ = ["PlainScreen"]

ARROWS: Final[Mapping[Direction, str]] = {"out": "→", "in": "←", "here": "·"}
ASCII: Final = str.maketrans({"→": ">", "←": "<", "·": "-", "µ": "u", "…": "~"})
"""For outputs whose encoding has no arrows."""

HEADER: Final = (
    f"{'seconds':>8} {'span':8} {' '} {'what':14} {'topic':16} {'event':14} {'status':16} {'took':>8}  detail"
)


class PlainScreen:
    """Prints to `output`, a line at a time."""

    def __init__(self, output: TextIO, secrets: Secrets) -> None:
        self._output = output
        self._secrets = secrets
        self._began: int | None = None
        self._all = can_print(output, "→←·µ…")

    def begin(self, title: str, about: str) -> None:
        """Show what this run is."""
        self._print(f"# {title}")
        self._print(f"# {self._clean(about)}")
        self._print(HEADER)

    def step(self, title: str, code: str = "") -> None:
        """Show what the scenario does now."""
        self._print(f"# {title}: {self._clean(code)}" if code else f"# {title}")

    def line(self, line: Line) -> None:
        """Show a line of history."""
        self._began = line.monotonic_time if self._began is None else self._began
        seconds = (line.monotonic_time - self._began) / 1e9
        took = "" if line.took is None else duration(line.took)
        self._print(
            f"{seconds:8.4f} {line.span_id[:8]:8} {ARROWS[line.direction]} {line.what:14} {line.topic:16} "
            f"{line.event:14} {line.status:16} {took:>8}  {line.detail(self._secrets)}"
        )

    def note(self, text: str) -> None:
        """Show what the scenario's own code got to see."""
        self._print(f"# - {self._clean(text)}")

    def report(self, report: Report) -> None:
        """Show what the run came to."""
        self._print("# The trace")
        for origin in report.origins:
            end = report.ends.get(origin.connection_id or "", "unknown")
            self._print(f"socket {origin.socket_id}")
            self._print(f"connection {origin.connection_id} generation {origin.generation} ended {end}")
            self._print(f"trace {origin.trace_id}")
        self._print(f"{'spans':24} {'count':>6} {'min':>8} {'median':>8} {'max':>8}  outcomes")
        for kind in (*report.kinds, *([report.pings] if report.pings.count else [])):
            self._print(_kind_line(kind))
        for name, count in report.once.items():
            self._print(f"{name:24} {count:>6}")
        self._print(f"# {REMARK}")
        broken = {violation.invariant for violation in report.violations}
        for number, meaning in INVARIANTS.items():
            self._print(f"invariant {number} {'BROKEN' if number in broken else 'holds '} {meaning}")
        for problem in report.problems:
            self._print(f"problem: {self._clean(problem)}")
        spans = sum(kind.count for kind in report.kinds if not kind.part)
        self._print(f"{report.records} records, {spans} spans, {len(report.violations)} violations")

    def _clean(self, text: str) -> str:
        return printable(self._secrets.hide(text))

    def _print(self, text: str) -> None:
        text = text.rstrip() if self._all else text.rstrip().translate(ASCII)
        if not self._all:
            text = text.encode("ascii", "backslashreplace").decode("ascii")
        print(text, file=self._output, flush=True)


def _kind_line(kind: SpanKind) -> str:
    name = f"  {kind.name}" if kind.part else kind.name
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in kind.outcomes.items())
    return f"{name:24} {kind.count:>6} {latency_columns(kind.latencies)}  {outcomes}"


def latency_columns(latencies: Latencies | None) -> str:
    """Return least, median and most, in columns."""
    values = ("", "", "") if latencies is None else (latencies.least, latencies.median, latencies.most)
    return " ".join(f"{value if isinstance(value, str) else duration(value):>8}" for value in values)


def can_print(output: TextIO, text: str) -> bool:
    """Tell whether the encoding of an output has these letters."""
    try:
        text.encode(output.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
