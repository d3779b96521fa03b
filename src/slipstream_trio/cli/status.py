"""Exit statuses of commands, and types of their options."""

import codecs
import os
import sys
from argparse import ArgumentTypeError
from io import TextIOWrapper
from typing import Final

OK, FAILED, USAGE, UNREACHABLE, TIMEOUT = range(5)
INTERRUPTED, TERMINATED = 130, 143  # 128 and the number of the signal, as shells have it

PLAINER: Final = "slipstream_trio.cli"  # the name of the error handler that writes in ASCII what an encoding lacks
_ASCII: Final = str.maketrans({"→": ">", "←": "<", "·": "-", "µ": "u", "…": "~"})


class CommandFailed(Exception):
    """A command failed with an exit status; its text is the one line that the user sees."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class UsageError(Exception):
    """The options contradict each other, or one is invalid."""


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].translate(_ASCII)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(PLAINER, _plainer)


def print_anywhere() -> None:
    """Let everything be printed, whatever the encodings of the outputs lack, and where they were closed before."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the process
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, TextIOWrapper):
            file.reconfigure(errors=PLAINER)


def give_up_output() -> None:
    """Redirect an output that takes no more to nowhere, as Python would flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def pair(text: str) -> tuple[str, str]:
    """Read NAME=VALUE for argparse; the typed text is not repeated, as it may be a secret."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError("write it NAME=VALUE")
    return name, value


def count(text: str, least: int = 1, most: int | None = None) -> int:
    if not text.isdecimal() or not least <= int(text) <= (most or int(text)):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise ArgumentTypeError(f"{text!r} is not a count: write a number, {bounds}")
    return min(int(text), sys.maxsize)
