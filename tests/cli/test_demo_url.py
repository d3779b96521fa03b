"""`slipstream demo --url`, against a server on loopback."""

import re
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from tests.cli.support import COMMAND, served

from slipstream_trio.cli import main

pytestmark = pytest.mark.once

REFUSED = "the server refused the connection with HTTP status"


@pytest.fixture(scope="module", name="url")
def _url() -> Iterator[str]:
    with served() as listening:
        yield listening.url("/socket/websocket")


def visit(url: str, *more: str, topic: str = "lab:1") -> int:
    return main(["demo", "--url", url, "--topic", topic, "--seconds", "0", *more])


def test_a_visit_connects_joins_pushes_pings_and_leaves(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(url, "--event", "echo", "--payload", '{"a": [1]}') == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"· client push +lab:1 +echo +ok .* ref 2 \{\"a\":\[1\]\}", out)
    assert re.search(r"^heartbeat round trips\n  count .*\n +3 ", out, re.MULTILINE)
    assert re.search(r"← left +lab:1 ", out)
    assert out.endswith(" 0 violations\n")


def test_a_visit_needs_no_topic(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--url", url, "--seconds", "0"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^heartbeat round trips\n  count .*\n +3 ", out, re.MULTILINE)
    assert "joined" not in out


def test_no_secret_is_shown_even_if_the_server_says_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = {"--param": "password=p4ss \"w'ord", "--auth-token": "t0ken", "--join-payload": '["j0in"]'}
    arguments = [word for pair in secrets.items() for word in pair]
    assert visit(f"{url}?key=qu3ry", *arguments) == 0
    out, err = capsys.readouterr()
    assert '"key":"[redacted]"' in out
    assert '"password":"[redacted]"' in out
    assert '"token":"[redacted]"' in out
    assert '"payload":["[redacted]"]' in out
    for secret in ("p4ss", "w'ord", "t0ken", "j0in", "qu3ry"):
        assert secret not in out + err


@pytest.mark.parametrize("event", ["fail", "nothing"])
def test_a_push_may_fail(
    event: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from slipstream_trio.cli import demo_command as demo

    monkeypatch.setattr(demo, "PUSH_TIMEOUT", 0.05)
    assert visit(url, "--event", event) == 0
    assert (
        "# - reply  lab:1  fail  error  " if event == "fail" else "# - error  lab:1  nothing  no reply to "
    ) in capsys.readouterr().out


def test_messages_are_heard_and_cannot_move_the_cursor(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(url, "--event", "escape") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert re.search(r"← message +lab:1 +\\x1b\[31mred\\x07 ", out)


def test_a_bad_frame_is_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(url, "--event", "malformed") == 0
    out = capsys.readouterr().out
    assert "← bad frame " in out
    assert re.search(r"^messages dropped: .*\n.*\n  in +lab:1 +1  malformed 1$|^  in +1 ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("topic", "more", "said"),
    [
        ("lab:shut", [], "the server refused the join of 'lab:shut': {'reason': 'shut', 'you_said': {}}"),
        (
            "other",
            [],
            (
                "the server refused the join of 'other': {'reason': 'unmatched topic'}; no channel of the server has "
                "this topic: check its spelling, and `channel` in the server's socket"
            ),
        ),
        (
            "lab:1",
            ["--event", "crash"],
            (
                "'crash' was not answered: the channel 'lab:1' is not joined: it crashed on the server (phx_error), "
                "whose log has the reason"
            ),
        ),
        (
            "lab:1",
            ["--event", "close"],
            "'close' was not answered: the channel 'lab:1' is not joined: the server closed it (phx_close)",
        ),
        ("lab:1", ["--event", "close_later", "--seconds", "20"], "the server closed the channel 'lab:1'"),
        (
            "lab:1",
            ["--event", "drop"],
            (
                "the connection ended: lost (close code 1006); no close frame came: the server went away, or the "
                "network or a proxy cut the line; the server may have received the push"
            ),
        ),
        (
            "lab:1",
            ["--param", "token=refused"],
            f"{REFUSED} 403; the server's connect/3 refused it: check params, auth_token and vsn",
        ),
        (
            "lab:1",
            ["--param", "token=limited"],
            (
                f"{REFUSED} 429: 'not again, [redacted]\\nsecond line'; too many connections or attempts: wait, as its "
                "retry-after says"
            ),
        ),
    ],
)
def test_what_fails_is_told_in_one_line_after_the_trace(
    topic: str, more: list[str], said: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visit(url, *more, topic=topic) == (3 if REFUSED in said else 1)
    out, err = capsys.readouterr()
    assert err == f"slipstream: {said}\n"
    assert out.endswith(" 0 violations\n")


def test_a_wrong_path_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(url.removesuffix("/websocket")) == 3
    assert "HTTP status 404" in capsys.readouterr().err


def test_a_closed_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert visit(f"ws://127.0.0.1:{port}/socket/websocket") == 3
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"slipstream: no connection to 127\.0\.0\.1 port {port}: .*refused.*\n", err, re.IGNORECASE)
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topic", "lab:1"], "--topic goes with --url"),
        (["--join-payload", "{}"], "--join-payload goes with --url"),
        (["--url", "ws://localhost/", "--event", "e"], "--event goes with --topic"),
        (["--url", "ws://localhost/", "--topic", "t", "--payload", "1"], "--payload goes with --event"),
        (
            ["--url", "ws://localhost/", "--topic", "t", "--param", "a=\udcff"],
            "--param: text with a lone surrogate has no form in a query",
        ),
        (
            ["--url", "ftp://localhost/", "--topic", "t"],
            "the URL: its scheme is one of ws, wss, http, https, not 'ftp'",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 2
    assert capsys.readouterr().err == f"slipstream: {said}; see slipstream demo --help\n"


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Let SIGINT interrupt children, also where the tests run in the background of a shell, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_it_with_the_trace_and_130(url: str) -> None:
    arguments = [*COMMAND, "demo", "--url", url, "--topic", "lab:1", "--seconds", "60"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("# Listen"):
                break
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == "slipstream: interrupted\n"
    assert out.endswith(" 0 violations\n")
