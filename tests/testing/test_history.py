"""What a failure report says of the connections of a test."""

import pytest
import trio
from tests.testing.support import Watched, parties, watched
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionRejected
from slipstream_trio.telemetry import SpanException, Telemetry
from slipstream_trio.testing.history import Moment, tell
from slipstream_trio.testing.observed import ObservedTrace


async def told(on: Watched) -> list[str]:
    """Return the history of all that has happened, once everything has happened that can."""
    await trio.testing.wait_all_tasks_blocked()
    lines = tell([Moment(record, None) for record in on.records], 1000).splitlines()
    return [line.strip().removeprefix("-  ") for line in lines]


async def test_frames_that_are_refused_and_replies_that_are_late_are_told(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        with trio.move_on_after(1):
            await channel.push("slow", {"password": "x", "list": [{"api_key": 1}]})
        await (await fake.expect_push()).reply_ok({"auth": 1})
        await fake.connection.send_raw("nonsense")
        lines = await told(on)
    assert (
        "#1  connection handle PushMessage room:1 slow {'password': '…', 'list': [{'api_key': '…'}]} - sent ref 2"
        in lines
    )
    assert "#1  client push room:1 slow params {'password': '…', 'list': [{'api_key': '…'}]} - cancelled" in lines
    assert "#1  client reply_orphaned room:1 cancelled ok" in lines
    assert "#1  connection handle FrameReceived 'nonsense' - FrameRejected" in lines


async def test_every_connection_has_its_number_and_reconnects_are_told(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(reconnect=Backoff((1,), jitter=0)):
        await (await on.server.accept()).close(1001)
        await on.server.accept()
        lines = await told(on)
    assert "#1  connection handle TransportClosed 1001 - ConnectionClosed" in lines
    assert "#1  connection connect - closed_by_server" in lines
    [scheduled] = [line for line in lines if "reconnect_scheduled" in line]
    assert scheduled == "#1  client reconnect_scheduled delay 1 attempt 1 closed_by_server code 1001"
    assert "#2  connection connect begins" in lines
    assert lines[-3:-1] == ["Begun and not ended:", "#2  connection connect begins"]
    assert lines[-1].startswith("where #1 is ")


async def test_refusals_and_what_a_handler_raises_are_told(autojump_clock: MockClock) -> None:
    def fail(record: object) -> None:
        raise KeyError("mine")

    async with watched() as on:
        on.telemetry.attach("failing", ("slipstream", "connection", "connect", "start"), fail)
        on.server.refuse(403)
        with pytest.raises(ConnectionRejected):
            async with on.connect():
                pytest.fail("let in")
        lines = await told(on)
    assert "#1  client connect attempt 1 - error" in lines
    [failure] = [line for line in lines if "failure" in line]
    assert failure == "#1  telemetry handler failure slipstream connection connect start KeyError: 'mine' failing"


async def test_an_exception_that_ends_a_span_is_told(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        await on.server.accept()
    [start] = on.named("connection", "connect", "start")
    raised = SpanException(start, start.origin, 0, "LookupError", "a bug", "")
    lines = tell([Moment(start, 1.0), Moment(raised, 2.5)], 10).splitlines()
    assert lines[:2] == [
        "    +0.000 s  #1  connection connect begins",
        "    +1.500 s  #1  connection connect - raised LookupError: a bug",
    ]


async def test_the_latest_lines_are_told(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        await on.server.accept()
    told = tell([Moment(record, 5.0) for record in on.records], 2).splitlines()
    assert told[0] == "  … 4 earlier ones"
    assert told[1].endswith("+0.000 s  #1  connection handle TransportClosed 1000 - ConnectionClosed")
    assert len(told) == 4


def test_nothing_happened() -> None:
    assert ObservedTrace().history() == "No connection was made."


def test_records_that_come_from_outside_of_trio_have_no_time() -> None:
    bus = Telemetry()
    with ObservedTrace() as trace:
        trace.listen_to(bus)
    assert (len(trace), trace.records, trace.violations()) == (0, [], [])
    assert bus.list_handlers() == []
