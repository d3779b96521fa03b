"""`slipstream trace verify` and `replay`: what they say, and with which exit status."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.cli.support import COMMAND, Terminal
from tests.trace.support import encoded, eventful, live_records, values, written

from slipstream_trio.cli import main
from slipstream_trio.cli.reading import ProgressBar
from slipstream_trio.telemetry import HandleStop
from slipstream_trio.trace import Progress

Said = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def records() -> list[Any]:
    return live_records()


@pytest.fixture(name="good")
def _good(records: list[Any], tmp_path: Path) -> Path:
    return written(tmp_path / "good.jsonl", encoded(records))


@pytest.fixture(name="diverging")
def _diverging(records: list[Any], tmp_path: Path) -> Path:
    """A recording in which one state is wrong; the next span goes on from it."""
    index = [i for i, each in enumerate(records) if isinstance(each, HandleStop)][4]
    transition = records[index].transition
    wrong = attrs.evolve(transition, state=attrs.evolve(transition.state, current_ref=99))
    changed = attrs.evolve(records[index], transition=wrong)
    return written(tmp_path / "diverging.jsonl", encoded([*records[:index], changed, *records[index + 1 :]]))


@pytest.fixture(name="said")
def _said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run the command, and return its output and its errors."""

    def run(*arguments: object, status: int = 0, keys: str = "") -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        assert main(["trace", *map(str, arguments)]) == status
        out, err = capsys.readouterr()
        return out, err

    return run


