"""How a command ends."""

from typing import Final

__all__ = ["FAILED", "INTERRUPTED", "OK", "USAGE", "CommandFailed", "UsageError"]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""


class CommandFailed(Exception):
    """A command did not do what it was to do; its text is the one line that the user is told."""


class UsageError(Exception):
    """The options do not go together, or one cannot be used."""
