"""The files of a recording: which are begun, moved on, kept, closed and forced onto the disk."""

import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.support import ORIGIN

from slipstream_trio.errors import RecordingError
from slipstream_trio.telemetry import ClientPushStart, Telemetry
from slipstream_trio.trace import check, files_of, read, read_header, record


def fill(path: Path, *numbers: int, **options: Any) -> None:
    """Record so many pushes; of their numbers the system times."""
    bus = Telemetry()
    with record(path, telemetry=bus, flush_interval=0, **options):
        for number in numbers:
            push = ClientPushStart(ORIGIN, f"{number:016x}", number, number, "room", "event", "x" * 300)
            bus.point(push.name).emit(push)


def numbers(path: Path) -> list[int]:
    return [each.measurements["system_time"] for each in read(path)]


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_an_empty_file_is_not_moved_on(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.touch()
    fill(path, 1)
    assert names(tmp_path) == ["trace.jsonl"]
    assert numbers(path) == [1]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_no_file_is_kept_if_none_shall_be(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace.jsonl{suffix}"
    fill(path, *range(1, 30), keep=0)
    assert numbers(path) == list(range(1, 30))
    fill(path, 100, keep=0)
    assert numbers(path) == [100]
    fill(path, *range(101, 120), keep=0, max_size=1000)
    assert numbers(path)[-1] == 119
    assert len(numbers(path)) < 4
    assert names(tmp_path) == [path.name]
    assert not any(finding.wrong for finding in check([path]))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_files_are_kept_the_latest(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for number in range(1, 6):
        fill(path, number, keep=keep)
        kept = [path, *(path.with_name(f"trace.jsonl.{older}") for older in range(1, min(number, keep + 1)))]
        assert [numbers(file) for file in kept] == [[number - older] for older in range(len(kept))]
        assert names(tmp_path) == sorted(file.name for file in kept)


def test_files_beyond_those_that_are_kept_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for number in range(1, 5):
        fill(path, number, keep=3)
    fill(path, 5, keep=1)
    assert [numbers(each) for each in sorted(tmp_path.iterdir())] == [[5], [4], [2], [1]]


@pytest.mark.parametrize("fsync", ["never", "close", "always"])
def test_every_file_is_closed_once_and_forced_onto_the_disk_as_asked(
    fsync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    opened: list[int] = []
    closed: list[int] = []
    synced: list[int] = []
    open_file, close_file = os.open, os.close

    def opening(file: Any, *options: Any) -> int:
        descriptor = open_file(file, *options)
        opened.append(descriptor)
        return descriptor

    def closing(descriptor: int) -> None:
        closed.append(descriptor)
        close_file(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        patch.setattr(os, "close", closing)
        patch.setattr(os, "fsync", synced.append)
        fill(path, *range(1, 20), keep=99, max_size=1000, fsync=fsync)
    files = files_of([path])
    assert len(files) > 4
    assert sorted(closed) == sorted(opened)
    assert len(opened) == len(files)
    if fsync == "always":
        assert len(synced) > 2 * len(files)
    else:
        assert len(synced) == {"never": 0, "close": len(files)}[fsync]


def test_the_bytes_of_lines_decide_when_another_file_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    fill(path, *range(1, 101), max_size=5000, keep=99)
    files = files_of([path])
    header = len(files[0].read_bytes().splitlines(keepends=True)[0])
    sizes = [file.stat().st_size - header for file in files[:-1]]
    assert len(sizes) > 5
    assert all(5000 <= size < 5700 for size in sizes)
    assert [read_header(file).part for file in files] == list(range(1, len(files) + 1))
    assert [number for file in files for number in numbers(file)] == list(range(1, 101))


def test_a_file_that_cannot_be_closed_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.jsonl"

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    bus = Telemetry()
    with record(path, telemetry=bus) as recording:
        push = ClientPushStart(ORIGIN, "a" * 16, 1, 1, "room", "event", None)
        bus.point(push.name).emit(push)
    assert (recording.written, recording.dropped) == (1, 0)
    assert isinstance(recording.error, OSError)
    assert numbers(path) == [1]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory"])
def test_only_a_file_is_recorded_into(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "trace.jsonl", tmp_path / "precious"
    target.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)  # nobody reads it: a program that opens it waits for ever
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="a link, or something else than a file, is there"):
        fill(path, 1)
    assert target.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_nobody_else_can_read_a_recording_into_a_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.touch()
    path.chmod(0o666)
    fill(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_no_recording_is_not_read_into_memory(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"disk{suffix}"
    if suffix:
        path.write_bytes(gzip.compress(bytes(1 << 26)))
    else:
        path.touch()
        os.truncate(path, 1 << 26)
    tracemalloc.start()
    with pytest.raises(RecordingError, match="its first line is not a header"):
        read_header(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 23


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_told_from_an_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordingError, match="a pipe, which cannot be read twice"):
        files_of([tmp_path / "pipe"])
