"""A disk that does what a test says, and recordings on it: the thread of a recording meets it at `os.write`."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from tests.telemetry.support import ORIGIN

from slipstream_trio.telemetry import ClientPushStart, Telemetry
from slipstream_trio.trace import End, Missing, Recorded, Recording, check, files_of, read_entries, record

__all__ = [
    "UNWRITTEN",
    "Disk",
    "Emitter",
    "accounts",
    "entries_of",
    "failing_disk",
    "kinds",
    "lengths",
    "lose_a_batch",
    "lose_a_long_batch",
    "lose_all",
    "lose_what_waits_too",
    "until",
]

FIRST: Final = 10**6

PATIENCE: Final = 30.0
"""Seconds that a test waits for a thread, before it fails."""


def until(reached: Callable[[], object]) -> None:
    """Wait for a thread."""
    for _ in range(round(PATIENCE * 1000)):
        if reached():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the thread did not get there")


class Disk:
    """What `os.write` does in other threads than the main one."""

    def __init__(self) -> None:
        self._write = os.write
        self._changed = threading.Condition()
        self._allowed: float = float("inf")
        self._failing: float = 0
        self._fits = 0
        self._waits = False
        self.writes = 0

    def write(self, file: int, data: Any) -> int:
        """Stand in for `os.write`."""
        if threading.current_thread() is threading.main_thread():
            return self._write(file, data)
        with self._changed:
            self._waits = self._allowed <= 0
            assert self._changed.wait_for(lambda: self._allowed > 0, PATIENCE)
            self._waits = False
            self._allowed -= 1
            self.writes += 1
            if self._failing > 0:
                if self._fits:
                    data, self._fits = data[: self._fits], 0
                else:
                    self._failing -= 1
                    raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(file, data)

    @property
    def holds(self) -> bool:
        """Whether a write waits."""
        with self._changed:
            return self._waits

    def hold(self) -> None:
        """Let writes wait."""
        with self._changed:
            self._allowed = 0

    def let_one(self) -> None:
        """Let the write that waits go on, and the next one wait."""
        until(lambda: self.holds)
        with self._changed:
            self._allowed, self._waits = 1, False
            self._changed.notify_all()

    def let(self) -> None:
        """Let all writes go on."""
        with self._changed:
            self._allowed = float("inf")
            self._changed.notify_all()

    def fill(self, writes: float = float("inf"), *, fits: int = 0) -> None:
        """Let so many writes fail, for lack of space; so many bytes of the first do fit."""
        with self._changed:
            self._failing, self._fits = writes, fits

    def free(self) -> None:
        """Have space again."""
        self.fill(0)


@pytest.fixture(name="disk")
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk of which a recording that failed on it tries again at once."""
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 0.0)
    yield disk
    disk.free()
    disk.let()


@attrs.define
class Emitter:
    """Emits records that are all of one length, numbered by their system times, into a recording."""

    disk: Disk
    bus: Telemetry = attrs.field(factory=Telemetry)
    emitted: int = 0

    def emit(self, count: int = 1, params: Any = None) -> None:
        """Emit so many."""
        for _ in range(count):
            self.emitted += 1
            time = FIRST + self.emitted
            push = ClientPushStart(
                ORIGIN, f"{time:016x}", time, time, "room", "event", "x" * 50 if params is None else params
            )
            self.bus.point(push.name).emit(push)

    def hold_one(self) -> None:
        """Emit a record, and let its writing wait."""
        self.disk.hold()
        self.emit()
        until(lambda: self.disk.holds)

    def write_one_batch(self, recording: Recording) -> None:
        """Let what the thread has taken be written, and what it takes then wait."""
        written = recording.written
        while recording.written == written:
            self.disk.let_one()
            until(lambda: self.disk.holds or recording.written > written)
        until(lambda: self.disk.holds)

    def fill_queue(self, recording: Recording) -> int:
        """Emit until one is dropped; returns how many were taken, that which is being written among them."""
        emitted, dropped = self.emitted, recording.dropped
        self.hold_one()
        while recording.dropped == dropped:
            self.emit()
        return self.emitted - emitted - 1

    def drain(self, recording: Recording) -> None:
        """Let everything be written, and wait for it."""
        self.disk.let()
        until(lambda: recording.written + recording.dropped == self.emitted)

    def recover(self, recording: Recording) -> None:
        """Have space again, and emit until a record is written; those before it are dropped."""
        self.disk.free()
        self.drain(recording)
        written = recording.written
        while recording.written == written:
            self.emit()
            self.drain(recording)


def lengths(disk: Disk, directory: Path) -> tuple[int, int]:
    """Return how long the line of an emitter's first record is, which has the connection's ids, and those of others."""
    path = directory / "lengths.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus):
        emitter.emit(3)
    _, first, line, other, _ = path.read_bytes().splitlines(keepends=True)
    assert len(line) == len(other) < len(first)
    return len(first), len(line)


def entries_of(path: Path) -> list[Any]:
    """Return everything that the files of a recording say."""
    return [entry for file in files_of([path]) for entry in read_entries(file)]


def accounts(path: Path, recording: Recording) -> list[Missing]:
    """Check that what a recording says of its losses adds up; return where it says so."""
    entries = entries_of(path)
    missing = [entry for entry in entries if isinstance(entry, Missing)]
    records = [entry for entry in entries if isinstance(entry, Recorded)]
    end = entries[-1]
    assert isinstance(end, End)
    assert (end.records, end.dropped) == (recording.written, recording.dropped)
    assert len(records) == recording.written
    assert sum(entry.records or 0 for entry in missing) == recording.dropped
    return missing


def kinds(path: Path) -> set[tuple[str, str]]:
    """Return what there is to know about a recording."""
    return {(finding.kind, finding.problem.rpartition(": ")[2]) for finding in check([path])}


UNWRITTEN = {("missing", "they could not be written")}


def lose_all(emitter: Emitter, recording: Recording, count: int) -> None:
    """Let the disk be full, and so many records be lost by that: all that wait."""
    dropped = recording.dropped
    emitter.disk.fill()
    emitter.disk.let_one()
    until(lambda: recording.dropped == dropped + count)


def lose_a_batch(emitter: Emitter, recording: Recording) -> None:
    """Lose what is being written."""
    emitter.hold_one()
    lose_all(emitter, recording, 1)


def lose_what_waits_too(emitter: Emitter, recording: Recording) -> None:
    """Lose what is being written, and what waits behind it."""
    emitter.hold_one()
    emitter.emit(5)
    lose_all(emitter, recording, 6)


def lose_a_long_batch(emitter: Emitter, recording: Recording) -> None:
    """Lose a batch of several records, in the midst of which a file may begin, and what waits behind it."""
    emitter.hold_one()
    emitter.emit(6)
    emitter.write_one_batch(recording)
    emitter.emit(3)
    lose_all(emitter, recording, 9)
