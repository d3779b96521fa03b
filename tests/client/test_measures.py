"""Two promises, measured: a cancelled push tears no frame, and a consumer that never reads stops nobody."""

from typing import Any

import pytest
import trio
from tests.client.support import URL, Lab, running
from trio.testing import MockClock

from slipstream_trio import Socket, connect
from slipstream_trio.protocol import Message
from slipstream_trio.testing.server import Channel, Connection, Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

BIG = 16 * 10**6
LIMIT = 32 * 2**20
SECONDS = 90


async def cancel_in_the_middle(socket: Socket, connection: Connection) -> None:
    """Cancel a push of 16 MB in the middle of its write, then push again."""
    async with socket.join("lab:1") as channel:
        connection.pause_reading()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    outbox = socket._connection.outbox
                    while not outbox._writing:
                        await trio.lowlevel.checkpoint()
                    for _ in range(100):  # so that all that goes into the buffers of the sockets is written
                        await trio.lowlevel.checkpoint()
                    assert outbox._writing
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
        async with connect(listening.url("/socket/websocket")) as socket:
            (connection,) = await server.wait_connections()
            await cancel_in_the_middle(socket, connection)
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


@pytest.mark.once
@pytest.mark.parametrize("kind", ["buffered", "lockstep"])
async def test_a_push_of_16_mb_cancelled_in_the_middle_of_its_write_in_memory(
    kind: str, autojump_clock: MockClock
) -> None:
    server = big_server()
    async with server.run(), trio.open_nursery() as nursery:

        async def open_stream(_: OpenRequest) -> trio.abc.Stream:
            if kind == "buffered":
                return await server.open_stream()
            ours, theirs = trio.testing.lockstep_stream_pair()
            nursery.start_soon(server._handle, ours)
            return theirs

        async with connect(URL, transport=TrioWebSocketConnector(open_stream)) as socket:
            (connection,) = await server.wait_connections()
            await cancel_in_the_middle(socket, connection)
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
                for buffer in (flooded._membership.streams.buffer, ticks._buffer):
                    assert len(buffer) <= limit + 1  # the mark of the loss included
                assert len(socket._connection.outbox._frames) == 0
                assert socket.status == "connected"
            assert connection.outbox_size < 2**20


async def until(stream: Any, count: int) -> Any:
    """Give so many messages of a stream."""
    iterator = aiter(stream)
    for _ in range(count):
        message: Message = await anext(iterator)
        yield message
