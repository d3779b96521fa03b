r"""Puts what was recorded through the protocol's core again, and compares.

The core is a pure function: the inputs of each connection (frames, commands,
ticks, the transport's beginning and end) are folded through it, and every
state, event and effect is compared with what was recorded. Reports the first
divergence: the line, what differs, what was recorded, and what the core gives.

With --step you go through the inputs yourself, forward and back, and see for
each what it was, what came of it, and how the state changed; it begins with its
keys.

examples:
  slipstream trace replay trace.jsonl
  slipstream trace replay --connection 3f2a --step trace.jsonl
  printf 'g 40\nb\nq\n' | slipstream trace replay --step trace.jsonl

exit status: 0 all agrees; 1 a divergence; 2 wrong usage, or a file that is
not a recording
"""

import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ..protocol import Message
from ..trace import Absent, Damage, Header, Missing, Progress, Recorded, Replayer, ReplayStep, differences, files_of
from ..trace.read import WallClock, read_files
from ..trace.schema import SCHEMA
from ..trace.text import brief, duration, many, printable
from ..trace.values import shown
from .reading import ProgressBar, add_paths
from .status import FAILED, OK, UsageError

NOTHING: Final = "there is no input to replay, or none of that connection"

REMEMBERED: Final = 1000  # steps to go back to without reading the recording again
KEYS: Final = "n or Enter: next; b: back; g N: go to line N; x: next divergence; s: the whole state; h: help; q: quit"

Steps = Iterator[tuple[Path, ReplayStep]]


def add_arguments(parser: ArgumentParser) -> None:
    add_paths(parser)
    parser.add_argument("--connection", metavar="ID", help="only connections whose id begins so")
    parser.add_argument("--step", action="store_true", help="step through the inputs")


def run(options: Namespace) -> int:
    paths = files_of(options.paths)
    return _step_through(paths, options.connection) if options.step else _replay(paths, options.connection)


def _replayed(
    paths: list[Path], connection: str | None, schemas: set[str], progress: Callable[[Progress], object] | None = None
) -> Steps:
    """Give the steps of recordings, and the file of each; versions of the schema that are read go to `schemas`."""
    replayer = Replayer()
    recording, part = None, 0
    for path, entry in read_files(paths, progress=progress):
        if isinstance(entry, Header):
            schemas.add(entry.schema)
            if entry.recording != recording:
                replayer = Replayer(payloads_hidden="payloads" in entry.redacted)
            elif entry.part != part + 1:
                replayer.missed()  # the parts between are not here
            recording, part = entry.recording, entry.part
        elif isinstance(entry, Missing | Damage):
            replayer.missed()
        elif isinstance(entry, Recorded):
            step = replayer.feed(entry)
            if step is not None and (entry.connection_id or "").startswith(connection or ""):
                yield path, step


def _replay(paths: list[Path], connection: str | None) -> int:
    connections: set[str | None] = set()
    schemas: set[str] = set()
    steps = 0
    with ProgressBar() as bar:
        for steps, (path, step) in enumerate(_replayed(paths, connection, schemas, bar.show), 1):
            connections.add(step.record.connection_id)
            if step.divergences:
                bar.clear()
                if told := ", ".join(sorted(schemas - {SCHEMA})):
                    print(f"recorded with schema {told}, replayed with {SCHEMA}: states of another version differ")
                print(printable(f"{path}: {step.divergences[0]}"))
                print(f"it is the first, after {many(steps - 1, 'input')} without one; --step shows all")
                return FAILED
    if not steps:
        raise UsageError(NOTHING)
    read = f"{many(steps, 'input')} of {many(len(connections), 'connection')}"
    print(f"{read} replayed: every state, event and effect agrees")
    return OK


