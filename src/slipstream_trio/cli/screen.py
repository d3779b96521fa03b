"""Where a run is shown: as plain lines, or drawn by rich for a terminal."""

import os
from argparse import ArgumentParser
from typing import Protocol, TextIO

from ..trace.text import Secrets
from ..trace.view import Line
from .tally import Report

__all__ = ["Screen", "add_screen_arguments", "open_screen"]


class Screen(Protocol):
    """What can be shown. Each thing is on the screen when its method returns."""

    def begin(self, title: str, about: str) -> None:
        """Show what this run is."""
        ...

    def step(self, title: str, code: str = "") -> None:
        """Show that the scenario goes on: what it does now, and perhaps the code that does it."""
        ...

    def line(self, line: Line) -> None:
        """Show a line of history."""
        ...

    def note(self, text: str) -> None:
        """Show what the scenario's own code got to see."""
        ...

    def report(self, report: Report) -> None:
        """Show what the run came to."""
        ...


def add_screen_arguments(parser: ArgumentParser) -> None:
    """Declare the options of every command that shows a run."""
    parser.add_argument(
        "--plain",
        action="store_true",
        help="plain lines, without colour and drawing; always so where the output is no terminal",
    )


def open_screen(output: TextIO, secrets: Secrets, *, plain: bool) -> Screen:
    """Return the screen for an output.

    Parameters:
        secrets: what to mask.
        plain: plain lines, even on a terminal.
    """
    if plain or not output.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        from .plain_screen import PlainScreen

        return PlainScreen(output, secrets)
    from .rich_screen import RichScreen

    return RichScreen(output, secrets)
