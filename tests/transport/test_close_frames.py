"""One close frame a connection: ours or the answer to the server's, whatever the server does before and after it."""

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from tests.transport.support import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    RawServer,
    close_frame,
    connector,
    frame,
    opened,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import ConnectionLost, connect
from slipstream_trio.transport import Transport, TransportEnded

pytestmark = pytest.mark.usefixtures("each_transport")

VIOLATIONS = {
    "reserved opcode": (b"\x83\x00", 1002),
    "reserved bits": (b"\xf1\x00", 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "fragmented ping": (frame(PING, b"x", last=False), 1002),
    "close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
}
"""What breaks the protocol, and with which code a connection ends by it."""

violations = pytest.mark.parametrize("name", VIOLATIONS)


def frames_sent(server: RawServer) -> list[tuple[int, bytes]]:
    """Return the opcodes and payloads of everything that the client has written after its upgrade request."""
    data = b"".join(server.client.writes[1:])
    frames = []
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = struct.unpack_from("!H", data, 2)[0], 4
        mask, body = data[start : start + 4], data[start + 4 : start + 4 + size]
        assert data[1] & 0x80
        assert len(body) == size < 2**16
        frames.append((data[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))))
        data = data[start + 4 + size :]
    return frames


def closes_sent(server: RawServer) -> list[int]:
    """Return the codes of the close frames that the client has written."""
    return [struct.unpack_from("!H", payload)[0] for opcode, payload in frames_sent(server) if opcode == CLOSE]


async def say(server: RawServer, data: bytes) -> None:
    """Let the server send this, if the client still listens, and the client take it in."""
    with suppress(trio.BrokenResourceError):
        await server.stream.send_all(data)
    await wait_all_tasks_blocked()


async def ends(transport: Transport) -> None:
    """Receive until the end, and once more; write what is to be written after each."""
    for _ in range(2):
        with pytest.raises(TransportEnded):
            while True:
                await transport.receive()
        await transport.send([])


async def close_and_end(transport: Transport, server: RawServer, *answers: bytes) -> None:
    """Close from here, and let the server send these when it has our close frame, one after the other."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.close, 1000, "")
        nursery.start_soon(ends, transport)
        await wait_all_tasks_blocked()
        await transport.send([])
        for answer in answers:
            await say(server, answer)
            await transport.send([])
        await server.stream.send_eof()
        await wait_all_tasks_blocked()
        await transport.send([])


@violations
async def test_a_violation_after_our_close_gets_no_second_close_frame(name: str, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await close_and_end(transport, server, VIOLATIONS[name][0])
        assert closes_sent(server) == [1000]


@violations
async def test_a_ping_before_it_changes_nothing(name: str, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await close_and_end(transport, server, frame(PING, b"still"), VIOLATIONS[name][0])
        assert closes_sent(server) == [1000]


@pytest.mark.parametrize("message", [b"crossing", b"crossing and too big"])
async def test_messages_that_cross_our_close_do_not_make_us_close_again(
    message: bytes, autojump_clock: MockClock
) -> None:
    async with opened(max_message_size=10) as (transport, server):
        await close_and_end(transport, server, frame(TEXT, message), b"\x83\x00")
        assert closes_sent(server) == [1000]


@violations
async def test_a_violation_is_told_once_however_often_somebody_receives_or_closes(
    name: str, autojump_clock: MockClock
) -> None:
    data, code = VIOLATIONS[name]
    async with opened() as (transport, server):
        await server.stream.send_all(data + data)
        await ends(transport)
        assert server.woken == 1
        await transport.close(1000, "")
        await ends(transport)
        assert closes_sent(server) == [code]


@pytest.mark.parametrize("code", [1000, 1002, 1007, 1009, 4000])
@violations
async def test_a_close_of_the_server_is_answered_once(code: int, name: str, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(close_frame(code, "bye"))
        await ends(transport)
        await server.stream.send_all(VIOLATIONS[name][0])
        await ends(transport)
        await transport.close(1000, "")
        await transport.send([])
        assert closes_sent(server) == [code]


@violations
async def test_a_violation_after_a_message_too_big_gets_no_second_close_frame(
    name: str, autojump_clock: MockClock
) -> None:
    async with opened(max_message_size=10) as (transport, server):
        await server.stream.send_all(frame(TEXT, b"x" * 11) + VIOLATIONS[name][0])
        await ends(transport)
        await server.stream.send_all(VIOLATIONS[name][0])
        await ends(transport)
        assert closes_sent(server) == [1009]


async def test_an_end_without_a_violation_is_told_nobody(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_eof()
        await ends(transport)
        assert frames_sent(server) == []


# Under a whole client


async def serve(server: RawServer, behave: Callable[[], Awaitable[None]]) -> None:
    await server.accept()
    await behave()


@violations
async def test_a_client_that_has_closed_sends_one_close_frame(name: str, autojump_clock: MockClock) -> None:
    server = RawServer()

    async def break_the_protocol() -> None:
        assert (await server.read_frame())[0] == CLOSE
        await say(server, VIOLATIONS[name][0])
        await server.stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, break_the_protocol)
        async with connect(
            "ws://localhost/socket/websocket", transport=connector(server.open_stream), reconnect=None
        ) as socket:
            await socket.disconnect()
    assert closes_sent(server) == [1000]


@violations
async def test_a_client_whose_server_breaks_the_protocol_sends_one_close_frame(
    name: str, autojump_clock: MockClock
) -> None:
    server = RawServer()
    data, code = VIOLATIONS[name]

    async def break_the_protocol() -> None:
        await say(server, data)
        await server.stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, break_the_protocol)
        with pytest.raises(ConnectionLost):
            async with connect(
                "ws://localhost/socket/websocket", transport=connector(server.open_stream), reconnect=None
            ):
                await trio.sleep_forever()
    assert closes_sent(server) == [code]
