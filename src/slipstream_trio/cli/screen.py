"""A run on the screen: the steps of its scenario, its history, and in the end a report."""

from textwrap import wrap
from typing import Final

from ..trace import MEANINGS
from ..trace.selection import Glance
from ..trace.text import Secrets, printable
from .output import BAD, BOLD, FAINT, GOOD, ONCE, Output
from .tables import print_tables
from .tally import Tally
from .timeline import Timeline

__all__ = ["Screen"]

SECTIONS: Final = ("connects", "joins", "leaves", "pushes", "heartbeats", "handling", "drops", "overflows", "errors")
REMARK: Final = "times of the client and of pings include the drawing of these lines"


class Screen:
    """Shows a run, without its secrets; each thing is on the screen when its method returns."""

    def __init__(self, output: Output, secrets: Secrets) -> None:
        self._output = output
        self._secrets = secrets
        self._timeline = Timeline(output, secrets=secrets)

    def begin(self, title: str, about: str) -> None:
        """Show the title of the run, and the head of the history."""
        self._say(f"# {title}", BOLD)
        self._say(f"# {about}", FAINT)
        self._timeline.head()

    def step(self, title: str, code: str = "") -> None:
        """Show the next step of the scenario, with the code that does it."""
        if self._output.width is not None:
            self._output.print()
        self._say(f"# {title}: {code}" if code else f"# {title}", BOLD)

    def line(self, glance: Glance) -> None:
        """Show a line of history."""
        self._timeline.line(glance)

    def note(self, text: str) -> None:
        """Show a result of the scenario's own code."""
        self._say(f"# - {text}", ONCE)

    def report(self, tally: Tally) -> None:
        """Show a summary of the run."""
        self._say("# The trace", BOLD)
        for stop in tally.ended:
            origin = stop.origin
            self._say(f"socket {origin.socket_id}")
            self._say(
                f"connection {origin.connection_id} generation {origin.generation} ended {stop.termination_reason}"
            )
            self._say(f"trace {origin.trace_id}")
        print_tables(self._output, tally.statistics, sections=SECTIONS)
        self._output.print()
        self._say(f"# {REMARK}", FAINT)
        for number, meaning in MEANINGS.items():
            broken = any(violation.invariant == number for violation in tally.violations)
            self._say(f"invariant {number} {'BROKEN' if broken else 'holds '} {meaning}", BAD if broken else GOOD)
        for problem in tally.problems:
            self._say(f"problem: {problem}", BAD)
        counted = f"{tally.verifier.records} records, {tally.spans} spans, {len(tally.violations)} violations"
        self._say(counted, BOLD)

    def _say(self, text: str, *codes: int) -> None:
        text, width = printable(self._secrets.hide(text)), self._output.width
        for line in [text] if width is None else wrap(text, width - 1, subsequent_indent="    "):
            self._output.print(line, *codes)
