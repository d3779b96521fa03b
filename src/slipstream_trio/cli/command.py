"""What a command is, and how commands are declared to argparse: those of `slipstream`, and those of a group."""

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from textwrap import fill
from types import ModuleType
from typing import Final

__all__ = ["Command", "add_commands"]

COLUMN: Final = 10
"""Where the help of a command begins, in characters after its name does."""

WIDTH: Final = 76
"""How long the lines of a list get at most, in characters."""


Command = ModuleType
"""A module that has `NAME`, `HELP` (a line), `DESCRIPTION`, `EPILOG` (examples), perhaps `NEEDS` (modules of extras),
`add_arguments(parser)`, and `run(options)`, which returns the exit status."""


def add_commands(parser: ArgumentParser, commands: Sequence[Command]) -> None:
    """Declare commands to a parser; what is parsed has the innermost `command` given, and its `parser`."""
    # argparse would put a line above its list that says "command" and no more, so the list is made here; and as it then
    # takes the commands for hidden, it has to be told what the usage is.
    listed = "\n".join(
        fill(command.HELP, WIDTH, initial_indent=f"{command.NAME:{COLUMN}}", subsequent_indent=" " * COLUMN)
        for command in commands
    )
    subparsers = parser.add_subparsers(
        title="commands", description=listed, metavar="command", help=SUPPRESS, prog=parser.prog
    )
    parser.usage = "%(prog)s [options] command ..."
    for command in commands:
        inner = subparsers.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        inner.set_defaults(command=command, parser=inner)
        command.add_arguments(inner)
