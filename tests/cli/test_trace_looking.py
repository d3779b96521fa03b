"""`slipstream trace show`, `stats` and `html`."""

import base64
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from tests.cli.support import ANSI, COMMAND, Terminal
from tests.trace.scenes import ODD, Scene, two_connections, write_recording

from slipstream_trio.cli import main, timeline, trace_show
from slipstream_trio.cli.output import Output, cells, fit

Run = Callable[..., str]

INCIDENT = Path(__file__).parent.parent / "fixtures" / "incidents" / "01.jsonl.gz"


@pytest.fixture(name="recording", scope="module")
def _recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "trace.jsonl"
    write_recording(path, two_connections())
    return path


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `slipstream trace`, and return what it printed."""

    def run(*arguments: Any, status: int = 0, error: str = "") -> str:
        assert main(["trace", *map(str, arguments)]) == status
        out, err = capsys.readouterr()
        assert err == error
        return out

    return run


@pytest.fixture(name="draw")
def _draw(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run it on a terminal."""

    def draw(*arguments: Any, columns: int = 80, **environment: str) -> str:
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        with redirect_stdout(Terminal()) as terminal:
            assert main(["trace", *map(str, arguments)]) == 0
        return terminal.getvalue()

    return draw


# show


def test_lines_in_a_pipe_are_whole_and_plain(run: Run, recording: Path) -> None:
    head, *lines = run("show", recording).splitlines()
    assert head.split() == [
        "seconds",
        "line",
        "sock",
        "conn",
        "span",
        "what",
        "topic",
        "event",
        "status",
        "took",
        "detail",
    ]
    assert not any("\x1b" in line for line in lines)
    assert any(
        re.search(r"11111111 [0-9a-f]{8} → push +room:lobby +new_msg +50\.0 µs  ref 2 \{", line) for line in lines
    )
    assert any(ODD.replace("\u2028", "\\u2028") in line for line in lines)
    assert any(re.search(r"gap +room:lobby +reconnected +0\.0\d+ s$", line) for line in lines)


def test_lines_are_chosen_by_options(run: Run, recording: Path) -> None:
    lines = run("show", recording, "--topic", "room:*", "--kind", "client push", "--errors").splitlines()[1:]
    assert [line.split()[8:11] for line in lines] == [
        ["room:lobby", "fail", "error"],
        ["room:lobby", "silence", "timeout"],
    ]
    assert len(run("show", recording, "--connection", "2222", "--whole").splitlines()) == 15


def test_seconds_are_those_of_since_and_until(run: Run, recording: Path) -> None:
    whole = run("show", recording).splitlines()
    assert run("show", recording, "--since", "0.1", "--until", "0.2").splitlines()[1:] == [
        line for line in whole[1:] if 0.1 <= float(line.split()[0]) <= 0.2 or " 72 ffff" in line
    ]
    assert run("show", recording, "--clock").splitlines()[1].split()[0] == "22:13:20.000000"


def test_an_outage_is_one_line_and_repeats_are_together(run: Run) -> None:
    errors = run("show", INCIDENT, "--errors")
    assert re.search(r"outage .* heartbeat_timeout .* back after 1 attempt$", errors, re.MULTILINE)
    assert re.search(r"gap +7 topics +reconnected +7 × in 18\.0 ms: 0\.094 s$", errors, re.MULTILINE)
    assert re.search(r' 769 .* timeout +10\.0 s  ref 71 \{"user":"mira",', errors)
    assert "cancelled" not in errors
    for option in (["--whole"], ["--kind", "*"]):
        whole = run("show", INCIDENT, "--errors", *option)
        assert "outage" not in whole
        assert sum("gap" in line for line in whole.splitlines()) == 7


@pytest.mark.parametrize("columns", [40, 80, 112, 140, 250])
def test_lines_on_a_terminal_are_cut_to_its_width(draw: Run, recording: Path, columns: int) -> None:
    drawn = draw("show", recording, columns=columns)
    lines = ANSI.sub("", drawn).splitlines()
    assert max(cells(line) for line in lines) <= columns - 1
    assert any("→ push" in line for line in lines)
    if columns not in (80, 112):  # there it happens that all fits
        assert ("…" in drawn) == (columns < 250)


def test_colours_are_for_terminals_that_want_them(draw: Run, recording: Path) -> None:
    assert "\x1b[36m" in draw("show", recording)
    assert "\x1b" not in draw("show", recording, NO_COLOR="1")
    assert "\x1b" not in draw("show", recording, TERM="dumb")
    plain = draw("show", recording, "--plain")
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) > 100


