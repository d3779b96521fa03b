"""A network in memory, in virtual time: what each fault does to the streams at both ends."""

from typing import Any

import pytest
import trio
from tests.client.support import living_tasks
from tests.testing.fault_ends import Ends, ends, read, silent
from trio.testing import MockClock

from slipstream_trio.testing.faults import (
    AtByte,
    Corrupt,
    Faults,
    Link,
    Reset,
    Rule,
    Stall,
    Truncate,
    Vanish,
    faulty_network,
)


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


async def test_bytes_are_replaced(autojump_clock: MockClock) -> None:
    async with ends(Rule(Corrupt(1), AtByte(5), toward="server")) as there:
        await there.client.send_all(b"abcdefgh")
        await there.client.send_eof()
        got = await read(there.server, 10)
        assert (got[:5], got[6:]) == (b"abcde", b"gh")
        assert got[5:6] != b"f"
        assert [(entry.fault, entry.byte) for entry in there.network.log.entries] == [(Corrupt(1), 5)]
