"""`slipstream trace replay`: put what was recorded through the core again, and compare."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..trace import Damage, Divergence, Header, Missing, Recorded, Replayer, ReplayStep, files_of
from ..trace.read import read_files
from ..trace.schema import SCHEMA
from ..trace.text import printable
from .reading import ProgressBar, add_paths
from .status import FAILED, OK, UsageError
from .trace_step import Tape, step_through

__all__ = ["DESCRIPTION", "EPILOG", "add_arguments", "run"]

DESCRIPTION: Final = """\
Folds the inputs of each connection (frames, commands, ticks, the transport's
beginning and end) through the protocol's core, a pure function, and compares every
state, event and effect with what was recorded. Reports the first divergence: the
line, what differs, what was recorded, and what the core gives.

With --step you go through the inputs yourself, forward and back, and see for each
what it was, what came of it, and how the state changed."""

EPILOG: Final = """\
keys of --step (when piped, a line each):
  n, Enter   next          b   back            g N   go to line N
  x          next divergence                   s     the whole state
  h          help                              q     quit

examples:
  slipstream trace replay trace.jsonl
  slipstream trace replay --connection 3f2a --step trace.jsonl
  printf 'g 40\\nb\\nq\\n' | slipstream trace replay --step trace.jsonl

exit status: 0 all agrees; 1 a divergence; 2 wrong usage, or a file that is
not a recording"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_paths(parser)
    parser.add_argument("--connection", metavar="ID", help="only connections whose id begins so")
    parser.add_argument("--all", action="store_true", help="report every divergence, not the first alone")
    parser.add_argument("--json", action="store_true", help="print lines of JSON: each divergence, then a summary")
    parser.add_argument("--step", action="store_true", help="step through the inputs")


def run(options: Namespace) -> int:
    """Replay, and print the outcome."""
    paths = files_of(options.paths)
    if options.step:
        records = (entry for _, entry in read_files(paths) if isinstance(entry, Recorded))
        return step_through(Tape(lambda: replayed(paths, options.connection)), records)
    return _replay(paths, options)


def replayed(
    paths: list[Path], connection: str | None = None, bar: ProgressBar | None = None, schemas: set[str] | None = None
) -> Iterator[tuple[Path, ReplayStep]]:
    """Give the steps of recordings, and the file of each; versions of the schema that are read go to `schemas`."""
    replayer = Replayer()
    recording, part = None, 0
    for path, entry in read_files(paths, progress=None if bar is None else bar.show):
        if isinstance(entry, Header):
            if schemas is not None:
                schemas.add(entry.schema)
            if entry.recording != recording:
                replayer = Replayer(payloads_hidden="payloads" in entry.redacted)
            elif entry.part != part + 1:
                replayer.missed()  # the parts between are not here
            recording, part = entry.recording, entry.part
        elif isinstance(entry, Missing | Damage):
            replayer.missed()
        elif isinstance(entry, Recorded):
            step = replayer.feed(entry)
            if step is not None and (entry.connection_id or "").startswith(connection or ""):
                yield path, step


def _replay(paths: list[Path], options: Namespace) -> int:
    bar = ProgressBar()
    connections: set[str | None] = set()
    schemas: set[str] = set()
    steps = divergences = 0
    for path, step in replayed(paths, options.connection, bar, schemas):
        steps += 1
        connections.add(step.record.connection_id)
        for divergence in step.divergences:
            divergences += 1
            bar.clear()
            if divergences == 1 and not options.json and schemas - {SCHEMA}:
                told = ", ".join(sorted(schemas - {SCHEMA}))
                print(f"recorded with schema {told}, replayed with {SCHEMA}: states of another version differ")
            _print_divergence(path, divergence, as_json=options.json)
            if not options.all:
                break
        if divergences and not options.all:
            break
    bar.clear()
    if not steps:
        raise UsageError("there is no input to replay, or none of that connection")
    if options.json:
        counts: dict[str, Any] = {"inputs": steps, "connections": len(connections), "divergences": divergences}
        others = {"schemas": sorted(schemas)} if schemas - {SCHEMA} else {}
        print(json.dumps({**counts, **others, "agrees": not divergences}))
    elif divergences and options.all:
        print(f"{steps:,} inputs replayed, {divergences:,} divergences; --step shows them")
    elif divergences:
        print(f"it is the first, after {steps - 1:,} inputs that agree; --all reports every one, --step shows them")
    else:
        print(f"{steps:,} inputs of {len(connections):,} connections replayed: every state, event and effect agrees")
    return FAILED if divergences else OK


def _print_divergence(path: Path, divergence: Divergence, *, as_json: bool) -> None:
    if not as_json:
        print(printable(f"{path}: {divergence}"))
        return
    shown = {"path": str(path), "line": divergence.line, "connection_id": divergence.connection_id}
    values = {"expected": repr(divergence.expected), "got": repr(divergence.got)}
    print(json.dumps({**shown, "field": divergence.field, **values}))
