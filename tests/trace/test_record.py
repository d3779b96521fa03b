"""Recording: off the hot path, bounded, rotated, and whatever happens to the disk is no connection's business."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.support import scripted
from tests.telemetry.support import ORIGIN
from tests.trace.support import eventful, live_records, run

from slipstream_trio import RecordingError
from slipstream_trio.telemetry import ClientPushStart, Telemetry, default_telemetry
from slipstream_trio.trace import (
    End,
    Header,
    Missing,
    Recorded,
    Recording,
    check,
    files_of,
    read,
    read_entries,
    read_header,
    record,
    verify,
)
from slipstream_trio.trace.files import Files, parts


def push(number: int, params: Any = None) -> ClientPushStart:
    return ClientPushStart(ORIGIN, f"{number:016x}", number, number, "room", "event", params)


def numbers(path: Path) -> list[int]:
    """Return the system times of a file's records."""
    return [each.measurements["system_time"] for each in read(path)]


@pytest.fixture(name="point")
def _point() -> Any:
    """A bus, and where push starts are emitted on it."""
    return Telemetry().point(ClientPushStart.name)


def bus_of(point: Any) -> Telemetry:
    bus: Telemetry = point._bus
    return bus


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_connections_are_recorded(name: str, tmp_path: Path) -> None:
    telemetry = Telemetry()
    seen: list[Any] = []
    path = tmp_path / name
    with telemetry.listen(seen.append), record(path, telemetry=telemetry) as recording:
        run(eventful, telemetry)
    assert (recording.written, recording.dropped, recording.error) == (len(seen), 0, None)
    recorded = list(read(path))
    assert [each.metadata for each in recorded] == [each.metadata for each in seen]
    assert list(check([path])) == []
    header, *_, end = read_entries(path)
    assert isinstance(header, Header)
    assert (header.part, header.redacted, header.open) == (1, ("secrets",), ())
    assert end == End(len(seen) + 2, len(seen), 0, ())
    assert (path.read_bytes()[:2] == b"\x1f\x8b") is name.endswith("gz")
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in threading.enumerate() if each.name.startswith("slipstream")] == []
    assert telemetry.list_handlers() == []


def test_the_processs_own_bus_is_the_default(tmp_path: Path) -> None:
    with record(tmp_path / "trace.jsonl"):
        run(lambda telemetry: eventful(telemetry, connections=1), default_telemetry)
    assert verify(list(read(tmp_path / "trace.jsonl"))) == []


def test_what_is_changed_after_it_happened_is_recorded_as_it_was(point: Any, tmp_path: Path) -> None:
    params = {"a": [1]}
    with record(tmp_path / "trace.jsonl", telemetry=bus_of(point)):
        point.emit(push(1, params))
        params["a"].append(2)
    (recorded,) = read(tmp_path / "trace.jsonl")
    assert recorded.metadata["params"] == {"a": [1]}


def test_a_connection_open_before_and_after_is_told_apart_from_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"

    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry) as (socket, _), socket.join("room") as channel:
            with record(path, telemetry=telemetry):
                await channel.push("echo")

    run(scenario, Telemetry())
    findings = list(check([path]))
    assert [finding.kind for finding in findings] == ["missing", "unfinished"]
    assert not any(finding.wrong for finding in findings)
    assert findings[0].connection_id == findings[1].connection_id
    assert "was open when the recording began" in findings[0].problem


# Rotation


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_rotated_by_size_and_each_can_be_read_alone(suffix: str, tmp_path: Path) -> None:
    telemetry = Telemetry()
    path = tmp_path / f"trace.jsonl{suffix}"
    with record(path, telemetry=telemetry, max_size=10_000, keep=99) as recording:
        run(eventful, telemetry)
    files = files_of([path])
    assert files == parts(path)
    assert len(files) > 5
    assert [read_header(file).part for file in files] == list(range(1, len(files) + 1))
    assert len({read_header(file).recording for file in files}) == 1
    assert sum(len(list(read(file))) for file in files) == recording.written
    assert list(check([path])) == list(check(reversed(files))) == []
    for file in files:
        assert not any(finding.wrong for finding in check([file]))
        if not suffix:
            assert file.stat().st_size < 14_000


