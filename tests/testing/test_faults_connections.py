"""The real client over bad networks, in virtual time: it never hangs, never loses in silence, and its traces hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from tests.client.support import Lab, Recorder, living_tasks
from tests.drawing import examples
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectError, ConnectionLost, Gap, Message, SlipstreamError, Socket, connect
from slipstream_trio.testing.faults import (
    AtByte,
    AtFrame,
    AtTime,
    Corrupt,
    EachByte,
    EachFrame,
    Faults,
    FaultyNetwork,
    Ignore,
    Link,
    Refuse,
    Reset,
    Rule,
    SlowOpening,
    Stall,
    Truncate,
    Vanish,
    faulty_network,
)
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.trace import verify
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"


class World:
    """A server, a network before it, and what telemetry says."""

    def __init__(self, server: PhoenixServer, network: FaultyNetwork) -> None:
        self.server = server
        self.network = network
        self.recorder = Recorder()
        self.connector = TrioWebSocketConnector(network.opener(lambda _: server.open_stream()))

    def connect(self, **options: Any) -> Any:
        given: dict[str, Any] = {"reconnect": Backoff((1,), jitter=0), "rejoin": Backoff((1,), jitter=0)}
        return connect(URL, transport=self.connector, telemetry=self.recorder.bus, **{**given, **options})


@asynccontextmanager
async def world(*rules: Rule, **faults: Any) -> AsyncIterator[World]:
    tasks = living_tasks()
    server = PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})}, close_timeout=1)
    async with server.run(), faulty_network(Faults(rules=rules, **faults)) as network:
        there = World(server, network)
        yield there
    assert verify(there.recorder.records) == []
    assert living_tasks() == tasks


async def until(socket: Socket, status: str) -> None:
    async for new in socket.status_changes():
        if new == status:
            return


async def test_latency_is_what_a_ping_measures(autojump_clock: MockClock) -> None:
    async with world(toward_client=Link(latency=0.2), toward_server=Link(latency=0.1)) as there:
        async with there.connect() as socket:
            assert await socket.ping() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "fault", [Reset(), Truncate(), Vanish(), Vanish(both=False), Stall(both=True), Stall()], ids=repr
)
async def test_a_connection_that_breaks_within_a_frame_is_replaced_and_its_gap_told(
    fault: Any, autojump_clock: MockClock
) -> None:
    # Frames toward the client: the join's reply, then the ticks.
    async with world(Rule(fault, AtFrame(4), connections=[1])) as there:
        async with there.connect(heartbeat_interval=10) as socket, socket.join("lab:1") as channel:
            stream = channel.stream()
            try:
                with trio.fail_after(100):
                    await channel.push("burst", {"count": 5})
                pytest.fail("its reply cannot have come")
            except SlipstreamError:
                pass
            seen = []
            with trio.fail_after(100):
                while not isinstance(item := await anext(stream), Gap):
                    seen.append(item.payload["number"])
            # A reset loses what was received, and not yet read, too.
            assert seen == [0, 1][: len(seen)]
            assert len(seen) == 2 or fault == Reset()
            assert isinstance(item, Gap)
            assert await channel.push("echo", "back") == "back"
            assert socket.generation == 2
        assert [entry.frame for entry in there.network.log.entries] == [4]


async def test_a_reset_within_the_upgrade_is_a_connect_error(autojump_clock: MockClock) -> None:
    for number in (0, 1, 20, 100):
        async with world(Rule(Reset(), AtByte(number))) as there:
            with pytest.raises(ConnectError):
                async with there.connect():
                    pytest.fail("the block must not be entered")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Ignore()),
        Rule(SlowOpening(11)),
        Rule(Stall(), AtByte(30)),
        Rule(Vanish(), AtByte(30)),
        Rule(Vanish(both=False), AtByte(0), toward="server"),
    ],
    ids=repr,
)
async def test_a_handshake_that_does_not_end_is_a_connect_error_in_time(rule: Rule, autojump_clock: MockClock) -> None:
    async with world(rule) as there:
        began = trio.current_time()
        with pytest.raises(ConnectError, match="connect_timeout"):
            async with there.connect(connect_timeout=10):
                pytest.fail("the block must not be entered")
        assert trio.current_time() - began == pytest.approx(10)


async def test_a_slow_handshake_within_its_time_succeeds(autojump_clock: MockClock) -> None:
    slow = Link(bandwidth=100)
    async with world(Rule(SlowOpening(3)), toward_client=slow, toward_server=slow) as there:
        began = trio.current_time()
        async with there.connect(connect_timeout=20) as socket:
            assert 6 < trio.current_time() - began < 20
            assert socket.status == "connected"


async def test_connections_that_are_refused_are_tried_again(autojump_clock: MockClock) -> None:
    rules = Rule(Reset(), AtTime(5), connections=[1]), Rule(Refuse(), connections=[2, 3])
    async with world(*rules) as there:
        async with there.connect() as socket:
            await until(socket, "reconnecting")
            await until(socket, "connected")
            assert there.network.log.connections == 4


async def test_a_half_open_connection_is_found_out_by_the_heartbeat(autojump_clock: MockClock) -> None:
    async with world(Rule(Vanish(), AtTime(100))) as there:
        with pytest.raises(ConnectionLost, match="heartbeat_timeout"):
            async with there.connect(reconnect=None, heartbeat_interval=30, heartbeat_timeout=10):
                began = trio.current_time()
                await trio.sleep_forever()
        # The first ping after 100 s is the one at 120 s, which is waited for 10 s; then comes the close.
        assert trio.current_time() - began == pytest.approx(130, abs=2)


async def test_a_client_that_reads_slowly_holds_the_server_back_through_the_network(autojump_clock: MockClock) -> None:
    async with world(toward_client=Link(bandwidth=10_000, buffer=2000)) as there:
        async with there.connect(push_timeout=1000) as socket, socket.join("lab:1") as channel:
            began = trio.current_time()
            assert await channel.push("echo", "x" * 100_000) == "x" * 100_000
            assert trio.current_time() - began == pytest.approx(10, abs=0.1)


ANY_FAULT = st.sampled_from([
    Corrupt(), Corrupt(3), Corrupt(30), Reset(), Truncate(), Vanish(), Vanish(both=False), Stall(5), Stall(100)
])  # fmt: skip
ANY_MOMENT = st.one_of(
    st.builds(AtByte, st.integers(0, 3000)),
    st.builds(AtFrame, st.integers(1, 30), into=st.sampled_from([0, 0.1, 0.5, 1])),
    st.builds(AtTime, st.integers(0, 60)),
    st.builds(EachByte, st.sampled_from([0.0001, 0.001])),
    st.builds(EachFrame, st.sampled_from([0.01, 0.1])),
)
ANY_RULE = st.one_of(
    st.builds(Rule, ANY_FAULT, ANY_MOMENT, st.sampled_from(["client", "server"]), chance=st.sampled_from([0.3, 1])),
    st.builds(Rule, st.sampled_from([Refuse(), Ignore(), SlowOpening(3)]), chance=st.just(0.3)),
)


@pytest.mark.once
@given(seed=st.integers(0, 1000), rules=st.lists(ANY_RULE, max_size=4))
@examples(10)
def test_whatever_the_network_does_the_client_ends_in_time_and_its_trace_holds(seed: int, rules: list[Rule]) -> None:
    trio.run(_live_on_a_bad_network, seed, rules, clock=MockClock(autojump_threshold=0))


async def _live_on_a_bad_network(seed: int, rules: list[Rule]) -> None:
    with trio.fail_after(2000):
        async with world(*rules, seed=seed) as there:
            with trio.move_on_after(60), suppress(SlipstreamError):  # it may end, but only by such an error
                async with there.connect(retry_first=True, heartbeat_interval=5, connect_timeout=5) as socket:
                    channel = socket.channel("lab:1")
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_read, channel.stream())
                        await _use(channel)


async def _use(channel: Any) -> None:
    for number in range(15):
        try:
            if channel.status not in ("joined", "joining", "errored"):
                await channel.join()
            await channel.push("burst", {"count": number % 4}, timeout=5)
            await channel.push("echo", "x" * (number % 300), timeout=5)
        except SlipstreamError:
            await trio.sleep(1)


async def _read(stream: Any) -> None:
    try:
        async for item in stream:
            assert isinstance(item, Message | Gap)
    except SlipstreamError:
        pass
