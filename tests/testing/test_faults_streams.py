"""A network in memory, in virtual time: what each fault does to the streams at both ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.support import living_tasks
from trio.testing import MockClock

from slipstream_trio.testing.faults import (
    AtByte,
    AtTime,
    Corrupt,
    EachByte,
    Fault,
    Faults,
    FaultyNetwork,
    Ignore,
    Injected,
    Link,
    Lose,
    Refuse,
    Reset,
    Rule,
    SlowOpening,
    Stall,
    Truncate,
    Vanish,
    faulty_network,
)
from slipstream_trio.testing.server import MemoryStream, memory_pipe


class Ends:
    """The client's end of a stream through a network, and the server's."""

    def __init__(self, network: FaultyNetwork) -> None:
        self.network = network
        self.client: Any = None
        self.server: Any = None

    async def open(self, name: str = "") -> None:
        async def open_stream() -> MemoryStream:
            self.server, theirs = memory_pipe()
            await trio.lowlevel.checkpoint()
            return theirs

        self.client = await self.network.opener(open_stream, name=name)()


@asynccontextmanager
async def ends(*rules: Rule, **faults: Any) -> AsyncIterator[Ends]:
    async with faulty_network(Faults(rules=rules, **faults)) as network:
        made = Ends(network)
        await made.open()
        yield made


async def read(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some()
        if not more:
            break
        data += more
    return data


async def silent(stream: trio.abc.ReceiveStream, seconds: float = 1000) -> bool:
    """Whether nothing comes for so long, not even an end."""
    with trio.move_on_after(seconds) as scope:
        await stream.receive_some()
    return scope.cancelled_caught


async def test_without_faults_it_is_a_pipe(autojump_clock: MockClock) -> None:
    tasks = living_tasks()
    async with ends() as there:
        began = trio.current_time()
        await there.client.send_all(b"hello")
        assert await read(there.server, 5) == b"hello"
        await there.server.send_all(b"world")
        assert await read(there.client, 5) == b"world"
        await there.client.send_eof()
        assert await there.server.receive_some() == b""
        await there.server.send_all(b"bye")
        await there.server.aclose()
        assert await read(there.client, 10) == b"bye"
        await trio.testing.wait_all_tasks_blocked()
        assert there.network.connections == ()
        assert trio.current_time() == began
        assert not there.network.log.entries
    assert living_tasks() == tasks


async def test_a_reset_of_either_end_reaches_the_other(autojump_clock: MockClock) -> None:
    async with ends() as there:
        there.client.reset()
        with pytest.raises(trio.BrokenResourceError):
            await there.server.receive_some()
        await there.open()
        there.server.reset()
        with pytest.raises(trio.BrokenResourceError):
            await there.client.receive_some()


async def test_writing_to_an_end_that_is_gone_breaks(autojump_clock: MockClock) -> None:
    async with ends() as there:
        await there.server.aclose()
        assert await there.client.receive_some() == b""
        await there.client.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await there.client.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert there.network.connections == ()


async def test_latency_is_that_of_the_direction(autojump_clock: MockClock) -> None:
    async with ends(toward_client=Link(latency=2), toward_server=Link(latency=0.5)) as there:
        began = trio.current_time()
        await there.client.send_all(b"a")
        await read(there.server, 1)
        assert trio.current_time() - began == pytest.approx(0.5)
        await there.server.send_all(b"b")
        await read(there.client, 1)
        assert trio.current_time() - began == pytest.approx(2.5)


async def test_what_is_sent_at_once_has_one_latency_not_many(autojump_clock: MockClock) -> None:
    async with ends(toward_server=Link(latency=1)) as there:
        began = trio.current_time()
        for number in range(100):
            await there.client.send_all(bytes([number]))
        assert await read(there.server, 100) == bytes(range(100))
        assert trio.current_time() - began == pytest.approx(1)


async def test_jitter_is_bounded_and_keeps_the_order(autojump_clock: MockClock) -> None:
    async with ends(toward_server=Link(latency=1, jitter=1)) as there:
        delays = []
        for number in range(20):
            began = trio.current_time()
            await there.client.send_all(bytes([number]) * 1024)
            assert await read(there.server, 1024) == bytes([number]) * 1024
            delays.append(trio.current_time() - began)
        assert all(1 <= delay <= 2.001 for delay in delays)
        assert len({round(delay, 3) for delay in delays}) > 15
        data = bytes(range(256)) * 200
        await there.client.send_all(data)
        assert await read(there.server, len(data)) == data


async def test_a_slow_link_lets_bytes_trickle(autojump_clock: MockClock) -> None:
    async with ends(toward_server=Link(bandwidth=1000)) as there:
        began = trio.current_time()
        await there.client.send_all(bytes(3000))
        assert len(await there.server.receive_some()) == 50
        assert len(await read(there.server, 950)) == 950
        assert trio.current_time() - began == pytest.approx(1)
        assert len(await read(there.server, 2000)) == 2000
        assert trio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize(
    "faults",
    [
        {"toward_server": Link(buffer=1000)},
        {"toward_server": Link(bandwidth=1, buffer=1000)},
        {"rules": [Rule(Stall(), AtByte(0), toward="server")], "toward_server": Link(buffer=1000)},
    ],
    ids=["a server that does not read", "a slow link", "a stall"],
)
async def test_who_sends_too_much_waits(faults: Any, autojump_clock: MockClock) -> None:
    async with faulty_network(Faults(**faults)) as network:
        there = Ends(network)
        await there.open()
        sent = 0
        with trio.move_on_after(5):
            while True:
                await there.client.send_all(bytes(500))
                sent += 500
        assert sent < 2 * 65_536 + 3 * 1000 + 500  # the pipes at both ends, and the link's buffer


async def test_a_stall_delays_and_loses_nothing(autojump_clock: MockClock) -> None:
    async with ends(Rule(Stall(60), AtByte(3), toward="server")) as there:
        began = trio.current_time()
        await there.client.send_all(b"abcdef")
        assert await there.server.receive_some() == b"abc"
        await there.server.send_all(b"the other way is free")
        await there.client.receive_some()
        assert trio.current_time() == began
        assert await there.server.receive_some() == b"def"
        assert trio.current_time() - began == pytest.approx(60)


async def test_a_stall_can_last_until_it_is_healed(autojump_clock: MockClock) -> None:
    async with ends(Rule(Stall(both=True), AtByte(3), toward="server")) as there:
        await there.client.send_all(b"abcdef")
        assert await there.server.receive_some() == b"abc"
        await there.server.send_all(b"answer")
        assert await silent(there.server)
        assert await silent(there.client)
        there.network.heal()
        assert await there.server.receive_some() == b"def"
        assert await there.client.receive_some() == b"answer"


async def test_a_peer_can_vanish_without_a_word(autojump_clock: MockClock) -> None:
    async with ends(Rule(Vanish(), AtByte(3))) as there:
        await there.server.send_all(b"abcdef")
        assert await there.client.receive_some() == b"abc"
        await there.client.send_all(bytes(1_000_000))  # it is taken, and lost
        await there.client.aclose()
        assert await silent(there.server)
        there.network.heal()
        await there.server.send_all(b"still nobody")
        await there.server.aclose()
        await trio.sleep(200)
        assert there.network.connections == ()


async def test_one_direction_can_die_alone(autojump_clock: MockClock) -> None:
    async with ends(Rule(Vanish(both=False), AtByte(0), toward="server")) as there:
        await there.client.send_all(b"lost")
        await there.server.send_all(b"this way is open")
        assert await there.client.receive_some() == b"this way is open"
        await there.client.aclose()
        # The client would answer with a reset now, but that way is dead.
        for _ in range(3):
            await there.server.send_all(b"x")
        assert await silent(there.server)


async def test_a_reset_cuts_both_ends(autojump_clock: MockClock) -> None:
    async with ends(Rule(Reset(), AtByte(3), toward="server")) as there:
        await there.client.send_all(b"abcdef")
        for end in (there.server, there.client):
            with pytest.raises(trio.BrokenResourceError):
                await read(end, 10)


async def test_a_truncated_stream_ends_in_order_at_both_ends(autojump_clock: MockClock) -> None:
    async with ends(Rule(Truncate(), AtByte(3), toward="server"), toward_server=Link(latency=1)) as there:
        await there.client.send_all(b"abcdef")
        assert await read(there.server, 10) == b"abc"
        assert await there.client.receive_some() == b""
        await there.client.aclose()
        await there.server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert there.network.connections == ()


async def test_bytes_are_lost_and_replaced(autojump_clock: MockClock) -> None:
    rules = Rule(Lose(2), AtByte(1), toward="server"), Rule(Corrupt(1), AtByte(5), toward="server")
    async with ends(*rules) as there:
        await there.client.send_all(b"abcdefgh")
        await there.client.send_eof()
        got = await read(there.server, 10)
        assert (got[:3], got[4:]) == (b"ade", b"gh")
        assert got[3:4] != b"f"
        assert [(entry.fault, entry.byte) for entry in there.network.log.entries] == [(Lose(2), 1), (Corrupt(1), 5)]


@pytest.mark.parametrize("fault", [Stall(5), Vanish(), Reset(), Truncate(), Lose(), Corrupt()], ids=repr)
async def test_a_fault_can_happen_at_a_time_and_by_hand(fault: Fault, autojump_clock: MockClock) -> None:
    async def look(there: Ends) -> tuple[Any, float]:
        await trio.sleep(10)
        began = trio.current_time()
        result: Any = None
        try:
            await there.server.send_all(b"ab")
            with trio.move_on_after(100):
                result = await there.client.receive_some()
        except trio.BrokenResourceError as error:
            result = type(error)
        return result, trio.current_time() - began

    async with ends(Rule(fault, AtTime(9))) as there:
        by_time = await look(there)
        (entry,) = there.network.log.entries
        assert entry == Injected("1", fault, "client")
        assert entry.time == pytest.approx(9)
    async with ends() as there:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_later, 9, there.network.inject, fault)
            by_hand = await look(there)
    assert by_hand == by_time
    if not isinstance(fault, Stall):
        assert by_time[0] != b"ab"


async def _later(seconds: float, do: Callable[[Fault], object], fault: Fault) -> None:
    await trio.sleep(seconds)
    do(fault)


async def test_faults_by_hand_hit_the_connections_of_a_name(autojump_clock: MockClock) -> None:
    async with ends() as there:
        network = there.network
        nameless = there.client
        await there.open("bob")
        await there.open("bob")
        assert list(network.connections) == ["1", "bob/1", "bob/2"]
        assert network.inject(Reset(), name="bob/1") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert list(network.connections) == ["1", "bob/2"]
        assert network.inject(Reset(), name="bob") == 1
        assert network.inject(Stall()) == 1
        assert await silent(nameless)
        with pytest.raises(ValueError, match="give it a Rule"):
            network.inject(Refuse())


async def test_connections_are_refused_ignored_and_delayed(autojump_clock: MockClock) -> None:
    rules = [
        Rule(Refuse(), connections=[2]),
        Rule(Ignore(), connections=[3]),
        Rule(SlowOpening(5), connections=[4]),
    ]
    async with ends(*rules) as there:
        began = trio.current_time()
        with pytest.raises(ConnectionRefusedError, match="connection 2"):
            await there.open()
        with trio.move_on_after(1000) as ignored:
            await there.open()
        assert ignored.cancelled_caught
        await there.open()
        assert trio.current_time() - began == pytest.approx(1005)
        assert [entry.connection for entry in there.network.log.entries] == ["2", "3", "4"]
        there.network.quiet()
        assert there.network.log.connections == 4


async def test_a_quiet_network_hits_nobody(autojump_clock: MockClock) -> None:
    rules = Rule(Reset(), EachByte(1), toward="server"), Rule(Reset(), AtTime(1)), Rule(Refuse())
    async with faulty_network(Faults(rules=rules)) as network:
        network.quiet()
        there = Ends(network)
        await there.open()
        await trio.sleep(2)
        await there.client.send_all(b"x")
        assert await there.server.receive_some() == b"x"
        network.quiet(False)
        with pytest.raises(ConnectionRefusedError):
            await there.open()
        await there.client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await read(there.server, 10)


async def test_the_same_seed_injects_the_same_whoever_runs_first(autojump_clock: MockClock) -> None:
    async def inject(order: list[str]) -> dict[str, list[Injected]]:
        rules = [Rule(Stall(0.1), EachByte(0.01), toward="server"), Rule(Reset(), EachByte(0.0005), toward="server")]
        async with faulty_network(Faults(seed=5, rules=rules)) as network, trio.open_nursery() as nursery:
            for name in order:
                nursery.start_soon(_send_much, network, name, 100 + 7 * len(order[0]))
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        return {name: [entry for entry in network.log.entries if entry.connection == f"{name}/1"] for name in order}

    first, second = await inject(["alice", "bob", "carol"]), await inject(["bob", "carol", "alice"])
    assert first == second
    assert sum(map(len, first.values())) > 30
    assert len(set(map(len, first.values()))) > 1


async def _send_much(network: FaultyNetwork, name: str, size: int) -> None:
    there = Ends(network)
    await there.open(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_broken, there.server.receive_some)
        for _ in range(5000 // size):
            await _until_broken(partial(there.client.send_all, bytes(size)), 1)


async def _until_broken(do: Callable[[], Awaitable[object]], times: int = 1000) -> None:
    try:
        for _ in range(times):
            await do()
    except trio.BrokenResourceError:
        pass


async def test_an_exception_leaves_with_a_note_that_reproduces_it(autojump_clock: MockClock) -> None:
    class Failure(Exception):
        pass

    failure = Failure()
    with pytest.raises(Failure) as raised:
        async with ends(Rule(Stall(), AtByte(0)), seed=42) as there:
            await trio.testing.wait_all_tasks_blocked()
            raise failure
    assert raised.value is failure
    (note,) = failure.__notes__
    assert note == str(there.network.log)
    assert "faults = Faults(seed=42" in note
    assert "connection 1 toward the client, after 0 bytes: Stall(" in note


async def test_a_cancel_passes_through_and_leaves_no_task(autojump_clock: MockClock) -> None:
    tasks = living_tasks()
    with trio.move_on_after(5) as scope:
        async with ends(Rule(Ignore(), connections=[2]), Rule(Stall(), AtByte(0))) as there:
            await there.open()
    assert scope.cancelled_caught
    assert living_tasks() == tasks


async def test_streams_that_cannot_be_half_closed_are_closed(autojump_clock: MockClock) -> None:
    class Whole(trio.abc.Stream):
        def __init__(self, stream: MemoryStream) -> None:
            self.stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.stream.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await self.stream.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.stream.aclose()

    ours, theirs = memory_pipe()

    async def open_stream() -> Whole:
        await trio.lowlevel.checkpoint()
        return Whole(theirs)

    async with faulty_network(Faults()) as network:
        client = await network.opener(open_stream)()
        await client.send_all(b"x")
        assert await ours.receive_some() == b"x"
        await client.aclose()
        assert await ours.receive_some() == b""
