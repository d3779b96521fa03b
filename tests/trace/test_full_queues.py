"""What waits to be written: how much may, when it is written, and what a recording knows of what it did not take."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.trace.disks import Disk, Emitter, accounts, failing_disk, lengths, lose_a_batch
from tests.trace.scenes import Scene

from slipstream_trio.protocol.state import View
from slipstream_trio.protocol.topics import NOTHING
from slipstream_trio.telemetry import ConnectStart, ConnectStop, HandleStart, HandleStop, Record, SpanException
from slipstream_trio.trace import End, Recording, check, files_of, read_entries, read_header, record

__all__ = ["failing_disk"]


# How much may wait


@pytest.fixture(name="line")
def _line(disk: Disk, tmp_path: Path) -> int:
    """How long an emitter's lines are."""
    return lengths(disk, tmp_path)[1]


def test_the_queue_takes_what_it_may_and_one_line_more(line: int, disk: Disk, tmp_path: Path) -> None:
    emitter = Emitter(disk)
    options: dict[str, Any] = {"queue": round(10.5 * line), "flush_interval": 0}
    with record(tmp_path / "trace.jsonl", telemetry=emitter.bus, **options) as recording:
        emitter.emit()
        emitter.drain(recording)
        for _ in range(3):
            assert emitter.fill_queue(recording) == 11
            emitter.drain(recording)
            emitter.emit()  # behind the line that tells of the one that was dropped
            emitter.drain(recording)
        disk.let()


