"""What a failure report says of the connections of a test."""

import pytest
import trio
from attrs import define, field
from tests.testing.support import Watched, parties, watched
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionRejected
from slipstream_trio.telemetry import SpanException, Telemetry, default_telemetry
from slipstream_trio.testing.observed import ObservedTrace, tell


async def told(on: Watched) -> list[str]:
    """Return the history of all that has happened, once everything has happened that can."""
    await trio.testing.wait_all_tasks_blocked()
    lines = tell([(record, None) for record in on.records], 1000).splitlines()
    return [line.strip().removeprefix("-  ") for line in lines]


async def test_pushes_late_replies_and_bad_frames_are_told_without_their_secrets(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        with trio.move_on_after(1):
            await channel.push("slow", {"password": "sesame", "list": [{"api_key": "open"}], "n": 1})
        await (await fake.expect_push()).reply_ok({"again": "sesame"})
        await fake.connection.send_raw("nonsense")
        lines = await told(on)
    assert '#1  → push room:1 slow ref 2 {"password":"[redacted]","list":[{"api_key":"[redacted]"}],"n":1}' in lines
    assert "#1  · client push room:1 slow cancelled ref 2" in lines
    assert '#1  · late reply room:1 push cancelled ref 2 ok {"again":"[redacted]"}' in lines
    assert len([line for line in lines if line.startswith("#1  ← bad frame not JSON: ")]) == 1


async def test_every_connection_has_its_number_and_what_is_open_is_told(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(reconnect=Backoff((1,), jitter=0)) as socket:
        await (await on.server.accept()).close(1001)
        await on.server.accept()
        await socket.wait_connected()

        async def join() -> None:
            async with socket.join("room:1", {"token": "sesame"}):
                pytest.fail("joined")

        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join)
                lines = await told(on)
                nursery.cancel_scope.cancel()
    assert "#1  ← closed 1001 closed_by_server" in lines
    assert "#1  · connection ends closed_by_server" in [line.partition(" 1")[0] for line in lines]
    assert "#1  · reconnect closed_by_server attempt 1 in 1.000 s, after 1001" in lines
    assert "#2  · connection begins generation 2, vsn 2.0.0, websockets" in lines
    assert lines[-4:-1] == [
        "Begun and not ended:",
        "#2  connection connect",
        '#2  client join room:1 {"token":"[redacted]"}',
    ]
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
    assert "#1  · client connect error attempt 1" in lines
    assert "#1  · handler failed failing: KeyError: 'mine'" in lines


async def test_time_is_told_in_virtual_seconds(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        await on.server.accept()
    [start] = on.named("connection", "connect", "start")
    raised = SpanException(start, start.origin, 0, "LookupError", "a bug", "")
    lines = tell([(start, 0.0), (raised, 1.5)], 10).splitlines()
    assert lines[0] == "    +0.000 s  #1  · connection begins generation 1, vsn 2.0.0, websockets"
    assert "+1.500 s  #1  · " in lines[1]
    assert "LookupError" in lines[1]


async def test_the_latest_lines_are_told(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        await on.server.accept()
    told = tell([(record, 0.0) for record in on.records], 2).splitlines()
    assert told[0] == "  … 4 earlier ones"
    assert told[1].endswith("+0.000 s  #1  ← closed 1000 closed_by_client")
    assert len(told) == 4


async def test_the_time_of_all_connections_is_told_from_the_first_record_on(autojump_clock: MockClock) -> None:
    with ObservedTrace(keep=20) as trace:
        async with watched() as on:
            trace.listen_to(on.telemetry)
            async with on.connect(reconnect=Backoff((7,), jitter=0)) as socket:
                await trio.sleep(2)
                await (await on.server.accept()).close(1001)
                await on.server.accept(within=8)
                await socket.wait_connected()
                await trio.sleep(1)
    lines = trace.history().splitlines()
    assert "    +2.000 s  #1  · reconnect closed_by_server attempt 1 in 7.000 s, after 1001" in lines
    assert "    +9.000 s  #2  · connection begins generation 2, vsn 2.0.0, websockets" in lines
    assert "   +10.000 s  #2  · connection ends closed_by_client" in lines
    assert trace.history(1).splitlines()[-1] == f"where #2 is {trace.connections[1]}"
    assert trace.history(0) == f"  … {len(lines) - 1} earlier ones"


async def visited(trace: ObservedTrace) -> None:
    """Connect once, and let the trace hear of it."""
    async with watched() as on:
        trace.listen_to(on.telemetry)
        async with on.connect():
            await on.server.accept()


def test_each_run_of_trio_has_its_own_time() -> None:
    with ObservedTrace() as trace:
        for _ in range(2):
            trio.run(visited, trace, clock=MockClock(autojump_threshold=0))
    beginnings = [line for line in trace.history().splitlines() if "connection begins" in line]
    assert [line.split("  #")[0].strip() for line in beginnings] == ["+0.000 s", "+0.000 s"]


@define
class ClockWithoutHash(trio.abc.Clock):
    """A clock that a test may have written for itself: equal by value, so it has no hash."""

    inner: MockClock = field(factory=lambda: MockClock(autojump_threshold=0))

    def start_clock(self) -> None:
        self.inner.start_clock()

    def current_time(self) -> float:
        return self.inner.current_time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return self.inner.deadline_to_sleep_time(deadline)


def test_any_clock_tells_the_time() -> None:
    with ObservedTrace() as trace:
        trio.run(visited, trace, clock=ClockWithoutHash())
    assert len(trace.connections) == 1
    assert "    +0.000 s  #1  · connection ends closed_by_client" in trace.history().splitlines()


async def test_a_bus_that_is_listened_to_twice_is_heard_once(autojump_clock: MockClock) -> None:
    with ObservedTrace() as trace:
        async with watched() as on:
            for bus in (on.telemetry, on.telemetry, default_telemetry):
                trace.listen_to(bus)
            async with on.connect():
                await on.server.accept()
            async with on.connect(telemetry=default_telemetry):
                await on.server.accept()
    assert len(trace.named("connection", "connect", "start")) == 2
    trace.verify()


def test_a_history_without_connections_says_so() -> None:
    assert ObservedTrace().history() == "No connection was made."


def test_records_that_come_from_outside_of_trio_have_no_time() -> None:
    bus = Telemetry()
    with ObservedTrace() as trace:
        trace.listen_to(bus)
    assert (len(trace), trace.records, trace.violations()) == (0, [], [])
    assert bus.list_handlers() == []
