"""Recordings of pushes whose payload was refused: they are whole, and replay as they were."""

from collections import OrderedDict, defaultdict
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tests.client.support import scripted
from trio.testing import MockClock

from slipstream_trio import trace
from slipstream_trio.cli import main
from slipstream_trio.errors import SerializationError
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.trace.text import brief


class Word(StrEnum):
    HELLO = "hello"


class Text(str):
    __slots__ = ()


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "payload",
    [
        OrderedDict(a=1),
        {"inside": defaultdict(int, a=1)},
        {"inside": MappingProxyType({"a": 1})},
        {"i": 10**5000},
        {"i": [-(10**4300)]},
        {(1, 2): 3},
        circle(),
        Word.HELLO,
        {"inside": [Word.HELLO]},
        {Word.HELLO: 1},
        {"inside": Text("x")},
    ],
    ids=lambda payload: type(payload).__name__,
)
async def test_a_recording_with_it_is_whole_and_replays(
    payload: Any, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path, telemetry = str(tmp_path / "refused.jsonl"), Telemetry()
    with trace.record(path, telemetry=telemetry):
        async with scripted(telemetry=telemetry) as (socket, _), socket.join("room") as channel:
            with pytest.raises(SerializationError):
                await channel.push("event", payload)
            await channel.push("echo", {"i": 10**4299})  # that one can be sent
    assert list(trace.check([path])) == []
    assert list(trace.replay(trace.read(path))) == []
    assert main(["trace", "html", path, "--output", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"a": 10**5000}, '{"a":… (ValueError)'),
        (circle(), "[… (ValueError)"),
        ({(1, 2): 3}, "{… (TypeError)"),
    ],
)
def test_what_cannot_be_shown_of_it_is_said(payload: Any, shown: str) -> None:
    assert brief(payload) == shown
