"""The lines that `connect` and `listen` show at a terminal."""

import io

import pytest
from tests.cli.support import ANSI, Terminal

from slipstream_trio.cli.console import HELP
from slipstream_trio.cli.feed import Item, Lines
from slipstream_trio.trace.text import NO_SECRETS

SENTENCE = "no connection to localhost port 4000: connection refused, as nothing listens there; is the server running?"


def shown(*items: Item, file: io.StringIO | None = None) -> list[str]:
    line_of = Lines(Terminal() if file is None else file, NO_SECRETS)
    return [ANSI.sub("", line_of(item))[9:].rstrip() for item in items]


def reconnecting(attempt: int, reason: str) -> Item:
    return {"type": "reconnecting", "reason": reason, "attempt": attempt, "delay": 0.1}


def test_the_reason_of_attempts_is_told_when_it_changes() -> None:
    attempts = [reconnecting(number, why) for number, why in enumerate(("lost", "lost", "refused", "lost"), start=1)]
    connected = {"type": "connected", "connection_id": "1"}
    assert shown(*attempts, connected, attempts[3]) == [
        "reconnecting lost  attempt 1  in 100 ms",
        "reconnecting attempt 2  in 100 ms",
        "reconnecting refused  attempt 3  in 100 ms",
        "reconnecting lost  attempt 4  in 100 ms",
        "connected",
        "reconnecting lost  attempt 4  in 100 ms",
    ]


@pytest.mark.parametrize("columns", [80, 60])
def test_sentences_are_filled_at_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    [line] = shown(reconnecting(1, SENTENCE))
    first, *more = line.splitlines()
    assert len(first) < columns - 9
    assert more
    assert all(each.startswith(" " * 22) and len(each) < columns for each in more)
    assert " ".join(line.split()) == f"reconnecting {SENTENCE} attempt 1 in 100 ms"


def test_the_help_of_the_prompt_fits_into_80_columns() -> None:
    assert max(map(len, HELP.splitlines())) < 80


def test_payloads_and_what_goes_elsewhere_stay_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert "\n" not in shown({"type": "message", "payload": {"body": SENTENCE}})[0]
    assert "\n" not in shown(reconnecting(1, SENTENCE), file=io.StringIO())[0]
