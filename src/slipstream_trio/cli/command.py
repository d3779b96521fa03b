"""Commands, and their declaration to argparse: those of `slipstream`, and those of a group."""

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from textwrap import fill
from types import ModuleType
from typing import Final

__all__ = ["Command", "add_commands"]

COLUMN: Final = 10
"""The column at which the help of a command begins."""

WIDTH: Final = 76
"""The most characters of a line in a list."""


Command = ModuleType
"""A module that has `DESCRIPTION`, `EPILOG` (examples), maybe `NEEDS` (modules of extras), `add_arguments(parser)`, and
`run(options)`, which returns the exit status."""


def add_commands(parser: ArgumentParser, commands: Mapping[str, str], load: Callable[[str], Command | None]) -> None:
    """Declare commands to a parser; the parsed options have the innermost `command`, and its `parser`.

    Parameters:
        parser: the parser.
        commands: a line of help for each name.
        load: returns the module of a command; None if the command is listed only, as its module takes time to import.
    """
    # argparse would head its list with the bare word "command", so the list is made here; as it then takes the commands
    # for hidden, the usage is given as well.
    listed = "\n".join(
        fill(text, WIDTH, initial_indent=f"{name:{COLUMN}}", subsequent_indent=" " * COLUMN)
        for name, text in commands.items()
    )
    subparsers = parser.add_subparsers(
        title="commands", description=listed, metavar="command", help=SUPPRESS, prog=parser.prog
    )
    parser.usage = "%(prog)s [options] command ..."
    for name, text in commands.items():
        inner = subparsers.add_parser(name, help=text, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
        if (command := load(name)) is not None:
            inner.description, inner.epilog = command.DESCRIPTION, command.EPILOG
            inner.set_defaults(command=command, parser=inner)
            command.add_arguments(inner)
