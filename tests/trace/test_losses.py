"""A recording says how many records it lacks, where, and why: each loss once, wherever it was."""

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
    lose_a_batch,
    lose_a_long_batch,
    lose_all,
    lose_what_waits_too,
)

from slipstream_trio.trace import Missing, Recording, read_entries, record

__all__ = ["failing_disk"]


@pytest.mark.parametrize("lose", [lose_a_batch, lose_what_waits_too, lose_a_long_batch])
def test_what_follows_is_recorded_and_what_was_lost_is_told_where_it_is_missing(
    lose: Callable[[Emitter, Recording], None], disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, flush_interval=0) as recording:
        emitter.emit(2)
        emitter.drain(recording)
        lose(emitter, recording)
        emitter.recover(recording)
        lost = recording.dropped
        emitter.emit(20)
    (missing,) = accounts(path, recording)
    assert (missing.records, missing.reason) == (lost, "write_failed")
    assert recording.written == emitter.emitted - lost
    assert kinds(path) == UNWRITTEN


def test_each_loss_is_told_at_its_place(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, flush_interval=0) as recording:
        counts = []
        for _ in range(3):
            lost = recording.dropped
            lose_what_waits_too(emitter, recording)
            emitter.recover(recording)
            counts.append(recording.dropped - lost)
            emitter.emit(2)
            emitter.drain(recording)
    assert [missing.records for missing in accounts(path, recording)] == counts


# What is lost after the last record


def full_queue(emitter: Emitter, recording: Recording) -> tuple[int, str]:
    emitter.fill_queue(recording)
    emitter.emit(2)
    emitter.disk.let()
    return 3, "queue_full"


def full_disk(emitter: Emitter, recording: Recording) -> tuple[int, str]:
    lose_what_waits_too(emitter, recording)
    emitter.disk.free()
    emitter.disk.let()
    return 6, "write_failed"


def both(emitter: Emitter, recording: Recording) -> tuple[int, str]:
    taken = emitter.fill_queue(recording)
    lose_all(emitter, recording, taken)
    emitter.disk.free()
    emitter.disk.let()
    return taken + 1, "write_failed"


def not_encodable(emitter: Emitter, recording: Recording) -> tuple[int, str]:
    emitter.emit(params=Unencodable())
    return 1, "not_encodable"


class Unencodable(dict[str, Any]):
    """A payload that cannot be taken apart."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("an object of the user's")

    __hash__ = None


Last = Callable[[Emitter, Recording], tuple[int, str]]


@pytest.mark.parametrize("before", [0, 1, 20])
@pytest.mark.parametrize("lose", [full_queue, full_disk, both, not_encodable])
def test_what_is_lost_after_the_last_record_is_told_before_the_end(
    lose: Last, before: int, disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, queue=2000, flush_interval=0) as recording:
        if before:
            lose_a_batch(emitter, recording)  # which is told where it is, and not at the end again
            emitter.recover(recording)
        for _ in range(before):
            emitter.emit()
            emitter.drain(recording)
        count, reason = lose(emitter, recording)
    told = accounts(path, recording)
    *_, missing, _ = read_entries(path)
    assert missing == Missing(missing.line, count, reason)
    assert len(told) == 1 + bool(before)


def test_where_nothing_was_lost_nothing_is_told(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, flush_interval=0) as recording:
        emitter.emit(5)
    assert accounts(path, recording) == []


# What was wrong once


def test_a_disk_that_is_full_at_the_end_only_is_told_with_its_reason(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 3600)  # which the end does not wait for
    with record(path, telemetry=emitter.bus, flush_interval=3600, close_timeout=20) as recording:
        emitter.emit(2)
        disk.fill(1)
    (missing,) = accounts(path, recording)
    assert (missing.records, missing.reason) == (2, "write_failed")


def test_what_is_refused_while_the_disk_is_full_is_told_with_its_reason(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 3600)
    with record(path, telemetry=emitter.bus, flush_interval=0) as recording:
        lose_a_batch(emitter, recording)
        emitter.emit(5)
        assert recording.dropped == 6
        disk.free()
        disk.let()
    (missing,) = accounts(path, recording)
    assert (missing.records, missing.reason) == (6, "write_failed")


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_line_that_tells_of_losses_and_is_lost_itself_is_told_too(times: int, disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, queue=2000, flush_interval=0) as recording:
        emitter.emit()
        emitter.fill_queue(recording)
        emitter.drain(recording)
        for _ in range(times):
            lose_what_waits_too(emitter, recording)
            disk.let()
        emitter.recover(recording)
        emitter.emit(3)
    (missing,) = accounts(path, recording)
    assert missing.records == recording.dropped > 6 * times
