"""The HTTP side: a client's request, and the upgrade to a WebSocket or the response that refuses it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.client import responses
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

import attrs
import h11
import trio
from wsproto.utilities import generate_accept_token

from .framing import Framing
from .mount import Mount
from .nursery import open_background
from .request import Accept, Refuse, Request, choose_subprotocol, parse_query
from .wire import Wire, wire_for

if TYPE_CHECKING:
    from .server import PhoenixServer

__all__ = [
    "Gone",
    "Upgrade",
    "accept_upgrade",
    "connect_client",
    "find_mount",
    "negotiated_wire",
    "read_body",
    "read_request",
    "refuse",
    "request_of",
    "respond",
    "while_it_stays",
]

_READ_SIZE: Final = 16_384
_READ_TIMEOUT: Final = 60.0
"""How long a client may take for its request, in seconds; for its answer it waits as long as it likes."""
_CRASHED: Final = Refuse(500, [("content-type", "application/json; charset=utf-8")], '{"errors":{"detail":"500.json"}}')
_NOT_FOUND: Final = Refuse(404, body="not found")


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


async def accept_upgrade(
    server: "PhoenixServer", http: h11.Connection, stream: trio.abc.Stream, method: bytes, request: Request
) -> Upgrade:
    """Answer a request, and return the WebSocket that it opens; raises `Refuse`, or `Gone` if the client hung up."""
    mount = find_mount(server.mounts, request.path, "websocket")
    if mount is None:
        raise _NOT_FOUND
    _check_upgrade(method, request)
    subprotocol: str | None = None
    reads_token = mount.auth_token and server.release.reads_tokens
    if reads_token and (offered := _list(request, "sec-websocket-protocol")):
        subprotocol, token = choose_subprotocol(offered)
        request = attrs.evolve(request, auth_token=token)
    wire = negotiated_wire(request)
    accepted = await connect_client(server, mount, request, partial(while_it_stays, http, stream))
    headers, framing = _negotiate(server, mount, request, subprotocol)
    await stream.send_all(_bytes(http, h11.InformationalResponse(status_code=101, headers=headers)))
    return Upgrade(mount, request, accepted, wire, framing, http.trailing_data[0])


async def read_request(http: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """Return the client's request, or None if it left, or took too long, before a whole one."""
    with trio.move_on_after(_READ_TIMEOUT):
        event = await _next_event(http, stream)
        return event if isinstance(event, h11.Request) else None
    return None


async def read_body(http: h11.Connection, stream: trio.abc.Stream, limit: int) -> bytes:
    """Return the body of a request; raises `Refuse` where it is too large, `Gone` where the client leaves."""
    body = bytearray()
    while isinstance(event := await _next_event(http, stream), h11.Data):
        body += event.data
        if len(body) > limit:
            raise Refuse(400)
    if event is None:
        raise Gone
    return bytes(body)


async def _next_event(http: h11.Connection, stream: trio.abc.Stream) -> h11.Event | None:
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some(_READ_SIZE)
        if not data:
            return None
        http.receive_data(bytes(data))
    assert isinstance(event, h11.Event)
    return event


def request_of(received: h11.Request, *, secure: bool) -> Request:
    """Return a request as applications see it."""
    path, _, query = received.target.decode("latin-1").partition("?")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in received.headers)
    request = Request(path, "", parse_query(query), headers)
    uri = f"{'https' if secure else 'http'}://{request.header('host')}{path}{'?' if query else ''}{query}"
    return attrs.evolve(request, uri=uri)


def negotiated_wire(request: Request) -> Wire:
    """Return the serializer that a client asks for; raises `Refuse` for another version."""
    wire = wire_for(request.params.get("vsn", "1.0.0"))
    if wire is None:
        raise Refuse(403)
    return wire


