"""A scripted server of long-polling: a test decides what each request is answered with, and sees all of them."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import pytest
import trio

from slipstream_trio.testing.server import MemoryStream, memory_pipe
from slipstream_trio.testing.server.pipes import open_background
from slipstream_trio.transport import OpenRequest, Transport, TransportEnded, find_connector

URL = "ws://localhost:4000/socket/websocket?vsn=2.0.0"
NDJSON = "application/x-ndjson"

Answer = bytes | None
"""What a request is answered with, all of it; None: nothing, and the connection is cut."""


@attrs.frozen
class Asked:
    """A request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str:
        return self.target.partition("token=")[2]

    @property
    def frames(self) -> list[str | bytes]:
        """The frames that a POST brings."""
        if self.headers["content-type"] != NDJSON:
            return [self.body.decode()]
        return [line.decode() if line[:1] == b"[" else base64.b64decode(line) for line in self.body.split(b"\n")]


def http(body: str | bytes, status: int = 200, **headers: str) -> bytes:
    """Return a whole response."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"content-length": str(len(content)), **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def said(status: int, messages: list[Any] | None = None, token: str | None = None) -> bytes:
    """Return a response of Phoenix's."""
    more = {} if messages is None else {"messages": messages, "token": token}
    return http(json.dumps({"status": status, **more}))


class PollServer:
    """Opens a session as Phoenix does, lets polls wait for `feed` for ten seconds, and takes what is posted.

    Attributes:
        asked: the requests, in order.
        on_open: answers the first GET.
        on_poll: answers the others; by default what `feed` was given, or 204.
        on_post: answers a POST.
        streams: the server's ends of all connections.
        hangs_up: whether it closes a connection after a POST, without a word of that in its answer.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.asked: list[Asked] = []
        self.streams: list[MemoryStream] = []
        self.hangs_up = False
        self.posting = 0
        self.on_open: Callable[[Asked], Awaitable[Answer]] = self._open
        self.on_poll: Callable[[Asked], Awaitable[Answer]] = self._poll
        self.on_post: Callable[[Asked], Awaitable[Answer]] = self._post
        self._waiting: list[str] = []
        self._fed = trio.lowlevel.ParkingLot()
        self._stalls = False
        self._nursery = nursery

    @property
    def posts(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    def feed(self, *messages: str) -> None:
        self._waiting += messages
        self._fed.unpark_all()

    async def open_stream(self, _: OpenRequest) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_pipe()
        self.streams.append(ours)
        self._nursery.start_soon(self.serve, ours)
        return theirs

    def stall(self) -> None:
        """Let connections that are opened from now on read nothing."""
        self._stalls = True

    async def _open(self, _: Asked) -> Answer:
        return said(410, [], "t0")

    async def _poll(self, _: Asked) -> Answer:
        with trio.move_on_after(10):
            while not self._waiting:
                await self._fed.park()
        messages, self._waiting = self._waiting, []
        return said(200 if messages else 204, messages, f"t{len(self.asked)}")

    async def _post(self, _: Asked) -> Answer:
        return said(200)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve a connection."""
        http = h11.Connection(h11.SERVER)
        if self._stalls:
            await trio.sleep_forever()
        with suppress(trio.BrokenResourceError):
            while (asked := await self._read(http, stream)) is not None:
                self.asked.append(asked)
                answer = await self._answer(asked)
                if answer is None:
                    break
                await stream.send_all(answer)
                if self.hangs_up and asked.method == "POST":
                    break
                http.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                http.send(h11.EndOfMessage())
                http.start_next_cycle()
        await stream.aclose()

    async def _answer(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            self.posting += 1
            try:
                assert self.posting == 1, "one POST at a time"
                return await self.on_post(asked)
            finally:
                self.posting -= 1
        return await (self.on_poll if "token=" in asked.target else self.on_open)(asked)

    async def _read(self, http: h11.Connection, stream: trio.abc.Stream) -> Asked | None:
        head: Any = None
        body = b""
        while True:
            match http.next_event():
                case h11.NEED_DATA:
                    data = await stream.receive_some()
                    if not data:
                        return None
                    http.receive_data(bytes(data))
                case h11.Request() as request:
                    head = request
                case h11.Data(data=data):
                    body += data
                case _:
                    headers = {name.decode(): value.decode() for name, value in head.headers}
                    return Asked(head.method.decode(), head.target.decode(), headers, body)


@asynccontextmanager
async def serving() -> AsyncIterator[PollServer]:
    """Serve for the time of a block."""
    async with open_background() as nursery:
        yield PollServer(nursery)


@asynccontextmanager
async def opened(server: PollServer, **request: Any) -> AsyncIterator[Transport]:
    """Open a transport to a server."""
    connector = find_connector("longpoll", server.open_stream)
    async with connector.open(OpenRequest(**{"url": URL, **request}), lambda: None) as transport:
        yield transport


async def end_of(transport: Transport) -> TransportEnded:
    """Return how it ends, after what has come."""
    with pytest.raises(TransportEnded) as raised:
        while True:
            await transport.receive()
    return raised.value
