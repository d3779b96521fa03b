"""`slipstream trace`: the group of commands about recordings."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Final

from .main import add_commands
from .status import USAGE

__all__ = ["COMMANDS", "DESCRIPTION", "EPILOG", "add_arguments", "run"]

DESCRIPTION: Final = """\
A recording is what `with trace.record(path):` writes: everything that happened on
connections, as lines of JSON. Rotated files are given oldest first, or as the
newest alone, which finds those before it."""

EPILOG: Final = """\
examples:
  slipstream trace diagnose trace.jsonl        what went wrong, why, and what to do
  slipstream trace show trace.jsonl            what happened, line by line
  slipstream trace stats trace.jsonl           how often, how much, how long
  slipstream trace html trace.jsonl            a page to search and zoom in
  slipstream trace verify trace.jsonl          does it hold what a trace has to?
  slipstream trace replay --step trace.jsonl   go through it, input by input
  slipstream trace export trace.jsonl --to perfetto --output trace.json.gz"""


COMMANDS: Final[Mapping[str, str]] = {
    "diagnose": "what went wrong, why, and what to do",
    "show": "the history of connections, line by line; --follow shows it live",
    "stats": "counts, rates, sizes and latencies, by topic and event",
    "html": "a page to search and zoom in: one file that needs nothing else",
    "verify": "check the invariants of a trace, and name the lines that break them",
    "replay": "put recorded inputs through the core again, and compare all that comes out",
    "export": "turn recordings into what Perfetto, OpenTelemetry or SQL can read",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the commands of the group."""
    add_commands(parser, COMMANDS, ".trace_{}")


def run(options: Namespace) -> int:
    """Show the help: a command of the group is needed."""
    options.parser.print_help(sys.stderr)
    return USAGE
