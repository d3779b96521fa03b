"""The HTTP side: a client's requests, and the upgrade to a WebSocket or the responses that it gets instead."""

from collections.abc import Awaitable
from contextlib import suppress
from http.client import responses
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import attrs
import h11
import trio
from wsproto.utilities import generate_accept_token

from .framing import Framing
from .mount import Accept, Mount, Refuse, Request, choose_subprotocol, parse_query
from .nursery import open_background
from .wire import Wire, wire_for

if TYPE_CHECKING:
    from .server import PhoenixServer

__all__ = ["Exchange", "Gone", "Upgrade"]

_READ_SIZE: Final = 16_384
_READ_TIMEOUT: Final = 60.0
"""How long a client may take for its request, in seconds; for its answer it waits as long as it likes."""
_CRASHED: Final = Refuse(500, [("content-type", "application/json; charset=utf-8")], '{"errors":{"detail":"500.json"}}')


class Gone(Exception):
    """The client hung up before the answer."""


@attrs.frozen
class Upgrade:
    """An opened WebSocket: its mount, its request, and the bytes behind that."""

    mount: Mount
    request: Request
    accepted: Accept
    wire: Wire
    framing: Framing
    first_data: bytes


class Exchange:
    """The requests on one stream, each with its response; the last may open a WebSocket."""

    def __init__(self, server: "PhoenixServer", stream: trio.abc.Stream) -> None:
        self.server: PhoenixServer = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def read_request(self) -> tuple[bytes, Request] | None:
        """Return the client's request and its method, or None if it left, or took too long, before a whole one."""
        received: h11.Event | None = None
        with trio.move_on_after(_READ_TIMEOUT):
            received = await self._next_event()
        if not isinstance(received, h11.Request):
            return None
        path, _, query = received.target.decode("latin-1").partition("?")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in received.headers)
        request = Request(path, "", parse_query(query), headers)
        scheme = "https" if isinstance(self._stream, trio.SSLStream) else "http"
        uri = f"{scheme}://{request.header('host')}{path}{'?' if query else ''}{query}"
        return received.method, attrs.evolve(request, uri=uri)

    async def read_body(self, limit: int) -> bytes:
        """Return the body of a request; raises `Refuse` where it is too large, `Gone` where the client leaves."""
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > limit:
                raise Refuse(400)
        if event is None:
            raise Gone
        return bytes(body)

    async def respond(self, answer: Refuse) -> bool:
        """Send a whole response; returns whether another request may follow."""
        body = answer.body.encode()
        headers = [("content-length", str(len(body))), *self.server.web_server.refusal_headers, *answer.headers]
        response = h11.Response(status_code=answer.status, headers=headers, reason=responses.get(answer.status, ""))
        sent = [self._http.send(event) for event in (response, h11.Data(data=body), h11.EndOfMessage())]
        await self._stream.send_all(b"".join(filter(None, sent)))
        more = self._http.our_state is self._http.their_state is h11.DONE
        if more:
            self._http.start_next_cycle()
        return more

    async def upgrade(self, method: bytes, request: Request) -> Upgrade:
        """Return the WebSocket that a request opens; raises `Refuse`, or `Gone` if the client hung up."""
        mount = self.find_mount(request.path, "websocket")
        if mount is None:
            raise Refuse(404, body="not found")
        _check_upgrade(method, request)
        headers: list[tuple[str, str]] = []
        reads_token = mount.auth_token and self.server.release.reads_tokens
        if reads_token and (offered := _list(request, "sec-websocket-protocol")):
            subprotocol, token = choose_subprotocol(offered)
            request = attrs.evolve(request, auth_token=token)
            headers = [] if subprotocol is None else [("sec-websocket-protocol", subprotocol)]
        wire, accepted = await self.connect_client(mount, request)
        framing = self._framing(mount, request)
        if framing.extension is not None:
            headers.append(("sec-websocket-extensions", framing.extension))
        key = generate_accept_token((request.header("sec-websocket-key") or "").encode())
        first = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", key.decode())]
        headers = [*first, *self.server.web_server.upgrade_headers, *headers]
        response = self._http.send(h11.InformationalResponse(status_code=101, headers=headers))
        await self._stream.send_all(response or b"")
        return Upgrade(mount, request, accepted, wire, framing, self._http.trailing_data[0])

    def find_mount(self, path: str, transport: str) -> Mount | None:
        """Return the mount whose transport is at a path; as in Plug, empty segments of paths do not count."""
        wanted = _segments(path)
        mounts = self.server.mounts.items()
        found = next((mount for at, mount in mounts if [*_segments(at), transport] == wanted), None)
        return found if found is not None and getattr(found, transport) else None

    async def connect_client(self, mount: Mount, request: Request) -> tuple[Wire, Accept]:
        """Return the serializer that a client asks for, and the answer of the mount's `connect`; raises `Refuse`."""
        wire = wire_for(request.params.get("vsn", "1.0.0"))
        if wire is None:
            raise Refuse(403)
        try:
            answer: Any = mount.connect(request)
            if isawaitable(answer):
                answer = await self._while_it_stays(answer)
            if answer is not None and not isinstance(answer, Accept):
                raise TypeError(f"connect returned {answer!r}, which is neither an Accept nor None")
            return wire, answer or Accept()
        except (Refuse, Gone):
            raise
        except Exception as error:
            self.server.report(f"connect of {request.path} crashed", error)
            raise _CRASHED from error

    async def _next_event(self) -> h11.Event | None:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                return None
            self._http.receive_data(bytes(data))
        assert isinstance(event, h11.Event)
        return event

    async def _while_it_stays(self, answer: Awaitable[Any]) -> Any:
        """Wait for the answer to a client's request for as long as the client does: else `Gone` is raised.

        After a client gave up, its answer must not go to the next one.
        """

        async def watch() -> None:
            data = b""
            with suppress(trio.BrokenResourceError):
                data = bytes(await self._stream.receive_some(_READ_SIZE))
            if data:  # sent too early; it belongs to the WebSocket, and shows that the client is there
                self._http.receive_data(data)
            else:
                scope.cancel()

        result: Any = None
        with trio.CancelScope() as scope:
            async with open_background() as nursery:
                nursery.start_soon(watch)
                result = await answer
        if scope.cancel_called:
            raise Gone
        return result

    def _framing(self, mount: Mount, request: Request) -> Framing:
        offers = _list(request, "sec-websocket-extensions") if mount.compress else []
        offer = next((offer for offer in offers if offer.partition(";")[0].strip() == "permessage-deflate"), None)
        ratio = mount.max_inflate_ratio if self.server.web_server.limits_wire else None
        return Framing(mount.max_frame_size, ratio, offer)


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
    values = [value for key, value in request.headers if key == name]
    return [item.strip() for value in values for item in value.split(",") if item.strip()]
