"""`slipstream trace`: the group of commands about recordings."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final

from . import trace_diagnose, trace_export, trace_html, trace_replay, trace_show, trace_stats, trace_verify
from .command import Command, add_commands
from .status import USAGE

__all__ = ["COMMANDS", "DESCRIPTION", "EPILOG", "HELP", "NAME", "add_arguments", "run"]

NAME: Final = "trace"
HELP: Final = "look into recordings of connections"
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


COMMANDS: Final[Sequence[Command]] = (
    *(trace_diagnose, trace_show, trace_stats, trace_html),
    *(trace_verify, trace_replay, trace_export),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the commands of the group."""
    add_commands(parser, COMMANDS)


def run(options: Namespace) -> int:
    """Show the help: a command of the group is needed."""
    options.parser.print_help(sys.stderr)
    return USAGE
