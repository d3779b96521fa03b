"""`slipstream trace verify`: check the invariants on a recording."""

import json
from argparse import ArgumentParser, Namespace
from typing import Final

import attrs

from ..trace import MEANINGS, Checker, files_of
from ..trace.text import printable
from .reading import ProgressBar, add_paths
from .status import FAILED, OK

__all__ = ["DESCRIPTION", "EPILOG", "add_arguments", "run"]

DESCRIPTION: Final = """\
Checks on a recording what holds for every connection: that its records carry its
ids, begin and end as they should, and that spans, states, times and refs follow
from each other. Each cause is printed once, with its file and line; what else the
same line breaks, and what is broken likewise later, is counted. --json has all.

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

MOST_KINDS: Final = 10_000

Place = tuple[str, int, str | None]
Kind = tuple[str, int | None, str | None]
"""The kind of a finding, the invariant, and the connection."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_paths(parser)
    parser.add_argument("--strict", action="store_true", help="fail for what is missing or unfinished, too")
    parser.add_argument("--json", action="store_true", help="print lines of JSON: each finding, then a summary")
    most = "print so many findings, and count the rest; by default %(default)s"
    parser.add_argument("--most", type=int, default=100, metavar="N", help=most)


def run(options: Namespace) -> int:
    """Check, and print what is wrong."""
    checker, bar = Checker(), ProgressBar()
    paths = files_of(options.paths)
    causes: dict[Kind, list[int]] = {}
    faults = found = named = 0
    where: Place = ("", 0, None)

    for finding in checker.check(paths, progress=bar.show):
        found += 1
        faults += finding.wrong or options.strict
        its, kind = finding.connection_id, (finding.kind, finding.invariant, finding.connection_id)
        if not options.json:
            # What one line breaks has one cause, and so has what is broken likewise on a connection.
            if where[:2] == (finding.path, finding.line) and where[2] in (its, None):
                continue
            where = finding.path, finding.line, its
            if kind in causes:
                causes[kind] = [causes[kind][0] + 1, finding.line]
                continue
        named += 1
        if named <= MOST_KINDS:
            causes[kind] = [0, finding.line]
        if named <= options.most:
            bar.clear()
            print(json.dumps(attrs.asdict(finding)) if options.json else printable(str(finding)))
    bar.clear()
    if options.json:
        summary = {"files": [*map(str, paths)], "records": checker.records, "connections": checker.connections}
        rest = {"missing": checker.missing, "faults": faults, "notes": found - faults, "sound": not faults}
        print(json.dumps({**summary, **rest}))
    else:
        _sum_up(checker, causes, faults, max(named - options.most, 0))
    return FAILED if faults else OK


def _sum_up(checker: Checker, causes: dict[Kind, list[int]], faults: int, left: int) -> None:
    if left:
        print(f"… and {left:,} more")
    for (kind, invariant, connection_id), (count, line) in causes.items():
        if count:
            what = kind if invariant is None else f"invariant {invariant}"
            whose = "" if connection_id is None else f" of connection {connection_id}"
            print(f"{what}{whose}: {count:,} more like it, the last in line {line}")
    for invariant in sorted({invariant for _, invariant, _ in causes if invariant is not None}):
        print(f"invariant {invariant}: {MEANINGS[invariant]}")
    verdict = f"{faults:,} faults" if faults else "sound"
    missing = f", {checker.missing:,} missing" if checker.missing else ""
    print(f"{checker.records:,} records of {checker.connections:,} connections{missing}: {verdict}")
