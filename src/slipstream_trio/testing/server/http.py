"""The HTTP side: requests, the upgrade to a WebSocket, and long-polling, as Phoenix.Transports.LongPoll does it.

A session of long-polling is a `Connection` like any other, over a WebSocket in memory: posts go in, and frames that
come out wait for the client's next poll.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from http.client import responses
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import attrs
import h11
import trio
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection
from wsproto.utilities import LocalProtocolError, generate_accept_token

from ...protocol.message import Frame
from ...protocol.serializer import serializer_for
from .connection import Connection
from .mount import Accept, Mount, Refuse, Request, choose_subprotocol, parse_query
from .pipes import memory_pipe, open_background
from .wire import Control, FrameViolation, Framing

if TYPE_CHECKING:
    from .server import PhoenixServer

_READ_SIZE: Final = 16_384
_SIGNED: Final = "SFMyNTY."  # the beginning of every token that Phoenix signs
_CORS: Final = ("access-control-allow-origin", "*")
_JSON: Final = ("content-type", "application/json; charset=utf-8")


class Exchange:
    """The requests on one stream, each with its response; the last may open a WebSocket."""

    def __init__(self, server: "PhoenixServer", stream: trio.abc.Stream) -> None:
        # Cancelled when the client hangs up before the answer of `Mount.connect`, and when the server is killed.
        self.scope: trio.CancelScope = trio.CancelScope()
        self._server = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def accept(self) -> Connection | None:
        """Answer polls, one after the other, or one upgrade; return the connection that it opens."""
        try:
            while (asked := await self._read_request()) is not None:
                method, request = asked
                mount = self._find_mount(request.path, "longpoll")
                if mount is None:
                    return await self._upgrade(method, request)
                body = bytearray()
                while isinstance(event := await self._next_event(), h11.Data):
                    body += event.data
                    if len(body) > 8_000_000:
                        raise Refuse(400)
                if event is None:
                    raise trio.BrokenResourceError("the client hung up")
                if not await self._respond(await self._answer(mount, request, method, bytes(body))):
                    return None
        except (Refuse, h11.RemoteProtocolError) as error:
            refusal = error if isinstance(error, Refuse) else Refuse(error.error_status_hint, body="Bad Request")
            await self._respond(refusal)
            await self._stream.aclose()
        return None

    async def _read_request(self) -> tuple[bytes, Request] | None:
        """Return the client's request and its method, or None if it left, or took too long, before a whole one."""
        with trio.move_on_after(60):  # for its answer it waits as long as it likes
            if isinstance(received := await self._next_event(), h11.Request):
                path, _, query = received.target.decode("latin-1").partition("?")
                headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in received.headers)
                scheme = "https" if isinstance(self._stream, trio.SSLStream) else "http"
                uri = f"{scheme}://{dict(headers).get('host')}{path}{'?' if query else ''}{query}"
                return received.method, Request(path, uri, parse_query(query), headers)
        return None

    async def _respond(self, answer: Refuse) -> bool:
        """Send a whole response; returns whether another request may follow."""
        body = answer.body.encode()
        headers = [("content-length", str(len(body))), *self._server.web_server.refusal_headers, *answer.headers]
        response = h11.Response(status_code=answer.status, headers=headers, reason=responses.get(answer.status, ""))
        sent = [self._http.send(event) for event in (response, h11.Data(data=body), h11.EndOfMessage())]
        await self._stream.send_all(b"".join(filter(None, sent)))
        more = self._http.our_state is self._http.their_state is h11.DONE
        if more:
            self._http.start_next_cycle()
        return more

    async def _upgrade(self, method: bytes, request: Request) -> Connection:
        """Return the WebSocket's connection that a request opens; raises `Refuse`."""
        mount = self._find_mount(request.path, "websocket")
        if mount is None:
            raise Refuse(404, body="not found")
        _check_upgrade(method, request)
        subprotocol: str | None = None
        reads_token = mount.auth_token and self._server.release.reads_tokens
        if reads_token and (offered := _list(request, "sec-websocket-protocol")):
            subprotocol, token = choose_subprotocol(offered)
            request = attrs.evolve(request, auth_token=token)
        accepted = await self._connect_client(mount, request)
        offers = _list(request, "sec-websocket-extensions") if mount.compress else []
        offer = next((offer for offer in offers if offer.partition(";")[0].strip() == "permessage-deflate"), None)
        framing = Framing(mount.max_frame_size, offer, limits_wire=self._server.web_server.limits_wire)
        chosen = {"sec-websocket-protocol": subprotocol, "sec-websocket-extensions": framing.extension}
        key = generate_accept_token((request.header("sec-websocket-key") or "").encode())
        headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", key.decode())]
        headers += self._server.web_server.upgrade_headers
        headers += [(name, value) for name, value in chosen.items() if value is not None]
        response = self._http.send(h11.InformationalResponse(status_code=101, headers=headers))
        await self._stream.send_all(response or b"")
        early = self._http.trailing_data[0]
        return Connection(self._server, self._stream, mount, request, accepted, framing=framing, first_data=early)

    async def _answer(self, mount: Mount, request: Request, method: bytes, body: bytes) -> Refuse:
        if method == b"OPTIONS":  # a browser's preflight request (CORS)
            asked = ", ".join(value for name, value in request.headers if name == "access-control-request-headers")
            allowed = {"allow-headers": asked, "allow-methods": "get, post, options", "max-age": "3600"}
            return Refuse(200, [_CORS, *((f"access-control-{name}", value) for name, value in allowed.items())])
        if method not in (b"GET", b"POST"):
            return Refuse(400, [_CORS])
        token = request.header("x-phoenix-longpoll-token") or request.params.get("token")
        session = self._server.sessions.get(token) if isinstance(token, str) else None
        if session is None and isinstance(token, str) and token.startswith(_SIGNED):
            await trio.sleep(2)  # for which Phoenix asks its cluster for the session
        if method == b"POST":
            return _said(410 if session is None else await session.take(request, body))
        if session is not None:
            return await session.poll()
        if mount.auth_token and self._server.release.reads_tokens:
            request = attrs.evolve(request, auth_token=request.header("x-phoenix-authtoken"))
        try:
            accepted = await self._connect_client(mount, request)
        except Refuse as refusal:
            # Phoenix has one word for all refusals here; a crash is one of the request's own process.
            return refusal if refusal.status == 500 else _said(403)
        session = Session(self._server, mount, request, accepted)
        self._server.start_session(session)
        return _said(410, token=session.token, messages=[])

    def _find_mount(self, path: str, transport: str) -> Mount | None:
        """Return the mount whose transport is at a path; as in Plug, empty segments of paths do not count."""
        wanted = _segments(path)
        found = [mount for at, mount in self._server.mounts.items() if [*_segments(at), transport] == wanted]
        return next((mount for mount in found if getattr(mount, transport)), None)

    async def _connect_client(self, mount: Mount, request: Request) -> Accept:
        """Return the answer of the mount's `connect` to a client whose serializer is known; raises `Refuse`."""
        try:
            serializer_for(request.params.get("vsn", "1.0.0"))
        except ValueError:
            raise Refuse(403) from None
        try:
            answer: Any = mount.connect(request)
            if isawaitable(answer):
                answer = await self._while_it_stays(answer)
            if answer is not None and not isinstance(answer, Accept):
                raise TypeError(f"connect returned {answer!r}, which is neither an Accept nor None")
            return answer or Accept()
        except Refuse:
            raise
        except Exception as error:
            self._server.report(f"connect of {request.path} crashed", error)
            raise Refuse(500, [_JSON], '{"errors":{"detail":"500.json"}}') from error

    async def _next_event(self) -> h11.Event | None:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                return None
            self._http.receive_data(bytes(data))
        assert isinstance(event, h11.Event)
        return event

    async def _while_it_stays(self, answer: Awaitable[Any]) -> Any:
        """Wait for the answer to a client's request for as long as the client does: it must not go to the next one."""

        async def watch() -> None:
            with suppress(trio.BrokenResourceError):
                if data := bytes(await self._stream.receive_some(_READ_SIZE)):
                    self._http.receive_data(data)  # sent too early: it belongs to the WebSocket
                    return
            self.scope.cancel()

        async with open_background() as nursery:
            nursery.start_soon(watch)
            result = await answer
        await trio.lowlevel.checkpoint_if_cancelled()
        return result