def test_the_oldest_files_are_deleted(tmp_path: Path) -> None:
    telemetry = Telemetry()
    path = tmp_path / "trace.jsonl"
    with record(path, telemetry=telemetry, max_size=10_000, keep=2):
        run(eventful, telemetry)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trace.jsonl", "trace.jsonl.1", "trace.jsonl.2"]
    assert read_header(path).part > 5
    assert not any(finding.wrong for finding in check([path]))


def test_a_part_that_is_missing_is_told(tmp_path: Path) -> None:
    telemetry = Telemetry()
    path = tmp_path / "trace.jsonl"
    with record(path, telemetry=telemetry, max_size=10_000, keep=99):
        run(eventful, telemetry)
    files = files_of([path])
    files.pop(1).unlink()
    findings = list(check(files))
    assert not any(finding.wrong for finding in findings)
    assert findings[0].problem == "this is part 3: it follows part 1"


def test_parts_that_rotation_has_deleted_are_told(tmp_path: Path) -> None:
    telemetry = Telemetry()
    path = tmp_path / "trace.jsonl"
    with record(path, telemetry=telemetry, max_size=10_000, keep=1):
        run(eventful, telemetry)
    oldest = tmp_path / "trace.jsonl.1"
    (first, *rest) = check([path])
    problem = f"this is part {read_header(oldest).part}: what was recorded before is not here"
    assert (first.path, first.line, first.kind, first.problem) == (str(oldest), 1, "missing", problem)
    assert not any(finding.wrong for finding in rest)


