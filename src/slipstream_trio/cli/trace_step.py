"""Stepping through a replay: a tape that goes both ways, what a step looks like, and the keys."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from ..protocol import Message
from ..telemetry import Record
from ..trace import Absent, ReplayStep, differences
from ..trace.clock import WallClock
from ..trace.text import brief, duration, printable
from ..trace.values import names_of
from .status import FAILED, OK, UsageError

__all__ = ["Tape", "step_through"]

Steps = Iterator[tuple[Path, ReplayStep]]

REMEMBERED: Final = 1000
"""Steps to go back to without reading the recording again."""

HELP: Final = """\
n or Enter: next; b: back; g N: go to line N; x: next divergence; s: the whole state; h: help; q: quit"""


class Tape:
    """The steps of a replay, forward and back; few are in memory, as `open_steps` gives them from the beginning.

    Attributes:
        length: the number of steps.
    """

    def __init__(self, open_steps: Callable[[], Steps]) -> None:
        self.length: int = sum(1 for _ in open_steps())
        self._open = open_steps
        self._read, self._at = 0, -1
        self._rewind()

    @property
    def current(self) -> tuple[Path, ReplayStep]:
        """The step that the tape is at."""
        return self._near[self._at]

    @property
    def number(self) -> int:
        """The number of the step that the tape is at, from 1."""
        return self._read - len(self._near) + self._at + 1

    def forward(self) -> bool:
        """Go to the next step; returns False if there is none."""
        if self._at + 1 < len(self._near):
            self._at += 1
            return True
        step = next(self._steps, None)
        if step is None:
            return False
        self._near.append(step)
        self._read += 1
        self._at = len(self._near) - 1
        return True

    def back(self) -> bool:
        """Go to the step before; returns False if there is none."""
        if self._at > 0:
            self._at -= 1
            return True
        before = self.number - 1
        if before > 0:
            self._rewind()
        return before > 0 and all(self.forward() for _ in range(before))

    def to_line(self, line: int) -> bool:
        """Go to the first step whose last line is `line` or later; returns False, at the last, if there is none."""
        self._rewind()
        return self._seek(lambda step: step.record.line >= line)

    def to_divergence(self) -> bool:
        """Go to the next step that diverges; returns False, at the last step, if there is none."""
        return self._seek(lambda step: bool(step.divergences))

    def _seek(self, test: Callable[[ReplayStep], bool]) -> bool:
        while self.forward():
            if test(self.current[1]):
                return True
        return False

    def _rewind(self) -> None:
        self._steps = self._open()
        self._near: deque[tuple[Path, ReplayStep]] = deque(maxlen=REMEMBERED)
        self._read = 0
        self._at = -1


def step_through(tape: Tape, records: Iterator[Record]) -> int:
    """Let the user go through a replay; returns the exit status: whether a step that was seen diverges.

    Parameters:
        tape: the steps.
        records: those of the recording; times are counted from the first one on.
    """
    if not tape.forward():
        raise UsageError("there is no input to replay, or none of that connection")
    print(HELP)
    clock = WallClock()
    began = clock.at(next(records))

    def show() -> bool:
        path, step = tape.current
        at = (clock.at(step.record) - step.record.duration - began) / 1e9
        for line in _describe(path, step, f"step {tape.number} of {tape.length}  {at:.4f} s"):
            print(line)
        return bool(step.divergences)

    diverged = show()
    for command in _commands():
        word, _, argument = command.partition(" ")
        if word == "q":
            break
        if word == "s":
            state = tape.current[1].after
            for name in names_of(type(state)):
                print(f"  {name}: {_value(getattr(state, name))}")
        elif word in _MOVES or (word == "g" and argument.strip().isdecimal()):
            moved = tape.to_line(int(argument)) if word == "g" else _MOVES[word](tape)
            if not moved:
                print("(no further)")
            diverged = show() or diverged
        else:
            print(HELP)
    return FAILED if diverged else OK


_MOVES: Final[dict[str, Callable[[Tape], bool]]] = {
    "": Tape.forward,
    "n": Tape.forward,
    "b": Tape.back,
    "x": Tape.to_divergence,
}


def _commands() -> Iterator[str]:
    """Give what the user wants: keys from a terminal, else lines."""
    if sys.platform != "win32" and sys.stdin.isatty():
        return _keys(sys.stdin.fileno())
    return (line.strip() for line in sys.stdin)


def _keys(terminal: int) -> Iterator[str]:
    """Give keys as they are pressed, without Enter after them; `g` takes what is typed up to Enter."""
    if sys.platform != "win32":  # for the type checkers
        import termios
        import tty

        before = termios.tcgetattr(terminal)
        # NOW, not FLUSH: what was typed ahead counts.
        tty.setcbreak(terminal, termios.TCSANOW)
        try:
            while (key := os.read(terminal, 1).decode(errors="replace")) not in ("", "\x04"):
                yield f"g {_typed(terminal)}" if key == "g" else key.strip()
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    else:
        yield from ()


def _typed(terminal: int) -> str:
    print("line ", end="", flush=True)
    typed = ""
    while (key := os.read(terminal, 1).decode(errors="replace")) not in ("", "\n", "\r"):
        typed = typed[:-1] if key in "\b\x7f" else typed + key
        print(f"\rline {typed}\x1b[K", end="", flush=True)
    print()
    return typed


def _describe(path: Path, step: ReplayStep, place: str) -> Iterator[str]:
    record, metadata = step.record, step.record.metadata
    verdict = "DIVERGES" if step.divergences else "agrees"
    took = duration(record.measurements["duration"])
    ids = f"connection {record.connection_id}  span {record.span_id}"
    yield f"--- {place}  {path}:{record.line}  {ids}  {took}  {verdict}"
    yield f"input    {_thing(metadata['raw_message'])}"
    if isinstance(metadata.get("message"), Message):
        yield f"message  {_thing(metadata['message'])}"
    for event in metadata.get("built_events", ()):
        yield f"event    {_thing(event)}"
    for effect in metadata.get("return", ()):
        yield f"effect   {_thing(effect)}"
    if "kind" in metadata:
        yield f"raised   {printable(metadata['kind'] + ': ' + metadata['reason'])}"
    for change in differences(step.before, step.after):
        yield f"state    {change.field}: {_value(change.expected)} -> {_value(change.got)}"
    for divergence in step.divergences:
        yield f"recorded {divergence.field}: {_value(divergence.expected)}"
        yield f"core     {divergence.field}: {_value(divergence.got)}"


def _thing(value: Any) -> str:
    """Return an input, event, effect or message in a line."""
    if isinstance(value, Message):
        fields = value._asdict()
    elif attrs.has(type(value)):
        fields = {name: getattr(value, name) for name in names_of(type(value))}
    else:
        return _value(value)
    return " ".join([type(value).__name__, *(f"{name}={_value(item)}" for name, item in fields.items())])


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, Absent) else brief(value)
