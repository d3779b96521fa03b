"""Output: lines to a terminal, cut to its width and maybe in colour, or to a pipe, whole and plain; and files."""

import os
import shutil
import unicodedata
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import Final, TextIO

from ..trace.files import written
from ..trace.read import Source
from .status import CommandFailed, UsageError

BOLD, UNDERLINE, BAD, GOOD, ONCE, FAINT = 1, 4, 31, 32, 33, 90  # colours, as SGR has them
NARROW: Final = 64  # columns of a terminal below which lines are cut, and so have no colours


class Output:
    """Prints lines, cut to a width if it has one; `live` flushes each."""

    def __init__(self, file: TextIO, *, width: int | None = None, colour: bool = False, live: bool = False) -> None:
        self.width: int | None = width
        self._file = file
        self._colour = colour and (width is None or width >= NARROW)
        self._live = live

    @classmethod
    def of(cls, file: TextIO, *, plain: bool = False, live: bool = False) -> "Output":
        """Return the output for a file; `plain` treats a terminal as a pipe."""
        on_terminal = file.isatty() and not plain
        width = shutil.get_terminal_size().columns if on_terminal else None
        return cls(file, width=width, colour=on_terminal and wants_colour(file), live=live)

    def style(self, text: str, *codes: int) -> str:
        """Return a text with colours, if the output has them."""
        if not self._colour or not text or codes in ((), (0,)):
            return text
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m"

    def print(self, text: str = "", *codes: int) -> None:
        if self.width is not None and not self._colour:
            text = fit(text, self.width - 1).rstrip()
        self._file.write(f"{self.style(text, *codes)}\n")
        if self._live:
            self._file.flush()

    def say(self, text: str, *codes: int) -> None:
        """Print a text, filled into the width."""
        for line in [text] if self.width is None else wrap(text, max(self.width - 1, 1), subsequent_indent="    "):
            self.print(line, *codes)


def wants_colour(file: TextIO) -> bool:
    """Tell whether an output is a terminal with colours, and `NO_COLOR` is unset."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def cells(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return a text in exactly `width` columns: filled up, or cut off with an ellipsis."""
    length = cells(text)
    if length <= width:
        return text + " " * (width - length)
    cut = text[: sum(used < width for used in accumulate(map(_cells_of, text)))]
    return f"{cut}…{' ' * (width - cells(cut) - 1)}" if width > 0 else ""


def add_force(parser: ArgumentParser) -> None:
    """Declare the option by which `output_file` overwrites."""
    parser.add_argument("--force", action="store_true", default=None, help="overwrite a file that exists")


@contextmanager
def output_file(
    name: str, *, force: bool | None, mode: int = 0o666, recordings: Iterable[Source] = ()
) -> Iterator[TextIO]:
    """Write a file, which gets its name at the end of the block: a failure leaves what there was.

    One of the recordings that are read is a `UsageError`, one that exists a `CommandFailed` unless by `force`.
    """
    path = Path(name)
    if path.exists() and any(path.samefile(file) for recording in recordings for file in recording.paths):
        raise UsageError(f"{path} is the recording itself: name another file")
    if path.is_file() and not force:
        raise CommandFailed(f"{path} exists: --force overwrites it")
    with writing(name), written(path, mode=mode) as file:
        yield file


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Raise `CommandFailed` where what the block writes cannot be written."""
    try:
        yield
    except BrokenPipeError:
        raise  # the standard output was closed
    except OSError as error:
        raise CommandFailed(f"{name}: it cannot be written: {error.strerror or error}") from error
