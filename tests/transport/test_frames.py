"""Frames in, frames out, and the end: the trio-websocket adapter on a stream in memory."""

from typing import Any

import pytest
import trio
from tests.transport.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawServer,
    close_frame,
    frame,
    opened,
)
from trio.testing import MockClock

from slipstream_trio.transport import Transport, TransportEnded
from slipstream_trio.transport.common import LEAST_READ, MOST_READ, PONGS

pytestmark = pytest.mark.usefixtures("each_transport")


async def ended(transport: Transport) -> TransportEnded:
    """Return what receiving raises."""
    with pytest.raises(TransportEnded) as raised:
        while True:
            await transport.receive()
    return raised.value


async def test_frames_come_in_as_text_and_bytes(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(TEXT, "zwölf".encode()) + frame(BINARY, b"\x00\xff") + frame(TEXT))
        received = [*await transport.receive(), *await transport.receive(), *await transport.receive()]
        assert received == ["zwölf", b"\x00\xff", ""]
        assert [type(item) for item in received] == [str, bytes, str]


async def test_frames_right_behind_the_upgrade_are_not_lost(autojump_clock: MockClock) -> None:
    async with opened(behind=frame(TEXT, b"early")) as (transport, _):
        assert await transport.receive() == ("early",)


async def test_fragments_are_put_together(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        encoded = "zwölf".encode()
        for part in (
            frame(TEXT, encoded[:3], last=False),
            frame(PING, b"between"),
            frame(CONTINUATION, encoded[3:4], last=False),
            frame(CONTINUATION, encoded[4:]),
        ):
            await server.stream.send_all(part)
        assert await transport.receive() == ("zwölf",)


async def test_reads_are_as_large_as_what_comes(autojump_clock: MockClock) -> None:
    """A read's memory is allocated whole; large ones for small messages would leave holes in the process's memory."""
    async with opened() as (transport, server):
        reads = server.client.reads
        reads.clear()
        for _ in range(100):
            await server.stream.send_all(frame(TEXT, b"small"))
            await transport.receive()
        assert {*reads} == {LEAST_READ}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.stream.send_all, frame(BINARY, b"x" * 1_000_000))
            await transport.receive()
        assert max(size for size in reads if size is not None) == MOST_READ
        assert len(reads) < 130 + 20
        for _ in range(10):
            await server.stream.send_all(frame(TEXT, b"small"))
            await transport.receive()
        assert reads[-1] == LEAST_READ


@pytest.mark.once
@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 3_000_000])
async def test_frames_of_any_size_go_both_ways(size: int, autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.stream.send_all, frame(BINARY, data))
        assert await transport.receive() == (data,)
        nursery.start_soon(transport.send, [data])
        assert await server.read_frame() == (BINARY, data)


