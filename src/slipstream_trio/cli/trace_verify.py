"""`slipstream trace verify`: check the invariants on a recording."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Final

import attrs

from ..trace import MEANINGS, Checker, Flaw, files_of
from ..trace.read import read_files
from ..trace.text import printable
from .reading import ProgressBar, add_paths
from .status import FAILED, OK

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "NAME", "add_arguments", "run"]

NAME: Final = "verify"
HELP: Final = "check the invariants of a trace, and name the lines that break them"
DESCRIPTION: Final = """\
Checks on a recording what holds for every connection: that its records carry its
ids, begin and end as they should, and that spans, states, times and refs follow
from each other. Each violation is printed with its file and line.

Records that the recorder says are missing, and connections that were open when
the recording ended or was cut off, are reported, but do not count as violations; --strict
makes them count too."""

EPILOG: Final = """\
examples:
  slipstream trace verify trace.jsonl
  slipstream trace verify trace.jsonl.2 trace.jsonl.1 trace.jsonl
  slipstream trace verify --json trace.jsonl.gz | jq 'select(.kind == "violation")'

exit status: 0 sound; 1 violations, or lines that cannot be read; 2 wrong usage,
or a file that is not a recording"""

MOST: Final = 100


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_paths(parser)
    parser.add_argument("--strict", action="store_true", help="fail for what is missing or unfinished, too")
    parser.add_argument("--json", action="store_true", help="print lines of JSON: each finding, then a summary")
    parser.add_argument(
        "--most", type=int, default=MOST, metavar="N", help=f"print so many findings, and count the rest ({MOST})"
    )


def run(options: Namespace) -> int:
    """Check, and print what is wrong."""
    checker, bar = Checker(), ProgressBar()
    paths = files_of(options.paths)
    broken: set[int] = set()
    faults = found = 0

    def findings() -> Iterator[Flaw]:
        for path, entry in read_files(paths, progress=bar.show):
            yield from checker.feed(str(path), entry)
        yield from checker.finish()

    for finding in findings():
        found += 1
        faults += finding.wrong or options.strict
        if finding.invariant is not None:
            broken.add(finding.invariant)
        if found <= options.most:
            bar.clear()
            print(json.dumps(attrs.asdict(finding)) if options.json else printable(str(finding)))
    bar.clear()
    if options.json:
        summary = {"files": [*map(str, paths)], "records": checker.records, "connections": checker.connections}
        rest = {"missing": checker.missing, "faults": faults, "notes": found - faults, "sound": not faults}
        print(json.dumps({**summary, **rest}))
    else:
        _sum_up(checker, faults, max(found - options.most, 0), broken)
    return FAILED if faults else OK


def _sum_up(checker: Checker, faults: int, left: int, broken: set[int]) -> None:
    if left:
        print(f"… and {left:,} more")
    for invariant in sorted(broken):
        print(f"invariant {invariant}: {MEANINGS[invariant]}")
    verdict = f"{faults:,} faults" if faults else "sound"
    missing = f", {checker.missing:,} missing" if checker.missing else ""
    print(f"{checker.records:,} records of {checker.connections:,} connections{missing}: {verdict}")
