"""`slipstream trace verify`: check the invariants on a recording."""

import json
from argparse import ArgumentParser, Namespace
from typing import Final

import attrs

from ..trace import MEANINGS, Checker, Finding, files_of
from ..trace.read import read_files
from ..trace.text import printable
from .progress import ProgressBar
from .status import FAILED, OK

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "NAME", "NEEDS", "add_arguments", "run"]

NAME: Final = "verify"
HELP: Final = "check the invariants of a trace, and name the lines that break them"
DESCRIPTION: Final = """\
Checks on a recording what holds for every connection: that its records carry its
ids, begin and end as they should, and that spans, states, times and refs follow
from each other. Each violation is printed with its file and line.

Records that the recorder says are missing, and connections that were open when
the recording ended or was cut off, are told, and are no violations; --strict
makes them count too."""

EPILOG: Final = """\
examples:
  slipstream trace verify trace.jsonl
  slipstream trace verify trace.jsonl.2 trace.jsonl.1 trace.jsonl
  slipstream trace verify --json trace.jsonl.gz | jq 'select(.kind == "violation")'

exit status: 0 sound; 1 violations, or lines that cannot be read; 2 wrong usage,
or a file that is no recording"""

NEEDS: Final = ()
MOST: Final = 100


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a recording, plain or gzip; rotated ones in any order"
    )
    parser.add_argument("--strict", action="store_true", help="fail for what is missing or unfinished, too")
    parser.add_argument("--json", action="store_true", help="print lines of JSON: each finding, then a summary")
    parser.add_argument(
        "--most",
        type=int,
        default=MOST,
        metavar="N",
        help=f"print so many findings, and count the rest (default {MOST})",
    )


def run(options: Namespace) -> int:
    """Check, and print what is wrong."""
    verification = _Verification(options)
    verification.run()
    return FAILED if verification.faults else OK


class _Verification:
    """One run of the command."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._checker = Checker()
        self._bar = ProgressBar()
        self._printed = 0
        self._broken: set[int] = set()
        self.faults = 0
        self.notes = 0

    def run(self) -> None:
        paths = files_of(self._options.paths)
        for path, entry in read_files(paths, progress=self._bar.show):
            self._tell(self._checker.feed(str(path), entry))
        self._tell(self._checker.finish())
        self._bar.clear()
        self._sum_up([str(path) for path in paths])

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            if finding.wrong or self._options.strict:
                self.faults += 1
            else:
                self.notes += 1
            if finding.invariant is not None:
                self._broken.add(finding.invariant)
            if self._printed < self._options.most:
                self._printed += 1
                self._bar.clear()
                print(json.dumps(attrs.asdict(finding)) if self._options.json else printable(str(finding)))

    def _sum_up(self, paths: list[str]) -> None:
        checker = self._checker
        if self._options.json:
            summary = {"files": paths, "records": checker.records, "connections": checker.connections}
            rest = {"missing": checker.missing, "faults": self.faults, "notes": self.notes, "sound": not self.faults}
            print(json.dumps({**summary, **rest}))
            return
        left = self.faults + self.notes - self._printed
        if left:
            print(f"… and {left:,} more")
        for invariant in sorted(self._broken):
            print(f"invariant {invariant}: {MEANINGS[invariant]}")
        verdict = "sound" if not self.faults else f"{self.faults:,} faults"
        missing = f", {checker.missing:,} missing" if checker.missing else ""
        print(f"{checker.records:,} records of {checker.connections:,} connections{missing}: {verdict}")
