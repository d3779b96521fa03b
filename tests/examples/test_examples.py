"""Each example runs as a script, and prints what it should."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "callback_client": """
        ping: pong
        join: {}
        ask: {'answer': 42}
        room:lobby: hello, everybody
    """,
    "graceful_startup": """
        application: started
        client: not configured, not started
        application: started
        client: configured badly, not started: url: it lacks a scheme: write it like \
ws://localhost:4000/socket/websocket, or wss:// with TLS
        application: started
        client: no server yet
        client: connected
    """,
    "repeater": """
        repeated: new_msg {'number': 0}
        repeated: new_msg {'number': 1}
        repeated: new_msg {'number': 2}
        repeated: last {}
    """,
    "scripting": """
        joined: {'you said': {'fizz': 'buzz'}}
        reply: {'pong': 'pong'}
        refused: {'reason': 'no such event: nonsense'}
        message: foo {'this is': 'a push'}
        left: closed
        round trip: … ms
        disconnected: closed
    """,
    "token_refresh": """
        the server is shown token-1
        connected, generation 1
        disconnected: the connection ended: closed_by_server (close code 1001); the server shuts down or restarts
        the server is shown token-2
        refused with 403: the next attempt has another token
        the server is shown token-3
        connected, generation 2
    """,
}


def printed(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run an example, and return the lines that it prints; what is timed in them becomes `…`."""
    path = str(EXAMPLES / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path])
    runpy.run_path(path, run_name="__main__")
    # While a server is away, nobody knows how often it is looked for.
    lines = [re.sub(r"[\d.]+ ms", "… ms", line) for line in capsys.readouterr().out.splitlines()]
    return [line for line, before in zip(lines, [None, *lines], strict=False) if line != before]


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_it_should(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(name, monkeypatch, capsys) == [line.strip() for line in EXPECTED[name].strip().splitlines()]


def test_rejoin_after_reconnect_rejoins_both_rooms_from_where_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed("rejoin_after_reconnect", monkeypatch, capsys)
    assert lines[0] == "connected, generation 1"
    assert sorted(lines[1:3]) == [
        "joined room:1: {'since': 0, 'latest': 10}",
        "joined room:2: {'since': 0, 'latest': 10}",
    ]
    assert lines[3:5] == [
        "disconnected: the connection ended: closed_by_server (close code 1012); the server restarts",
        "connected, generation 2",
    ]
    assert sorted(lines[5:]) == [
        "joined room:1: {'since': 10, 'latest': 20}",
        "joined room:2: {'since': 10, 'latest': 20}",
        "room:1 reconnected: something may have been missed",
        "room:2 reconnected: something may have been missed",
    ]


def test_every_example_is_tested_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    tests = {name for name in names if name.startswith("test_")}  # pytest runs these themselves
    assert names - tests == {*EXPECTED, "rejoin_after_reconnect"}
    assert names == set(re.findall(r"\| \[`(\w+)\.py`\]", (EXAMPLES / "README.md").read_text()))
