"""The fast transport: when it is chosen, and compression, which it alone has."""

import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.transport import support
from tests.transport.support import BINARY, CLOSE, PING, TEXT, URL, RawServer, frame
from trio.testing import MockClock

from slipstream_trio import ConfigurationError, ConnectError
from slipstream_trio.client.configuration import configure
from slipstream_trio.transport import Connector, OpenRequest, Transport, TransportEnded, find_connector

pytest.importorskip("websockets", reason="websockets, an extra, is not installed")

DEFLATE = "permessage-deflate"


@pytest.mark.parametrize("missing", ["msgspec", "websockets.version"])
def test_it_is_chosen_where_it_can_be(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configure(URL, {"transport": "auto"}).options().transport == "websockets"
    monkeypatch.setitem(sys.modules, missing, None)
    assert configure(URL, {"transport": "auto"}).options().transport == "trio_websocket"


def test_an_older_websockets_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("websockets.version.version", "16.1")
    assert configure(URL, {}).options().transport == "trio_websocket"


class Own:
    """A connector of a user's."""

    name = "own"

    def open(self, request: OpenRequest, wake: Any) -> Any:
        raise NotImplementedError


def test_compression_needs_it() -> None:
    assert configure(URL, {"compression": True}).compression
    own: Connector = Own()
    for transport in ("trio_websocket", own):
        with pytest.raises(ConfigurationError, match="only the transport 'websockets' compresses") as raised:
            configure(URL, {"compression": True, "transport": transport})
        assert raised.value.option == "compression"


@asynccontextmanager
async def compressing(agreed: str | None = DEFLATE, **request: Any) -> AsyncIterator[tuple[Transport, RawServer]]:
    """Open a transport that offers to compress, to a server that answers so."""
    server = RawServer()
    connector = find_connector("websockets", server.open_stream)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            accepted = await server.acceptance()
            extension = b"" if agreed is None else b"Sec-WebSocket-Extensions: " + agreed.encode() + b"\r\n"
            await server.stream.send_all(accepted[:-2] + extension + b"\r\n")

        nursery.start_soon(accept)
        opening = connector.open(OpenRequest(url=URL, compression=True, **request), server.wake)
        async with opening as transport, support.reading(transport) as wrapped:
            yield wrapped, server


def compressed(data: bytes, opcode: int = TEXT, compressor: Any = None) -> bytes:
    compressor = compressor or zlib.compressobj(wbits=-15)
    deflated = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    plain = frame(opcode, deflated)
    return bytes((plain[0] | 0x40,)) + plain[1:]


async def test_what_is_compressed_is_inflated_and_the_reverse(autojump_clock: MockClock) -> None:
    async with compressing() as (transport, server):
        assert server.headers()["sec-websocket-extensions"].startswith(DEFLATE)
        compressor = zlib.compressobj(wbits=-15)
        for text in ("hello", "hello again", "hello"):
            await server.stream.send_all(compressed(text.encode(), compressor=compressor) + frame(BINARY, b"plain"))
            assert [*await transport.receive(), *await transport.receive()] == [text, b"plain"]
        await transport.send(["hello" * 100, b"\x00" * 300])
        inflater = zlib.decompressobj(wbits=-15)
        for expected in ((TEXT, b"hello" * 100), (BINARY, b"\x00" * 300)):
            opcode, payload = await server.read_frame()
            assert len(payload) < 50
            assert (opcode, inflater.decompress(payload + b"\x00\x00\xff\xff")) == expected


async def test_a_server_need_not_agree(autojump_clock: MockClock) -> None:
    async with compressing(None) as (transport, server):
        await transport.send(["hello"])
        assert await server.read_frame() == (TEXT, b"hello")
        await server.stream.send_all(compressed(b"hello"))
        with pytest.raises(TransportEnded) as raised:
            await transport.receive()
        assert raised.value.code == 1002


@pytest.mark.parametrize("agreed", [f"{DEFLATE}; server_max_window_bits=99", f"{DEFLATE}, {DEFLATE}", f"{DEFLATE};="])
async def test_what_the_server_agrees_to_has_to_make_sense(agreed: str, autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectError, match="invalid upgrade")):
        async with compressing(agreed):
            pass


@pytest.mark.parametrize("size", [2000, 200_000])
async def test_what_is_inflated_is_bounded(size: int, autojump_clock: MockClock) -> None:
    async with compressing(max_message_size=1000) as (transport, server):
        await server.stream.send_all(compressed(b"x" * 1000) + compressed(b"x" * size, BINARY)[:500])
        assert await transport.receive() == ("x" * 1000,)
        await server.stream.send_all(compressed(b"x" * size, BINARY)[500:])
        with pytest.raises(TransportEnded) as raised:
            await transport.receive()
        end = raised.value
        assert (end.code, end.ended_by, end.reason) == (1009, "client", "message_too_big")
        assert "1000 bytes" in end.message
        await transport.send([])
        opcode, payload = await server.read_frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf1")


async def passes(counted: list[None]) -> None:
    while True:
        await trio.lowlevel.checkpoint()
        counted.append(None)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("context", ["", "; server_no_context_takeover"])
async def test_a_small_frame_that_becomes_large_lets_others_run(opcode: int, context: str) -> None:
    text = "[ä" * 2**21
    counted: list[None] = []
    async with compressing(DEFLATE + context) as (transport, server), trio.open_nursery() as nursery:
        nursery.start_soon(passes, counted)
        for cut in (1000, 20):
            data = compressed(text.encode(), opcode)
            assert len(data) < 20_000
            counted.clear()
            await server.stream.send_all(data[:-cut])
            await server.stream.send_all(data[-cut:] + frame(PING))
            (message,) = await transport.receive()
            assert message == (text if opcode == TEXT else text.encode())
            assert len(counted) >= 6 * 2**20 // (128 * 1024)
        nursery.cancel_scope.cancel()


async def test_many_of_them_do_too(autojump_clock: MockClock) -> None:
    counted: list[None] = []
    async with compressing() as (transport, server), trio.open_nursery() as nursery:
        await server.stream.send_all(compressed(b"x" * 100_000) * 80)
        nursery.start_soon(passes, counted)
        await trio.lowlevel.checkpoint()
        sizes: list[int] = []
        while sum(sizes) < 80:
            sizes.append(len(await transport.receive()))
        await trio.lowlevel.checkpoint()  # in the last pass, the order of which is random, it may have been the second
        assert max(sizes) <= 4
        assert len(counted) >= 80 // 2  # others run after every second message
        nursery.cancel_scope.cancel()


async def test_compressed_text_has_to_be_utf8(autojump_clock: MockClock) -> None:
    async with compressing() as (transport, server):
        await server.stream.send_all(compressed(b"\xff"))
        with pytest.raises(TransportEnded) as raised:
            await transport.receive()
        assert raised.value.code == 1007


async def test_what_cannot_be_inflated_breaks_the_protocol(autojump_clock: MockClock) -> None:
    async with compressing() as (transport, server):
        await server.stream.send_all(bytes((0xC1, 5)) + b"\xff" * 5)
        with pytest.raises(TransportEnded) as raised:
            await transport.receive()
        assert (raised.value.code, raised.value.reason) == (1002, "protocol_error")
