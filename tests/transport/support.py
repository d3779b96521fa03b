"""A WebSocket server of bytes: a test reads and writes them as it likes."""

import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from tests.protocol import wire

from slipstream_trio import Channel, Socket
from slipstream_trio.testing.server import MemoryStream, memory_pipe
from slipstream_trio.testing.server.pipes import open_background
from slipstream_trio.transport import Connector, OpenRequest, StreamOpener, Transport, TransportEnded, find_connector
from slipstream_trio.transport.base import Frame

chosen = "trio_websocket"
"""The transport that `connector` makes: the fixture `each_transport` (see conftest.py) chooses."""


def connector(open_stream: StreamOpener) -> Connector:
    return find_connector(chosen, open_stream)


URL = "ws://localhost:4000/socket/websocket"
REQUEST = OpenRequest(url=f"{URL}?vsn=2.0.0")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """Return a frame of a server: not masked."""
    head = bytes([opcode | (0x80 if last else 0)])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    if size < 2**16:
        return head + b"\x7e" + struct.pack("!H", size) + payload
    return head + b"\x7f" + struct.pack("!Q", size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class Recording(trio.abc.Stream):
    """The client's stream; keeps what is written, write by write, and the sizes that are asked for by reads.

    If it is `broken`, nothing can be written.
    """

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.writes: list[bytes] = []
        self.reads: list[int | None] = []
        self.closed = False
        self.broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError
        self.writes.append(bytes(data))
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.reads.append(max_bytes)
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()


class RawServer:
    """The server's end of one connection; `request` is what the client sent to open it."""

    def __init__(self) -> None:
        ours, theirs = memory_pipe()
        self.stream = ours
        self.client = Recording(theirs)
        self.request = b""
        self.buffer = b""
        self.woken = 0

    async def open_stream(self, _: OpenRequest) -> Recording:
        await trio.lowlevel.checkpoint()
        return self.client

    def wake(self) -> None:
        self.woken += 1

    async def read_request(self) -> bytes:
        while not self.request.endswith(b"\r\n\r\n"):
            self.request += await self.stream.receive_some()
        return self.request

    def headers(self) -> dict[str, str]:
        lines = self.request.decode("latin-1").split("\r\n")[1:-2]
        pairs = [line.split(": ", 1) for line in lines]
        return {name.lower(): value for name, value in pairs}

    async def answer(self, response: bytes) -> None:
        """Read the request, and send this."""
        await self.read_request()
        await self.stream.send_all(response)

    async def accept(self, behind: bytes = b"") -> None:
        """Read the request, and accept it; `behind` is sent in the same write."""
        await self.stream.send_all(await self.acceptance() + behind)

    async def acceptance(self) -> bytes:
        """Read the request, and return the response that accepts it."""
        await self.read_request()
        key = self.headers()["sec-websocket-key"].encode()
        token = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", b"X-Server: raw"]
        return b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + token, b"", b""])

    async def read_frame(self) -> tuple[int, bytes]:
        """Return the opcode and the payload of the next frame of the client."""
        opcode, size = await self._read(2)
        assert size & 0x80, "clients mask"
        size &= 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._read(8))
        mask = await self._read(4)
        data = await self._read(size)
        return opcode & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))

    async def _read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken


class Reading(Transport):
    """A transport that is read all the time, as a connection does; `receive` gives one message after the other."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.came: list[Frame] = []
        self.over = False
        self.news = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        with suppress(TransportEnded):
            while True:
                self.came.extend(await self.transport.receive())
                self.news.unpark_all()
        self.over = True
        self.news.unpark_all()

    async def receive(self) -> Sequence[Frame]:
        while not self.came and not self.over:
            await self.news.park()
        return (self.came.pop(0),) if self.came else await self.transport.receive()

    async def send(self, frames: Sequence[Frame]) -> None:
        await self.transport.send(frames)

    async def close(self, code: int, reason: str) -> None:
        await self.transport.close(code, reason)

    def __getattribute__(self, name: str) -> Any:
        if name in ("progress", "heard", "write_blocked_since", "response_headers"):
            return getattr(self.transport, name)
        return super().__getattribute__(name)


@asynccontextmanager
async def reading(transport: Transport, *, read: bool = True) -> AsyncIterator[Transport]:
    """Read a transport all the time, unless the block does it."""
    wrapped = Reading(transport)
    async with open_background() as nursery:
        if read:
            nursery.start_soon(wrapped.read)
        yield wrapped if read else transport


@asynccontextmanager
async def opened(
    behind: bytes = b"", *, read: bool = True, **request: Any
) -> AsyncIterator[tuple[Transport, RawServer]]:
    """Open a transport to a raw server, and read."""
    server = RawServer()
    opening = connector(server.open_stream).open(OpenRequest(url=REQUEST.url, **request), server.wake)
    async with open_background() as nursery:
        nursery.start_soon(server.accept, behind)
        async with opening as transport, reading(transport, read=read) as wrapped:
            yield wrapped, server


async def say_ok(server: RawServer) -> Any:
    """Read a message, and answer it; return it."""
    opcode, payload = await server.read_frame()
    assert opcode == TEXT
    message = wire.parse(payload.decode())
    answer = wire.text(message.join_ref, message.ref, message.topic, "phx_reply", {"status": "ok", "response": {}})
    await server.stream.send_all(frame(TEXT, answer.encode()))
    return message


async def joined(socket: Socket, server: RawServer) -> Channel:
    channel = socket.channel("room")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_ok, server)
        await channel.join()
    return channel
