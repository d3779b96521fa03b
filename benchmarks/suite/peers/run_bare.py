"""WebSocket libraries alone, which decode nothing: `run_bare.py trio-websocket|websockets|sans-io`."""

import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
import trio_websocket
import websockets
from websockets.client import ClientProtocol
from websockets.uri import parse_uri
from work import (
    Command,
    hold_in_asyncio,
    hold_in_trio,
    measured,
    payload_of,
    run_in_asyncio,
    run_in_trio,
    text_of,
    work,
)

KIND = sys.argv[1]
MOST = 2**26
"""Bytes of a message, at most."""


class SansIO:
    """websockets' protocol over a Trio stream."""

    def __init__(self, stream: trio.SocketStream, url: str) -> None:
        self._stream = stream
        self._protocol = ClientProtocol(parse_uri(url), max_size=MOST)
        self._received: deque[Any] = deque()

    async def open(self) -> None:
        """Upgrade."""
        self._protocol.send_request(self._protocol.connect())
        await self._write()
        await self._read()
        self._received.clear()

    async def _write(self) -> None:
        await self._stream.send_all(b"".join(self._protocol.data_to_send()))

    async def _read(self) -> None:
        self._protocol.receive_data(await self._stream.receive_some(2**16))
        self._received.extend(self._protocol.events_received())

    async def send(self, text: str) -> None:
        """Send a message."""
        self._protocol.send_text(text.encode())
        await self._write()

    async def recv(self) -> Any:
        """Receive a message."""
        while not self._received:
            await self._read()
        return self._received.popleft()


@asynccontextmanager
async def connected(
    command: Command,
) -> AsyncIterator[tuple[Callable[[str], Awaitable[Any]], Callable[[], Awaitable[Any]]]]:
    """Connect, and join; yields how to send, and how to receive."""
    url = command["url"]
    if KIND == "trio-websocket":
        async with trio_websocket.open_websocket_url(url, max_message_size=MOST, receive_buffer_size=2**16) as socket:
            await socket.send_message(text_of(1, "phx_join", {}))
            await socket.get_message()
            yield socket.send_message, socket.get_message
    elif KIND == "websockets":
        async with websockets.connect(url, max_size=MOST, compression=None) as connection:
            await connection.send(text_of(1, "phx_join", {}))
            await connection.recv()
            yield connection.send, connection.recv
    else:
        address = urlsplit(url)
        async with await trio.open_tcp_stream(str(address.hostname), int(address.port or 80)) as stream:
            bare = SansIO(stream, url)
            await bare.open()
            await bare.send(text_of(1, "phx_join", {}))
            await bare.recv()
            yield bare.send, bare.recv


async def burst(command: Command) -> None:
    """Receive."""
    async with connected(command) as (send, receive):
        with measured(count=command["count"]):
            await send(text_of(2, "burst", {"count": command["count"], "size": command["size"]}))
            for _ in range(command["count"]):
                await receive()


async def echo(command: Command) -> None:
    """Send so many, and another for each that comes."""
    count, at_once = command["count"], command["at_once"]
    text = text_of(2, "echo", payload_of(command["size"]))
    async with connected(command) as (send, receive):
        with measured(count=count):
            for _ in range(at_once):
                await send(text)
            for number in range(count):
                await receive()
                if number < count - at_once:
                    await send(text)


run, hold = (run_in_asyncio, hold_in_asyncio) if KIND == "websockets" else (run_in_trio, hold_in_trio)
work({"burst": run(burst), "echo": run(echo), "hold": run(partial(hold, connected))})
