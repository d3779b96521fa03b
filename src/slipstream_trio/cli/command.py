"""Commands, and their declaration to argparse: those of `slipstream`, and those of a group."""

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from textwrap import fill
from types import ModuleType
from typing import Final

__all__ = ["Command", "add_commands"]

COLUMN: Final = 10
"""The column at which the help of a command begins."""

WIDTH: Final = 76
"""The most characters of a line in a list."""


Command = ModuleType
"""A module that has `NAME`, `HELP` (a line), `DESCRIPTION`, `EPILOG` (examples), maybe `NEEDS` (modules of extras),
`add_arguments(parser)`, and `run(options)`, which returns the exit status."""


def add_commands(parser: ArgumentParser, commands: Sequence[Command]) -> None:
    """Declare commands to a parser; the parsed options have the innermost `command`, and its `parser`."""
    # argparse would head its list with the bare word "command", so the list is made here; as it then takes the commands
    # for hidden, the usage is given as well.
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
