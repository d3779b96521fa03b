"""History in lines: whole in pipes, cut to the width of a terminal and in colour there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from ..trace.selection import Glance
from ..trace.text import NO_SECRETS, Secrets, duration, printable
from ..trace.view import NO_PAYLOAD, Direction, Line, Mood
from .output import BAD, FAINT, GOOD, ONCE, UNDERLINE, Output, cells, fit

ARROWS: Final[Mapping[Direction, str]] = {"out": "→", "in": "←", "here": "·"}
WAYS: Final[Mapping[Direction, int]] = {"out": 36, "in": 32, "here": FAINT}
MOODS: Final[Mapping[Mood, int]] = {"good": GOOD, "bad": BAD, "plain": 0}
CLIENT: Final = 35
CONNECTIONS: Final = (34, 33, 35, 36, 32, 31)  # connections take these colours in turn
TOOK: Final = 8
EVENT: Final = 21  # cells of the event and its status, beside details
DETAIL: Final = 24  # the fewest cells of details: in fewer, hardly a payload is whole; they go to a second line then
WIDE: Final = 112  # columns from which on a line that has no number has the span's id


class Timeline:
    """Prints lines of history, without secrets; by `clock` with the time of day (UTC), not seconds.

    Those that are `recorded` have numbers, and there may be several sockets.
    """

    def __init__(
        self, output: Output, *, clock: bool = False, recorded: bool = False, secrets: Secrets = NO_SECRETS
    ) -> None:
        self._output = output
        self._clock = clock
        self._recorded = recorded
        self._secrets = secrets
        self._colours: dict[str | None, int] = {}
        width = output.width
        self._id = 8 if width is None else 4
        self._span = width is None or (width >= WIDE and not recorded)
        self._topic, self._event, self._detail = 16, 31, 160
        if width is not None:  # the terminal's last column stays free
            fixed = (15 if clock else 9) + 4 + 1 + 14 + TOOK + 6 + (9 if self._span else 0)
            room = max(width - 1 - fixed - (12 if recorded else 0), 20)
            self._topic = min(max(room * 2 // 5, 11), 18)
            self._event, self._detail = EVENT, room - self._topic - EVENT - 2
            if self._detail < DETAIL:
                self._event, self._detail = room - self._topic, 0

    def head(self) -> None:
        event = f"{'event':14} status" if self._output.width is None else "event"
        ids = f"{'line':>6} {'sock':{self._id}} " if self._recorded else ""
        ids += f"{'conn':{self._id}} {'span     ' if self._span else ''}"
        text = f"{'what':14} {'topic':{self._topic}} {event:{self._event}} {'took':>{TOOK}}"
        time = f"{'time':>15}" if self._clock else f"{'seconds':>9}"
        self._output.print(f"{time} {ids}  {text}{'  detail' if self._detail else ''}", FAINT, UNDERLINE)

    def line(self, glance: Glance) -> None:
        line, record, origin, style = glance.line, glance.record, glance.record.origin, self._output.style
        span_id, connection, number = record.span_id or "", origin.connection_id or "-", getattr(record, "line", "")
        took = "" if line.took is None else duration(line.took)
        if (width := self._output.width) is None:  # it is not cut: made at once, as files may have millions of lines
            numbers = f"{number:>6} {origin.socket_id:8.8} " if self._recorded else ""
            what = f"{ARROWS[line.direction]} {line.what:14} {line.topic:16} {line.event:14} {line.status:16}"
            ids = f"{numbers}{connection:8.8} {span_id:8.8}"
            text = f"{self._time(glance)} {ids} {what} {took.rjust(TOOK)}  {line.detail(self._secrets)}"
            self._output.print(text.rstrip())
            return
        way = ONCE if not span_id else CLIENT if record.name[1] == "client" else WAYS[line.direction]
        numbers = f"{fit(f'{number:>6}', 6)} {origin.socket_id[: self._id]:{self._id}}"
        shown = [
            style(self._time(glance), FAINT),
            *([style(numbers, FAINT)] if self._recorded else []),
            style(f"{connection[: self._id]:{self._id}}", self._colour_of(connection)),
            *([style(f"{span_id[:8]:8}", FAINT)] if self._span else []),
            style(ARROWS[line.direction], way, 1),
            style(fit(line.what, 14), BAD if line.mood == "bad" and not line.status else way),
            fit(line.topic, self._topic),
            self._event_of(line),
            style(f"{took:>{TOOK}}", FAINT),
        ]
        if room := self._detail:
            detail = line.detail(self._secrets, max(room, 16))
            shown.append(style(f" {fit(detail, room).rstrip()}", FAINT))
        self._output.print(" ".join(shown).rstrip())
        told = line.mood == "bad" or line.payload not in (NO_PAYLOAD, {})
        if not room and told and (detail := line.detail(self._secrets)):
            indent = max(width - 1 - self._topic - self._event - TOOK - 17, 4)
            self._output.print(f"{'':{indent}}{fit(detail, width - 1 - indent).rstrip()}", FAINT)

    def note(self, text: str) -> None:
        """Print a remark between the lines."""
        text, width = f"# {printable(text)}", self._output.width
        self._output.print(text if width is None else fit(text, width - 1).rstrip(), ONCE)

    def _time(self, glance: Glance) -> str:
        if not self._clock:
            return f"{glance.elapsed / 1e9:9.4f}"
        at = glance.at
        return f"{datetime.fromtimestamp(at // 1_000_000_000, UTC):%H:%M:%S}.{at // 1000 % 1_000_000:06}"

    def _colour_of(self, connection: str) -> int:
        if len(self._colours) > 4096:
            self._colours.clear()
        return self._colours.setdefault(connection, CONNECTIONS[len(self._colours) % len(CONNECTIONS)])

    def _event_of(self, line: Line) -> str:
        """Return the event and its status; the status is not cut off while there is room for it."""
        width = self._event
        status = fit(line.status, min(cells(line.status), width))
        room = width - cells(status) - 1
        event = line.event if cells(line.event) <= room else fit(line.event, room) if room > 1 else ""
        text = f"{event} " if event else ""
        free = " " * (width - cells(text) - cells(status))
        return f"{text}{self._output.style(status, MOODS[line.mood])}{free}"
