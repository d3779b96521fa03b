"""How a transport ended: by whom, with which code, and why."""

from contextlib import suppress
from typing import Any

import pytest
import trio
from tests.transport.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    RawServer,
    close_frame,
    frame,
    opened,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio.transport import Transport, TransportEnded

pytestmark = pytest.mark.usefixtures("each_transport")

TOO_BIG = frame(BINARY, b"x" * 101)
LIMIT: Any = {"max_message_size": 100}


async def end_of(transport: Transport) -> TransportEnded:
    """Return what receiving raises, now and ever after."""
    ends = []
    for _ in range(3):
        with pytest.raises(TransportEnded) as raised:
            while True:
                await transport.receive()
        ends.append(raised.value)
    assert {said(end) for end in ends} == {said(ends[0])}
    return ends[0]


def said(end: TransportEnded) -> tuple[int, str, str | None]:
    return end.code, end.ended_by, end.reason


async def closes_sent(transport: Transport, server: RawServer) -> list[bytes]:
    """Let the client write what waits; returns the payloads of the close frames that it has sent."""
    for _ in range(2):
        with suppress(TransportEnded):
            await transport.send([])
    await server.client.aclose()
    found: list[bytes] = []
    while True:
        try:
            opcode, payload = await server.read_frame()
        except EOFError:
            return found
        if opcode == CLOSE:
            found.append(payload)


async def hang_up(server: RawServer, how: str) -> None:
    if how == "eof":
        await server.stream.aclose()
    else:
        server.stream.reset()
    await wait_all_tasks_blocked()


# The server


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 3000, 4999])
async def test_a_close_frame_that_came_is_the_servers_whatever_its_code(code: int, autojump_clock: MockClock) -> None:
    async with opened(**LIMIT) as (transport, server):
        await server.stream.send_all(frame(TEXT, b"last") + close_frame(code, "so it is"))
        assert await transport.receive() == ("last",)
        end = await end_of(transport)
        assert said(end) == (code, "server", None)
        assert end.message == "so it is"
        assert await closes_sent(transport, server) == [code.to_bytes(2, "big")], "RFC 6455, 5.5.1: the code is echoed"