class Tape:
    """The steps of a replay, to go through both ways; few are in memory, as `open_steps` gives them again."""

    def __init__(self, open_steps: Callable[[], Steps]) -> None:
        self.length: int = sum(1 for _ in open_steps())
        self.number: int = 0  # of the step that it is at; 0 before the first
        self._open = open_steps
        self._steps, self._read = open_steps(), 0
        self._near: deque[tuple[Path, ReplayStep]] = deque(maxlen=REMEMBERED)

    @property
    def current(self) -> tuple[Path, ReplayStep]:
        return self._near[self.number - 1 - self._read]

    def move(self, by: int) -> bool:
        """Go so many steps forward, or back; returns False if there are not so many."""
        if not 1 <= self.number + by <= self.length:
            return False
        self.number += by
        if self.number <= self._read - len(self._near):
            self._steps, self._read = self._open(), 0
            self._near.clear()
        while self._read < self.number:
            self._near.append(next(self._steps))
            self._read += 1
        return True

    def seek(self, test: Callable[[ReplayStep], object]) -> bool:
        """Go to the next step that passes a test; returns False, at the last step, if there is none."""
        while self.move(1):
            if test(self.current[1]):
                return True
        return False


def _step_through(paths: list[Path], connection: str | None) -> int:
    """Let the user go through a replay; returns the exit status: whether a step that was seen diverges."""
    tape = Tape(lambda: _replayed(paths, connection, set()))
    if not tape.move(1):
        raise UsageError(NOTHING)
    print(KEYS)
    clock = WallClock()
    began = clock.at(next(entry for _, entry in read_files(paths) if isinstance(entry, Recorded)))
    diverged = _show(tape, clock, began)
    for command in map(str.strip, sys.stdin):
        if command == "q":
            break
        if command == "s":
            for name, value in (shown(tape.current[1].after) or {}).items():
                print(f"  {name}: {_value(value)}")
        elif (moved := _move(tape, command)) is None:
            print(KEYS)
        else:
            if not moved:
                print("(no further)")
            diverged = _show(tape, clock, began) or diverged
    return FAILED if diverged else OK


def _move(tape: Tape, command: str) -> bool | None:
    """Move as a command says; returns whether there is such a step, None for what is not a move."""
    match command.split():
        case [] | ["n"]:
            return tape.move(1)
        case ["b"]:
            return tape.move(-1)
        case ["x"]:
            return tape.seek(lambda step: step.divergences)
        case ["g", line] if line.isdecimal():
            tape.number = 0
            return tape.seek(lambda step: step.record.line >= int(line))
    return None


def _show(tape: Tape, clock: WallClock, began: int) -> bool:
    """Print the step that a tape is at; returns whether it diverges."""
    path, step = tape.current
    record, metadata = step.record, step.record.metadata
    at = (clock.at(record) - record.duration - began) / 1e9
    verdict = "DIVERGES" if step.divergences else "agrees"
    took = duration(record.measurements["duration"])
    ids = f"connection {record.connection_id}  span {record.span_id}"
    place = f"step {tape.number} of {tape.length}  {at:.4f} s  {path}:{record.line}"
    print(f"--- {place}  {ids}  {took}  {verdict}")
    print(f"input    {_thing(metadata['raw_message'])}")
    if isinstance(metadata.get("message"), Message):
        print(f"message  {_thing(metadata['message'])}")
    for event in metadata.get("built_events", ()):
        print(f"event    {_thing(event)}")
    for effect in metadata.get("return", ()):
        print(f"effect   {_thing(effect)}")
    if "kind" in metadata:
        print(f"raised   {printable(metadata['kind'] + ': ' + metadata['reason'])}")
    for change in differences(step.before, step.after):
        print(f"state    {change.field}: {_value(change.expected)} -> {_value(change.got)}")
    for divergence in step.divergences:
        print(f"recorded {divergence.field}: {_value(divergence.expected)}")
        print(f"core     {divergence.field}: {_value(divergence.got)}")
    return bool(step.divergences)


def _thing(value: Any) -> str:
    """Return an input, event, effect or message in a line."""
    if (fields := shown(value)) is None:
        return _value(value)
    return " ".join([type(value).__name__, *(f"{name}={_value(item)}" for name, item in fields.items())])


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, Absent) else brief(value)
