"""Findings about recordings: each fault with its kind, place and words, once; and nothing where there is none."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.trace.support import REDACTOR, encoded, eventful, live_records, run, written

from slipstream_trio.telemetry import ConnectStop, HandleStart, HandleStop, Telemetry
from slipstream_trio.trace import Checker, Flaw, Progress, check, files_of, read_entries, record
from slipstream_trio.trace.encode import Encoder
from slipstream_trio.trace.schema import end_line, header_line, missing_line

Records = list[Any]


@pytest.fixture(scope="module")
def good() -> Records:
    return live_records()


def header(recording: str = "4" * 16, part: int = 1, alive: Any = ()) -> bytes:
    return header_line(recording, part, 0, ("secrets",), alive)


def alone(records: Records) -> list[bytes]:
    """Return the lines of a recording, of which none refers to another one."""
    encoder = Encoder(REDACTOR)
    lines = [header()]
    for each in records:
        encoder.restart()
        lines.append(encoder.encode(each))
    return [*lines, end_line(len(records), 0, [])]


def found(path: Path, lines: list[bytes], **options: Any) -> list[tuple[int, str, str | None, str]]:
    """Return what is found in a file: line, kind, connection and words."""
    findings = list(check([written(path, lines)], **options))
    assert all(finding.path == str(path) for finding in findings)
    return [(finding.line, finding.kind, finding.connection_id, finding.problem) for finding in findings]


def checked(*paths: Path) -> tuple[Checker, list[Flaw]]:
    checker = Checker()
    findings = [
        finding
        for path in files_of(paths)
        for entry in read_entries(path)
        for finding in checker.feed(str(path), entry)
    ]
    return checker, findings + checker.finish()


def ids(records: Records) -> list[str]:
    return list(dict.fromkeys(each.connection_id for each in records if each.connection_id is not None))


# What has not ended


def test_what_the_end_does_not_list_has_lost_its_end(good: Records, tmp_path: Path) -> None:
    first, _ = ids(good)
    at = next(index for index, each in enumerate(good) if isinstance(each, ConnectStop))
    lines = encoded([*good[:at], *good[at + 1 :]])
    sound = [*lines[:-1], end_line(len(good) - 1, 0, [first])]
    assert found(tmp_path / "open.jsonl", sound) == [(len(lines), "unfinished", first, "it had not ended here")]
    gone = [*lines[:-1], end_line(len(good) - 1, 0, [])]
    assert found(tmp_path / "gone.jsonl", gone) == [
        (len(lines), "violation", first, "the connection has no connect stop")
    ]


def test_what_was_cut_off_is_unfinished_once_a_connection(good: Records, tmp_path: Path) -> None:
    first, _ = ids(good)
    at = next(index for index, each in enumerate(good) if isinstance(each, HandleStart) and index > 20)
    lines = encoded(good[: at + 1], end=False)
    assert found(tmp_path / "cut.jsonl", lines) == [(at + 2, "unfinished", first, "it had not ended here")]
    half = [*lines[:-1], lines[-1][:20]]
    assert found(tmp_path / "half.jsonl", half) == [
        (at + 2, "unfinished", None, "the recording was cut off here"),
        (at + 2, "unfinished", first, "it had not ended here"),
    ]


# What is missing


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("queue_full", "they came faster than they were written"),
        ("write_failed", "they could not be written"),
        ("not_encodable", "they could not be encoded"),
        ("ring_full", "the flight recorder keeps the latest only"),
        ("began_before", "the connection was open when the recording began"),
        ("weather", "weather"),
    ],
)
def test_what_is_missing_is_told_with_its_number_and_reason(reason: str, words: str, tmp_path: Path) -> None:
    lines = [header(), missing_line(1234, reason), missing_line(None, reason, "c" * 16), end_line(0, 1234, [])]
    assert found(tmp_path / "t.jsonl", lines) == [
        (2, "missing", None, f"1,234 records are missing before this: {words}"),
        (3, "missing", "c" * 16, f"records are missing before this: {words}"),
    ]
    checker, findings = checked(tmp_path / "t.jsonl")
    assert (checker.missing, checker.records, checker.connections) == (1234, 0, 0)
    assert not any(finding.wrong for finding in findings)


@pytest.mark.parametrize("whose", [0, 1, None])
def stop_of(records: Records, connection_id: str) -> int:
    """Return where the third handle span of a connection ends."""
    stops = [
        i for i, each in enumerate(records) if isinstance(each, HandleStop) and each.connection_id == connection_id
    ]
    return stops[2]


@pytest.mark.parametrize("whose", [0, 1, None])
def test_what_is_missing_of_one_connection_is_held_against_the_other(
    whose: int | None, good: Records, tmp_path: Path
) -> None:
    its = ids(good)
    gone = stop_of(good, its[0])
    lines = alone(good)
    lines[-1] = end_line(len(good) - 1, 1, [])
    missing = missing_line(1, "queue_full", None if whose is None else its[whose])
    told = found(tmp_path / "t.jsonl", [*lines[: gone + 1], missing, *lines[gone + 2 :]])
    wrong = {connection_id for _, kind, connection_id, _ in told if kind == "violation"}
    assert wrong == (set() if whose in (0, None) else {its[0]})
    assert told[0][:3] == (gone + 2, "missing", None if whose is None else its[whose])


def test_a_damaged_line_is_one_fault(good: Records, tmp_path: Path) -> None:
    gone = stop_of(good, ids(good)[0])
    lines = alone(good)
    for damaged in (b"(nothing)\n", b"[]\n"):
        told = found(tmp_path / "t.jsonl", [*lines[: gone + 1], damaged, *lines[gone + 2 :]])
        assert [each[:3] for each in told] == [(gone + 2, "damaged", None)]


@pytest.mark.parametrize("whose", [0, 1])
def test_a_damaged_line_of_one_connection_is_held_against_the_other(whose: int, good: Records, tmp_path: Path) -> None:
    its = ids(good)
    gone = stop_of(good, its[0])
    lines = alone(good)
    damaged = json.dumps({"name": "slipstream connection handle stop", "connection_id": its[whose]}).encode() + b"\n"
    told = found(tmp_path / "t.jsonl", [*lines[: gone + 1], damaged, *lines[gone + 2 :]])
    assert told[0][:3] == (gone + 2, "damaged", its[whose])
    assert {each[1:3] for each in told[1:]} == (set() if whose == 0 else {("violation", its[0])})


def test_a_number_of_records_that_is_wrong_is_told_where_it_stands(good: Records, tmp_path: Path) -> None:
    lines = encoded(good)
    lines[-1] = end_line(len(good) + 1000, 0, [])
    problem = f"{len(good) + 1000:,} records were written, and {len(good)} were read: lines are gone, or came in"
    assert found(tmp_path / "t.jsonl", lines) == [(len(lines), "damaged", None, problem)]
    # Of a part of a recording, and where a line is damaged, nobody can tell.
    assert [kind for _, kind, *_ in found(tmp_path / "t.jsonl", [header(part=2), *lines[1:]])] == ["missing"]
    assert [kind for _, kind, *_ in found(tmp_path / "t.jsonl", [*lines[:-1], b"?\n", lines[-1]])] == ["damaged"]


# Several files


def test_each_part_follows_the_one_before(good: Records, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(1, 4)]
    lines = encoded(good)
    cuts = [1, len(lines) // 3, 2 * len(lines) // 3, len(lines)]
    for number, path in enumerate(paths):
        written(path, [header(part=number + 1), *lines[cuts[number] : cuts[number + 1]]])
    checker, findings = checked(*paths)
    # The parts cannot be read alone, as they refer to each other here; that they follow each other can be told.
    assert not [finding for finding in findings if "part" in finding.problem]
    assert checker.records <= len(good)
    for lacking in range(3):
        _, findings = checked(*(path for path in paths if path != paths[lacking]))
        told = [(finding.path, finding.line, finding.problem) for finding in findings if "part" in finding.problem]
        expected = {
            0: [(str(paths[1]), 1, "this is part 2: what was recorded before is not here")],
            1: [(str(paths[2]), 1, "this is part 3: it follows part 1")],
            2: [],
        }[lacking]
        assert told == expected


def test_recordings_one_after_the_other_are_counted_together_and_judged_alone(tmp_path: Path) -> None:
    telemetry = Telemetry()
    paths = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for path in paths:
        with record(path, telemetry=telemetry):
            run(eventful, telemetry)
    checker, findings = checked(*paths)
    assert findings == []
    assert (checker.connections, checker.records) == (4, sum(len(path.read_bytes().splitlines()) - 2 for path in paths))
    # The same connections twice, in two recordings, are no connections that share an id.
    lines = paths[0].read_bytes().splitlines(keepends=True)
    written(paths[1], [header("5" * 16), *lines[1:]])
    assert checked(*paths)[1] == []


def test_what_the_first_recording_lacks_is_told_though_another_one_follows(good: Records, tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    written(first, [header("4" * 16), *encoded(good[:30], end=False)[1:]])
    written(second, [header("5" * 16), *encoded(good)[1:]])
    checker, findings = checked(first, second)
    assert [(finding.path, finding.line, finding.kind) for finding in findings] == [(str(first), 31, "unfinished")]
    assert checker.finish() == []
    assert checker.connections == 3


def test_a_shared_trace_is_told(good: Records, tmp_path: Path) -> None:
    its = ids(good)
    trace = next(each.origin.trace_id for each in good if each.connection_id == its[0])
    records = []
    for each in good:
        if each.connection_id != its[1]:
            records.append(each)
        elif isinstance(each, ConnectStop | HandleStop) or not hasattr(each, "start"):
            origin = attrs.evolve(each.origin, trace_id=trace)
            started = {"start": attrs.evolve(each.start, origin=origin)} if hasattr(each, "start") else {}
            records.append(attrs.evolve(each, **(started or {"origin": origin})))
    lines = encoded(records)
    (fault,) = found(tmp_path / "t.jsonl", lines)
    assert fault[1:3] == ("violation", its[1])
    assert fault[3] == f"its trace_id is that of connection {its[0]}"


def test_progress_is_told(good: Records, tmp_path: Path) -> None:
    told: list[Progress] = []
    found(tmp_path / "t.jsonl", encoded(good), progress=told.append)
    assert [each.lines for each in told] == [len(good) + 2]


@pytest.mark.parametrize(
    ("kind", "wrong"), [("violation", True), ("damaged", True), ("missing", False), ("unfinished", False)]
)
def test_faults_are_what_nobody_knew(kind: Any, wrong: bool) -> None:
    assert Flaw("t", 1, kind, None, None, "x").wrong is wrong


def test_a_finding_is_a_line_that_an_editor_can_follow() -> None:
    assert str(Flaw("t", 7, "violation", "c", 5, "it is late")) == "t:7: invariant 5: connection c: it is late"
    assert str(Flaw("t", 7, "missing", None, None, "gone")) == "t:7: missing: gone"
