"""The prompt of `slipstream connect`: what is typed, what is shown, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.cli.support import ANSI, COMMAND, Terminal, running

from slipstream_trio.cli import main
from slipstream_trio.cli.development import PATH, make_server

pytest.importorskip("prompt_toolkit", reason="needs the extra `cli`")

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

pytestmark = pytest.mark.once

Typed = tuple[str, str]
"""What has to be on the screen, and what is typed then. (The line at the bottom has "0 joined " before the answer to a
join; the line that tells of the answer has more spaces.)"""

CTRL_C, CTRL_D = "\x03", "\x04"


class Screen(Terminal):
    """A screen whose user types when something is shown."""

    def __init__(self, keyboard: PipeInput, script: Sequence[Typed]) -> None:
        super().__init__()
        self._keyboard = keyboard
        self._script = script
        self.typed = 0
        self._read = 0
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:  # between two prompts what is printed is written by another thread
            written = super().write(text)
            if "\x1b[6n" in text:  # where is the cursor?
                self._keyboard.send_text("\x1b[1;1R")
            for awaited, keys in self._script[self.typed :]:
                if awaited not in ANSI.sub("", self.getvalue()[self._read :]):
                    break
                self._read = len(self.getvalue())
                self.typed += 1
                self._keyboard.send_text(keys)
            return written


@pytest.fixture(scope="module", name="url")
def _url() -> Iterator[str]:
    with running(make_server()) as (listening, _):
        yield listening.url(PATH)


@pytest.fixture(name="state")
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path / "slipstream" / "history"


@pytest.fixture(name="talk")
def _talk(url: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Type at the prompt of the command, and return what was on the screen."""

    def talk(*script: Typed, status: int = 0) -> str:
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(sys, "stdout", Terminal())
        with create_pipe_input() as keyboard:
            screen = Screen(keyboard, script)
            output = Vt100_Output(screen, lambda: Size(rows=40, columns=200), term="xterm")
            gives_up = threading.Timer(60, keyboard.send_text, [CTRL_D])
            gives_up.start()
            try:
                with create_app_session(input=keyboard, output=output):
                    ended = main(["connect", url])
            finally:
                gives_up.cancel()
        shown = ANSI.sub("", screen.getvalue())
        assert not script[screen.typed :], shown
        assert ended == status
        return shown

    return talk


def test_what_is_typed_is_answered(talk: Callable[..., str]) -> None:
    shown = talk(
        ("connected", 'join room:lobby {"name": "Ada"}\r'),
        ('joined       room:lobby  {"users":1}', 'push new_msg {"body": "hello"}\r'),
        ('reply        room:lobby  new_msg  ok  {"id":1}', "push upload 0x0001\r"),
        ('upload  ok  {"bytes":2}', "leave\r"),
        ("left         room:lobby", CTRL_D),
    )
    assert 'message      room:lobby  new_msg  {"body":"hello"}' in shown


def test_the_line_at_the_bottom_says_the_status(talk: Callable[..., str]) -> None:
    shown = talk(
        ("connected  join TOPIC, or help", "join echo:1\r"),
        ("joined   ", "ping\r"),
        ("pong ", "\r"),
        ("connected  echo:1  1 joined  ping ", "quit now\r"),
    )
    assert "pong " in shown


def test_tab_completes_commands_topics_and_events(talk: Callable[..., str]) -> None:
    shown = talk(
        ("connected  join TOPIC, or help", "jo\t"),
        ("in", " room:lobby\r"),
        ("joined   ", 'push room:lobby new_msg {"body": "hello"}\r'),
        ("reply ", "push ro\t"),
        ("om:lobby", " new\t"),
        ("_msg", ' {"body": "again"}\r'),
        ('message      room:lobby  new_msg  {"body":"again"}', CTRL_D),
    )
    assert "error" not in shown


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("pusj", "unknown command: 'pusj'; did you mean 'push'?"),
        ("JOIN room:1", "unknown command: 'JOIN'; did you mean 'join'?"),
        ("nonsense", "the commands are join, leave, push, send, presence, ping, help, quit"),
        ("push room:lobby new_msg 0xzz", "the payload: invalid hex digits after 0x"),
        ("help me", "PAYLOAD: JSON, 0x and hex digits"),
        ("push new_msg", "the event is missing: push [TOPIC] EVENT [PAYLOAD]"),
        ("join room:lobby {", "the payload: invalid JSON at character 1"),
        ("join room:lobby @/nowhere", "the payload: /nowhere: No such file or directory"),
        ("leave room:lobby", "the channel 'room:lobby' is not joined: join it first"),
        ("help", 'PAYLOAD: JSON, 0x and hex digits, or @FILE (bytes): push new_msg {"body": "hi"}'),
    ],
)
def test_a_line_that_cannot_be_carried_out_says_why(typed: str, said: str, talk: Callable[..., str]) -> None:
    talk(("connected", f"{typed}\r"), (said, CTRL_D))


def test_a_file_is_pushed_as_its_bytes(talk: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(bytes(1000))
    talk(("connected", "join room:lobby\r"), ("joined   ", f"push upload @{path}\r"), ('{"bytes":1000}', CTRL_D))


def test_what_is_printed_while_one_prompt_makes_way_for_the_next_is_not_lost(talk: Callable[..., str]) -> None:
    pushes = [f"push upload 0x{'00' * size}\r" for size in range(1, 20)]
    talk(
        ("connected", "join room:lobby\r"),
        ("joined   ", pushes[0]),
        *((f'{{"bytes":{size}}}', push) for size, push in enumerate(pushes[1:], start=1)),
        (f'{{"bytes":{len(pushes)}}}', CTRL_D),
    )


def test_a_lost_connection_is_told_and_replaced(talk: Callable[..., str]) -> None:
    shown = talk(
        ("connected", "join room:lobby\r"),
        ("joined   ", "push drop\r"),
        ("gap          room:lobby  reconnected  ", CTRL_D),
    )
    assert "reconnecting lost  code 1006  attempt 1  in " in shown


def test_ctrl_c_clears_the_line_and_then_ends(talk: Callable[..., str]) -> None:
    talk(("connected", f"nonsense{CTRL_C}ping\r"), ("pong ", CTRL_C), status=130)


def test_the_history_keeps_lines_for_the_user_alone_and_no_secrets(talk: Callable[..., str], state: Path) -> None:
    talk(
        ("connected", 'join room:lobby {"token": "s3cret"}\r'),
        ("joined   ", 'push new_msg {"body": "hello"}\r'),
        ("reply ", CTRL_D),
    )
    kept = state.read_text()
    assert 'push new_msg {"body": "hello"}' in kept
    assert "s3cret" not in kept
    assert os.name == "nt" or state.stat().st_mode & 0o077 == 0


def test_a_failed_connect_is_one_line(talk: Callable[..., str], capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["connect", url.removesuffix("/websocket")]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_signal_restores_the_terminal(url: str, state: Path) -> None:
    import pty
    import termios

    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    environment = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    arguments = [*COMMAND, "connect", url]
    with subprocess.Popen(arguments, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as command:
        shown = b""
        while b"\x1b[?2004h" not in shown:  # bracketed paste: the prompt is there
            shown += os.read(controller, 65536)
        assert termios.tcgetattr(terminal) != before
        command.send_signal(signal.SIGTERM)
        while b"slipstream: terminated" not in shown:
            shown += os.read(controller, 65536)
        assert command.wait(timeout=60) == 143
    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)
