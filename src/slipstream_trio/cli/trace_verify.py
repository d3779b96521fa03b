"""Checks on a recording what holds for every connection.

Its records carry its ids, begin and end as they should, and spans, states,
times and refs follow from each other. Each cause is printed once, with its file
and line; what else the same line breaks, and what is broken likewise later, is
counted. --json has all.

Records that the recorder says are missing, and connections that were open when
the recording ended or was cut off, are reported, but do not count as
violations.

examples:
  slipstream trace verify trace.jsonl
  slipstream trace verify trace.jsonl.2 trace.jsonl.1 trace.jsonl
  slipstream trace verify --json trace.jsonl | jq 'select(.kind == "violation")'

exit status: 0 sound; 1 violations, or lines that cannot be read; 2 wrong usage,
or a file that is not a recording
"""

import json
from argparse import ArgumentParser, Namespace
from typing import Final

import attrs

from ..trace import MEANINGS, Checker, files_of
from ..trace.check import Flaw
from ..trace.text import many, printable
from .reading import ProgressBar, add_paths
from .status import FAILED, OK

MOST_KINDS: Final = 10_000

Kind = tuple[str, int | None, str | None]  # the kind of a finding, the invariant, and the connection


def add_arguments(parser: ArgumentParser) -> None:
    add_paths(parser)
    parser.add_argument("--json", action="store_true", help="print lines of JSON: each finding, then a summary")


def run(options: Namespace) -> int:
    checker, causes, paths = Checker(), Causes(), files_of(options.paths)
    faults = found = 0
    with ProgressBar() as bar:
        for finding in checker.check(paths, progress=bar.show):
            found += 1
            faults += finding.wrong
            if options.json or causes.is_new(finding):
                bar.clear()
                print(json.dumps(attrs.asdict(finding)) if options.json else printable(str(finding)))
    if options.json:
        summary = {"files": [*map(str, paths)], "records": checker.records, "connections": checker.connections}
        rest = {"missing": checker.missing, "faults": faults, "notes": found - faults, "sound": not faults}
        print(json.dumps({**summary, **rest}))
    else:
        causes.sum_up()
        missing = f", {checker.missing:,} missing" if checker.missing else ""
        read = f"{many(checker.records, 'record')} of {many(checker.connections, 'connection')}{missing}"
        print(f"{read}: {many(faults, 'fault') if faults else 'sound'}")
    return FAILED if faults else OK


class Causes:
    """Tells causes apart: what one line breaks has one cause, and so has what is broken likewise on a connection."""

    def __init__(self) -> None:
        self._like: dict[Kind, list[int]] = {}  # how many more there are, and the line of the last
        self._last: tuple[str, int, str | None] = ("", 0, None)

    def is_new(self, finding: Flaw) -> bool:
        """Take in a finding; returns whether its cause was not seen before."""
        its, (path, line, connection_id) = finding.connection_id, self._last
        if (path, line) == (finding.path, finding.line) and connection_id in (its, None):
            return False
        self._last = finding.path, finding.line, its
        kind = finding.kind, finding.invariant, its
        if kind in self._like:
            self._like[kind] = [self._like[kind][0] + 1, finding.line]
            return False
        if len(self._like) < MOST_KINDS:
            self._like[kind] = [0, finding.line]
        return True

    def sum_up(self) -> None:
        """Print how often what was seen has come again, and what the broken invariants mean."""
        for (kind, invariant, connection_id), (count, line) in self._like.items():
            if count:
                what = kind if invariant is None else f"invariant {invariant}"
                whose = "" if connection_id is None else f" of connection {connection_id}"
                print(f"{what}{whose}: {count:,} more like it, the last in line {line}")
        for invariant in sorted({invariant for _, invariant, _ in self._like if invariant is not None}):
            print(f"invariant {invariant}: {MEANINGS[invariant]}")