def test_the_group_shows_its_commands(said: Said) -> None:
    _, err = said(status=2)
    assert "verify" in err
    assert "replay" in err


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_the_helps_teach(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["trace", command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit status: 0" in out


# verify


def test_a_sound_recording_is_told_so(said: Said, good: Path, records: list[Any]) -> None:
    assert said("verify", good) == (f"{len(records)} records of 2 connections: sound\n", "")


def test_violations_are_told_with_file_and_line_and_what_they_mean(said: Said, good: Path) -> None:
    lines = good.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if b"handle stop" in line)
    line = values(lines[at])
    line["monotonic_time"] += 1
    lines[at] = json.dumps(line).encode() + b"\n"
    bad = written(good.with_name("bad.jsonl"), lines)
    out, err = said("verify", bad, status=1)
    assert f"{bad}:{at + 1}: invariant 5: connection " in out
    assert "ns, not " in out
    assert "invariant 5: time never goes back" in out
    assert out.endswith(": 1 fault\n")
    assert err == ""
    first, *_, summary = map(json.loads, said("verify", "--json", bad, status=1)[0].splitlines())
    assert (first["line"], first["kind"], first["invariant"], first["path"]) == (at + 1, "violation", 5, str(bad))
    assert summary["sound"] is False
    assert summary["files"] == [str(bad)]


def test_a_cause_is_named_once(said: Said, good: Path) -> None:
    lines = good.read_bytes().splitlines(keepends=True)
    stops = [number for number, line in enumerate(lines) if b"handle stop" in line]
    late = values(lines[stops[5]])
    late["monotonic_time"] += 10**9
    lines[stops[5]] = json.dumps(late).encode() + b"\n"
    bad = written(good.with_name("late.jsonl"), lines)
    first, more, _, summary = said("verify", bad, status=1)[0].splitlines()
    assert f":{stops[5] + 1}: invariant 5: connection " in first
    assert re.fullmatch(r"invariant 5 of connection [0-9a-f]+: \d+ more like it, the last in line \d+", more)
    faults = int(summary.split()[-2])
    assert faults > 50
    assert len(said("verify", bad, "--json", status=1)[0].splitlines()) == faults + 1


def test_a_recording_that_was_cut_off_is_sound(said: Said, good: Path) -> None:
    cut = written(good.with_name("cut.jsonl"), [good.read_bytes()[:9000]])
    out, _ = said("verify", cut)
    assert "unfinished: the recording was cut off here" in out
    assert out.count("unfinished") == 1
    assert ": sound\n" in out


def test_traces_can_be_shared_on_purpose(said: Said, tmp_path: Path) -> None:
    shared = live_records(lambda bus: eventful(bus, trace_parent=f"00-{'a' * 32}-{'b' * 16}-01"))
    out, _ = said("verify", written(tmp_path / "shared.jsonl", encoded(shared)))
    assert ": sound\n" in out


@pytest.mark.parametrize(
    "command", ["show", "stats", "html", "verify", "replay", "export --to perfetto --output out.json"]
)
def test_what_is_no_recording_is_wrong_usage(
    command: str, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = tmp_path / "nowhere.jsonl"
    told = f"slipstream: {nowhere}: it cannot be read: No such file or directory\n"
    assert said(*command.split(), nowhere, status=2) == ("", told)
    other = tmp_path / "other"
    other.write_text("hello\n")
    told = f"slipstream: {other}: not a recording: its first line is not a header\n"
    assert said(*command.split(), other, status=2) == ("", told)
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.once
@pytest.mark.parametrize("command", ["verify", "replay", "replay --step", "export --to perfetto --output -"])
def test_an_output_that_is_closed_ends_it_without_a_word(command: str, good: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        arguments = [*COMMAND, "trace", *command.split(), str(good)]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": closed, "stderr": subprocess.PIPE}
        ended = subprocess.run(arguments, check=False, text=True, timeout=60, **streams)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("command", ["html -o", "export --to perfetto --output"])
def test_a_recording_is_not_written_over(command: str, said: Said, good: Path) -> None:
    before = good.read_bytes()
    link = good.with_name("link")
    link.symlink_to(good)
    for output in (good, link):
        told = f"slipstream: {output} is the recording itself: name another file; see slipstream trace "
        assert said(*command.split(), output, good, status=2)[1].startswith(told)
    assert good.read_bytes() == before
    link.unlink()


def test_a_bar_shows_the_progress_where_somebody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = ProgressBar()
    bar.show(Progress("trace.jsonl", 50, 100, 1234))
    bar.clear()
    drawn = terminal.getvalue()
    assert "###############---------------  50%  1,234 lines of trace.jsonl" in drawn
    assert drawn.endswith("\r\x1b[K")
    unseen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", unseen)
    hidden = ProgressBar()
    hidden.show(Progress("trace.jsonl", 50, 0, 1))
    hidden.clear()
    assert unseen.getvalue() == ""


# replay


def test_a_recording_that_agrees_is_told_so(said: Said, good: Path, records: list[Any]) -> None:
    inputs = sum(isinstance(each, HandleStop) for each in records)
    said_so = f"{inputs} inputs of 2 connections replayed: every state, event and effect agrees\n"
    assert said("replay", good) == (said_so, "")


def test_the_first_divergence_is_told(said: Said, diverging: Path) -> None:
    out, _ = said("replay", diverging, status=1)
    first, summary = out.splitlines()
    assert ": end_state.current_ref: 99 was recorded, and the core gives " in first
    assert "it is the first, after 4 inputs without one" in summary


def test_connections_can_be_chosen(said: Said, good: Path, records: list[Any]) -> None:
    out, _ = said("replay", "--connection", records[0].connection_id[:12], good)
    assert "of 1 connection replayed" in out
    for more in ([], ["--step"]):
        assert "none of that connection" in said("replay", "--connection", "nobody", *more, good, status=2)[1]


def test_damage_is_no_divergence(said: Said, good: Path) -> None:
    lines = good.read_bytes().splitlines(keepends=True)
    lines[20] = b"(damaged)\n"
    said("replay", written(good.with_name("damaged.jsonl"), lines))


def test_a_replay_of_another_version_says_so_before_it_lists_differences(said: Said, diverging: Path) -> None:
    lines = diverging.read_bytes().splitlines(keepends=True)
    older = diverging.with_name("older.jsonl")
    older.write_bytes(b"".join(line.replace(b'"schema":"1.2"', b'"schema":"1.0"') for line in lines))
    out, _ = said("replay", older, status=1)
    first, second, *_ = out.splitlines()
    assert first == "recorded with schema 1.0, replayed with 1.2: states of another version differ"
    assert "current_ref: 99 was recorded" in second


# replay --step


def headings(out: str) -> list[int]:
    """Return the lines of the steps that were shown."""
    return [int(line.split(":")[1].split()[0]) for line in out.splitlines() if line.startswith("--- ")]


def test_a_replay_is_stepped_through_forward_and_back(said: Said, good: Path, records: list[Any]) -> None:
    out, _ = said("replay", "--step", good, keys="n\n\nb\nb\nb\nq\nn\n")
    assert out.splitlines()[0].startswith("n or Enter: next; b: back; ")
    shown = headings(out)
    assert len(shown) == 6
    places = re.findall(r"^--- step (\d+) of (\d+)  (\d+\.\d{4}) s  ", out, re.MULTILINE)
    assert [int(number) for number, _, _ in places] == [1, 2, 3, 2, 1, 1]
    assert {int(length) for _, length, _ in places} == {sum(isinstance(each, HandleStop) for each in records)}
    assert 0 < float(places[0][2]) <= float(places[2][2]) < 60
    assert shown[0] < shown[1] < shown[2]
    assert shown[3:] == [shown[1], shown[0], shown[0]]
    assert "(no further)" in out
    assert "input    TransportOpened now=0.0" in out
    assert 'state    status: "opening" -> "open"' in out
    assert "effect   SendFrame frame=" in out
    assert " agrees" in out


def test_a_step_is_shown_where_its_letters_are_lacking(
    records: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a step took is not left to the machine, which may be busy.
    lines = [re.sub(rb'"duration":\d+', b'"duration":12345', line) for line in encoded(records)]
    recorded = written(tmp_path / "timed.jsonl", lines)
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\nq\n"))
    with redirect_stdout(output):
        assert main(["trace", "replay", "--step", str(recorded)]) == 0
    assert re.search(rb"--- step 2 of .*  12\.3 us  agrees", output.buffer.getvalue())


def test_a_step_can_be_gone_to_by_its_line(said: Said, good: Path) -> None:
    out, _ = said("replay", "--step", good, keys="g 40\nb\ng 3\ng 9999\ns\nh\ng x\n")
    start, at, before, first, last = headings(out)
    assert at >= 40 > before
    assert first == start
    assert last > 150
    assert '  status: "closed"' in out
    assert out.count("next divergence") == 3


def test_the_next_divergence_can_be_gone_to(said: Said, diverging: Path) -> None:
    out, _ = said("replay", "--step", diverging, keys="x\nq\n", status=1)
    assert "DIVERGES" in out
    assert "recorded end_state.current_ref: 99" in out
    assert "core     end_state.current_ref: " in out
    # What was not looked at is not held against the recording.
    said("replay", "--step", diverging, keys="n\nq\n")


def test_going_far_back_reads_the_recording_again(said: Said, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipstream_trio.cli.trace_replay.REMEMBERED", 3)
    out, _ = said("replay", "--step", good, keys="n\n" * 9 + "b\n" * 9 + "n\n")
    shown = headings(out)
    assert shown[10:19] == shown[8::-1]
    assert shown[19] == shown[1]


# The demo's recording


@pytest.mark.once
def test_the_demo_can_be_recorded(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from slipstream_trio.cli import demo_command as demo

    monkeypatch.setattr(demo, "PACE", 0.0)
    monkeypatch.setattr(demo, "PUSH_TIMEOUT", 0.5)
    path = tmp_path / "demo.jsonl.gz"
    assert main(["demo", "--plain", "--record", str(path)]) == 0
    assert ": sound\n" in said("verify", path)[0]
    said("replay", path)
    assert main(["demo", "--plain", "--record", str(tmp_path / "nowhere" / "demo.jsonl")]) == 1
