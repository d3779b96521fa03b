"""Recordings as Parquet: a row for each span and event, a folder for each day."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import Recorder
from tests.integrations.support import lose_once, visit
from tests.trace.scenes import Scene, two_connections, write_recording
from trio.testing import MockClock

from slipstream_trio import ExportError
from slipstream_trio.trace import End, Entry, read, record
from slipstream_trio.trace.export_parquet import COLUMNS, export_parquet

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")

Row = dict[str, Any]
DAY = 86_400_000_000_000


async def _both(recorder: Recorder) -> None:
    await visit(recorder)
    await lose_once(recorder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "trace.jsonl"
    recorder = Recorder()
    with record(path, telemetry=recorder.bus):
        trio.run(_both, recorder, clock=MockClock(autojump_threshold=0))
    return path


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def rows_in(directory: Path) -> list[Row]:
    return [row for path in sorted(directory.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def exported(path: Path, directory: Path, **options: Any) -> list[Row]:
    count = export_parquet([path], directory, **options)
    rows = rows_in(directory)
    assert len(rows) == count
    return rows


def test_every_span_and_event_is_a_row_with_its_ids_times_and_place(recording: Path, tmp_path: Path) -> None:
    rows = {row["line"]: row for row in exported(recording, tmp_path / "lake")}
    expected = {each.line: each for each in read(recording) if each.name[-1] != "start"}
    assert set(rows) == set(expected)
    for line, row in rows.items():
        each = expected[line]
        assert (row["connection_id"], row["trace_id"]) == (each.connection_id, each.trace_id)
        assert (row["socket_id"], row["generation"], row["span_id"]) == (each.socket_id, each.generation, each.span_id)
        assert row["start_time"] == datetime.fromtimestamp(each.system_time // 1000 / 1e6, UTC)
        assert row["duration_ns"] == each.measurements.get("duration")
        assert row["monotonic_ns"] == each.monotonic_time
        assert row["file"] == str(recording)
        assert row["kind"] == {"stop": "span", "exception": "exception"}.get(each.name[-1], "event")
        assert row["name"] == " ".join(each.name[1:] if row["kind"] == "event" else each.name[1:-1])


def test_columns_have_their_types(recording: Path, tmp_path: Path) -> None:
    export_parquet([recording], tmp_path / "lake")
    (part,) = (tmp_path / "lake").rglob("*.parquet")
    shown = {"timestamp": "timestamp[us, tz=UTC]"}
    schema = pq.ParquetFile(part).schema_arrow
    assert {each.name: str(each.type) for each in schema} == {
        name: shown.get(kind, kind) for name, kind in COLUMNS.items()
    }


def test_the_end_of_a_connection_says_who_ended_it(recording: Path, tmp_path: Path) -> None:
    rows = exported(recording, tmp_path / "lake")
    ends = [row for row in rows if row["name"] == "connection connect"]
    assert {(row["reason"], row["ended_by"], row["code"]) for row in ends} >= {("closed_by_client", "client", 1000)}
    assert all(row["received"] is not None for row in ends)
    (lost,) = [row for row in rows if row["name"] == "client reconnect_scheduled"]
    assert lost["kind"] == "event"
    assert lost["attempt"] == 1
    assert lost["delay"] > 0
    assert lost["duration_ns"] is None


def test_pushes_have_their_payload_and_answer_as_json(tmp_path: Path) -> None:
    write_recording(tmp_path / "trace.jsonl", two_connections())
    rows = exported(tmp_path / "trace.jsonl", tmp_path / "lake")
    pushes = [row for row in rows if (row["name"], row["event"]) == ("client push", "new_msg")]
    assert [json.loads(row["payload"])["number"] for row in pushes] == list(range(20))
    assert {(row["outcome"], row["status"], row["topic"]) for row in pushes} == {("ok", "ok", "room:lobby")}
    handled = [row for row in rows if (row["what"], row["event"]) == ("push", "new_msg")]
    assert {(row["direction"], row["name"]) for row in handled} == {("out", "connection handle")}
    assert [row["ref"] for row in handled] == [row["ref"] for row in pushes]
    assert all(row["bytes"] > len(row["payload"]) for row in handled)
    others = {row["event"]: row for row in rows if row["name"] == "client push"}
    assert json.loads(others["upload"]["payload"])["bytes"] == 256
    assert json.loads(others["odd"]["payload"]) == {"half": "\udc9d"}
    assert others["odd"]["outcome"] == "cancelled"
    assert others["silence"]["duration_ns"] >= 200_000_000


def test_what_a_join_was_given_is_left_out(recording: Path, tmp_path: Path) -> None:
    joins = [row for row in exported(recording, tmp_path / "lake") if "join" in (row["what"], row["name"][-4:])]
    assert {row["name"] for row in joins} == {"client join", "connection handle"}
    assert {row["payload"] for row in joins} == {None}


def test_rows_are_in_the_day_on_which_they_began(tmp_path: Path) -> None:
    scene = Scene()
    scene.connect()
    scene.join("room:lobby")
    for number in range(3):
        scene.push("room:lobby", "new_msg", {"number": number}, took=DAY)
    scene.end("lost")
    write_recording(tmp_path / "trace.jsonl", scene.records)
    export_parquet([tmp_path / "trace.jsonl"], tmp_path / "lake")
    days = sorted(path.name for path in (tmp_path / "lake").iterdir())
    assert days == [f"day=2023-11-{day}" for day in (14, 15, 16, 17)]
    for day in days:
        assert {str(row["start_time"].date()) for row in rows_in(tmp_path / "lake" / day)} == {day[4:]}


def test_each_recording_has_files_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in ("one", "two", "three")]
    for path in paths:
        write_recording(path, two_connections())
    count = export_parquet(paths, tmp_path / "lake")
    rows = rows_in(tmp_path / "lake")
    assert len(files_in(tmp_path / "lake")) == 3
    assert len(rows) == count
    assert {row["file"] for row in rows} == set(map(str, paths))


def test_spans_without_an_end_are_rows_without_a_duration(tmp_path: Path) -> None:
    records = two_connections()
    write_recording(tmp_path / "trace.jsonl", records[:3])
    rows = exported(tmp_path / "trace.jsonl", tmp_path / "lake")
    (connect, connection) = [row for row in rows if row["what"] is None]
    assert {connect["name"], connection["name"]} == {"client connect", "connection connect"}
    assert {connect["kind"], connection["kind"]} == {"unfinished"}
    assert {connect["duration_ns"], connection["duration_ns"]} == {None}


def test_many_rows_are_written_as_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recording(tmp_path / "trace.jsonl", two_connections())
    whole = exported(tmp_path / "trace.jsonl", tmp_path / "whole")
    for name in ("ROWS", "HELD"):
        monkeypatch.setattr(f"slipstream_trio.trace.export_parquet.{name}", 5_000)
    assert exported(tmp_path / "trace.jsonl", tmp_path / "lake") == whole
    (part,) = (tmp_path / "lake").rglob("*.parquet")
    assert pq.ParquetFile(part).metadata.num_row_groups > 5
    assert os.name == "nt" or stat.S_IMODE(part.stat().st_mode) == 0o600


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for path in (first, second):
        write_recording(path, two_connections())
    export_parquet([second], tmp_path / "lake")
    before = files_in(tmp_path / "lake")
    with pytest.raises(ExportError, match="is there already"):
        export_parquet([first, second], tmp_path / "lake")
    assert files_in(tmp_path / "lake") == before

    def fail(_: Path, entry: Entry) -> None:
        if isinstance(entry, End):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export_parquet([first], tmp_path / "other", told=fail)
    assert files_in(tmp_path / "other") == []


def test_records_with_a_field_of_another_type_are_told_and_left_out(tmp_path: Path) -> None:
    write_recording(tmp_path / "good.jsonl", two_connections())
    text = (tmp_path / "good.jsonl").read_text()
    assert '"outcome":"cancelled"' in text
    (tmp_path / "bad.jsonl").write_text(text.replace('"outcome":"cancelled"', '"outcome":7'))
    damage: list[str] = []
    rows = exported(tmp_path / "bad.jsonl", tmp_path / "lake", told=lambda _, entry: damage.append(str(entry)))
    good = exported(tmp_path / "good.jsonl", tmp_path / "other")
    assert [row["kind"] for row in rows if row["event"] == "odd"] == ["unfinished"]
    assert len(rows) == len(good)
    assert any("outcome cannot be 7" in each for each in damage)


def test_a_lone_surrogate_is_a_question_mark(tmp_path: Path) -> None:
    write_recording(tmp_path / "trace.jsonl", two_connections())
    text = (tmp_path / "trace.jsonl").read_text()
    text = text.replace('"topic":"room:other","event":"news"', '"topic":"room:\\udc9d","event":"news"')
    (tmp_path / "trace.jsonl").write_text(text)
    rows = exported(tmp_path / "trace.jsonl", tmp_path / "lake")
    assert [row["topic"] for row in rows if row["name"] == "client message_dropped"] == ["room:?"]


def test_a_handler_that_raised_is_a_row(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.bus.attach("broken", ("slipstream", "client", "push", "stop"), lambda _: 1 / 0)
    with record(tmp_path / "trace.jsonl", telemetry=recorder.bus):
        trio.run(visit, recorder, clock=MockClock(autojump_threshold=0))
    rows = exported(tmp_path / "trace.jsonl", tmp_path / "lake")
    (failure,) = [row for row in rows if row["name"] == "telemetry handler failure"]
    assert (failure["kind"], failure["event"]) == ("event", "slipstream client push stop")
    assert "ZeroDivisionError" in failure["stacktrace"]
