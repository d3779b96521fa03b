"""A bar on the standard error that shows how far a file has been read, where that is a terminal."""

import sys
from typing import Final

from ..trace import Progress

__all__ = ["ProgressBar"]

WIDTH: Final = 30


class ProgressBar:
    """Shows progress; does nothing where nobody sees it."""

    def __init__(self) -> None:
        self._shown = False
        self._watched = sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Draw the bar anew."""
        if not self._watched:
            return
        part = progress.done / progress.size if progress.size else 1.0
        bar = "#" * round(part * WIDTH)
        text = f"\r{bar:-<{WIDTH}} {part:4.0%}  {progress.lines:,} lines of {progress.path}\x1b[K"
        print(text, end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        """Remove the bar, before something else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
