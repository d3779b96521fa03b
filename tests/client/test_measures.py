"""Two promises, measured: a cancelled push tears no frame, and a consumer that never reads stops nobody."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.support import URL, Lab, running
from trio.testing import MockClock

from slipstream_trio import SlowConsumer, Socket, connect
from slipstream_trio.protocol import Message
from slipstream_trio.testing.server import Channel, Connection, Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

BIG = 16 * 10**6
LIMIT = 32 * 2**20
SECONDS = 90


class Watched(trio.abc.Stream):
    """A stream of which one sees whether something is being written."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.writing = False
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writing = True
        try:
            await self._stream.send_all(data)
        finally:
            self.writing = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Watching:
    """Opens a stream, and watches it."""

    def __init__(self, open_stream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self.stream: Watched
        self._open = open_stream

    async def open_stream(self, _: OpenRequest) -> trio.abc.Stream:
        self.stream = Watched(await self._open())
        return self.stream


async def cancel_in_the_middle(socket: Socket, connection: Connection, stream: Watched) -> None:
    """Cancel a push of 16 MB in the middle of its write, then push again."""
    async with socket.join("lab:1") as channel:
        connection.pause_reading()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    while not stream.writing:
                        await trio.lowlevel.checkpoint()
                    for _ in range(100):  # so that all that goes into the buffers of the sockets is written
                        await trio.lowlevel.checkpoint()
                    assert stream.writing
                    scope.cancel()

                nursery.start_soon(cancel)
                await channel.push("big", b"x" * BIG)
        assert scope.cancelled_caught
        assert "big" not in [message.event for message in connection.received]
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                assert await channel.push("echo", {"intact": True}) == {"intact": True}

            nursery.start_soon(push)
            await trio.testing.wait_all_tasks_blocked()
            connection.resume_reading()
    check(connection)


def check(connection: Connection) -> None:
    """The server saw the whole first message, and then the second."""
    join, big, echo, leave = connection.received
    assert [join.event, big.event, echo.event, leave.event] == ["phx_join", "big", "echo", "phx_leave"]
    assert big.payload == b"x" * BIG
    assert connection.close_code is None
    assert not connection.server.errors


def big_server() -> PhoenixServer:
    return PhoenixServer({"/socket": Mount(channels={"lab:*": Lab}, max_frame_size=LIMIT)})


@pytest.mark.once
async def test_a_push_of_16_mb_cancelled_in_the_middle_of_its_write_over_tcp() -> None:
    server = big_server()
    async with server.serve() as listening:
        watching = Watching(partial(trio.open_tcp_stream, "127.0.0.1", listening.port))
        url = listening.url("/socket/websocket")
        async with connect(url, transport=TrioWebSocketConnector(watching.open_stream)) as socket:
            (connection,) = await server.wait_connections()
            await cancel_in_the_middle(socket, connection, watching.stream)
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


@pytest.mark.once
@pytest.mark.parametrize("kind", ["buffered", "lockstep"])
async def test_a_push_of_16_mb_cancelled_in_the_middle_of_its_write_in_memory(
    kind: str, autojump_clock: MockClock
) -> None:
    server = big_server()
    async with server.run(), trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            if kind == "buffered":
                return await server.open_stream()
            ours, theirs = trio.testing.lockstep_stream_pair()
            nursery.start_soon(server._handle, ours)
            return theirs

        watching = Watching(open_stream)
        async with connect(URL, transport=TrioWebSocketConnector(watching.open_stream)) as socket:
            (connection,) = await server.wait_connections()
            await cancel_in_the_middle(socket, connection, watching.stream)
        await connection.wait_closed()
        assert connection.close_code == 1000
        nursery.cancel_scope.cancel()


class Flood(Channel):
    """Pushes and pushes."""

    async def after_join(self) -> None:
        self.spawn(self.flood)

    async def flood(self) -> None:
        while True:
            for number in range(25):
                await self.push("tick", {"number": number, "padding": "x" * 100})
            await trio.sleep(0.2)


class Clock(Channel):
    """Pushes once a second."""

    async def after_join(self) -> None:
        self.spawn(self.tick)

    async def tick(self) -> None:
        for second in range(SECONDS):
            await self.push("second", second)
            await trio.sleep(1)


@pytest.mark.once
@pytest.mark.parametrize("began", [False, True])
async def test_a_consumer_that_never_reads_stops_nobody(began: bool, autojump_clock: MockClock) -> None:
    limit = 64
    async with running(channels={"flood": Flood, "clock": Clock}) as server:
        async with connect(URL, transport=server.connector(), buffer=limit, heartbeat_interval=10) as socket:
            (connection,) = server.connections
            async with socket.join("flood") as flooded, flooded.subscribe("tick") as ticks:
                if began:
                    await anext(aiter(flooded))
                    await anext(ticks)
                async with socket.join("clock") as clock:
                    started = trio.current_time()
                    seconds: list[Any] = [message.payload async for message in until(clock, SECONDS)]
                    await trio.sleep_until(started + SECONDS + 1)
                assert seconds == list(range(SECONDS))
                heartbeats = [message for message in connection.received if message.event == "heartbeat"]
                assert len(heartbeats) == (SECONDS + 1) // 10
                assert min(flooded.dropped, ticks.dropped) > 10_000
                await trio.sleep(0.1)  # between two bursts
                for stream in (flooded.stream(), ticks.stream()):
                    assert await waiting_in(stream) <= limit
                assert socket.status == "connected"
            assert connection.outbox.gauge.size < 2**20


async def until(stream: Any, count: int) -> Any:
    """Give so many messages of a stream."""
    iterator = aiter(stream)
    for _ in range(count):
        message: Message = await anext(iterator)
        yield message


async def waiting_in(stream: Any) -> int:
    """Read all messages that wait in a stream, and return how many they were."""
    count = 0
    with trio.move_on_after(0.01):
        while True:
            with suppress(SlowConsumer):
                count += isinstance(await anext(stream), Message)
    return count
