"""A recording's history in lines: whole in pipes, cut to the width of a terminal and in colour there."""

import os
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from ..trace.selection import Glance
from ..trace.text import duration, printable
from ..trace.view import Direction, Line, Mood
from .plain_screen import ARROWS, ASCII, can_print

__all__ = ["Timeline"]

WAYS: Final[Mapping[Direction, int]] = {"out": 36, "in": 32, "here": 90}
MOODS: Final[Mapping[Mood, int]] = {"good": 32, "bad": 31, "plain": 0}
CLIENT, ONCE, FAINT = 35, 33, 90
CONNECTIONS: Final = (34, 33, 35, 36, 32, 31)
"""Colours, as SGR has them; connections take theirs in turn."""

TOOK: Final = 8
WIDE: Final = 112
"""From so many columns on, a line has the span's id too."""


class Timeline:
    """Prints lines of history.

    Parameters:
        output: where to.
        width: of a terminal, in columns; None: lines are whole.
        colour: whether there may be colours.
        clock: the time of day (UTC), instead of the seconds since the first record.
    """

    def __init__(self, output: TextIO, *, width: int | None, colour: bool, clock: bool = False) -> None:
        self._output = output
        self._width = width
        self._colour = colour
        self._clock = clock
        self._colours: dict[str | None, int] = {}
        self._all = can_print(output, "→←·µ…")

    def head(self) -> None:
        """Print what the columns are."""
        time = f"{'time':>15}" if self._clock else f"{'seconds':>9}"
        if self._width is None:
            ids, columns = f"{'conn':8} {'span':8}", f"{'what':14} {'topic':16} {'event':14} {'status':16}"
            text = f"{time} {ids}   {columns} {'took':>{TOOK}}  detail"
        else:
            topic, event, detail = self._widths(self._width)
            span = f"{'span':8} " if self._width >= WIDE else ""
            more = "  detail" if detail else ""
            text = f"{time} conn {span}  {'what':14} {'topic':{topic}} {'event':{event}} {'took':>{TOOK}}{more}"
        self._print(self._style(text.rstrip(), FAINT, 4))

    def line(self, glance: Glance) -> None:
        """Print a line."""
        line, connection = glance.line, glance.record.origin.connection_id
        time = self._time(glance)
        took = "" if line.took is None else duration(line.took)
        if self._width is None:
            self._print(
                f"{time} {(connection or '-')[:8]:8} {line.span_id[:8]:8} {ARROWS[line.direction]} {line.what:14} "
                f"{line.topic:16} {line.event:14} {line.status:16} {took:>{TOOK}}  {line.detail()}".rstrip()
            )
            return
        topic, event, detail = self._widths(self._width)
        way = CLIENT if line.client else WAYS[line.direction] if line.span_id else ONCE
        what = MOODS["bad"] if line.mood == "bad" and not line.status else way
        span = [self._style(f"{line.span_id[:8]:8}", FAINT)] if self._width >= WIDE else []
        cells = [
            self._style(time, FAINT),
            self._style(f"{(connection or '-')[:4]:4}", self._colour_of(connection)),
            *span,
            self._style(ARROWS[line.direction], way, 1),
            self._style(fit(line.what, 14), what),
            fit(line.topic, topic),
            self._event(line, event) if detail or line.event or line.status else fit(line.note, event),
            self._style(f"{took:>{TOOK}}", FAINT),
        ]
        if detail:
            cells.append(self._style(f" {fit(line.detail(limit=max(detail, 16)), detail)}", FAINT))
        self._print(" ".join(cells).rstrip())

    def note(self, text: str) -> None:
        """Print what is said between the lines."""
        text = f"# {printable(text)}"
        self._print(self._style(text if self._width is None else fit(text, self._width - 1).rstrip(), ONCE))

    def _time(self, glance: Glance) -> str:
        if not self._clock:
            return f"{glance.elapsed / 1e9:9.4f}"
        at = glance.at
        return f"{datetime.fromtimestamp(at // 1_000_000_000, UTC):%H:%M:%S}.{at // 1000 % 1_000_000:06}"

    def _widths(self, width: int) -> tuple[int, int, int]:
        """Return the widths of topic, event and detail; the terminal's last column stays free."""
        fixed = (15 if self._clock else 9) + 4 + 1 + 14 + TOOK + 6 + (9 if width >= WIDE else 0)
        room = max(width - 1 - fixed, 20)
        topic = min(max(room * 2 // 5, 10), 20)
        event = room - topic if room < 56 else 26
        detail = room - topic - event - 2
        return topic, event, detail if detail >= 8 else 0

    def _colour_of(self, connection: str | None) -> int:
        if connection is None:
            return FAINT
        if len(self._colours) > 4096:
            self._colours.clear()
        return self._colours.setdefault(connection, CONNECTIONS[len(self._colours) % len(CONNECTIONS)])

    def _event(self, line: Line, width: int) -> str:
        """Return the event and its status; the status is not cut off while there is room for it."""
        status = fit(line.status, min(cells(line.status), width))
        room = width - cells(status) - 1
        event = line.event if cells(line.event) <= room else fit(line.event, room) if room > 1 else ""
        text = f"{event} " if event else ""
        free = " " * (width - cells(text) - cells(status))
        return f"{text}{self._style(status, MOODS[line.mood])}{free}"

    def _style(self, text: str, *codes: int) -> str:
        if not self._colour or not text or codes == (0,):
            return text
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m"

    def _print(self, text: str) -> None:
        if not self._all:
            text = text.translate(ASCII).encode("ascii", "backslashreplace").decode("ascii")
        self._output.write(f"{text}\n")


def wants_colour(output: TextIO) -> bool:
    """Tell whether an output is a terminal that shows colours, and nobody asked for none."""
    return output.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return a text in exactly so many columns: filled up, or cut off with an ellipsis."""
    length = cells(text)
    if length <= width:
        return text + " " * (width - length)
    cut, used = [], 0
    for letter in text:
        size = _cells_of(letter)
        if used + size > width - 1:
            break
        cut.append(letter)
        used += size
    return "".join(cut) + "…" + " " * (width - used - 1) if width > 0 else ""