@pytest.mark.parametrize("written", [1, 2, 5, 6, 8, 10])
def test_once_it_is_full_it_takes_nothing_until_half_is_written(
    written: int, line: int, disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    options: dict[str, Any] = {"queue": round(10.5 * line), "flush_interval": 0}
    with record(path, telemetry=emitter.bus, **options) as recording:
        emitter.emit()
        emitter.drain(recording)
        emitter.hold_one()
        emitter.emit(written)
        emitter.write_one_batch(recording)
        while not recording.dropped:
            emitter.emit()
        emitter.write_one_batch(recording)  # so many of the eleven lines that wait
        assert recording.written == 2 + written
        emitter.emit(3)
        assert (recording.dropped == 1) is (written >= 6)
        emitter.drain(recording)
        dropped = recording.dropped
        emitter.emit(3)
    # One gap, not one for each line that had room for a moment.
    (missing,) = accounts(path, recording)
    assert (missing.records, missing.reason) == (dropped, "queue_full")
    assert dropped == (1 if written >= 6 else 4)


# When it is written


def let_it_run() -> None:
    """Let the thread do what it would do at once."""
    threading.Event().wait(0.001)


def test_what_comes_soon_is_written_together(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    with record(path, telemetry=emitter.bus, flush_interval=3600) as recording:
        for _ in range(10):
            emitter.emit()
            let_it_run()
        assert (recording.written, disk.writes) == (0, 0)
    assert (recording.written, disk.writes) == (10, 2)  # the records, and the end
    accounts(path, recording)


@pytest.mark.parametrize("before", [0, 1, 10])
def test_much_is_written_without_waiting_for_more(before: int, disk: Disk, tmp_path: Path) -> None:
    emitter = Emitter(disk)
    with record(tmp_path / "trace.jsonl", telemetry=emitter.bus, flush_interval=3600) as recording:
        for _ in range(5):
            emitter.emit(before)
            let_it_run()
            emitter.emit(params="x" * 2**18)
            emitter.drain(recording)


def test_a_line_does_not_wait_for_more_for_long(disk: Disk, tmp_path: Path) -> None:
    emitter = Emitter(disk)
    with record(tmp_path / "trace.jsonl", telemetry=emitter.bus, flush_interval=0.01) as recording:
        for _ in range(3):
            emitter.emit()
            emitter.drain(recording)


def test_leaving_the_block_waits_for_no_other_try(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.jsonl"
    emitter = Emitter(disk)
    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 3600)
    with record(path, telemetry=emitter.bus, flush_interval=0, close_timeout=20) as recording:
        lose_a_batch(emitter, recording)
        disk.free()
        disk.let()
    accounts(path, recording)


# What a recording knows of what it did not take


class Unencodable(View):
    """Joins that cannot be taken apart."""

    def __init__(self) -> None:
        super().__init__(NOTHING, str, str)

    def __iter__(self) -> Any:
        raise ValueError("joins that cannot be taken apart")


def not_encodable(each: Any) -> Any:
    """Return a record that cannot be encoded."""
    if isinstance(each, HandleStop):
        return attrs.evolve(each, transition=not_encodable(each.transition))
    return attrs.evolve(each, state=attrs.evolve(each.state, trace_parent=Unencodable()))


class Connections:
    """Records of three connections: one that is open, one that begins, and one that was open before."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.ids: list[str] = []
        self.records: list[list[Any]] = []
        for _ in range(3):
            self.scene.records = []
            self.scene.connect()
            self.ids.append(str(self.scene.origin.connection_id))
            self.scene.join("room")
            self.scene.end("lost")
            self.records.append([each for each in self.scene.records if each.name[1] == "connection"])

    def of(self, number: int, kind: type) -> Any:
        return next(each for each in self.records[number] if isinstance(each, kind))


def by_a_full_queue(emitter: Emitter, recording: Recording, records: list[Any]) -> None:
    emitter.fill_queue(recording)
    emit(emitter, records)
    assert recording.dropped == 1 + counted(records)
    emitter.drain(recording)


def by_a_full_disk(emitter: Emitter, recording: Recording, records: list[Any]) -> None:
    emitter.disk.fill()
    one_by_one(emitter, recording, records)
    assert recording.dropped == counted(records)
    emitter.disk.free()


def by_what_they_hold(emitter: Emitter, recording: Recording, records: list[Any]) -> None:
    emit(emitter, map(not_encodable, records))
    assert recording.dropped == counted(records)


def emit(emitter: Emitter, records: Any) -> None:
    each: Record
    for each in records:
        emitter.emitted += counted([each])
        emitter.bus.point(each.name).emit(each)


def counted(records: list[Any]) -> int:
    """Return how many are recorded: of a handle, the start comes with its end."""
    return sum(2 if isinstance(each, HandleStop) else not isinstance(each, HandleStart) for each in records)


def one_by_one(emitter: Emitter, recording: Recording, records: list[Any]) -> None:
    for each in records:
        emit(emitter, [each])
        emitter.drain(recording)


Loss = Callable[[Emitter, Recording, list[Any]], None]


@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize("lose", [by_a_full_queue, by_a_full_disk, by_what_they_hold])
def test_headers_and_the_end_list_connections_that_began_or_ended_unrecorded(
    lose: Loss, raised: bool, disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    emitter, connections = Emitter(disk), Connections()
    options: dict[str, Any] = {"queue": 2000, "max_size": 10_000, "flush_interval": 0, "keep": 99}
    end = connections.of(0, ConnectStop)
    if raised:
        end = SpanException(end.start, end.origin, end.monotonic_time, "KeyError", "", "")
    lost = [end, connections.of(1, ConnectStart), connections.of(2, HandleStop)]
    if raised and lose is by_what_they_hold:
        lost[0] = connections.of(0, ConnectStop)
    with record(path, telemetry=emitter.bus, **options) as recording:
        one_by_one(emitter, recording, connections.records[0][:-1])
        lose(emitter, recording, lost)
        emitter.recover(recording)
        for _ in range(100):
            emitter.emit()
            emitter.drain(recording)
        one_by_one(emitter, recording, [*connections.records[1][1:3], *connections.records[2][3:5]])
    headers = [read_header(file).open for file in files_of([path])]
    assert headers[0] == ()
    assert {frozenset(each) for each in headers[1:]} == {frozenset(connections.ids[1:])}
    *_, last = read_entries(path)
    assert isinstance(last, End)
    assert set(last.open) == set(connections.ids[1:])
    findings = list(check([path]))
    assert not any(finding.wrong for finding in findings)
    unfinished = {finding.connection_id for finding in findings if finding.kind == "unfinished"}
    assert unfinished == set(connections.ids[1:])
