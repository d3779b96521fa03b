"""After a disk that was full for a while a recording goes on as if nothing had been, and says what it lacks."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trace.disks import (
    UNWRITTEN,
    Disk,
    Emitter,
    accounts,
    failing_disk,
    kinds,
    lengths,
    lose_a_batch,
    lose_a_long_batch,
    lose_all,
    lose_what_waits_too,
    until,
)
from tests.trace.scenes import Scene

from slipstream_trio.telemetry import ConnectStart
from slipstream_trio.trace import (
    End,
    Header,
    Missing,
    Recorded,
    Recording,
    check,
    files_of,
    read_entries,
    read_header,
    record,
)

__all__ = ["failing_disk"]

SIZE = 2000
"""Bytes of a file that is rotated: a handful of lines."""


def parts_of(path: Path) -> list[int]:
    return [read_header(file).part for file in files_of([path])]


Loss = Callable[[Emitter, Recording], None]
losses = pytest.mark.parametrize("lose", [lose_a_batch, lose_what_waits_too, lose_a_long_batch])


@losses
@pytest.mark.parametrize("max_size", [None, 1000])
def test_the_queue_takes_as_much_as_before(lose: Loss, max_size: int | None, disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    options: dict[str, Any] = {"queue": 3000, "flush_interval": 0, "max_size": max_size, "keep": 99}
    with record(path, telemetry=emitter.bus, **options) as recording:
        emitter.emit()
        emitter.drain(recording)
        before = emitter.fill_queue(recording)
        emitter.recover(recording)
        for _ in range(5):
            lose(emitter, recording)
            emitter.recover(recording)
        # One line more or less: after a loss, and in another file, the ids of a connection are repeated.
        assert before > 10
        assert abs(emitter.fill_queue(recording) - before) <= 1
        disk.let()
    assert recording.written + recording.dropped == emitter.emitted


# A rotation that was due


def until_due(emitter: Emitter, recording: Recording, path: Path, short: int) -> None:
    """Emit until another file is due, or so many bytes short of that."""
    header = path.stat().st_size
    while path.stat().st_size < header + SIZE - short:
        emitter.emit()
        emitter.drain(recording)
    assert parts_of(path) == [1]


def rotation_in_what_is_written(emitter: Emitter, recording: Recording, path: Path) -> None:
    until_due(emitter, recording, path, 600)
    emitter.hold_one()
    emitter.emit(4)
    emitter.write_one_batch(recording)
    lose_all(emitter, recording, 4)


def rotation_in_what_waits(emitter: Emitter, recording: Recording, path: Path) -> None:
    until_due(emitter, recording, path, 100)
    emitter.hold_one()
    emitter.emit(3)
    lose_all(emitter, recording, 4)


def rotation_that_cannot_be_written(emitter: Emitter, recording: Recording, path: Path) -> None:
    until_due(emitter, recording, path, 0)
    lose_a_batch(emitter, recording)


@pytest.mark.parametrize("lose", [rotation_in_what_is_written, rotation_in_what_waits, rotation_that_cannot_be_written])
def test_a_rotation_that_was_due_happens(
    lose: Callable[[Emitter, Recording, Path], None], disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, max_size=SIZE, flush_interval=0, keep=99) as recording:
        lose(emitter, recording, path)
        emitter.recover(recording)
        assert parts_of(path) == [1, 2]
        emitter.emit(30)
    parts = parts_of(path)
    assert parts == list(range(1, len(parts) + 1))
    assert len(parts) > 3
    assert all(file.stat().st_size < 1.5 * SIZE for file in files_of([path]))
    assert kinds(path) == UNWRITTEN
    accounts(path, recording)


def test_a_rotation_that_is_due_when_the_queue_is_full_happens_after_that(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    first, line = lengths(disk, tmp_path)
    emitter = Emitter(disk)
    options: dict[str, Any] = {"max_size": first + 4 * line, "queue": line, "flush_interval": 0}
    with record(path, telemetry=emitter.bus, **options) as recording:
        for _ in range(3):
            emitter.emit()
            emitter.drain(recording)
        assert emitter.fill_queue(recording) == 2
        emitter.emit(50)
        emitter.drain(recording)
        assert parts_of(path) == [1]
        emitter.emit()
    assert parts_of(path) == [1, 2]
    assert kinds(path) == {("missing", "they came faster than they were written")}
    assert [type(entry) for entry in read_entries(path)] == [Header, Missing, Recorded, End]


def test_of_several_rotations_that_were_due_one_happens(disk: Disk, tmp_path: Path) -> None:
    """A file of nothing but a header would push one out that has records."""
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, max_size=500, flush_interval=0, keep=5) as recording:
        emitter.emit(10)
        emitter.drain(recording)
        before = parts_of(path)
        emitter.hold_one()
        emitter.emit(40)
        lose_all(emitter, recording, 41)
        emitter.recover(recording)
    assert len(before) >= 4
    assert set(before[-2:]) <= set(parts_of(path))


def test_of_several_rotations_the_last_one_happens(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter, scene = Emitter(disk), Scene()
    scene.connect()
    start = next(each for each in scene.records if isinstance(each, ConnectStart))
    with record(path, telemetry=emitter.bus, max_size=500, flush_interval=0, keep=99) as recording:
        emitter.hold_one()
        emitter.emit(3)
        emitter.bus.point(start.name).emit(start)
        emitter.emitted += 1
        emitter.emit(3)
        disk.fill(1)
        disk.let()
        until(lambda: recording.dropped == 8)
    first, last = (read_header(file) for file in files_of([path]))
    assert (first.part, first.open) == (1, ())
    # It knows of the connection that began meanwhile.
    assert (last.part > 2, last.open) == (True, (start.connection_id,))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_half_a_header_is_no_file(suffix: str, disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / f"trace.jsonl{suffix}"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, max_size=500, flush_interval=0, keep=5) as recording:
        emitter.emit(10)
        emitter.drain(recording)
        before = parts_of(path)
        for _ in range(6):
            emitter.hold_one()
            emitter.emit(3)
            disk.fill(fits=30)
            disk.let()
            emitter.drain(recording)
        emitter.recover(recording)
    assert set(before[-2:]) <= set(parts_of(path))
    assert not any(finding.wrong for finding in check([path]))


@pytest.mark.parametrize("records", [0, 1, 2, 3])
def test_a_disk_that_stays_full_ends_the_recording_without_an_end(records: int, disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, max_size=500, flush_interval=0) as recording:
        emitter.emit(3)
        emitter.drain(recording)
        disk.fill()
        for _ in range(records):
            emitter.emit()
            emitter.drain(recording)
    assert not [each for each in threading.enumerate() if each.name.startswith("slipstream")]
    assert (recording.written, recording.dropped) == (3, records)
    assert isinstance(recording.error, OSError)
    older = sorted(tmp_path.glob("trace.jsonl.*"))
    assert not any(isinstance(entry, End) for file in older for entry in read_entries(file))
