"""`slipstream trace export`."""

import json
import sys
from pathlib import Path

import pytest
import trio
from tests.client.support import Recorder
from tests.integrations.collector import collecting
from tests.integrations.support import visit
from trio.testing import MockClock

from slipstream_trio.cli import main
from slipstream_trio.trace import record


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recording") / "trace.jsonl"
    recorder = Recorder()
    with record(path, telemetry=recorder.bus):
        trio.run(visit, recorder, clock=MockClock(autojump_threshold=0))
    return str(path)


def export(*arguments: str) -> int:
    return main(["trace", "export", *arguments])


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_perfetto_in_a_file(option: str, recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "trace.json"
    assert export(recording, "--to", "perfetto", option, str(target)) == 0
    count = len(json.loads(target.read_text())["traceEvents"])
    assert capsys.readouterr().err == f"{count} events\n"


def test_perfetto_on_the_output(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(recording, "--to", "perfetto", "--output", "-") == 0
    assert json.loads(capsys.readouterr().out)["traceEvents"]


def test_otlp_is_sent_with_the_headers_given(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting() as collector:
        assert export(recording, "--to", "otlp", "--endpoint", collector.url, "--header", "api-key=hush") == 0
    assert {headers["api-key"] for headers in collector.headers} == {"hush"}
    assert capsys.readouterr().err == f"{len(collector.spans)} spans\n"


def test_parquet_overwrites_no_part(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    lake = tmp_path / "lake"
    assert export(recording, recording, "--to", "parquet", "--output", str(lake)) == 0
    (part,) = lake.glob("day=*/part-*.parquet")
    assert capsys.readouterr().err == f"{parquet.ParquetFile(part).metadata.num_rows} rows\n"
    before = part.read_bytes()
    assert export(recording, "--to", "parquet", "--output", str(lake)) == 1
    assert f"{part} is there already: delete it, or name another directory" in capsys.readouterr().err
    assert part.read_bytes() == before


def test_a_missing_extra_is_named_in_one_line(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(recording, "--to", "parquet", "--output", str(tmp_path / "lake")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Parquet needs pyarrow: pip install 'slipstream-trio[parquet]'" in line
    assert not (tmp_path / "lake").exists()


def test_a_collector_that_refuses(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting(status=400) as collector:
        assert export(recording, "--to", "otlp", "--endpoint", collector.url, "--header", "api-key=hush") == 1
    said = capsys.readouterr().err
    assert f"{collector.url} did not take the spans" in said
    assert "hush" not in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", "perfetto"], "--to perfetto needs --output"),
        (["--to", "otlp", "--output", "x"], "--output goes with --to perfetto and --to parquet"),
        (["--to", "perfetto", "--output", "x", "--endpoint", "http://localhost/"], "--endpoint goes with --to otlp"),
        (["--to", "parquet", "--output", "x", "--header", "a=b"], "--header goes with --to otlp"),
        (["--to", "perfetto", "--output", "x", "--service", "a"], "--service goes with"),
        (["--to", "parquet"], "--to parquet needs --output"),
        (["--to", "parquet", "--output", "x", "--force"], "--force goes with --to perfetto"),
        (["--to", "parquet", "--output", "-"], "--to parquet writes a directory"),
        (["--to", "parquet", "--output", "x", "--service", "a"], "--service goes with"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], problem: str, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(recording, *arguments) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--header", "hush", "write it NAME=VALUE"),
        ("--endpoint", "hush", "write it like http://localhost:4318/v1/traces"),
        ("--to", "nowhere", "invalid choice"),
    ],
)
def test_values_that_cannot_be_read_are_not_repeated(
    option: str, value: str, problem: str, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        export(recording, "--to", "otlp", option, value)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert problem in said
    assert "hush" not in said


def test_what_is_no_recording_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}\n")
    assert export(str(path), "--to", "perfetto", "--output", str(tmp_path / "out.json")) == 2
    assert str(path) in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["other.json"]


def test_a_file_that_cannot_be_written(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "nowhere" / "out.json"
    assert export(recording, "--to", "perfetto", "--output", str(target)) == 1
    assert f"{target}: it cannot be written: No such file or directory" in capsys.readouterr().err


def test_an_export_that_exists_is_overwritten_by_force_alone(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    target.write_text("precious")
    assert export(recording, "--to", "perfetto", "--output", str(target)) == 1
    assert capsys.readouterr().err == f"slipstream: {target} exists: --force overwrites it\n"
    assert target.read_text() == "precious"
    assert export(recording, "--to", "perfetto", "--output", str(target), "--force") == 0
    assert json.loads(target.read_text())["traceEvents"]


def test_damaged_lines_are_told_and_left_out(
    recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Path(recording).read_text().splitlines(keepends=True)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("".join([*lines[:10], "nonsense\n", *lines[10:]]))
    assert export(str(damaged), "--to", "perfetto", "--output", str(tmp_path / "out.json")) == 0
    assert "damaged.jsonl:11: damaged: not JSON" in capsys.readouterr().err


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export("--help")
    said = capsys.readouterr().out
    assert "slipstream trace export trace.jsonl --to perfetto --output trace.json.gz" in said
