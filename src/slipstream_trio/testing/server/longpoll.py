"""Long-polling, as Phoenix.Transports.LongPoll does it, with a session for each client.

A session is a `Connection` like any other, over a WebSocket in memory: posts go in, and frames that come out wait for
the client's next poll.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import h11
import trio
from wsproto.connection import Connection as WebSocket, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.utilities import LocalProtocolError

from ...protocol.message import Frame
from .connection import Connection
from .framing import Framing
from .handshake import Exchange, Gone, Upgrade
from .memory import memory_pipe
from .mount import Mount, Refuse, Request

if TYPE_CHECKING:
    from .server import PhoenixServer

__all__ = ["Session", "accept_client"]

LONGEST_BATCH: Final = 100
"""The most frames read of one POST."""

LARGEST_BODY: Final = 8_000_000
"""The most bytes of a POST."""

UNUSED: Final = 1.5
"""Poll windows without a poll after which a session ends."""

SEARCH: Final = 2.0
"""Seconds for which Phoenix asks its cluster for a session that is gone."""

_SIGNED: Final = "SFMyNTY."
"""The beginning of every token that Phoenix signs."""

_CORS: Final = ("access-control-allow-origin", "*")
_JSON: Final = ("content-type", "application/json; charset=utf-8")
_NDJSON: Final = "application/x-ndjson"
_REFUSED: Final = 403


async def accept_client(server: "PhoenixServer", stream: trio.abc.Stream) -> Upgrade | None:
    """Answer polls, one after the other, or one upgrade; see `Exchange.upgrade`."""
    exchange = Exchange(server, stream)
    try:
        while (asked := await exchange.read_request()) is not None:
            method, request = asked
            mount = exchange.find_mount(request.path, "longpoll")
            if mount is None:
                return await exchange.upgrade(method, request)
            body = await exchange.read_body(LARGEST_BODY)
            if not await exchange.respond(await _answer(exchange, mount, request, method, body)):
                return None
    except (Refuse, h11.RemoteProtocolError) as error:
        refusal = error if isinstance(error, Refuse) else Refuse(error.error_status_hint, body="Bad Request")
        await exchange.respond(refusal)
        await stream.aclose()
    except Gone:
        pass  # the client hung up
    return None


async def _answer(exchange: Exchange, mount: Mount, request: Request, method: bytes, body: bytes) -> Refuse:
    if method == b"OPTIONS":  # a browser's preflight request (CORS)
        asked = ", ".join(value for name, value in request.headers if name == "access-control-request-headers")
        allowed = {"allow-headers": asked, "allow-methods": "get, post, options", "max-age": "3600"}
        return Refuse(200, [_CORS, *((f"access-control-{name}", value) for name, value in allowed.items())])
    if method not in (b"GET", b"POST"):
        return Refuse(400, [_CORS])
    token = request.header("x-phoenix-longpoll-token") or request.params.get("token")
    session = exchange.server.sessions.get(token) if isinstance(token, str) else None
    if session is None and isinstance(token, str) and token.startswith(_SIGNED):
        await trio.sleep(SEARCH)
    if method == b"POST":
        return _said(410 if session is None else await session.take(request, body))
    return await (_open(exchange, mount, request) if session is None else session.poll())


def _said(status: int, **more: Any) -> Refuse:
    return Refuse(200, [_CORS, _JSON], json.dumps({"status": status, **more}, ensure_ascii=False))


async def _open(exchange: Exchange, mount: Mount, request: Request) -> Refuse:
    if mount.auth_token and exchange.server.release.reads_tokens:
        request = attrs.evolve(request, auth_token=request.header("x-phoenix-authtoken"))
    try:
        wire, accepted = await exchange.connect_client(mount, request)
    except Refuse as refusal:
        # Phoenix has one word for all refusals here; a crash is one of the request's own process.
        return refusal if refusal.status == 500 else _said(_REFUSED)
    session = Session(exchange.server, Upgrade(mount, request, accepted, wire, Framing(), b""))
    exchange.server.start_session(session)
    return _said(410, token=session.token, messages=[])


class Session:
    """A client that polls.

    Attributes:
        token: identifies its requests.
        connection: its connection, as the rest of the server sees it.
    """

    def __init__(self, server: "PhoenixServer", upgrade: Upgrade) -> None:
        ours, theirs = memory_pipe()
        self.token: str = _SIGNED + secrets.token_urlsafe(16)
        # It ends when it is not polled, rather than when nothing is posted.
        self.connection: Connection = Connection(
            server, theirs, attrs.evolve(upgrade, mount=attrs.evolve(upgrade.mount, timeout=None))
        )
        self._window = upgrade.mount.poll_window
        self._stream = ours
        self._websocket = WebSocket(ConnectionType.CLIENT)
        self._posted = 0
        self._waiting: list[Frame] = []
        self._poller: object = None
        self._polled = trio.current_time()
        self._arrived = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Serve the client until the connection ends, or is not used any more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._collect)
            nursery.start_soon(self._end_if_unused)
            await self.connection.run(b"")
            nursery.cancel_scope.cancel()

    async def poll(self) -> Refuse:
        """Return the waiting frames as soon as there are some; the latest poll gets them."""
        self._polled = trio.current_time()
        poller = self._poller = object()
        with trio.move_on_after(self._window):
            while not self._waiting or self._poller is not poller:
                await self._arrived.park()
        if not self._waiting or self._poller is not poller:
            return _said(204, token=self.token, messages=[])
        frames, self._waiting, self._polled = self._waiting, [], trio.current_time()
        try:
            messages = [frame if isinstance(frame, str) else frame.decode() for frame in frames]
        except UnicodeDecodeError:
            self.connection.server.report("a poll's answer cannot carry a binary frame", None)
            return Refuse(500, [_CORS])
        return _said(200, token=self.token, messages=messages)

    async def take(self, request: Request, body: bytes) -> int:
        """Handle the frames of a POST; returns the status."""
        for frame in _frames(request.header("content-type"), body):
            event = TextMessage(data=frame) if isinstance(frame, str) else BytesMessage(data=frame)
            self._posted += 1
            with trio.move_on_after(self._window) as scope:
                await self._send(event)
                await self.connection.wait_handled(self._posted)
            if scope.cancelled_caught:
                return 408
        return 200

    async def _send(self, event: TextMessage | BytesMessage | CloseConnection) -> None:
        with suppress(trio.BrokenResourceError, LocalProtocolError):  # the connection has ended
            await self._stream.send_all(self._websocket.send(event))

    async def _collect(self) -> None:
        parts: list[Any] = []
        with suppress(trio.BrokenResourceError):
            while data := await self._stream.receive_some():
                self._websocket.receive_data(data)
                for event in self._websocket.events():
                    match event:
                        case TextMessage() | BytesMessage():
                            parts.append(event.data)
                            if event.message_finished:
                                self._waiting.append(type(parts[0])().join(parts))
                                parts = []
                        case CloseConnection():
                            await self._send(event.response())
                if self._waiting:
                    self._arrived.unpark_all()

    async def _end_if_unused(self) -> None:
        limit = UNUSED * self._window
        while trio.current_time() - self._polled <= limit:  # noqa: ASYNC110 - it is time that is waited for
            await trio.sleep(limit)
        self.connection.drop()


def _frames(kind: str | None, body: bytes) -> Iterator[Frame]:
    """Yield the frames in a POST; raises `Refuse`."""
    if kind != _NDJSON:
        yield body.decode(errors="replace")
        return
    for line in body.replace(b"\r\n", b"\n").split(b"\n")[:LONGEST_BATCH]:
        if line[:1] == b"[":
            yield line.decode(errors="replace")
        else:
            try:
                yield base64.b64decode(line, validate=True)
            except binascii.Error:
                raise Refuse(500, [_CORS]) from None
