"""A program that stood still finds the answer and the deadline at once: what came in time counts.

The client's clock stands still but for the stalls, in which it jumps: a stall blocks the whole program until the answer
is in the kernel, on a real socket, and then lasts for up to twice the time limit.
"""

import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from docs.example_server import ExampleServer
from tests.client.support import URL, Scripted, living_tasks, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, ChannelClosed, ConnectionLost, ConnectionRejected, PushTimeout, Socket, connect
from slipstream_trio.telemetry import LoopStalled, Telemetry
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.network import open_stream
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

STALLS = 50


@pytest.fixture(scope="module")
def server() -> Iterator[ExampleServer]:
    server = ExampleServer()
    yield server
    server.stop()


class Stream(trio.abc.Stream):
    """A TCP stream that counts its writes, and reads nothing while one is to be followed by a stall."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.writes = 0
        self._may_read = trio.Event()
        self._may_read.set()

    def hold(self) -> None:
        """Read no more."""
        self._may_read = trio.Event()

    def waiting(self) -> bytes:
        """Return what waits in the kernel, once there is something."""
        readable, _, _ = select.select([self.stream.socket.fileno()], [], [], 20)
        assert readable
        fd = os.dup(self.stream.socket.fileno())
        with socket.socket(fileno=fd) as peeked:
            return peeked.recv(65536, socket.MSG_PEEK)

    def release(self) -> None:
        """Read on."""
        self._may_read.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)
        self.writes += 1

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.lowlevel.wait_readable(self.stream.socket)
        await self._may_read.wait()
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Program:
    """A client that stands still when a test says so.

    Attributes:
        socket: its socket.
    """

    def __init__(self, clock: MockClock) -> None:
        self.socket: Socket
        self._clock = clock
        self._stream: Stream

    async def open(self, request: OpenRequest) -> trio.abc.Stream:
        stream = await open_stream(request)
        assert isinstance(stream, trio.SocketStream)
        self._stream = Stream(stream)
        return self._stream

    async def stall_after(
        self, operation: Callable[[], Awaitable[object]], seconds: float, answer: bytes = b"phx_reply"
    ) -> None:
        """Stand still once an operation is written: until the server has answered, and so many seconds have passed."""
        stream = self._stream
        before = stream.writes
        stream.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operation)
            while stream.writes == before:
                await trio.lowlevel.checkpoint()
            while answer not in stream.waiting():
                pass
            self._clock.jump(seconds)
            stream.release()
        for _ in range(30):  # all comes to rest before the next one
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running(server: ExampleServer, clock: MockClock) -> AsyncIterator[Program]:
    program = Program(clock)
    limits: dict[str, Any] = {"join_timeout": 10, "push_timeout": 10, "leave_timeout": 10}
    connector = TrioWebSocketConnector(program.open)
    # Without heartbeats of its own, as a stall waits for whatever the server sends next.
    async with connect(server.url, transport=connector, reconnect=None, heartbeat_interval=None, **limits) as connected:
        program.socket = connected
        yield program


async def test_no_push_is_lost_to_a_stall(server: ExampleServer, mock_clock: MockClock) -> None:
    async with running(server, mock_clock) as program, program.socket.join("room:1") as channel:
        for number in range(STALLS):
            await program.stall_after(partial(channel.push, "upload", b"x" * number), 10 + number % 11)
        assert program.socket.generation == 1


async def test_no_join_and_no_leave_is_lost_to_a_stall(server: ExampleServer, mock_clock: MockClock) -> None:
    async with running(server, mock_clock) as program:
        for number in range(STALLS):
            channel = program.socket.channel(f"room:{number}")
            await program.stall_after(channel.join, 10 + number % 11)
            assert channel.status == "joined"
            await program.stall_after(channel.leave, 10 + number % 11, b"phx_close")
            with pytest.raises(ChannelClosed, match="it was left; join it again"):  # and not that it timed out
                await channel.push("event")
        assert program.socket.generation == 1


async def test_no_connection_is_lost_to_a_stall(server: ExampleServer, mock_clock: MockClock) -> None:
    async with running(server, mock_clock) as program:
        for number in range(STALLS):
            await program.stall_after(program.socket.ping, 30 + number % 31)
        assert program.socket.generation == 1


async def test_an_answer_behind_what_comes_in_bit_by_bit_is_read_before_the_verdict(autojump_clock: MockClock) -> None:
    async with (
        scripted(answers={"phx_join", "phx_leave"}) as (connected, peer),
        connected.join("room:1") as channel,
        trio.open_nursery() as nursery,
    ):

        async def come_in() -> None:
            await trio.sleep(2)
            for _ in range(20):
                peer.progress += 1
                await trio.lowlevel.checkpoint()
            peer.reply(peer.sent[-1], 1)

        nursery.start_soon(come_in)
        assert await channel.push("event", timeout=2) == 1


async def test_a_flood_delays_no_verdict_for_long(autojump_clock: MockClock) -> None:
    """What comes all the time is no answer."""
    async with (
        FakeServer(answers={"connect", "join", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), reconnect=Backoff((1,))) as connected,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        async with connected.join("room:1") as channel:
            fake = connection.channel("room:1")

            async def flood() -> None:
                while True:
                    await fake.push("tick", "x" * 10_000)
                    await trio.sleep(0.001)

            nursery.start_soon(flood)
            began = trio.current_time()
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=2)
            assert trio.current_time() - began <= 2.5
            nursery.cancel_scope.cancel()


async def test_a_line_that_stays_silent_is_lost_all_the_same(autojump_clock: MockClock) -> None:
    async with FakeServer(answers={"connect"}) as server:
        with pytest.raises(ConnectionLost) as caught:
            async with connect(server.url, transport=server.connector(), heartbeat_interval=10, reconnect=None):
                await trio.sleep_forever()
        assert (caught.value.reason, caught.value.ended_by) == ("heartbeat_timeout", "network")
        assert trio.current_time() <= 22


async def test_the_loop_is_watched_while_somebody_listens() -> None:
    tasks: list[int] = []
    for listens in (False, True):
        bus = Telemetry()
        if listens:
            bus.attach("stalls", LoopStalled, lambda _: None)
        async with scripted(telemetry=bus):
            await wait_all_tasks_blocked()
            tasks.append(living_tasks())
        await wait_all_tasks_blocked()
    assert tasks[1] == tasks[0] + 1


async def test_time_that_a_test_passes_is_no_stall(autojump_clock: MockClock) -> None:
    bus, told = Telemetry(), list[LoopStalled]()
    bus.attach("stalls", LoopStalled, told.append)
    async with scripted(telemetry=bus, heartbeat_interval=10):
        await trio.sleep(11)
        autojump_clock.jump(5)
        await trio.sleep(1)
    assert told == []


async def test_a_socket_tells_of_stalls_from_its_next_deadline_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    class SystemClock:
        """Has the name by which the real clock is known."""

    monkeypatch.setattr(trio.lowlevel, "current_clock", SystemClock)
    bus, told = Telemetry(), list[LoopStalled]()
    async with scripted(telemetry=bus, heartbeat_interval=10) as (lasting, _):
        bus.attach("stalls", LoopStalled, told.append)
        async with scripted(telemetry=bus) as (ending, _):
            autojump_clock.jump(1)
            await trio.sleep(10)
            assert {record.socket_id for record in told} == {ending.socket_id}
            told.clear()
            autojump_clock.jump(1)
            await trio.sleep(1)
            assert {record.socket_id for record in told} == {lasting.socket_id, ending.socket_id}
        told.clear()
        autojump_clock.jump(1)
        await trio.sleep(1)
        assert {record.socket_id for record in told} == {lasting.socket_id}


async def test_a_deadline_at_the_moment_of_the_end_finds_nothing_to_watch(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    class SystemClock:
        """Has the name by which the real clock is known."""

    async def refuse(_: OpenRequest) -> None:
        if len(connector.requests) % 2 == 0:
            await trio.sleep(4)
            raise ConnectionRejected(403, (), "no")

    monkeypatch.setattr(trio.lowlevel, "current_clock", SystemClock)
    bus = Telemetry()
    bus.attach("stalls", LoopStalled, lambda _: None)
    connector = Scripted(opening=refuse)
    for _ in range(20):
        with pytest.raises(ConnectionRejected):
            async with connect(URL, transport=connector, telemetry=bus, reconnect=Backoff((1,), jitter=0)) as connected:
                channel = connected.channel("room")
                await channel.join()
                connector.peer.end()
                await wait_all_tasks_blocked()
                with pytest.raises((PushTimeout, ConnectionLost)):
                    await channel.push("event", timeout=5)
                await trio.sleep_forever()
