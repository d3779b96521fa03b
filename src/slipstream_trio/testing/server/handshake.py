"""The HTTP side: a client's request, and the upgrade to a WebSocket or the response that refuses it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.client import responses
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import attrs
import h11
import trio
from wsproto.utilities import generate_accept_token

from .framing import BoundedDeflate, Framing
from .mount import Mount
from .request import Accept, Refuse, Request, choose_subprotocol, parse_query
from .wire import Wire, wire_for

if TYPE_CHECKING:
    from .server import PhoenixServer

__all__ = ["Upgrade", "accept_upgrade"]

_READ_SIZE: Final = 16_384
_READ_TIMEOUT: Final = 60.0
"""How long a client may take for its request, in seconds; for its answer it waits as long as it likes."""
_CRASHED: Final = Refuse(500, [("content-type", "application/json; charset=utf-8")], '{"errors":{"detail":"500.json"}}')
_NOT_FOUND: Final = Refuse(404, body="not found")


class _Gone(Exception):
    """The client has hung up before it had its answer."""


@attrs.frozen
class Upgrade:
    """A WebSocket that has been opened.

    Attributes:
        mount: where.
        request: by what request.
        accepted: what `Mount.connect` returned.
        wire: the serializer that the client asked for.
        framing: the WebSocket's frames.
        first_data: what the client sent behind its request.
    """

    mount: Mount
    request: Request
    accepted: Accept
    wire: Wire
    framing: Framing
    first_data: bytes


async def accept_upgrade(server: "PhoenixServer", stream: trio.abc.Stream) -> Upgrade | None:
    """Read a request, and answer it; return the WebSocket, or None where the answer was no, or nobody waits for it.

    Raises:
        trio.BrokenResourceError: the client is gone.
    """
    http = h11.Connection(h11.SERVER)
    try:
        received = None
        with trio.move_on_after(_READ_TIMEOUT):
            received = await _read_request(http, stream)
        if received is None:
            return None
        mount, request = _route(server, received, secure=isinstance(stream, trio.SSLStream))
        subprotocol: str | None = None
        if mount.auth_token and (offered := _list(request, "sec-websocket-protocol")):
            subprotocol, token = choose_subprotocol(offered)
            request = attrs.evolve(request, auth_token=token)
        wire = wire_for(request.params.get("vsn", "1.0.0"))
        if wire is None:
            raise Refuse(403)
        accepted = await _connect(server, mount, request, partial(_while_it_stays, http, stream))
        headers, framing = _negotiate(server, mount, request, subprotocol)
    except h11.RemoteProtocolError as error:
        await _refuse(server, http, stream, Refuse(error.error_status_hint, body="Bad Request"))
    except Refuse as refusal:
        await _refuse(server, http, stream, refusal)
    except _Gone:
        pass  # nobody is there to be answered
    else:
        await stream.send_all(_bytes(http, h11.InformationalResponse(status_code=101, headers=headers)))
        return Upgrade(mount, request, accepted, wire, framing, http.trailing_data[0])
    return None


async def _read_request(http: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """Return the client's request, or None if it left before it had sent a whole one."""
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some(_READ_SIZE)
        if not data:
            return None
        http.receive_data(bytes(data))
    return event if isinstance(event, h11.Request) else None


def _route(server: "PhoenixServer", received: h11.Request, *, secure: bool) -> tuple[Mount, Request]:
    path, _, query = received.target.decode("latin-1").partition("?")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in received.headers)
    request = Request(path, "", parse_query(query), headers)
    uri = f"{'https' if secure else 'http'}://{request.header('host')}{path}{'?' if query else ''}{query}"
    request = attrs.evolve(request, uri=uri)
    mount = find_mount(server.mounts, path)
    if mount is None:
        raise _NOT_FOUND
    _check_upgrade(received.method, request)
    return mount, request


def find_mount(mounts: Mapping[str, Mount], path: str) -> Mount | None:
    """Return the mount whose WebSocket is at a path; as in Plug, empty segments of paths do not count."""
    wanted = _segments(path)
    return next((mount for at, mount in mounts.items() if [*_segments(at), "websocket"] == wanted), None)


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


async def _connect(
    server: "PhoenixServer", mount: Mount, request: Request, wait: Callable[[Awaitable[Any]], Awaitable[Any]]
) -> Accept:
    try:
        answer: Any = mount.connect(request)
        if isawaitable(answer):
            answer = await wait(answer)
        if answer is not None and not isinstance(answer, Accept):
            raise TypeError(f"connect returned {answer!r}, which is neither an Accept nor None")
        return answer or Accept()
    except (Refuse, _Gone):
        raise
    except Exception as error:
        server.report(f"connect of {request.path} crashed", error)
        raise _CRASHED from error


async def _while_it_stays(http: h11.Connection, stream: trio.abc.Stream, answer: Awaitable[Any]) -> Any:
    """Wait for the answer to a client's request, for as long as the client does.

    A client that has given up must get no answer that was meant for the next.

    Raises:
        _Gone: the client has hung up.
    """
    result: Any = None
    failure: Exception | None = None

    async def watch() -> None:
        nonlocal failure
        data = b""
        with suppress(trio.BrokenResourceError):
            data = bytes(await stream.receive_some(_READ_SIZE))
        if data:
            http.receive_data(data)  # sent before it may: it is of the WebSocket, and the client is still there
        else:
            failure = _Gone()
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            result = await answer
        except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery's group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result


def _negotiate(
    server: "PhoenixServer", mount: Mount, request: Request, subprotocol: str | None
) -> tuple[list[tuple[str, str]], Framing]:
    token = generate_accept_token((request.header("sec-websocket-key") or "").encode())
    headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", token.decode())]
    headers += server.web_server.upgrade_headers
    if subprotocol is not None:
        headers.append(("sec-websocket-protocol", subprotocol))
    deflate = None
    offers = _list(request, "sec-websocket-extensions")
    offer = next((offer for offer in offers if offer.partition(";")[0].strip() == BoundedDeflate.name), None)
    if mount.compress and offer is not None:
        candidate = BoundedDeflate(mount.max_inflate_ratio)
        parameters = candidate.accept(offer)
        if isinstance(parameters, str):
            deflate = candidate
            accepted = f"{candidate.name};{parameters}" if parameters else candidate.name
            headers.append(("sec-websocket-extensions", accepted))
    fragmented = server.web_server.max_fragmented_size or mount.max_frame_size
    return headers, Framing(mount.max_frame_size, fragmented, deflate)


async def _refuse(server: "PhoenixServer", http: h11.Connection, stream: trio.abc.Stream, refusal: Refuse) -> None:
    body = refusal.body.encode()
    headers = [("content-length", str(len(body))), *server.web_server.refusal_headers, *refusal.headers]
    reason = responses.get(refusal.status, "")
    response = h11.Response(status_code=refusal.status, headers=headers, reason=reason)
    await stream.send_all(_bytes(http, response, h11.Data(data=body), h11.EndOfMessage()))
    await stream.aclose()


def _bytes(http: h11.Connection, *events: h11.Event) -> bytes:
    return b"".join(http.send(event) or b"" for event in events)


def _list(request: Request, name: str) -> Sequence[str]:
    values = [value for key, value in request.headers if key == name]
    return [item.strip() for value in values for item in value.split(",") if item.strip()]
