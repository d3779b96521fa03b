"""Names causes, the gravest first.

For each it tells who has to change something (the application, this process,
the network, the server, the configuration), what happened, when and how often,
the lines that show it, what to do, and the command that shows more. What one
cause explains is not told again: of pushes that timed out while the link was
dead, the dead link is told, and what it cost.

Give it all recordings of an incident, of several processes too: it reads them
on all cores, and tells causes of the same kind once.

reading a finding:
  grave      work was lost, done twice, or stopped
  serious    people had to wait, or soon will
  slight     worth knowing
  times are seconds since the recording's first record, as in `trace show`

examples:
  slipstream trace diagnose trace.jsonl
  slipstream trace diagnose /var/log/app/*.jsonl.gz
  slipstream trace diagnose --json trace.jsonl | jq -r '.findings[].cause'

exit status: 0 nothing found; 1 findings; 2 wrong usage, or a file that is not
a recording
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from textwrap import wrap
from typing import Final

from ..trace import Finding, Progress
from ..trace.diagnosis import CHECKED, Diagnosis
from ..trace.diagnosis.finding import often
from ..trace.read import Source, read_files, sources
from ..trace.text import many, printable
from .output import BAD, BOLD, FAINT, ONCE, Output
from .reading import ProgressBar, add_paths
from .status import FAILED, OK, count

WIDTH: Final = 80
STYLES: Final = {"grave": BAD, "serious": ONCE, "slight": FAINT}


def add_arguments(parser: ArgumentParser) -> None:
    add_paths(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object: findings, noise, and what was read")
    jobs = "processes to read with; all cores by default"
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, metavar="N", help=jobs)


def run(options: Namespace) -> int:
    whole = Diagnosis.together(_diagnosed(sources(options.paths), options.jobs))
    status = FAILED if whole.findings else OK
    if options.json:
        print(json.dumps(whole.as_dict(), indent=2))
        return status
    output = Output.of(sys.stdout)
    for number, finding in enumerate(whole.findings, 1):
        head = f"{number}. {finding.cause.replace('_', ' ')}  [{finding.gravity}; blame: {finding.blame}]"
        output.print(printable(head), BOLD, STYLES[finding.gravity])
        for line in _lines(finding):
            output.print(printable(line))
        output.print()
    read = f"{many(whole.records, 'record')} of {many(whole.connections, 'connection')}"
    if whole.findings:
        output.print(f"{read}: {many(len(whole.findings), 'finding')}")
    else:
        output.print(f"{read}: nothing wrong was found. Looked for:", BOLD)
        for checked in CHECKED:
            output.print(f"  {checked}")
    for text in whole.remarks():
        for line in wrap(printable(text), WIDTH, subsequent_indent="  "):
            output.print(line, FAINT)
    return status


def _diagnosed(recordings: Sequence[Source], jobs: int) -> Iterator[Diagnosis]:
    """Give the diagnosis of each recording, in order; each is one job."""
    with ProgressBar() as bar:
        if len(recordings) == 1 or jobs == 1:
            yield from map(partial(_one, progress=bar.show), recordings)
            return
        with ProcessPoolExecutor(min(jobs, len(recordings))) as pool:
            for number, diagnosis in enumerate(pool.map(_one, recordings), 1):
                bar.show(Progress(str(recordings[number - 1].paths[-1]), number, len(recordings), diagnosis.records))
                yield diagnosis


def _one(source: Source, progress: Callable[[Progress], object] | None = None) -> Diagnosis:
    entries = ((str(path), entry) for path, entry in read_files(source.paths, progress=progress))
    return Diagnosis.of(str(source.paths[-1]), entries)


def _lines(finding: Finding) -> Iterator[str]:
    where = [f"{name} {its}" for name, its in (("topic", finding.topic), ("event", finding.event)) if its]
    first = f"{datetime.fromtimestamp(finding.times[0] / 1e9, UTC):%Y-%m-%d %H:%M:%S}" if finding.times else "?"
    last = f"{datetime.fromtimestamp(finding.until / 1e9, UTC):%H:%M:%S}"
    by_path = groupby(finding.lines, key=itemgetter(0))
    items = (
        ("", f"{finding.mechanism[0].upper()}{finding.mechanism[1:]}."),
        ("when", f"{first} to {last} UTC, {often(finding.count)}"),
        ("where", ", ".join(where)),
        *(("" if text.startswith("  ") else "fact", text) for text in finding.evidence),
        ("lines", "; ".join(f"{path}:{', '.join(str(line) for _, line in lines)}" for path, lines in by_path)),
        ("do", f"{finding.advice[0].upper()}{finding.advice[1:]}."),
    )
    for name, text in items:  # one without a text has no lines
        indent = " " * (len(text) - len(text.lstrip()))
        for number, line in enumerate(wrap(text.strip(), WIDTH - 10 - len(indent), break_on_hyphens=False)):
            yield f"   {name if number == 0 else '':7}{indent}{line}"
    if finding.command:
        yield f"   more   {finding.command}"