async def test_a_close_frame_without_a_code_is_the_servers(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(frame(CLOSE))
        assert said(await end_of(transport)) == (1005, "server", None)


@pytest.mark.parametrize("behind", [TOO_BIG, b"\xff\xff\xff", frame(TEXT, b"\xff"), close_frame(4000)])
async def test_nothing_behind_the_servers_close_frame_counts(behind: bytes, autojump_clock: MockClock) -> None:
    async with opened(**LIMIT) as (transport, server):
        await server.stream.send_all(close_frame(1012) + behind)
        assert said(await end_of(transport)) == (1012, "server", None)
        assert await closes_sent(transport, server) == [b"\x03\xf4"]


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_server_that_closes_and_hangs_up_has_closed(how: str, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.stream.send_all(close_frame(1001))
        await wait_all_tasks_blocked()
        await hang_up(server, how)
        end = await end_of(transport)
        assert said(end) == (1001, "server", None)
        assert end.__cause__ is None


# The client, because of what came


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1002),
        (b"\xf1\x00", 1002),
        (b"\xc1\x7e\xff\xff", 1002),
        (b"\x83\x7e\xff\xff", 1002),
        (b"\x81\x81maskx", 1002),
        (b"\x81\x7e\x00\x01x", 1002),
        (frame(CONTINUATION, b"of nothing"), 1002),
        (frame(TEXT, b"x", last=False) + frame(TEXT), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, last=False), 1002),
        (frame(CLOSE, b"x"), 1002),
        (close_frame(999), 1002),
        (close_frame(1006), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", last=False) + frame(CONTINUATION, b"x"), 1007),
    ],
)
@pytest.mark.parametrize("behind", [b"", close_frame(1000, "bye"), close_frame(1002), TOO_BIG])
async def test_a_violation_is_ended_by_the_client(
    data: bytes, code: int, behind: bytes, autojump_clock: MockClock
) -> None:
    """Also where a close frame follows."""
    async with opened(**LIMIT) as (transport, server):
        await server.stream.send_all(frame(TEXT, b"fine") + data + behind)
        assert await transport.receive() == ("fine",)
        end = await end_of(transport)
        assert said(end) == (code, "client", "protocol_error")
        assert end.message
        await server.stream.send_all(close_frame(1000, "as you like"))
        await wait_all_tasks_blocked()
        assert said(await end_of(transport)) == (code, "client", "protocol_error")
        assert await closes_sent(transport, server) == [code.to_bytes(2, "big")]


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (TOO_BIG, 101),
        (frame(TEXT, b"x" * 101), 101),
        (frame(TEXT, "ä".encode() * 51), 102),
        (frame(BINARY, b"x" * 60_000), 60_000),
        (b"\x82\x7f\x00\x00\x00\x40\x00\x00\x00\x00", 2**38),
        (frame(TEXT, b"x" * 60, last=False) + frame(PING, b"x" * 90) + frame(CONTINUATION, b"x" * 41), 101),
        (frame(TEXT, b"x" * 60, last=False) + frame(CONTINUATION, b"x" * 40, last=False) + b"\x80\x01", 101),
    ],
)
@pytest.mark.parametrize("behind", [b"", close_frame(1009, "bye"), frame(TEXT, b"\xff"), frame(TEXT, b"next")])
async def test_a_message_above_the_limit_is_ended_by_the_client(
    data: bytes, size: int, behind: bytes, autojump_clock: MockClock
) -> None:
    """As soon as its header has come; and what came before is received."""
    async with opened(**LIMIT) as (transport, server):
        await server.stream.send_all(frame(TEXT, b"x" * 100) * 3 + data + behind)
        await wait_all_tasks_blocked()
        assert [frame for _ in range(3) for frame in await transport.receive()] == ["x" * 100] * 3
        end = await end_of(transport)
        assert said(end) == (1009, "client", "message_too_big")
        assert end.message == f"a message of at least {size} bytes; max_message_size is 100"
        assert await closes_sent(transport, server) == [b"\x03\xf1" + end.message.encode()]


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 104])
async def test_a_message_above_the_limit_may_come_in_parts(cut: int, autojump_clock: MockClock) -> None:
    async with opened(**LIMIT) as (transport, server):
        data = frame(TEXT, b"fine") + frame(BINARY, b"x" * 200)
        for part in (data[: 6 + cut], data[6 + cut :]):
            await server.stream.send_all(part)
            await wait_all_tasks_blocked()
        assert await transport.receive() == ("fine",)
        assert said(await end_of(transport)) == (1009, "client", "message_too_big")


async def test_a_message_above_the_limit_may_come_right_behind_the_upgrade(autojump_clock: MockClock) -> None:
    async with opened(behind=frame(TEXT, b"fine") + TOO_BIG, **LIMIT) as (transport, _):
        assert await transport.receive() == ("fine",)
        assert said(await end_of(transport)) == (1009, "client", "message_too_big")


async def test_messages_at_the_limit_are_fine(autojump_clock: MockClock) -> None:
    async with opened(**LIMIT) as (transport, server):
        for data in (frame(BINARY, b"x" * 100), frame(TEXT, "ä".encode() * 50), frame(TEXT, b"x" * 100)):
            await server.stream.send_all(data * 2)
            assert len([*await transport.receive(), *await transport.receive()]) == 2
        halves = frame(TEXT, b"x" * 50, last=False) + frame(PING, b"x" * 100) + frame(CONTINUATION, b"x" * 50)
        await server.stream.send_all(halves * 2)
        assert [*await transport.receive(), *await transport.receive()] == ["x" * 100] * 2


# The client, by its own close


async def close_and(
    transport: Transport, server: RawServer, answer: bytes, *, code: int = 1000, eof: bool = True
) -> TransportEnded:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.close, code, "")
        await wait_all_tasks_blocked()
        await transport.send([])
        assert await server.read_frame() == (CLOSE, code.to_bytes(2, "big"))
        await server.stream.send_all(answer)
        if eof:
            await server.stream.send_eof()
    return await end_of(transport)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 1009, 4000])