def test_a_recording_that_is_there_is_kept(point: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for number in (1, 2):
        with record(path, telemetry=bus_of(point)):
            point.emit(push(number))
    assert numbers(path) == [2]
    assert numbers(tmp_path / "trace.jsonl.1") == [1]
    # It is another recording, and not taken for a part of this one.
    assert files_of([path]) == [path]
    assert files_of([path, tmp_path / "trace.jsonl.1"]) == [tmp_path / "trace.jsonl.1", path]
    assert list(check([path, tmp_path / "trace.jsonl.1"])) == []


# A queue that is full


@pytest.fixture(name="stalled")
def _stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes nothing but headers until the event is set."""
    go_on = threading.Event()
    write = Files.write

    def wait(self: Files, lines: bytes | bytearray) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert go_on.wait(30)
        write(self, lines)

    monkeypatch.setattr(Files, "write", wait)
    yield go_on
    go_on.set()


def test_what_does_not_fit_into_the_queue_is_dropped_counted_and_marked(
    point: Any, tmp_path: Path, stalled: threading.Event
) -> None:
    path = tmp_path / "trace.jsonl"
    with record(path, telemetry=bus_of(point), queue=2000) as recording:
        for number in range(100):
            point.emit(push(number))
        dropped = recording.dropped
        assert 80 < dropped < 100
        stalled.set()
        while recording.written < 100 - dropped:
            threading.Event().wait(0.001)
        point.emit(push(100))
        point.emit(push(101))
    assert (recording.written, recording.dropped) == (102 - dropped, dropped)
    entries = list(read_entries(path))
    (missing,) = [entry for entry in entries if isinstance(entry, Missing)]
    assert (missing.records, missing.reason) == (dropped, "queue_full")
    after = entries[entries.index(missing) + 1]
    assert isinstance(after, Recorded)
    assert after.measurements["system_time"] == 100
    assert entries[-1] == End(entries[-1].line, 102 - dropped, dropped, ())


def test_what_was_dropped_is_not_held_against_the_library(tmp_path: Path, stalled: threading.Event) -> None:
    telemetry = Telemetry()
    path = tmp_path / "trace.jsonl"
    count = 0

    def let_go(_: Any) -> None:
        nonlocal count
        count += 1
        if count == 60:
            stalled.set()
            while recording._writer.waiting:
                threading.Event().wait(0.001)

    with record(path, telemetry=telemetry, queue=8000) as recording:
        telemetry.attach("let go", (), let_go, prefix=True)
        run(eventful, telemetry)
    assert recording.dropped > 10
    findings = list(check([path]))
    assert not any(finding.wrong for finding in findings)
    assert "faster than they were written" in findings[0].problem


# A disk that fails


def test_a_path_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"nowhere/trace\.jsonl: cannot be written: No such file or directory"):
        with record(tmp_path / "nowhere" / "trace.jsonl"):
            raise AssertionError("not reached")
    assert default_telemetry.list_handlers() == []


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_a_full_disk_costs_records_and_no_connection(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    path = tmp_path / name
    write, writes = os.write, 0

    def full(file: int, data: Any) -> int:
        nonlocal writes
        if threading.current_thread() is threading.main_thread():
            return write(file, data)
        writes += 1
        if writes == 1:
            return write(file, data[: len(data) // 2])  # half a batch fits
        if writes == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 0.0)
    with record(path, telemetry=telemetry, flush_interval=0) as recording:
        run(eventful, telemetry)
        while not recording.dropped:
            threading.Event().wait(0.001)
        before = recording.written
        run(eventful, telemetry)
    assert isinstance(recording.error, OSError)
    assert recording.error.errno == errno.ENOSPC
    assert recording.dropped > 0
    assert recording.written > before
    findings = list(check([path]))
    assert not any(finding.wrong for finding in findings)
    assert any("could not be written" in finding.problem for finding in findings)
    *_, end = read_entries(path)
    assert isinstance(end, End)
    assert (end.records, end.dropped) == (recording.written, recording.dropped)


def test_a_rotation_that_fails_costs_records_and_no_connection(
    point: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"

    def refuse(*_: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("slipstream_trio.trace.recorder.RETRY", 0.0)
    with record(path, telemetry=bus_of(point), max_size=1000, flush_interval=0) as recording:
        point.emit(push(1))
        monkeypatch.setattr(Path, "replace", refuse)
        for number in range(2, 12):
            point.emit(push(number))
        while not recording.dropped:
            threading.Event().wait(0.001)
        monkeypatch.undo()
        while recording._writer.broken:
            threading.Event().wait(0.001)
        point.emit(push(12))
    assert recording.written + recording.dropped == 12
    assert numbers(path)[-1] == 12
    assert sum(len(numbers(file)) for file in files_of([path])) == recording.written


def test_what_cannot_be_encoded_is_counted_and_marked(
    point: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    seen: list[Any] = []
    bus = bus_of(point)
    with record(path, telemetry=bus) as recording, bus.listen(seen.append):
        point.emit(push(1))
        with monkeypatch.context() as patch:
            patch.setattr("slipstream_trio.trace.encode.plain_text", lambda *_: 1 / 0)
            point.emit(push(2))
        point.emit(push(3))
    assert recording.dropped == 1
    assert isinstance(recording.error, ZeroDivisionError)
    assert [type(entry) for entry in read_entries(path)] == [Header, Recorded, Missing, Recorded, End]
    assert len(seen) == 3


def test_leaving_the_block_does_not_wait_for_a_disk_for_ever(
    point: Any, tmp_path: Path, stalled: threading.Event
) -> None:
    with record(tmp_path / "trace.jsonl", telemetry=bus_of(point), close_timeout=0.01) as recording:
        point.emit(push(1))
    assert recording.written == 0
    stalled.set()
    recording.close(30)
    assert recording.written == 1


@pytest.mark.parametrize("fsync", ["never", "close", "always"])
def test_lines_are_forced_onto_the_disk_as_asked(
    fsync: Any, point: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with record(tmp_path / "trace.jsonl", telemetry=bus_of(point), fsync=fsync):
        point.emit(push(1))
    assert len(synced) == {"never": 0, "close": 1}.get(fsync, len(synced))
    assert fsync != "always" or len(synced) >= 3


def test_a_recording_is_a_handler_of_its_own(tmp_path: Path) -> None:
    with record(tmp_path / "trace.jsonl", telemetry=Telemetry()) as recording:
        assert isinstance(recording, Recording)
        for each in live_records():
            recording.handle(each)
    assert list(check([tmp_path / "trace.jsonl"])) == []