class Session:
    """A client that polls: its requests bear the token, and the rest of the server sees its connection."""

    def __init__(self, server: "PhoenixServer", mount: Mount, request: Request, accepted: Accept) -> None:
        self.token: str = _SIGNED + secrets.token_urlsafe(16)
        self._stream, theirs = memory_pipe()
        mount = attrs.evolve(mount, timeout=None)  # it ends when it is not polled, rather than when nothing is posted
        self.connection: Connection = Connection(server, theirs, mount, request, accepted, framing=Framing())
        self._window = mount.poll_window
        self._framing = Framing(role=ConnectionType.CLIENT)
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
            await self.connection.run()
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
            self._posted += 1
            with trio.move_on_after(self._window) as scope:
                await self._send(frame)
                await self.connection.wait_handled(self._posted)
            if scope.cancelled_caught:
                return 408
        return 200

    async def _send(self, item: Frame | Control) -> None:
        with suppress(trio.BrokenResourceError, LocalProtocolError):  # the connection has ended
            await self._stream.send_all(self._framing.encode(item))

    async def _collect(self) -> None:
        try:
            while data := await self._stream.receive_some():
                for item in self._framing.receive(data):
                    if isinstance(item, str | bytes):
                        self._waiting.append(item)
                    elif isinstance(item, CloseConnection):
                        await self._send(item.response())
                if self._waiting:
                    self._arrived.unpark_all()
        except FrameViolation as violation:
            await self._send(CloseConnection(violation.code))
        except trio.BrokenResourceError:
            pass  # the connection has ended

    async def _end_if_unused(self) -> None:
        limit = 1.5 * self._window
        while trio.current_time() - self._polled <= limit:  # noqa: ASYNC110 - it is time that is waited for
            await trio.sleep(limit)
        self.connection.drop()


