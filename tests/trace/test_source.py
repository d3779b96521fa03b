"""Which files make up a recording, and following one while it is written."""

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.trace.scenes import two_connections, write_recording
from tests.trace.support import encoded, written

from slipstream_trio.errors import RecordingError
from slipstream_trio.trace import Entry, Header, Recorded
from slipstream_trio.trace.read import follow, read_entries, read_files, sources

RECORDS = two_connections()
IDS = [record.metadata.get("span_id") for record in RECORDS]


def rotated(tmp_path: Path, name: str = "trace.jsonl") -> list[Path]:
    """Write a recording of several files; returns them, the oldest first."""
    path = tmp_path / name
    write_recording(path, RECORDS, max_size=9_000, keep=20)
    found = sorted(tmp_path.glob(f"{name}.*"), key=lambda each: -int(each.suffix[1:]))
    assert len(found) > 2
    return [*found, path]


def ids_of(paths: list[Path]) -> list[list[str | None]]:
    return [[record.span_id for record in source.records()] for source in sources(paths)]


def test_the_newest_file_brings_those_before_it(tmp_path: Path) -> None:
    files = rotated(tmp_path)
    assert ids_of([files[-1]]) == [IDS]
    assert sources([files[-1]])[0].paths == tuple(files)


def test_files_are_put_in_order_however_they_are_named(tmp_path: Path) -> None:
    files = rotated(tmp_path)
    assert ids_of(sorted(files)) == [IDS]
    assert ids_of([*files, *files]) == [IDS]
    part = ids_of([files[1]])
    assert len(part) == 1
    assert 0 < len(part[0]) < len(IDS)


def test_files_are_read_one_after_the_other_each_entry_with_its_file(tmp_path: Path) -> None:
    files = rotated(tmp_path)
    progress: list[str] = []
    found = list(read_files(files, progress=lambda at: progress.append(at.path)))
    assert found == [(path, entry) for path in files for entry in read_entries(path)]
    assert list(dict.fromkeys(progress)) == [str(path) for path in files]


def test_a_recording_that_was_there_before_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_recording(path, RECORDS[:10])
    write_recording(path, RECORDS)
    assert ids_of([path]) == [IDS]
    assert ids_of([tmp_path / "trace.jsonl.1", path]) == [IDS[:10], IDS]


def test_what_is_no_record_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_recording(path, RECORDS[:10])
    told: list[str] = []
    (source,) = sources([path])
    list(source.records(told=lambda its, entry: told.append(f"{its.name} {type(entry).__name__}")))
    assert told[0] == "trace.jsonl Header"
    assert told[-1] == "trace.jsonl End"


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    path.write_text("{}\n")
    with pytest.raises(RecordingError, match="not a recording"):
        sources([path])
    with pytest.raises(RecordingError, match="cannot be read"):
        sources([tmp_path / "missing.jsonl"])


def waits(*steps: Callable[[], object]) -> Callable[[], bool]:
    """Do a step each time that there is nothing more to read, and end after the last."""
    left = iter(steps)

    def wait() -> bool:
        step = next(left, None)
        if step is None:
            return False
        step()
        return True

    return wait


def span_ids(entries: Iterator[Entry]) -> list[str | None]:
    return [entry.span_id for entry in entries if isinstance(entry, Recorded)]


def append(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_a_file_that_is_not_there_yet_and_grows_is_followed(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole" / name
    whole.parent.mkdir()
    write_recording(whole, RECORDS, flush_interval=0.0)
    data = whole.read_bytes()
    path = tmp_path / name
    cuts = [0, 5, 300, 301, len(data) // 2, len(data) - 3, len(data)]
    steps = [append(path, data[start:end]) for start, end in pairwise(cuts)]
    entries = list(follow(path, wait=waits(lambda: None, *steps)))
    assert isinstance(entries[0], Header)
    assert span_ids(iter(entries)) == IDS


def rotate(path: Path, *contents: bytes) -> Callable[[], object]:
    def step() -> None:
        for content in contents:
            for number in range(9, 0, -1):
                older = path.with_name(f"{path.name}.{number}")
                newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
                if newer.exists():
                    newer.replace(older)
            path.write_bytes(content)

    return step


def test_rotation_is_followed_even_if_it_happens_several_times_at_once(tmp_path: Path) -> None:
    files = [file.read_bytes() for file in rotated(tmp_path, "whole.jsonl")]
    path = tmp_path / "trace.jsonl"

    first, *rest = files
    path.write_bytes(first[:400])
    assert len(rest) >= 2
    steps = [append(path, first[400:]), rotate(path, rest[0]), rotate(path, *rest[1:])]
    assert span_ids(follow(path, wait=waits(*steps))) == IDS


def test_no_file_is_passed_over_when_there_are_more_while_the_next_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *rest = [file.read_bytes() for file in rotated(tmp_path, "whole.jsonl")]
    assert len(rest) >= 2
    path, open_file = tmp_path / "trace.jsonl", Path.open
    path.write_bytes(first)

    def late(self: Path, mode: str = "r") -> Any:
        if mode == "rb":
            monkeypatch.setattr(Path, "open", open_file)
            rotate(path, *rest)()
        return open_file(self, mode)

    steps = [lambda: (rotate(path, second)(), monkeypatch.setattr(Path, "open", late)), lambda: None]
    assert span_ids(follow(path, wait=waits(*steps))) == IDS


def test_what_is_written_between_the_last_look_and_the_rotation_is_read(tmp_path: Path) -> None:
    first, second, *_ = [file.read_bytes() for file in rotated(tmp_path, "whole.jsonl")]
    path = tmp_path / "trace.jsonl"
    path.write_bytes(first[:400])

    def step() -> None:
        append(path, first[400:])()
        os.replace(path, tmp_path / "trace.jsonl.1")  # noqa: PTH105 - the same either way
        path.write_bytes(second)

    expected = span_ids(iter(follow(tmp_path / "whole.jsonl", wait=lambda: False)))
    assert expected
    found = span_ids(follow(path, wait=waits(step)))
    assert found == IDS[: len(found)]
    assert len(found) > first.count(b'"name"')


def test_following_ends_when_waiting_does(tmp_path: Path) -> None:
    assert list(follow(tmp_path / "never.jsonl", wait=lambda: False)) == []


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    path.write_text('{"no": "header"}\n')
    with pytest.raises(RecordingError, match="not a recording"):
        list(follow(path, wait=lambda: False))
    path.write_bytes(b"\x1f\x8b\x08 this is no gzip")
    with pytest.raises(RecordingError, match="unpacked"):
        list(follow(path, wait=lambda: False))
    with pytest.raises(RecordingError, match="cannot be read"):
        list(follow(tmp_path, wait=lambda: False))


@pytest.mark.once
def test_progress_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl", encoded(RECORDS * 20, end=False))
    told: list[Any] = []
    list(read_entries(path, progress=told.append))
    assert len(told) >= 2
    assert [each.done for each in told] == sorted({each.done for each in told})
    assert (told[-1].done, told[-1].size) == (path.stat().st_size,) * 2
    assert told[-1].lines == path.read_bytes().count(b"\n")
    assert told[-1].path == str(path)
