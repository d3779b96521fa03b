"""`slipstream demo`, against the server that it brings along."""

import io
import re
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
from tests.cli.support import ANSI, COMMAND, Terminal, run_command

from slipstream_trio.cli import connecting, demo_command as demo, main
from slipstream_trio.cli.development import Room
from slipstream_trio.cli.output import cells
from slipstream_trio.ids import RandomIds
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.server import Outcome, Reply

pytestmark = pytest.mark.once

FULL_IDS = re.compile(r"^socket [0-9a-f]{16}\nconnection [0-9a-f]{16} .*\ntrace [0-9a-f]{32}$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACE", 0.0)
    monkeypatch.setattr(demo, "PUSH_TIMEOUT", 0.5)


@pytest.fixture(name="draw")
def _draw(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command on a terminal, and return what it drew."""

    def draw(*arguments: str, columns: int = 80, status: int = 0, **environment: str) -> str:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        with redirect_stdout(Terminal()) as terminal:
            assert main(["demo", *arguments]) == status
        return terminal.getvalue()

    return draw


class SameSpanIds(RandomIds):
    """What no source of ids may do."""

    def span_id(self) -> str:
        return "1" * 16


def test_the_plain_history_is_whole_and_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--plain"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert FULL_IDS.search(out)
    for what in ("opened", "joined", "broadcast", "reply", "message", "late reply", "crashed", "refused", "heartbeat"):
        assert re.search(rf"[→←·] {what} ", out), what
    for note in ("reply  room:lobby  new_msg  error", "error  room:lobby  crash", "refused  room:secret"):
        assert f"# - {note}  " in out
    assert "16 bytes" in out
    assert len(re.findall(r"invariant \d holds", out)) == 5
    assert out.splitlines()[-1].endswith(" 0 violations")


def test_every_span_that_is_counted_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo"])
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if "took" in line)
    took = slice(head.index("took") - 4, head.index("took") + 4)
    lines = [line for line in out.splitlines() if re.match(r" +\d+\.\d{4} ", line) and line[took].strip()]
    assert f" {len(lines)} spans, " in out


def test_as_a_process_of_its_own_into_a_pipe() -> None:
    ran = run_command("demo")
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert "\x1b" not in ran.stdout
    assert FULL_IDS.search(ran.stdout)


def test_a_terminal_of_80_columns_is_filled_and_not_exceeded(draw: Callable[..., str]) -> None:
    drawn = draw()
    assert "\x1b[" in drawn
    lines = ANSI.sub("", drawn).splitlines()
    assert max(cells(line.rstrip()) for line in lines) == 80 - 1
    assert any(re.search(r"→ push .*\d (µs|ms|s)\b", line) for line in lines)  # on a busy machine, none in µs
    assert any("µs" in line for line in lines)
    assert sum(bool(re.match(r"invariant \d holds", line)) for line in lines) == 5
    assert lines[-1].endswith(" 0 violations")


@pytest.mark.parametrize("columns", [80, 100, 112, 140])
def test_a_terminal_shows_payloads(columns: int, draw: Callable[..., str]) -> None:
    drawn = ANSI.sub("", draw(columns=columns))
    assert re.search(r'ref 2 +\{"body":"hello"\}', drawn)
    assert re.search(r'ref 3 +\{"body":""\}', drawn)


@pytest.mark.parametrize("columns", [20, 60, 400])
def test_a_terminal_may_be_of_any_width(columns: int, draw: Callable[..., str]) -> None:
    lines = ANSI.sub("", draw(columns=columns)).splitlines()
    assert max(cells(line) for line in lines) <= columns


def test_no_color_is_honoured(draw: Callable[..., str]) -> None:
    assert re.findall(r"\x1b\[[0-9;]*?(?:3[0-7]|9[0-7]|38;)[0-9;]*m", draw())
    assert not re.findall(r"\x1b\[[0-9;]*?(?:3[0-7]|9[0-7]|38;)[0-9;]*m", draw(NO_COLOR="1"))


def test_a_terminal_may_have_plain_lines(draw: Callable[..., str]) -> None:
    assert "\x1b" not in draw("--plain")
    assert "\x1b" not in draw(TERM="dumb")


@pytest.mark.parametrize("columns", [1, 2])
def test_a_terminal_may_be_too_narrow_for_words(columns: int, draw: Callable[..., str]) -> None:
    assert draw(columns=columns)


def test_an_output_without_arrows_gets_ascii() -> None:
    written = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(written, encoding="ascii", write_through=True)):
        assert main(["demo"]) == 0
    assert re.search(rb"> push .*s  ref 2", written.getvalue())
    assert re.search(rb"\d us ", written.getvalue())


def test_a_trace_that_is_not_sound_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connecting, "Telemetry", lambda: Telemetry(ids=SameSpanIds()))
    assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert re.fullmatch(r"slipstream: the trace is not sound: \d+ problems, as listed above\n", err)
    assert "invariant 3 BROKEN" in out
    assert re.search(r"^problem: .* invariant 3: the span_id 1111111111111111 was used before$", out, re.MULTILINE)


def test_what_is_not_sound_is_drawn_in_full(draw: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "Telemetry", lambda: Telemetry(ids=SameSpanIds()))
    shown = " ".join(ANSI.sub("", draw(status=1)).split())
    assert "invariant 3 BROKEN each input is handled in one span" in shown
    assert "invariant 3: the span_id 1111111111111111 was used before" in shown


def test_a_history_that_cannot_be_shown_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("slipstream_trio.cli.timeline.Timeline.line", fail)
    assert main(["demo"]) == 1
    assert "the connection has no connect stop" in capsys.readouterr().out


def test_a_server_that_does_something_else_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def accept(self: Room, payload: Any) -> Any:
        return {}

    monkeypatch.setattr(Room, "join", accept)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "slipstream: refused was expected, and joined came\n"


def test_a_server_that_answers_wrongly_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(self: Room, event: str, payload: Any, ref: Any) -> Outcome:
        return Reply(status="error")

    monkeypatch.setattr(Room, "handle_in", refuse)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "slipstream: ok was expected, and reply came\n"


def test_an_output_that_goes_away_ends_the_run() -> None:
    shell = f"{' '.join(map(repr, COMMAND))} demo | head -n 5; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError("no port to be had"), 1, "no port to be had"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt()]), 130, "interrupted"),
    ],
)
def test_what_ends_a_run_has_its_status(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def run(_: object) -> None:
        raise error

    monkeypatch.setattr(demo.Demo, "tour", run)
    assert main(["demo"]) == status
    assert capsys.readouterr() == ("", f"slipstream: {said}\n")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: object) -> None:
        raise BaseExceptionGroup("tasks", [ValueError("a bug")])

    monkeypatch.setattr(demo.Demo, "tour", run)
    with pytest.raises(ExceptionGroup):
        main(["demo"])
