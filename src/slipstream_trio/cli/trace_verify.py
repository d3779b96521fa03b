"""`slipstream trace verify`: check the invariants on a recording."""

from argparse import ArgumentParser, Namespace
from typing import Final

from ..errors import RecordingError
from ..trace import Damage, Recorded, Verifier, read_entries
from .status import FAILED, OK, CommandFailed

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "NAME", "NEEDS", "add_arguments", "run"]

NAME: Final = "verify"
HELP: Final = "check the invariants of a trace, and name the lines that break them"
DESCRIPTION: Final = "Checks the invariants of a trace on a recording."
EPILOG: Final = """\
exit status: 0 sound; 1 violations, or lines that cannot be read; 2 wrong usage"""
NEEDS: Final = ()


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a recording, plain or gzip")


def run(options: Namespace) -> int:
    """Check, and print what is wrong.

    Raises:
        CommandFailed: a file cannot be read.
    """
    verifier = Verifier()
    found = 0
    try:
        for path in options.paths:
            for entry in read_entries(path):
                if isinstance(entry, Damage):
                    problems = [entry.problem]
                elif isinstance(entry, Recorded):
                    problems = [f"invariant {each.invariant}: {each.problem}" for each in verifier.feed(entry)]
                else:
                    continue
                found += len(problems)
                for problem in problems:
                    print(f"{path}:{entry.line}: {problem}")
    except RecordingError as error:
        raise CommandFailed(str(error)) from error
    return FAILED if found else OK
