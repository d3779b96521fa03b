"""The server answers as the recorded ones did: Phoenix 1.7.24 and 1.8.12 on Bandit, 1.8.12 on Cowboy."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio.testing
from tests.server.replay import SERVERS, Line, Replay, differences, scenarios
from tests.transcripts import read_lines

pytestmark = pytest.mark.once

NOT_REPRODUCED: dict[str, str] = {}
"""Scenarios that the server does not reproduce, each with the reason."""

RECORDED = {"phoenix-1.7.24-bandit": 11, "phoenix-1.8.12-bandit": 56, "phoenix-1.8.12-cowboy": 11}


@pytest.mark.parametrize("name", scenarios())
async def test_the_server_answers_as_recorded(name: str, autojump_clock: trio.testing.MockClock) -> None:
    replay = Replay(name)
    await replay.run()
    found = differences(replay)
    assert bool(found) == (name in NOT_REPRODUCED), "\n".join(found)


def test_how_many_scenarios_are_reproduced() -> None:
    found = Counter(name.split("/")[0] for name in scenarios())
    assert found == RECORDED
    assert found.keys() == SERVERS.keys()
    assert set(NOT_REPRODUCED) <= set(scenarios())
    assert len(scenarios()) - len(NOT_REPRODUCED) == 78


async def test_server_ping_reaches_the_client_and_the_client_s_is_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The recording has both pings in a note only."""
    replay = Replay("phoenix-1.8.12-bandit/server_ping")
    await replay.run()
    assert replay.clients[""].pings == [b""]
    assert replay.clients[""].pongs == [b"are you there"]


def test_a_line_of_a_recording_ends_at_a_newline_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "a\u2028b\u0085c"}\n{"text": ""}\n', encoding="utf-8", newline="")
    assert list(read_lines(path)) == [{"text": "a\u2028b\u0085c"}, {"text": ""}]


# The comparison itself: each way of tampering with a recording must be noticed.


def drop_last_answer(lines: list[Line]) -> None:
    lines.remove([line for line in lines if line["dir"] == "recv"][-1])


def add_answer(lines: list[Line]) -> None:
    lines.append(dict([line for line in lines if line["dir"] == "recv"][-1]))


def change_code(lines: list[Line]) -> None:
    next(line for line in lines if line["dir"] == "close")["code"] = 1001


def change_closer(lines: list[Line]) -> None:
    next(line for line in lines if line["dir"] == "close")["by"] = "server"


def change_header(lines: list[Line]) -> None:
    lines[0]["headers"]["cache-control"] = "no-store"


def change_ref(lines: list[Line]) -> None:
    line = [line for line in lines if line["dir"] == "recv"][1]
    message = json.loads(line["text"])
    line["text"] = json.dumps([message[0], int(message[1]), *message[2:]])


def delay_answer(lines: list[Line]) -> None:
    [line for line in lines if line["dir"] == "recv"][1]["t_ms"] += 1000


@pytest.mark.parametrize(
    "tamper",
    [drop_last_answer, add_answer, change_code, change_closer, change_header, change_ref, delay_answer],
)
async def test_the_comparison_notices_tampering(
    tamper: Callable[[list[Line]], None], autojump_clock: trio.testing.MockClock
) -> None:
    replay = Replay("phoenix-1.8.12-bandit/basic_join_echo_leave")
    await replay.run()
    assert differences(replay) == []
    tamper(replay.lines)
    assert differences(replay)


async def test_the_comparison_notices_answers_out_of_order(autojump_clock: trio.testing.MockClock) -> None:
    replay = Replay("phoenix-1.8.12-bandit/broadcast_two_clients")
    await replay.run()
    assert differences(replay) == []
    own = [i for i, line in enumerate(replay.lines) if line["dir"] == "recv" and line["conn"] == "a"][1:3]
    broadcast, reply = (replay.lines[i] for i in own)
    replay.lines[own[0]], replay.lines[own[1]] = reply, broadcast
    assert differences(replay)
