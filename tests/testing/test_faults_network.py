"""A network in memory, in virtual time: when faults happen, to which connections, and how they are reproduced."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.support import living_tasks
from tests.testing.fault_ends import Ends, ends, read, silent
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


@pytest.mark.parametrize("fault", [Stall(5), Vanish(), Reset(), Truncate(), Corrupt()], ids=repr)
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


async def test_a_network_that_has_ended_refuses_connections(autojump_clock: MockClock) -> None:
    opened: list[MemoryStream] = []

    async def open_late() -> MemoryStream:
        await trio.sleep(5)
        ours, theirs = memory_pipe()
        opened.append(theirs)
        return ours

    async def client(open_stream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        with pytest.raises(ConnectionRefusedError, match="the faulty network has ended"):
            await open_stream()

    async with trio.open_nursery() as nursery:
        async with faulty_network(Faults()) as network:
            open_stream = network.opener(open_late)
            nursery.start_soon(client, open_stream)
            await trio.sleep(1)
        await client(open_stream)
        await trio.sleep(5)
        assert len(opened) == 1
        assert await opened[0].receive_some() == b""


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