async def test_many_frames_are_one_write(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await transport.send([f"frame {number}" for number in range(100)])
        assert len(server.client.writes) == 2  # the upgrade is the first
        for number in range(100):
            assert await server.read_frame() == (TEXT, f"frame {number}".encode())


async def test_a_ping_is_answered_by_whoever_sends(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        for number, payload in enumerate([b"one", b"two"], 1):
            await server.stream.send_all(frame(PING, payload))
            await trio.testing.wait_all_tasks_blocked()
            assert server.woken == number
            assert len(server.client.writes) == number
            await transport.send([])
            assert await server.read_frame() == (PONG, payload)
        await transport.send([])
        assert len(server.client.writes) == 3


async def test_of_the_pings_that_wait_for_an_answer_the_latest_get_one(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await transport.send(["before"])
        for number in range(100):
            await server.stream.send_all(frame(PING, str(number).encode()))
        await trio.testing.wait_all_tasks_blocked()
        assert server.woken == 1
        await transport.send(["after"])
        assert await server.read_frame() == (TEXT, b"before")
        for number in range(100 - PONGS, 100):
            assert await server.read_frame() == (PONG, str(number).encode())
        assert await server.read_frame() == (TEXT, b"after")
        assert server.buffer == b""


async def test_a_server_that_pings_and_does_not_read_fills_no_memory(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        written = trio.Event()

        async def write_slowly(data: Any) -> None:
            await written.wait()
            await server.client.stream.send_all(data)

        server.client.send_all = write_slowly  # type: ignore[method-assign]
        await server.stream.send_all(frame(PING, b"first"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.send, [])
        await trio.testing.wait_all_tasks_blocked()
        await server.stream.send_all(frame(PING, b"x" * 100) * 400)
        await server.stream.send_all(frame(PING, b"last"))
        await trio.testing.wait_all_tasks_blocked()
        written.set()
        assert [await server.read_frame() for _ in range(1 + PONGS)] == [
            (PONG, b"first"),
            *[(PONG, b"x" * 100)] * (PONGS - 1),
            (PONG, b"last"),
        ]
        assert server.buffer == b""


async def test_pongs_and_frames_share_a_write(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(PING, b"one"))
        await trio.testing.wait_all_tasks_blocked()
        await transport.send(["text"])
        assert len(server.client.writes) == 2
        assert [await server.read_frame() for _ in range(2)] == [(PONG, b"one"), (TEXT, b"text")]


async def test_a_pong_is_nothing(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(PONG, b"unasked") + frame(TEXT, b"next"))
        assert await transport.receive() == ("next",)


async def test_a_close_by_the_server_is_answered_after_what_came_before(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(TEXT, b"last") + close_frame(1012, "restart"))
        assert await transport.receive() == ("last",)
        end = await ended(transport)
        assert (end.code, end.message) == (1012, "restart")
        with pytest.raises(TransportEnded):
            await transport.send(["too late"])
        assert await server.read_frame() == (CLOSE, b"\x03\xf4")


async def test_a_close_frame_without_a_code_is_1005(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(CLOSE))
        assert (await ended(transport)).code == 1005


async def close_from_here(transport: Transport, server: RawServer, answer: bytes) -> TransportEnded:
    """Close, and let the server answer with these bytes; return how receiving ended."""
    ends: list[TransportEnded] = []

    async def receive() -> None:
        ends.append(await ended(transport))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(transport.close, 1000, "")
        await trio.testing.wait_all_tasks_blocked()
        await transport.send([])
        assert await server.read_frame() == (CLOSE, b"\x03\xe8")
        assert not ends
        await server.stream.send_all(answer)
        await server.stream.send_eof()
    return ends[0]


async def test_closing_waits_for_the_close_of_the_server(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        end = await close_from_here(transport, server, close_frame(4000, "bye"))
        assert (end.code, end.message) == (4000, "bye")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xff garbage",
        frame(TEXT, b"\xff"),
        frame(PING, b"still") + close_frame(1000),
        frame(TEXT, b"crossing") + close_frame(1000),
    ],
)
async def test_closing_ends_at_once_whatever_the_server_answers(answer: bytes, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await close_from_here(transport, server, answer)
        assert trio.current_time() == 0


async def test_closing_after_the_server_is_harmless(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(close_frame(1001))
        assert (await ended(transport)).code == 1001
        await transport.close(1000, "")
        assert (await ended(transport)).code == 1001


async def test_an_end_without_a_close_frame_is_1006(autojump_clock: MockClock) -> None:
    for how in ("eof", "reset"):
        async with opened() as (transport, server):
            if how == "eof":
                await server.stream.aclose()
            else:
                server.stream.reset()
            assert (await ended(transport)).code == 1006
            with pytest.raises(TransportEnded):
                await transport.send(["too late"])


async def test_a_write_that_fails_ends_the_transport(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.client.stream.aclose()
        with pytest.raises(TransportEnded) as raised:
            await transport.send(["text"])
        assert raised.value.code == 1006


async def test_a_message_above_the_limit_ends_with_1009(autojump_clock: MockClock) -> None:
    async with opened(max_message_size=10) as (transport, server):
        await server.stream.send_all(frame(BINARY, b"x" * 10) + frame(BINARY, b"x" * 11))
        assert await transport.receive() == (b"x" * 10,)
        assert (await ended(transport)).code == 1009
        await transport.send([])
        opcode, payload = await server.read_frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf1")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (b"\x83\x00", 1002),
        (b"\xf1\x00", 1002),
        (frame(CONTINUATION, b"of nothing"), 1002),
        (frame(PING, b"x" * 200), 1002),
    ],
)
async def test_a_violation_of_the_protocol_ends_the_transport_with_its_code(
    data: bytes, code: int, autojump_clock: MockClock
) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(TEXT, b"fine") + data)
        received: list[Any] = []
        with pytest.raises(TransportEnded) as raised:
            while True:
                received.extend(await transport.receive())
        assert raised.value.code == code
        assert received in (["fine"], [])
        await transport.send([])
        assert await server.read_frame() == (CLOSE, code.to_bytes(2, "big"))
        await transport.send([])
        assert server.buffer == b""


async def test_leaving_aborts_whatever_is_going_on(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outside:
        async with opened(read=False) as (transport, server):

            async def receive() -> None:
                await ended(transport)

            async def send() -> None:
                with pytest.raises(TransportEnded):
                    await transport.send([b"x" * 10**6])

            outside.start_soon(receive)
            outside.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
    assert server.client.closed
    assert trio.current_time() == 0
