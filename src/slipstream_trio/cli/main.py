"""The command line: its commands and exit statuses.

argparse reads it, so that `--help` and `--version` also work without the extra `cli`; a handful of commands with flat
options needs nothing more.
"""

import re
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from textwrap import fill
from types import ModuleType
from typing import Any, Final, NoReturn

from ..errors import RecordingError
from ..errors.base import did_you_mean
from .status import FAILED, INTERRUPTED, USAGE, CommandFailed, UsageError, give_up_output, print_anywhere

DESCRIPTION: Final = "See what happens on the connections of Phoenix Channels, from the terminal."

EPILOG: Final = """\
examples:
  slipstream demo           watch a connection live; it brings its own server
  slipstream serve          a server to try a client against; then, elsewhere:
  slipstream connect ws://localhost:4000/socket/websocket
  slipstream connect --help    each command's help has examples

exit status: 0 all is well; 1 something failed; 2 wrong usage, a missing extra,
or a file that is not a recording; 3 no connection; 4 no answer in time;
130 interrupted; 143 terminated"""

COLUMN: Final = 10  # at which the help of a command begins in a list
WIDTH: Final = 76  # the most characters of a line in a list

COMMANDS: Final[Mapping[str, str]] = {
    "demo": "watch a connection live: every span and event, then the trace and whether it is sound",
    "connect": "a console: join topics, push, and see what comes; lines of JSON in pipes",
    "listen": "print the messages of topics; one object a line in pipes",
    "push": "push one event, and print the reply",
    "serve": "run a development server: chat, echo, presence, crashes and refusals",
    "bench": "a load test for a server: latencies free of coordinated omission",
    "trace": "look into recordings of connections",
}
"""The commands, each of which is a module `<name>_command`: imported where it is named, as `--help` has to be quick.

The docstring is the help. The module has `add_arguments(parser)`, `run(options)`, which returns the exit status, and
maybe `NEEDS` (modules of extras) and `ENOUGH` (the exit status where the output is closed); of a group, `GROUP`: the
commands in it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default of the process; returns the exit status, as `--help` lists them.

    `--help`, `--version`, and what argparse cannot read, raise `SystemExit`.
    """
    print_anywhere()
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(words)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        # Names only: argparse would repeat whatever was typed, a token after a misspelt --token for one.
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        near = did_you_mean("".join(names[:1]), re.findall(r"--[\w-]+", options.parser.format_help()))
        options.parser.error(f"unknown option: {', '.join(names)}{near}" if names else "too many arguments")
    if options.command is None:
        options.parser.print_help(sys.stderr)
        return USAGE
    return _run(options.command, options)


class Parser(ArgumentParser):
    """A parser that refuses in one line, which says where there is more."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **options, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
        self.set_defaults(command=None, parser=self)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"slipstream: {message}; see {self.prog} --help\n")


def _parser(words: Sequence[str] | None) -> Parser:
    """Return the parser of what is typed; of None that of everything."""
    parser = Parser("slipstream", description=DESCRIPTION, epilog=EPILOG)
    version = ""
    if words and "--version" in words:
        from ..trace.schema import library_version

        version = library_version()
    parser.add_argument("--version", action="version", version=f"slipstream {version}")
    _add_commands(parser, COMMANDS, ".{}_command", words)
    return parser


def _add_commands(parser: Parser, commands: Mapping[str, str], module: str, words: Sequence[str] | None) -> None:
    """Declare commands, `module` by `module`; those that are not the first of `words` are only listed, for speed."""
    word = words[0] if words else "-"
    if not word.startswith("-") and word not in commands:
        near = did_you_mean(word, commands) or f"; the commands are {', '.join(commands)}"
        parser.error(f"unknown command: {word!r}{near}")
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
        inner = subparsers.add_parser(name, help=text)
        if words is None or name == word:
            command = import_module(module.format(name), __package__)
            # What has a heading of its own, such as the examples, comes behind the options.
            inner.description, *shown = re.split(r"\n\n(?=[a-z ]+:\n)", command.__doc__ or "", maxsplit=1)
            inner.epilog = "".join(shown)
            if group := getattr(command, "GROUP", None):
                _add_commands(inner, group, f".{name}_{{}}", words and words[1:])
            else:
                inner.set_defaults(command=command)
                command.add_arguments(inner)


def _run(command: ModuleType, options: Namespace) -> int:
    if any(find_spec(module) is None for module in getattr(command, "NEEDS", ())):
        return _say("this command needs the extra `cli`: pip install 'slipstream-trio[cli]'", USAGE)
    try:
        status: int = command.run(options)
        sys.stdout.flush()
    except UsageError as error:
        return _say(f"{error}; see {options.parser.prog} --help", USAGE)
    except RecordingError as error:
        from ..trace.text import printable

        return _say(printable(str(error)), USAGE)
    except CommandFailed as error:
        return _say(str(error), error.status)
    except BrokenPipeError:
        give_up_output()
        return getattr(command, "ENOUGH", FAILED)  # as `head` does: its user has seen enough
    except OSError as error:
        give_up_output()
        return _say(f"{error.filename or 'the output'}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    return status


def _say(problem: str, status: int) -> int:
    print(f"slipstream: {problem}", file=sys.stderr)
    return status
