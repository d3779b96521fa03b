"""The adapter under a whole client: the real runtime on bytes that a test writes and reads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.protocol import wire
from tests.transport.support import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    URL,
    RawServer,
    close_frame,
    connector,
    frame,
    joined,
)
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, Socket, connect

pytestmark = pytest.mark.usefixtures("each_transport")


@asynccontextmanager
async def connected(server: RawServer, **options: Any) -> AsyncIterator[Socket]:
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        try:
            async with connect(URL, transport=connector(server.open_stream), reconnect=None, **options) as socket:
                yield socket
        except BaseException as error:  # noqa: BLE001 - raised again, outside of the nursery's group
            failure = error
    if failure is not None:
        raise failure


async def say_goodbye(server: RawServer) -> None:
    """Answer close frames, whatever comes before."""
    while True:
        opcode, payload = await server.read_frame()
        if opcode == CLOSE:
            await server.stream.send_all(frame(CLOSE, payload))
            await server.stream.send_eof()
            return


async def test_queued_frames_are_joined_into_few_writes(autojump_clock: MockClock) -> None:
    server = RawServer()
    async with connected(server, leave_timeout=0.1) as socket:
        channel = await joined(socket, server)
        before = len(server.client.writes)
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(channel.send, "event", number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.client.writes) - before <= 3
        trio.lowlevel.spawn_system_task(say_goodbye, server)


async def test_a_ping_of_the_server_is_answered_by_the_writer(autojump_clock: MockClock) -> None:
    server = RawServer()
    async with connected(server, leave_timeout=0.1) as socket:
        await joined(socket, server)
        await server.stream.send_all(frame(PING, b"are you there"))
        assert await server.read_frame() == (PONG, b"are you there")
        trio.lowlevel.spawn_system_task(say_goodbye, server)


async def test_a_pong_never_tears_a_frame(autojump_clock: MockClock) -> None:
    """A ping comes while a frame is half written: its pong follows the whole frame."""
    server = RawServer()
    async with connected(server, leave_timeout=0.1) as socket:
        channel = await joined(socket, server)
        await channel.send("event", "x" * 500_000)
        await trio.testing.wait_all_tasks_blocked()
        await server.stream.send_all(frame(PING, b"now"))
        await trio.testing.wait_all_tasks_blocked()
        opcode, payload = await server.read_frame()
        assert opcode == TEXT
        assert len(wire.parse(payload.decode()).payload) == 500_000
        assert await server.read_frame() == (PONG, b"now")
        trio.lowlevel.spawn_system_task(say_goodbye, server)


@pytest.mark.parametrize(
    ("data", "reason", "code"),
    [
        (close_frame(1012, "restart"), "closed_by_server", 1012),
        (close_frame(1000), "closed_by_server", 1000),
        (frame(TEXT, b"\xff"), "protocol_error", 1007),
        (b"\xf3\x01", "protocol_error", 1002),
        (frame(TEXT, b"x" * 101), "message_too_big", 1009),
    ],
)
async def test_every_end_is_one_connection_lost(data: bytes, reason: str, code: int, autojump_clock: MockClock) -> None:
    server = RawServer()
    with pytest.raises(ConnectionLost) as raised:
        async with connected(server, max_message_size=100):
            await server.stream.send_all(data)
            await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == (reason, code)
    assert trio.current_time() == 0
    assert server.client.closed
    opcode, payload = await server.read_frame()
    assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, "big"))


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_an_end_without_a_close_frame_is_a_loss(how: str, autojump_clock: MockClock) -> None:
    server = RawServer()
    with pytest.raises(ConnectionLost) as raised:
        async with connected(server):
            await (server.stream.aclose() if how == "eof" else _reset(server))
            await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("lost", 1006)


async def _reset(server: RawServer) -> None:
    await trio.lowlevel.checkpoint()
    server.stream.reset()


async def test_a_write_that_fails_is_a_loss_within_a_second(autojump_clock: MockClock) -> None:
    """The server reads no more, and says nothing: only writing tells."""

    server = RawServer()
    with pytest.raises(ConnectionLost) as raised:
        async with connected(server) as socket:
            channel = await joined(socket, server)
            server.client.broken = True
            await channel.send("event")
            await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("lost", 1006)
    assert trio.current_time() == pytest.approx(1)


async def test_a_normal_exit_closes_with_1000_and_closes_the_stream(autojump_clock: MockClock) -> None:
    server = RawServer()
    async with connected(server):
        trio.lowlevel.spawn_system_task(say_goodbye, server)
    assert server.client.closed
    assert trio.current_time() == 0


async def test_a_server_that_talks_nonsense_while_it_is_closed_holds_nobody_up(autojump_clock: MockClock) -> None:
    server = RawServer()

    async def talk() -> None:
        assert (await server.read_frame())[0] == CLOSE
        await server.stream.send_all(b"\xff\xff\xff")
        await server.stream.aclose()

    async with connected(server) as socket:
        trio.lowlevel.spawn_system_task(talk)
    assert trio.current_time() == 0
    assert socket.state.close_reason == "closed_by_client"


async def test_a_close_frame_of_both_sides_at_once(autojump_clock: MockClock) -> None:
    server = RawServer()

    async def cross() -> None:
        await server.read_frame()
        await server.stream.send_all(close_frame(1001))
        await server.stream.send_eof()

    async with connected(server) as socket:
        trio.lowlevel.spawn_system_task(cross)
    assert socket.state.close_reason == "closed_by_client"
    assert trio.current_time() == 0
