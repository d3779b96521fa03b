"""`slipstream connect` in pipes, `listen`, `push` and `serve`, against the development server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from tests.cli.support import COMMAND, running, served

from slipstream_trio.cli import main
from slipstream_trio.cli.development import PATH, make_server
from slipstream_trio.testing.server import PhoenixServer

pytestmark = pytest.mark.once

Items = list[dict[str, Any]]
Converse = Callable[..., Items]

JOIN = {"command": "join", "topic": "room:lobby"}


def push(event: str, payload: Any = None) -> dict[str, Any]:
    return {"command": "push", "topic": "room:lobby", "event": event, "payload": payload}


@pytest.fixture(scope="module", name="server")
def _server() -> PhoenixServer:
    return make_server()


@pytest.fixture(scope="module", name="url")
def _url(server: PhoenixServer) -> Iterator[str]:
    with running(server) as (listening, _):
        yield listening.url(PATH)


@pytest.fixture(name="closed")
def _closed() -> Iterator[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{closed.getsockname()[1]}{PATH}"


@pytest.fixture(name="stdin")
def _stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    with ExitStack() as files:

        def give(text: bytes) -> None:
            read, write = os.pipe()
            os.write(write, text)
            os.close(write)
            monkeypatch.setattr(sys, "stdin", files.enter_context(os.fdopen(read)))

        yield give


@pytest.fixture(name="converse")
def _converse(url: str, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]) -> Converse:
    """Give the command requests, and return what it prints."""

    def converse(*requests: Any, status: int = 0, at: str = url, more: tuple[str, ...] = ()) -> Items:
        lines = [request if isinstance(request, str) else json.dumps(request) for request in requests]
        stdin("\n".join(lines).encode())
        assert main(["connect", at, *more]) == status
        out, err = capsys.readouterr()
        assert err == ""
        return [json.loads(line) for line in out.splitlines()]

    return converse


def of_type(items: Items, *kinds: str) -> Items:
    return [item for item in items if item["type"] in kinds]


# Lines of JSON


def test_requests_are_answered_in_lines_of_json(converse: Converse) -> None:
    leave = {"command": "leave", "topic": "room:lobby"}
    connected, *items = converse(JOIN, push("new_msg", {"body": "hello"}), leave, {"command": "ping"})
    assert connected["type"] == "connected"
    pong = items.pop()
    assert (pong["type"], pong["line"]) == ("pong", 4)
    assert items == [
        {"type": "joined", "line": 1, "topic": "room:lobby", "response": {"users": 1}},
        {"type": "message", "topic": "room:lobby", "event": "new_msg", "payload": {"body": "hello"}},
        {"type": "reply", "line": 2, "topic": "room:lobby", "event": "new_msg", "status": "ok", "response": {"id": 1}},
        {"type": "left", "line": 3, "topic": "room:lobby"},
    ]


def test_bytes_are_hexadecimal_both_ways(converse: Converse) -> None:
    echo = {"command": "push", "topic": "echo:1", "event": "any", "hex": "00ff"}
    [reply] = of_type(converse({"command": "join", "topic": "echo:1"}, echo), "reply")
    assert reply["hex"] == "00ff"
    assert "response" not in reply


def test_pushes_leave_in_the_order_of_their_lines(converse: Converse) -> None:
    items = converse(JOIN, *(push("new_msg", {"body": str(number)}) for number in range(50)))
    assert [item["payload"]["body"] for item in of_type(items, "message")] == [str(number) for number in range(50)]
    assert {item["line"] for item in of_type(items, "reply")} == set(range(2, 52))


def test_a_push_without_a_reply_can_be_sent(converse: Converse) -> None:
    items = converse(JOIN, {**push("new_msg", {"body": "hello"}), "command": "send"})
    assert [item["type"] for item in items[2:]] in (["sent", "message"], ["message", "sent"])


def test_presences_are_shown(converse: Converse) -> None:
    topic = {"topic": "lounge:1"}
    mood = {"command": "push", **topic, "event": "mood", "payload": {"mood": "splendid"}}
    items = converse({"command": "join", **topic, "payload": {"name": "Ada"}}, mood, {"command": "presence", **topic})
    [presence] = of_type(items, "presence")
    assert list(presence["present"]) == ["Ada"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", 'invalid JSON at character 1; write it {"command": …}'),
        ("[1]", 'write it {"command": …}, with topic, event, and payload or hex'),
        ("1", 'write it {"command": …}, with topic, event, and payload or hex'),
        ('{"command": "ping", "tpoic": "t"}', "unknown field: 'tpoic'; did you mean 'topic'?; write it {"),
        ('{"command": "ping", "x": "t"}', "unknown field: 'x'; write it {"),
        ('{"command": "psuh"}', "unknown command: 'psuh'; did you mean 'push'?"),
        (
            '{"command": "status"}',
            "unknown command: 'status'; the commands are join, leave, push, send, presence, ping",
        ),
        ('{"command": ["ping"]}', "unknown command: ['ping']"),
        ('{"command": "JOIN"}', "unknown command: 'JOIN'; did you mean 'join'?"),
        ('{"command": "help"}', "unknown command: 'help'; the commands are join, leave, push, send, presence, ping"),
        (
            '{"command": "push", "topic": "t"}',
            '"event" has to be a string: {"command": "push", "topic": "…", "event": "…"}',
        ),
        ('{"command": "join", "topic": 1}', '"topic" has to be a string: {"command": "join", "topic": "…"}'),
        ('{"command": "send", "topic": "t", "event": "e", "hex": "0"}', 'invalid hex digits in "hex"'),
        ('{"command": "send", "topic": "t", "event": "e", "hex": 0}', 'invalid hex digits in "hex"'),
        ('{"command": "leave", "topic": "t"}', "the channel 't' is not joined: join it first"),
    ],
)
def test_a_line_that_fails_is_answered_with_its_number(line: str, said: str, converse: Converse) -> None:
    [error, pong] = converse("", line, {"command": "ping"}, status=1)[1:]
    assert (error["type"], error["line"], pong["type"]) == ("error", 2, "pong")
    assert said in error["text"]


def test_refusals_and_error_replies_are_answers_that_fail_the_command(converse: Converse) -> None:
    [refused] = converse({**JOIN, "topic": "room:secret"}, status=1)[1:]
    assert (refused["type"], refused["response"]) == ("refused", {"reason": "unauthorized"})
    reply = converse(JOIN, push("new_msg", {"body": ""}), status=1)[-1]
    assert (reply["type"], reply["status"], reply["response"]) == ("reply", "error", {"reason": "empty"})


def test_a_crash_is_told_and_the_channel_joined_again(converse: Converse) -> None:
    items = converse(JOIN, push("crash"), {"command": "presence", "topic": "room:lobby"}, push("upload"), status=1)
    kinds = [item["type"] for item in items]
    assert kinds[2:4] == ["closed", "rejoining"]
    assert of_type(items, "error")[0]["error"] == "ChannelClosed"
    assert "gap" in kinds


def test_a_lost_connection_is_told_and_replaced(converse: Converse) -> None:
    items = converse(
        JOIN, push("drop"), {"command": "presence", "topic": "room:lobby"}, push("upload", "abc"), status=1
    )
    assert of_type(items, "error")[0]["error"] == "ConnectionLost"
    assert [item["type"] for item in of_type(items, "connected", "reconnecting", "gap")] == [
        *("connected", "reconnecting", "connected", "gap"),
    ]
    [gap] = of_type(items, "gap")
    assert gap["reason"] == "reconnected"
    assert gap["since"] < gap["until"]


def test_the_token_of_the_environment_is_sent_and_never_shown(
    converse: Converse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIPSTREAM_AUTH_TOKEN", "t0psecret")
    path = tmp_path / "trace.jsonl"
    with served() as listening:
        more = ("--param", "user=ada", "--param", "password=p4ssword", "--record", str(path))
        join = {"command": "join", "topic": "lab:1"}
        [joined] = converse(join, at=listening.url(PATH), more=more)[1:]
    assert joined["response"]["token"] == "[redacted]"
    assert joined["response"]["params"] == {"vsn": "2.0.0", "user": "ada", "password": "[redacted]"}
    recorded = path.read_text()
    assert "t0psecret" not in recorded
    assert "p4ssword" not in recorded
    assert main(["trace", "verify", str(path)]) == 0


@pytest.mark.parametrize("command", [["connect"], ["listen", "room:1"], ["push", "room:1", "new_msg"]])
def test_a_failed_connect_is_one_line_with_a_status_of_its_own(
    command: list[str], closed: str, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(b"")
    assert main([command[0], closed, *command[1:]]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("slipstream: no connection to 127.0.0.1 port ")
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process at once there")
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_while_it_waits_for_input(signum: int, status: int, url: str) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with subprocess.Popen([*COMMAND, "connect", url], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as command:
            assert command.stdout is not None
            assert json.loads(command.stdout.readline())["type"] == "connected"
            command.send_signal(signum)
            command.wait(timeout=60)
            assert command.stderr is not None
            assert command.stderr.read() == f"slipstream: {'interrupted' if status == 130 else 'terminated'}\n"
    finally:
        signal.signal(signal.SIGINT, before)
    assert command.returncode == status


# listen


def test_listen_prints_as_many_messages_as_it_is_asked_for(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lounge:2", "--join-payload", '{"name": "Ada"}', "--event", "presence_s*", "--count", "1"]
    assert main(["listen", url, *arguments]) == 0
    [message] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (message["topic"], message["event"]) == ("lounge:2", "presence_state")


def test_listen_tells_of_reconnects_and_gaps_on_the_standard_error() -> None:
    server = make_server()
    with running(server) as (listening, token):
        arguments = [*COMMAND, "listen", listening.url(PATH), "lounge:3", "--count", "3", "--event", "presence_state"]
        with subprocess.Popen(arguments, stdout=PIPE, stderr=PIPE, text=True) as command:
            assert command.stdout is not None
            for _ in range(2):
                assert json.loads(command.stdout.readline())["event"] == "presence_state"
                token.run_sync_soon(server.connections[0].drop)
            _, err = command.communicate(timeout=60)
    assert command.returncode == 0
    assert [line.split()[1] for line in err.splitlines()] == ["connected", *["reconnecting", "connected", "gap"] * 2]


def test_listen_ends_when_the_server_has_closed_all_its_channels(capsys: pytest.CaptureFixture[str]) -> None:
    with served() as listening:
        assert main(["listen", listening.url(PATH), "lab:brief"]) == 1
    assert capsys.readouterr().err.endswith("slipstream: the server closed the channels\n")


# push


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        (["room:1", "new_msg", '{"body": "hi"}'], 0, '{"id": 1}\n', ""),
        (["room:1", "new_msg", '{"body": ""}'], 1, '{"reason": "empty"}\n', "the reply's status is 'error'"),
        (["echo:1", "any"], 0, "{}\n", ""),
        (["room:1", "hold", "--timeout", "1"], 4, "", "no reply to 'hold' on 'room:1' within 1.0 s\n"),
        (["room:secret", "any"], 1, "", "the server refused the join of 'room:secret': {'reason': 'unauthorized'}"),
        (["room:1", "any", "{"], 2, "", "the payload: invalid JSON at character 1; see slipstream push --help"),
        (["room:1", "any", "[" * 100_000], 2, "", "the payload: JSON that is nested too deeply; see"),
    ],
)
def test_push_prints_the_reply_and_ends_with_its_status(
    arguments: list[str], status: int, out: str, err: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", url, *arguments]) == status
    told = capsys.readouterr()
    assert told.out == out
    assert told.err.startswith(f"slipstream: {err}") if err else told.err == ""


def test_push_names_its_own_option_for_a_time_limit_of_zero(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["push", url, "room:1", "any", "--timeout", "0"])
    assert "argument --timeout: a number of seconds above 0; see" in capsys.readouterr().err


def test_push_reads_the_payload_from_the_standard_input(
    url: str, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(b'{"from": "a pipe"}')
    assert main(["push", url, "echo:1", "any", "-"]) == 0
    assert capsys.readouterr().out == '{"from": "a pipe"}\n'


# serve


def test_serve_prints_its_url_and_serves_until_it_is_terminated() -> None:
    with subprocess.Popen([*COMMAND, "serve", "--port", "0"], stdout=PIPE, text=True) as command:
        assert command.stdout is not None
        assert main(["push", command.stdout.readline().strip(), "room:lobby", "new_msg", '{"body": "hi"}']) == 0
        command.send_signal(signal.SIGTERM)
        assert command.wait(timeout=60) == (1 if sys.platform == "win32" else 143)


def test_a_port_that_is_taken_is_told_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = url.split(":")[2].partition("/")[0]
    assert main(["serve", "--port", port]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.match(rf"slipstream: cannot listen on 127.0.0.1 port {port}: .* in use; choose another --port ", err)


def test_a_host_that_cannot_be_listened_on_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "192.0.2.1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("slipstream: cannot listen on 192.0.2.1 port 4000: ")
    assert err.endswith("; choose another --port or --host\n")
    assert "Errno" not in err