async def test_a_close_that_is_answered_is_the_clients_with_the_code_of_the_answer(
    code: int, autojump_clock: MockClock
) -> None:
    async with opened() as (transport, server):
        end = await close_and(transport, server, close_frame(code, "bye"), eof=False)
        assert said(end) == (code, "client", None)
        assert end.message == "bye"
        assert await closes_sent(transport, server) == []


@pytest.mark.parametrize(
    "answer", [b"", b"\xff\xff garbage", frame(TEXT, b"\xff"), b"\x83\x00", TOO_BIG, frame(TEXT, b"crossing")]
)
async def test_a_close_that_is_not_answered_is_the_clients_with_its_own_code(
    answer: bytes, autojump_clock: MockClock
) -> None:
    async with opened(**LIMIT) as (transport, server):
        assert said(await close_and(transport, server, answer, code=4001)) == (4001, "client", None)
        assert await closes_sent(transport, server) == []


async def test_close_frames_that_cross_are_the_clients_end(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        nursery.start_soon(transport.close, 1000, "")
        await wait_all_tasks_blocked()
        await server.stream.send_all(close_frame(1012))
        await wait_all_tasks_blocked()
        assert said(await end_of(transport)) == (1012, "client", None)
        assert await closes_sent(transport, server) == [b"\x03\xe8"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (close_frame(1012), (1012, "server", None)),
        (b"\x83\x00", (1002, "client", "protocol_error")),
        (TOO_BIG, (1009, "client", "message_too_big")),
        (b"", (1006, "network", None)),
    ],
)
async def test_closing_after_the_end_changes_nothing(
    data: bytes, expected: tuple[int, str, str | None], autojump_clock: MockClock
) -> None:
    async with opened(**LIMIT) as (transport, server):
        if data:
            await server.stream.send_all(data)
        else:
            await server.stream.send_eof()
        await wait_all_tasks_blocked()
        await transport.close(1000, "")
        assert said(await end_of(transport)) == expected
        closes = await closes_sent(transport, server)
        assert [close[:2] for close in closes] == [expected[0].to_bytes(2, "big")] * bool(data)


# The network


@pytest.mark.parametrize("before", [b"", frame(TEXT, b"x" * 100)[:50], close_frame(1000)[:3], TOO_BIG[:1]])
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_an_end_without_a_close_frame_is_the_networks(how: str, before: bytes, autojump_clock: MockClock) -> None:
    async with opened(**LIMIT) as (transport, server):
        await server.stream.send_all(before)
        await wait_all_tasks_blocked()
        await hang_up(server, how)
        end = await end_of(transport)
        assert said(end) == (1006, "network", None)
        assert end.message == ""
        assert isinstance(end.__cause__, trio.BrokenResourceError if how == "reset" else type(None))
        with pytest.raises(TransportEnded) as raised:
            await transport.send(["too late"])
        assert said(raised.value) == (1006, "network", None)


async def test_a_write_that_fails_is_the_networks_with_its_cause(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        server.client.broken = True
        with pytest.raises(TransportEnded) as raised:
            await transport.send(["text"])
        assert said(raised.value) == (1006, "network", None)
        assert isinstance(raised.value.__cause__, trio.BrokenResourceError)


async def test_a_stream_that_is_closed_is_the_networks_end(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await server.client.aclose()
        for operation in (lambda: transport.send(["text"]), transport.receive):
            with pytest.raises(TransportEnded) as raised:
                await operation()
            assert said(raised.value) == (1006, "network", None)
            assert raised.value.message == ""
            assert raised.value.__cause__ is None


# Transports of users


@pytest.mark.parametrize(("code", "ended_by"), [(1006, "network"), (1000, "server"), (1009, "server")])
def test_who_has_ended_it_follows_from_the_code_where_it_is_left_out(code: int, ended_by: str) -> None:
    end = TransportEnded(code, "text")
    assert (end.code, end.message, end.ended_by, end.reason) == (code, "text", ended_by, None)


def test_who_has_ended_it_and_why_may_be_told() -> None:
    end = TransportEnded(1006, ended_by="client", reason="message_too_big")
    assert (end.message, end.ended_by, end.reason) == ("", "client", "message_too_big")