def _said(status: int, **more: Any) -> Refuse:
    return Refuse(200, [_CORS, _JSON], json.dumps({"status": status, **more}, ensure_ascii=False))


def _frames(kind: str | None, body: bytes) -> Iterator[Frame]:
    """Yield the frames in a POST; raises `Refuse`."""
    if kind != "application/x-ndjson":
        yield body.decode(errors="replace")
        return
    for line in body.replace(b"\r\n", b"\n").split(b"\n")[:100]:  # the rest is not read
        try:
            yield line.decode(errors="replace") if line[:1] == b"[" else base64.b64decode(line, validate=True)
        except binascii.Error:
            raise Refuse(500, [_CORS]) from None


def _segments(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/") if segment]


def _check_upgrade(method: bytes, request: Request) -> None:
    upgrade, connection = ([word.lower() for word in _list(request, name)] for name in ("upgrade", "connection"))
    key = request.header("sec-websocket-key")
    if method != b"GET" or "websocket" not in upgrade or "upgrade" not in connection or not key:
        raise Refuse(400, body="this path is for WebSockets only")
    if request.header("sec-websocket-version") != "13":
        raise Refuse(426, [("sec-websocket-version", "13")], "this server speaks version 13 of WebSocket")


def _list(request: Request, name: str) -> list[str]:
    return [item.strip() for key, value in request.headers if key == name for item in value.split(",") if item.strip()]
