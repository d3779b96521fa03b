"""History in lines: whole in pipes, cut to the width of a terminal and in colour there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from ..trace.selection import Glance
from ..trace.text import NO_SECRETS, Secrets, duration, printable
from ..trace.view import Direction, Line, Mood
from .output import BAD, FAINT, GOOD, ONCE, UNDERLINE, Output, cells, fit

__all__ = ["Timeline"]

ARROWS: Final[Mapping[Direction, str]] = {"out": "→", "in": "←", "here": "·"}
WAYS: Final[Mapping[Direction, int]] = {"out": 36, "in": 32, "here": FAINT}
MOODS: Final[Mapping[Mood, int]] = {"good": GOOD, "bad": BAD, "plain": 0}
CLIENT: Final = 35
CONNECTIONS: Final = (34, 33, 35, 36, 32, 31)
"""Connections take these colours in turn."""

TOOK: Final = 8
WIDE: Final = 112
"""Columns from which on a line has the span's id too."""


class Timeline:
    """Prints lines of history, without secrets; with `clock` they have the time of day (UTC), not seconds."""

    def __init__(self, output: Output, *, clock: bool = False, secrets: Secrets = NO_SECRETS) -> None:
        self._output = output
        self._clock = clock
        self._secrets = secrets
        self._colours: dict[str | None, int] = {}

    def head(self) -> None:
        """Print the names of the columns."""
        time = f"{'time':>15}" if self._clock else f"{'seconds':>9}"
        if (width := self._output.width) is None:
            ids, columns = f"{'conn':8} {'span':8}", f"{'what':14} {'topic':16} {'event':14} {'status':16}"
            text = f"{time} {ids}   {columns} {'took':>{TOOK}}  detail"
        else:
            topic, event, detail = self._widths(width)
            span = f"{'span':8} " if width >= WIDE else ""
            more = "  detail" if detail else ""
            text = f"{time} conn {span}  {'what':14} {'topic':{topic}} {'event':{event}} {'took':>{TOOK}}{more}"
        self._output.print(text.rstrip(), FAINT, UNDERLINE)

    def line(self, glance: Glance) -> None:
        """Print a line."""
        line, connection = glance.line, glance.record.origin.connection_id or "-"
        time = self._time(glance)
        took = "" if line.took is None else duration(line.took)
        if (width := self._output.width) is None:
            ids = f"{connection[:8]:8} {line.span_id[:8]:8}"
            text = f"{line.what:14} {line.topic:16} {line.event:14} {line.status:16} {took:>{TOOK}}"
            detail = line.detail(self._secrets)
            self._output.print(f"{time} {ids} {ARROWS[line.direction]} {text}  {detail}".rstrip())
            return
        topic, event, room = self._widths(width)
        style = self._output.style
        way = CLIENT if line.client else WAYS[line.direction] if line.span_id else ONCE
        shown = [
            style(time, FAINT),
            style(f"{connection[:4]:4}", self._colour_of(connection)),
            *([style(f"{line.span_id[:8]:8}", FAINT)] if width >= WIDE else []),
            style(ARROWS[line.direction], way, 1),
            style(fit(line.what, 14), BAD if line.mood == "bad" and not line.status else way),
            fit(line.topic, topic),
            self._event(line, event) if room or line.event or line.status else fit(line.note, event),
            style(f"{took:>{TOOK}}", FAINT),
        ]
        if room:
            shown.append(style(f" {fit(line.detail(self._secrets, max(room, 16)), room)}", FAINT))
        self._output.print(" ".join(shown).rstrip())

    def note(self, text: str) -> None:
        """Print a remark between the lines."""
        text, width = f"# {printable(text)}", self._output.width
        self._output.print(text if width is None else fit(text, width - 1).rstrip(), ONCE)

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

    def _colour_of(self, connection: str) -> int:
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
        return f"{text}{self._output.style(status, MOODS[line.mood])}{free}"
