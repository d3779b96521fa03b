"""Ids and clocks that are the same in every run."""

import re
from datetime import UTC, datetime

import pytest
from trio.testing import MockClock

from slipstream_trio import connect
from slipstream_trio.telemetry import Record
from slipstream_trio.testing import SequentialIds, SteppingClock, deterministic_telemetry
from slipstream_trio.testing.server import Channel, Mount, PhoenixServer
from slipstream_trio.trace import verify
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector


def test_ids_count_and_keep_their_size() -> None:
    ids = SequentialIds()
    assert [ids.trace_id(), ids.trace_id()] == ["0" * 31 + "1", "0" * 31 + "2"]
    assert [ids.span_id() for _ in range(16)][-1] == "0" * 14 + "10"


def test_each_reading_moves_both_clocks_by_one_step() -> None:
    clock = SteppingClock()
    first = clock.time_ns()
    assert [clock.monotonic_ns(), clock.time_ns() - first, clock.monotonic_ns()] == [1_000, 2_000, 3_000]


def test_a_clock_moves_where_it_is_told_to() -> None:
    clock = SteppingClock()
    first = clock.time_ns()
    clock.advance(1.5)
    assert clock.time_ns() - first == 1_500_001_000
    assert datetime.fromtimestamp(first / 1e9, UTC).isoformat() == "2023-11-14T22:13:20+00:00"


def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        SteppingClock().advance(-0.1)


class Echo(Channel):
    async def join(self, payload: object) -> object:
        return payload


async def history() -> list[str]:
    """Return all that telemetry tells of one visit, as text."""
    telemetry = deterministic_telemetry()
    records: list[Record] = []
    server = PhoenixServer({"/socket": Mount(channels={"echo": Echo})})
    connector = TrioWebSocketConnector(lambda _: server.open_stream())
    with telemetry.listen(records.append):
        async with server.run():
            async with connect("ws://s/socket/websocket", transport=connector, telemetry=telemetry) as socket:
                async with socket.join("echo", {"n": 1}):
                    pass
    assert verify(records) == []
    return [f"{record.name} {record.measurements} {record.metadata}" for record in records]


async def test_two_runs_have_the_same_telemetry_word_for_word(autojump_clock: MockClock) -> None:
    first, second = await history(), await history()
    headers = re.compile(r"response_headers[^)]*\)+|sec-websocket-accept[^)]*\)")  # of a key that is random
    assert len(first) > 10
    assert [headers.sub("", line) for line in first] == [headers.sub("", line) for line in second]
