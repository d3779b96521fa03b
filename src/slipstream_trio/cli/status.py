"""How a command ends, and what its options share."""

import os
import sys
from argparse import ArgumentTypeError
from typing import Final

__all__ = ["FAILED", "INTERRUPTED", "OK", "USAGE", "CommandFailed", "UsageError", "count", "give_up_output", "pair"]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""


class CommandFailed(Exception):
    """A command did not do what it was to do; its text is the one line that the user is told."""


class UsageError(Exception):
    """The options do not go together, or one cannot be used."""


def give_up_output() -> None:
    """Let nothing more be written to an output that was closed, as Python would try at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def pair(text: str) -> tuple[str, str]:
    """Read NAME=VALUE for argparse; what was typed is not repeated, as it may be a secret."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError("write it NAME=VALUE")
    return name, value


def count(text: str, least: int = 1) -> int:
    """Read a number for argparse."""
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is no count: write a number, {least} or more")
    return min(int(text), sys.maxsize)
