"""`slipstream trace diagnose`: what it prints, in which order, and with which exit status."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.support import Terminal, run_command
from tests.trace.support import encoded, live_records, written
from tests.trace.test_diagnosis_incidents import INCIDENTS

from slipstream_trio import connect
from slipstream_trio.cli import main
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import FakeServer


async def sound(telemetry: Telemetry) -> None:
    async with FakeServer(answers={"connect", "join", "push", "leave", "heartbeat"}) as server:
        async with (
            connect(server.url, transport=server.connector(), telemetry=telemetry) as socket,
            socket.join("room:1") as room,
        ):
            await room.push("hello")


def paths(*names: str) -> list[str]:
    return [str(INCIDENTS / f"{name}.jsonl.gz") for name in names]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> str:
    assert main(["trace", "diagnose", *arguments]) == status
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> Any:
    return json.loads(told(capsys, "--json", *arguments, status=status))


def test_a_finding_names_cause_blame_lines_advice_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = paths("16")
    out = told(capsys, path, status=1)
    assert out.startswith("1. server gone  [grave; blame: server]\n")
    assert f"{path}:1517, 1526" in out.replace("\n          ", " ")
    assert "   do     See why the server ended" in out
    assert f"   more   slipstream trace show {path} --since 16 --until 33\n" in out
    assert "2,950 records of 12 connections: 1 finding" in out
    assert "this recording cannot tell" in out


def test_lines_fit_into_80_columns_but_for_commands(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, *paths("01", "06", "15", "16"), status=1).splitlines()
    assert max(len(line) for line in lines if not line.startswith("   more ") and str(INCIDENTS) not in line) <= 80


def test_the_command_shows_what_the_finding_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    finding = as_json(capsys, *paths("16"))["findings"][0]
    assert main(finding["command"].split()[1:]) == 0
    shown = capsys.readouterr().out
    assert "client push    orders:desk      place          lost" in shown


def test_several_recordings_are_told_together_the_gravest_first(capsys: pytest.CaptureFixture[str]) -> None:
    read = as_json(capsys, *paths("15", "16", "01"))
    causes = [finding["cause"] for finding in read["findings"]]
    assert sorted(causes[:2]) == ["dead_link", "server_gone"]
    assert causes[2:] == ["process_stood_still"]
    assert read["records"] == 1_689 + 3_229 + 2_950


def test_causes_of_one_kind_are_one_finding_whatever_the_number_of_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = gzip.decompress((INCIDENTS / "16.jsonl.gz").read_bytes())
    for number in range(3):
        again = text.replace(b'"recording":"30aca9b069456624"', b'"recording":"%016x"' % number)
        (tmp_path / f"{number}.jsonl").write_bytes(again)
    names = [str(tmp_path / f"{number}.jsonl") for number in range(3)]
    alone = as_json(capsys, "--jobs", "1", *names)
    (finding,) = alone["findings"]
    assert (finding["cause"], finding["count"]) == ("server_gone", 3)
    assert {line.rpartition(":")[0] for line in finding["lines"]} == set(names)
    assert as_json(capsys, "--jobs", "2", *names) == alone


def test_a_sound_recording_gets_a_clean_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "sound.jsonl", encoded(live_records(sound)))
    out = told(capsys, str(path), status=0)
    assert "of 1 connection: nothing wrong was found. Looked for:\n" in out
    assert "silences" in out
    assert as_json(capsys, str(path), status=0)["findings"] == []


def test_what_is_no_recording_is_a_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other"
    path.write_text("hello\n")
    assert main(["trace", "diagnose", str(path)]) == 2
    assert "not a recording" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    told(capsys, *paths("01"), status=1)
    assert "lines of" in terminal.getvalue()


def test_help_teaches_how_to_read_a_finding() -> None:
    helped = run_command("trace", "diagnose", "--help")
    assert "reading a finding:" in helped.stdout
    assert "exit status: 0 nothing found; 1 findings; 2 wrong usage" in helped.stdout
