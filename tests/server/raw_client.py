"""A WebSocket client with nothing Phoenix about it: wsproto on a stream, every frame noted with its time."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import h11
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate

from slipstream_trio.testing.server import PhoenixServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "GET {target} HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    f"sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\n"
    "\r\n"
)
SOCKET = "/socket/websocket?vsn=2.0.0"


class RawClient:
    """One connection; its log has ("recv", frame)s and ("close", code, reason, framed, by), each with its time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.log: list[tuple[float, tuple[Any, ...]]] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = ""
        self.over = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self._sending = trio.Lock()
        self._closing = False
        self._parts: list[Any] = []

    @classmethod
    async def connect(
        cls,
        server: PhoenixServer,
        nursery: trio.Nursery,
        target: str = "/socket/websocket?vsn=2.0.0",
        **options: Any,
    ) -> "RawClient":
        client = cls(await server.open_stream())
        await client.open(target, **options)
        if client.status == 101:
            nursery.start_soon(client.read)
        return client

    async def open(
        self,
        target: str,
        *,
        host: str = "127.0.0.1:4400",
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        deflate: bool = False,
    ) -> None:
        http = h11.Connection(h11.CLIENT)
        fields = [
            ("host", host),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
            *headers,
        ]
        if subprotocols:
            fields.append(("sec-websocket-protocol", ", ".join(subprotocols)))
        if deflate:
            fields.append(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"))
        await self.stream.send_all(http.send(h11.Request(method="GET", target=target, headers=fields)))
        body = b""
        while True:
            event = http.next_event()
            match event:
                case h11.NEED_DATA:
                    http.receive_data(bytes(await self.stream.receive_some()))
                case h11.InformationalResponse() | h11.Response():
                    self.status = event.status_code
                    self.headers = {name.decode(): value.decode() for name, value in event.headers}
                    if event.status_code == 101:
                        break
                case h11.Data():
                    body += event.data
                case _:
                    break
        self.body = body.decode()
        extensions: list[Extension] = []
        if accepted := self.headers.get("sec-websocket-extensions"):
            extension = PerMessageDeflate()
            extension.finalize(accepted)
            extensions.append(extension)
        self.websocket = Connection(ConnectionType.CLIENT, extensions, http.trailing_data[0])

    async def read(self) -> None:
        """Note what comes until the connection ends; answer pings and the close frame."""
        try:
            while not self.over.is_set():
                await self._handle_events()
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    data = b""
                if not data:
                    break
                self.websocket.receive_data(bytes(data))
            if not self.log or self.log[-1][1][0] != "close":
                self._note("close", 1006, "", False, "tcp")
        finally:
            self.over.set()
            self._changed.unpark_all()
            await trio.aclose_forcefully(self.stream)

    async def _handle_events(self) -> None:
        for event in self.websocket.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._parts.append(event.data)
                    if event.message_finished:
                        kind = "" if isinstance(event, TextMessage) else b""
                        self._note("recv", kind.join(self._parts))
                        self._parts = []
                case Ping():
                    self.pings.append(event.payload)
                    await self._send(self.websocket.send(event.response()))
                case Pong():
                    self.pongs.append(event.payload)
                case CloseConnection():
                    by = "client" if self._closing else "server"
                    self._note("close", int(event.code), event.reason or "", True, by)
                    if not self._closing:
                        await self._send(self.websocket.send(event.response()))

    def _note(self, *what: Any) -> None:
        self.log.append((trio.current_time(), what))
        self._changed.unpark_all()

    async def _send(self, data: bytes) -> None:
        # What is sent to a server that has just closed the connection may fail.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._sending:
                await self.stream.send_all(data)

    async def send_all(self, *frames: str | bytes) -> None:
        """Send text and binary frames in one write."""
        await self._send(b"".join(self.websocket.send(as_event(frame)) for frame in frames))

    async def send_fragments(self, fragments: Sequence[str]) -> None:
        last = len(fragments) - 1
        for i, fragment in enumerate(fragments):
            if self.websocket.state is not ConnectionState.OPEN:
                return  # the server has closed in between
            await self._send(self.websocket.send(Message(data=fragment, message_finished=i == last)))

    async def send_raw(self, data: bytes) -> None:
        await self._send(data)

    async def send_event(self, event: Event) -> None:
        await self._send(self.websocket.send(event))

    async def push(self, *message: Any) -> None:
        await self.send_all(json.dumps(message))

    async def close(self, code: int = 1000) -> None:
        self._closing = True
        await self._send(self.websocket.send(CloseConnection(code=code)))

    # For tests that are no replay

    @property
    def frames(self) -> list[Any]:
        return [what[1] for _, what in self.log if what[0] == "recv"]

    @property
    def messages(self) -> list[Any]:
        return [json.loads(frame) for frame in self.frames]

    @property
    def closed(self) -> tuple[int, str] | None:
        """(code, by), or None."""
        return next(((what[1], what[4]) for _, what in self.log if what[0] == "close"), None)

    async def wait_frames(self, count: int) -> list[Any]:
        with trio.fail_after(60):
            while len(self.frames) < count:
                await self._changed.park()
        return self.frames

    async def wait_messages(self, count: int) -> list[Any]:
        await self.wait_frames(count)
        return self.messages

    async def join(self, topic: str, payload: Any = None, ref: str = "1") -> Any:
        """Join and return the reply."""
        before = len(self.frames)
        await self.push(ref, ref, topic, "phx_join", payload or {})
        await self.wait_frames(before + 1)
        return self.messages[before]


def as_event(frame: str | bytes) -> Event:
    return TextMessage(data=frame) if isinstance(frame, str) else BytesMessage(data=frame)


async def answer_to(server: PhoenixServer, data: bytes) -> bytes:
    """Send raw bytes, and return all that comes until the server closes."""
    stream = await server.open_stream()
    await stream.send_all(data)
    answer = b""
    while chunk := await stream.receive_some():
        answer += chunk
    return answer
