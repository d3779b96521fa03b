"""The proxy: real sockets, in front of a server that knows nothing of it."""

import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from slipstream_trio.testing.faults import (
    AtByte,
    Corrupt,
    Fault,
    Faults,
    FaultyNetwork,
    Ignore,
    Link,
    Refuse,
    Reset,
    Rule,
    Stall,
    Truncate,
    Vanish,
    faulty_network,
)
from slipstream_trio.testing.server.pipes import reset

pytestmark = pytest.mark.once


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65_536):
                self.request.sendall(data)
        except OSError:
            self.server.broken.append(True)  # type: ignore[attr-defined]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.broken: list[bool] = []


@contextmanager
def echo_server() -> Iterator[_Server]:
    """Run a server of the standard library, in threads."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def proxied(*rules: Rule, **faults: Any) -> AsyncIterator[tuple[Callable[[], Any], FaultyNetwork]]:
    with echo_server() as server:
        async with faulty_network(Faults(rules=rules, **faults)) as network:
            listening = await network.listen(*server.server_address)
            assert listening.url("/x") == f"ws://127.0.0.1:{listening.port}/x"

            async def open_stream() -> trio.SocketStream:
                return await trio.open_tcp_stream(listening.host, listening.port)

            yield open_stream, network


async def read(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await stream.receive_some()):
        data += more
    return data


async def test_bytes_pass_in_both_directions_and_ends_too() -> None:
    async with proxied() as (open_stream, network):
        async with await open_stream() as stream, trio.open_nursery() as nursery:
            data = bytes(range(256)) * 2000
            nursery.start_soon(stream.send_all, data)
            assert await read(stream, len(data)) == data
            await stream.send_eof()
            assert await stream.receive_some() == b""
        while network.connections:
            await trio.lowlevel.checkpoint()


async def test_requests_that_ask_for_no_upgrade_pass_whole() -> None:
    async with proxied() as (open_stream, _):
        async with await open_stream() as stream:
            request = b"POST /socket/longpoll HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
            for _ in range(2):
                await stream.send_all(request)
                with trio.fail_after(5):
                    assert await read(stream, len(request)) == request


async def test_a_reset_is_a_reset() -> None:
    async with proxied(Rule(Reset(), AtByte(3))) as (open_stream, network):
        async with await open_stream() as stream:
            await stream.send_all(b"abcdef")
            with pytest.raises(trio.BrokenResourceError) as raised:
                await read(stream, 6)
            assert isinstance(raised.value.__cause__, ConnectionResetError)
        assert network.log.counts == {"Reset": 1}


async def test_a_truncated_stream_ends_without_an_error() -> None:
    async with proxied(Rule(Truncate(), AtByte(3))) as (open_stream, _), await open_stream() as stream:
        await stream.send_all(b"abcdef")
        assert await read(stream, 6) == b"abc"


async def test_a_corrupted_byte_is_another() -> None:
    async with proxied(Rule(Corrupt(), AtByte(2))) as (open_stream, _), await open_stream() as stream:
        await stream.send_all(b"abcdef")
        got = await read(stream, 6)
        assert (got[:2], got[3:]) == (b"ab", b"def")
        assert got[2:3] != b"c"


@pytest.mark.parametrize("fault", [Vanish(), Vanish(both=False), Stall()], ids=repr)
async def test_a_peer_that_is_silent_says_not_even_that_it_ends(fault: Fault) -> None:
    async with proxied(Rule(fault, AtByte(3))) as (open_stream, _), await open_stream() as stream:
        await stream.send_all(b"abcdef")
        assert await read(stream, 3) == b"abc"
        await stream.send_eof()
        with trio.move_on_after(0.05) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught


async def test_a_connection_is_refused_by_a_reset() -> None:
    async with proxied(Rule(Refuse())) as (open_stream, _), await open_stream() as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_a_connection_is_ignored_until_the_client_leaves() -> None:
    async with proxied(Rule(Ignore())) as (open_stream, network):
        async with await open_stream() as stream:
            await stream.send_all(b"hello?")
            with trio.move_on_after(0.05) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with await open_stream() as stream:
            await stream.send_eof()
            assert await stream.receive_some() == b""
        assert [entry.fault for entry in network.log.entries] == [Ignore(), Ignore()]


async def test_a_server_that_is_not_there_ends_the_clients_connection() -> None:
    with echo_server() as server:
        gone = server.server_address
    async with faulty_network(Faults()) as network:
        listening = await network.listen(*gone)
        async with await trio.open_tcp_stream(listening.host, listening.port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_latency_is_at_least_what_it_says() -> None:
    link = Link(latency=0.02)
    async with proxied(toward_client=link, toward_server=link) as (open_stream, _), await open_stream() as stream:
        began = trio.current_time()
        await stream.send_all(b"x")
        await stream.receive_some()
        assert trio.current_time() - began >= 0.04


async def test_a_slow_link_slows_the_sender() -> None:
    link = Link(bandwidth=1000, buffer=1000)
    async with proxied(toward_server=link) as (open_stream, _), await open_stream() as stream:
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
        sent = 0
        with trio.move_on_after(0.2):
            while True:
                await stream.send_all(bytes(4096))
                sent += 4096
        assert sent < 10_000_000  # the kernel's buffers, and no more than 2,000 bytes in the proxy


async def test_a_reset_of_what_is_closed_already_is_nothing() -> None:
    with echo_server() as server:
        async with await trio.open_tcp_stream(*server.server_address) as stream:
            reset(stream)
            reset(stream)
            assert stream.socket.fileno() < 0
