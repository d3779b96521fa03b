"""What can be told without the extra `cli`: help, the version, wrong usage, and what is missing."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest
from tests.cli.support import Terminal, run_command
from tests.trace.scenes import two_connections, write_recording

from slipstream_trio.cli import main
from slipstream_trio.cli.main import COMMANDS, _parser
from slipstream_trio.cli.trace_command import GROUP as TRACE_COMMANDS
from slipstream_trio.trace.page import MAX_ROWS
from slipstream_trio.trace.stats import EXACT


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wsproto", None)
    assert main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "slipstream: this command needs the extra `cli`: pip install 'slipstream-trio[cli]'\n"


@pytest.mark.parametrize("words", [["demo"], ["serve"], ["bench", "ws://localhost/"], ["connect", "ws://localhost/"]])
def test_a_missing_extra_has_one_status_in_all_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    for name in ("wsproto", "hdrh", "prompt_toolkit"):
        monkeypatch.setitem(sys.modules, name, None)
    with redirect_stdout(Terminal()):
        assert main(words) == 2
    assert "needs the extra `cli`: pip install 'slipstream-trio[cli]'" in capsys.readouterr().err


def test_the_package_is_the_command_too() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "slipstream_trio", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.startswith("slipstream ")


@pytest.mark.parametrize("command", [*COMMANDS, *(f"trace {name}" for name in TRACE_COMMANDS)])
def test_every_option_has_a_help(command: str) -> None:
    parser = _parser(None)
    for word in command.split():
        (choices,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
        parser = choices[word]
    assert [action.dest for action in parser._actions if not action.help] == []


def test_help_needs_no_extra_and_shows_examples() -> None:
    for arguments in (["--help"], ["demo", "--help"]):
        helped = run_command(*arguments)
        assert helped.returncode == 0
        assert "examples:\n  slipstream demo" in helped.stdout
        assert helped.stderr == ""


@pytest.mark.parametrize(
    ("group", "first"),
    [
        ([], "  demo      watch a connection live: every span and event, then the trace and"),
        (["trace"], "  diagnose  what went wrong, why, and what to do"),
    ],
)
def test_help_lists_the_commands_and_nothing_else(
    group: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*group, "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {' '.join(['slipstream', *group])} [options] command ...\n")
    listed = out.partition("\ncommands:\n")[2].partition("\n\n")[0].splitlines()
    assert listed[0] == first
    # Names begin in the third column, and what does not fit beside one goes on below its help.
    assert all(line[2:10].strip() or line.startswith(" " * 12) for line in listed)


def test_the_usage_of_a_command_names_what_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trace", "verify", "--help"])
    assert capsys.readouterr().out.startswith("usage: slipstream trace verify [-h]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trace", "verify"], "the following arguments are required: PATH; see slipstream trace verify --help"),
        (
            ["serve", "--port", "x"],
            "argument --port: 'x' is not a count: write a number, 0 to 65535; see slipstream serve --help",
        ),
        (["demo", "word"], "too many arguments; see slipstream demo --help"),
        (["trace", "shwo"], "unknown command: 'shwo'; did you mean 'show'?; see slipstream trace --help"),
        (["--verison"], "unknown option: --verison; did you mean '--version'?; see slipstream --help"),
    ],
)
def test_a_refusal_is_a_line_that_says_where_there_is_more(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, *words) == f"slipstream: {said}\n"


@pytest.mark.parametrize("words", [["push", "ws://h/", "t"], ["bench", "ws://h/", "--event"], ["demo", "--event"]])
def test_an_event_of_the_protocol_is_refused_before_the_connect(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'phx_leave' is an event of the protocol" in usage_error(capsys, *words, "phx_leave")


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"trace {name}" for name in TRACE_COMMANDS)])
def test_a_help_fits_into_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(("command", "number"), [("stats", EXACT), ("html", MAX_ROWS)])
def test_a_help_has_the_numbers_of_the_code(command: str, number: int) -> None:
    module = import_module(f"slipstream_trio.cli.trace_{command}")
    assert f"{number:,}" in (module.__doc__ or "")


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_may_be_closed_before(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recording(tmp_path / "trace.jsonl", two_connections())
    for command in (["show"], ["verify"], ["replay", "--step"], ["export", "--to", "perfetto", "-o", "-"]):
        monkeypatch.setattr(sys, name, None)
        if name != "stdin":
            monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert main(["trace", *command, str(tmp_path / "trace.jsonl")]) == 0
        getattr(sys, name).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [["show"], ["stats"], ["verify"], ["export", "--to", "perfetto", "-o", "-"]])
def test_an_output_without_space_is_told_in_a_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "trace.jsonl", two_connections())
    with Path("/dev/full").open("w") as full, redirect_stdout(full):
        assert main(["trace", *command, str(tmp_path / "trace.jsonl")]) == 1
    assert capsys.readouterr().err.endswith("slipstream: the output: No space left on device\n")


@pytest.mark.parametrize("command", ["demo", "trace show", "trace stats", "trace html"])
def test_a_help_is_printed_where_arrows_are_lacking(command: str) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    with redirect_stdout(output), pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert b"examples:" in output.buffer.getvalue()


def test_what_a_command_refuses_is_not_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "--record" not in capsys.readouterr().out
    assert usage_error(capsys, "bench", "ws://localhost/", "--record", "x").startswith(
        "slipstream: unknown option: --record"
    )


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("slipstream ")


def test_no_command_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().err


def test_options_that_do_not_exist_are_named_without_what_follows_them(capsys: pytest.CaptureFixture[str]) -> None:
    said = usage_error(capsys, "demo", "--tokn=hunter22", "hunter23")
    assert "unknown option: --tokn" in said
    assert "hunter2" not in said


def test_words_too_many_are_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "too many arguments" in usage_error(capsys, "demo", "word")


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = "unknown command: 'nonsense'; the commands are demo, connect, listen, push, serve, bench, trace"
    assert said in usage_error(capsys, "nonsense")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["pusj"], "unknown command: 'pusj'; did you mean 'push'?"),
        (["trace", "shwo", "a.jsonl"], "unknown command: 'shwo'; did you mean 'show'?"),
        (["serve", "--prot", "4001"], "unknown option: --prot; did you mean '--port'?"),
        (["--verison"], "unknown option: --verison; did you mean '--version'?"),
    ],
)
def test_a_misspelt_word_is_told_with_the_nearest_one(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert meant in usage_error(capsys, *typed)


def test_a_recording_in_the_place_of_a_command_is_told_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    said = "unknown command: 'a.jsonl'; the commands are diagnose, show, stats, html, verify, replay, export"
    assert said in usage_error(capsys, "trace", "a.jsonl")


def test_a_port_beyond_the_last_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'65536' is not a count: write a number, 0 to 65535" in usage_error(capsys, "serve", "--port", "65536")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--param", "hunter2"], "argument --param: write it NAME=VALUE"),
        (["--param", "=hunter2"], "argument --param: write it NAME=VALUE"),
        (["--payload", "{hunter2"], "argument --payload: invalid JSON at character 1"),
        (["--join-payload", "[NaN]"], "argument --join-payload: invalid JSON"),
        (["--seconds", "-1"], "argument --seconds: a number of seconds, 0 or more"),
        (["--seconds", "soon"], "argument --seconds: a number of seconds, 0 or more"),
    ],
)
def test_an_option_that_cannot_be_read_is_not_repeated(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = usage_error(capsys, "demo", *arguments)
    assert said in err
    assert "hunter2" not in err