def find_mount(mounts: Mapping[str, Mount], path: str, transport: Literal["websocket", "longpoll"]) -> Mount | None:
    """Return the mount whose transport is at a path; as in Plug, empty segments of paths do not count."""
    wanted = _segments(path)
    found = next((mount for at, mount in mounts.items() if [*_segments(at), transport] == wanted), None)
    return found if found is not None and getattr(found, transport) else None


def _segments(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/") if segment]


def _check_upgrade(method: bytes, request: Request) -> None:
    upgrade = [name.lower() for name in _list(request, "upgrade")]
    connection = [name.lower() for name in _list(request, "connection")]
    key = request.header("sec-websocket-key")
    if method != b"GET" or "websocket" not in upgrade or "upgrade" not in connection or not key:
        raise Refuse(400, body="this path is for WebSockets only")
    if request.header("sec-websocket-version") != "13":
        raise Refuse(426, [("sec-websocket-version", "13")], "this server speaks version 13 of WebSocket")


async def connect_client(
    server: "PhoenixServer", mount: Mount, request: Request, wait: Callable[[Awaitable[Any]], Awaitable[Any]]
) -> Accept:
    """Return the answer of a mount's `connect` to a client; raises `Refuse`."""
    try:
        answer: Any = mount.connect(request)
        if isawaitable(answer):
            answer = await wait(answer)
        if answer is not None and not isinstance(answer, Accept):
            raise TypeError(f"connect returned {answer!r}, which is neither an Accept nor None")
        return answer or Accept()
    except (Refuse, Gone):
        raise
    except Exception as error:
        server.report(f"connect of {request.path} crashed", error)
        raise _CRASHED from error


async def while_it_stays(http: h11.Connection, stream: trio.abc.Stream, answer: Awaitable[Any]) -> Any:
    """Wait for the answer to a client's request for as long as the client does: else `Gone` is raised.

    After a client gave up, its answer must not go to the next one.
    """

    async def watch() -> None:
        data = b""
        with suppress(trio.BrokenResourceError):
            data = bytes(await stream.receive_some(_READ_SIZE))
        if data:
            http.receive_data(data)  # sent too early; it belongs to the WebSocket, and shows that the client is there
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


def _negotiate(
    server: "PhoenixServer", mount: Mount, request: Request, subprotocol: str | None
) -> tuple[list[tuple[str, str]], Framing]:
    token = generate_accept_token((request.header("sec-websocket-key") or "").encode())
    headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", token.decode())]
    headers += server.web_server.upgrade_headers
    if subprotocol is not None:
        headers.append(("sec-websocket-protocol", subprotocol))
    offers = _list(request, "sec-websocket-extensions") if mount.compress else ()
    offer = next((offer for offer in offers if offer.partition(";")[0].strip() == "permessage-deflate"), None)
    ratio = mount.max_inflate_ratio if server.web_server.limits_wire else None
    framing = Framing(mount.max_frame_size, ratio, offer)
    if framing.extension is not None:
        headers.append(("sec-websocket-extensions", framing.extension))
    return headers, framing


async def respond(server: "PhoenixServer", http: h11.Connection, stream: trio.abc.Stream, answer: Refuse) -> None:
    """Send a whole response."""
    body = answer.body.encode()
    headers = [("content-length", str(len(body))), *server.web_server.refusal_headers, *answer.headers]
    response = h11.Response(status_code=answer.status, headers=headers, reason=responses.get(answer.status, ""))
    await stream.send_all(_bytes(http, response, h11.Data(data=body), h11.EndOfMessage()))


async def refuse(server: "PhoenixServer", http: h11.Connection, stream: trio.abc.Stream, refusal: Refuse) -> None:
    """Send a response, and hang up."""
    await respond(server, http, stream, refusal)
    await stream.aclose()


def _bytes(http: h11.Connection, *events: h11.Event) -> bytes:
    return b"".join(http.send(event) or b"" for event in events)


def _list(request: Request, name: str) -> Sequence[str]:
    values = [value for key, value in request.headers if key == name]
    return [item.strip() for value in values for item in value.split(",") if item.strip()]