@pytest.mark.once
def test_an_output_without_arrows_gets_ascii(recording: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(
        [*COMMAND, "trace", "show", str(recording)], capture_output=True, env=environment, timeout=60, check=True
    )
    assert b"> push" in ran.stdout
    assert ran.stdout.isascii()
    assert ran.stderr == b""


@pytest.mark.once
def test_a_reader_that_has_had_enough_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    write_recording(path, two_connections())
    path.write_bytes(path.read_bytes() + path.read_bytes().split(b"\n", 1)[1] * 40)
    with subprocess.Popen(
        [*COMMAND, "trace", "show", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        assert ran.stdout.readline().startswith(b"  seconds")
        ran.stdout.close()
        assert ran.stderr.read() == b""
        assert ran.wait(timeout=60) == 0


def test_what_is_missing_and_damaged_is_told_where_it_is(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_recording(path, two_connections())
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5:5] = [b"nonsense\n", b'{"missing":{"records":7,"reason":"queue_full"}}\n']
    path.write_bytes(b"".join(lines)[:-10])
    out = run("show", path)
    assert "trace.jsonl:6: damaged: not JSON" in out
    assert ":7: missing: 7 records are missing before this: they came faster than they were written" in out
    assert "the recording was cut off here" in out
    notices = json.loads(run("stats", path, "--json"))["notices"]
    assert notices[1:] == [
        "7 records are missing before this: they came faster than they were written",
        "the recording was cut off here",
    ]


def test_following_shows_what_comes_until_it_is_interrupted(
    run: Run, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "live.jsonl"
    data = recording.read_bytes()
    half = len(data) // 2
    steps = iter([data[:half], data[half:]])

    def wait(seconds: float) -> None:
        assert seconds == trace_show.POLL
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        with path.open("ab") as file:
            file.write(step)

    monkeypatch.setattr("slipstream_trio.cli.trace_show.time.sleep", wait)
    followed = run("show", path, "--follow", error="\n").splitlines()
    assert sorted(followed) == sorted(run("show", recording, "--whole").splitlines())


def test_a_narrow_terminal_shows_below_a_line_what_went_wrong(draw: Run, recording: Path) -> None:
    lines = ANSI.sub("", draw("show", recording, "--kind", "overflow")).splitlines()
    assert re.search(r"overflow +room:lobby *$", lines[1])
    assert lines[2].strip() == "the channel's buffer of 8 is full"


def test_what_was_recorded_before_the_oldest_file_is_said_to_be_missing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_recording(path, two_connections(), max_size=9_000, keep=1)
    said = re.compile(
        f"{re.escape(str(path))}\\.1:1: missing: this is part \\d+: what was recorded before is not here\n"
    )
    assert said.match(run("show", path).splitlines(keepends=True)[1].removeprefix("# "))
    assert "! this is part" in run("stats", path)


def test_nothing_that_fits_is_said(run: Run, recording: Path) -> None:
    assert run("show", recording, "--topic", "nowhere").splitlines()[1:] == ["# no record was chosen"]


def test_following_goes_with_one_file(run: Run, recording: Path) -> None:
    said = "slipstream: --follow goes with one file; see slipstream trace show --help\n"
    run("show", recording, recording, "--follow", status=2, error=said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time: write 12.5 (seconds), 300ms"),
        (["--slower", "12:00"], "'12:00' is not a duration: write 10ms or 1.5s"),
    ],
)
def test_a_time_that_cannot_be_read_is_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["trace", "show", "x", *arguments])
    assert said in capsys.readouterr().err


def test_none_of_it_needs_the_extra(run: Run, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("wsproto", "h11"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run("show", recording)
    assert run("stats", recording)
    assert run("html", recording, "-o", tmp_path / "page.html")


def test_texts_are_measured_in_columns() -> None:
    assert (cells("a☃"), cells("日本"), cells("e\u0301")) == (2, 4, 1)
    assert fit("日本語", 5) == "日本…"
    assert fit("日本語", 4) == "日… "
    assert fit("ab", 4) == "ab  "
    assert fit("abc", 0) == ""


# stats


def test_numbers_are_in_tables(run: Run, recording: Path) -> None:
    out = run("stats", recording)
    assert re.search(r"^  room:lobby  new_msg +20 .* 10\.1 ms  18\.1 ms  20\.1 ms  20\.1 ms  ok 20$", out, re.MULTILINE)
    assert re.search(
        r"^connections, and how they ended\n  count .*\n +2 .* lost 1, closed_by_client 1$", out, re.MULTILINE
    )
    assert "2023-11-14 22:13:20 to 22:13:20 UTC" in out.splitlines()[0]


def test_sections_are_cut_where_asked_for(run: Run, recording: Path) -> None:
    out = run("stats", recording, "--top", "1")
    assert "  and 5 more: --top 0 shows all" in out
    assert "more: --top" not in run("stats", recording, "--top", "0")


def test_tables_fit_onto_a_terminal(draw: Run, recording: Path) -> None:
    for columns in (80, 140):
        lines = ANSI.sub("", draw("stats", recording, columns=columns)).splitlines()
        assert max(map(cells, lines)) < columns
    assert "\x1b[1mpushes" in draw("stats", recording)
    assert "\x1b" not in draw("stats", recording, NO_COLOR="1")


def test_numbers_are_json_too(run: Run, recording: Path) -> None:
    told = json.loads(run("stats", recording, "--json", "--kind", "client push"))
    assert {each["event"]: each["count"] for each in told["pushes"]}["new_msg"] == 20
    assert told["messages"] == []


def test_nothing_chosen_is_said(run: Run, recording: Path) -> None:
    assert run("stats", recording, "--topic", "nowhere") == "no records\n"


@pytest.mark.parametrize("command", [["stats"], ["html", "--force"]])
def test_progress_is_shown_on_a_terminal_and_gone_at_the_end(
    command: list[str], recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with redirect_stderr(Terminal()) as terminal:
        assert main(["trace", *command, str(recording)]) == 0
    shown = terminal.getvalue()
    assert f"{len(recording.read_bytes().splitlines())} lines of {recording}" in shown
    assert shown.endswith("\r\x1b[K")
    assert "\r" not in capsys.readouterr().out


def test_silences_and_drops_are_in_tables(run: Run) -> None:
    out = run("stats", INCIDENT)
    assert re.search(r"^  13\.199  36afb882 +16\.0 s  nothing came, 20 frames were sent$", out, re.MULTILINE)


# html


def test_the_page_begins_with_findings(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("html", INCIDENT, "-o", page)
    (packed,) = re.findall(r'id="content">([^<]*)</script>', page.read_text("utf-8"))
    content = json.loads(gzip.decompress(base64.b64decode(packed)))
    [finding] = content["findings"]
    assert (finding["cause"], len(finding["rows"])) == ("dead_link", 1)
    assert abs(content["begin"][finding["rows"][0]] / 1e9 - 13.2) < 0.01


def test_the_page_is_written_beside_the_recording(run: Run, recording: Path) -> None:
    page = recording.with_name("trace.jsonl.html")
    page.unlink(missing_ok=True)
    out = run("html", recording)
    assert re.fullmatch(rf"{re.escape(str(page))}: \d+ spans and events, 0\.\d MB\n", out)
    assert "<title>trace.jsonl</title>" in page.read_text("utf-8")


def test_a_page_that_exists_is_overwritten_by_force_alone(run: Run, recording: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("precious")
    run("html", recording, "-o", page, status=1, error=f"slipstream: {page} exists: --force overwrites it\n")
    assert page.read_text() == "precious"
    run("html", recording, "-o", page, "--force")
    assert "<title>trace.jsonl</title>" in page.read_text("utf-8")


def test_of_too_much_the_end_is_shown(run: Run, recording: Path, tmp_path: Path) -> None:
    assert ": 7 spans and events" in run("html", recording, "-o", tmp_path / "page.html", "--last", 7)


def test_an_empty_page_is_not_made(run: Run, recording: Path, tmp_path: Path) -> None:
    said = "slipstream: nothing to show: no record was chosen\n"
    run("html", recording, "-o", tmp_path / "page.html", "--topic", "nowhere", status=1, error=said)


def test_a_page_that_cannot_be_written_is_named(run: Run, recording: Path, tmp_path: Path) -> None:
    page = tmp_path / "no" / "page.html"
    said = f"slipstream: {page}: it cannot be written: No such file or directory\n"
    run("html", recording, "-o", page, status=1, error=said)


@pytest.mark.parametrize("command", ["show", "stats", "html"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["trace", command, "--help"])
    assert stopped.value.code == 0
    helped = capsys.readouterr().out
    assert "examples:\n  slipstream trace" in helped
    assert "--kind push" in helped
    assert max(map(len, helped.splitlines())) <= 80


def test_colours_of_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = timeline.Timeline(Output(Terminal(), width=80, colour=True))
    for number in range(5_000):
        lines._colour_of(str(number))
    assert len(lines._colours) < 5_000


def test_a_recording_of_many_connections_is_shown_with_each(run: Run, tmp_path: Path) -> None:
    scene = Scene()
    for _ in range(3):
        scene.connect()
        scene.end("lost")
    path = tmp_path / "three.jsonl"
    write_recording(path, scene.records)
    out = run("show", path, "--kind", "connection")
    assert [line.split()[3] for line in out.splitlines()[1:]] == [f"{number}" * 8 for number in (1, 1, 2, 2, 3, 3)]
