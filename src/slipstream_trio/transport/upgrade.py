"""The upgrade from HTTP to WebSocket (RFC 6455, 4.1), for every transport that speaks WebSocket.

Only a valid 101 is a success. Each way in which an answer is something else has a sentence of its own, which names the
cause and the way out, as what stands between client and server is known to nobody better than to who reads it.
"""

import base64
import hashlib
import math
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import h11
import trio
from attrs import frozen

from ..errors import ConnectError, ConnectionRejected, ConnectTimeout
from .address import address_of
from .answer import AnswerReader, Head
from .base import OpenRequest, StreamOpener
from .network import deadline_of, described, opened

__all__ = ["Upgraded", "accept_token", "answer_to", "open_upgraded", "request_bytes", "upgrade"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_PARTS: Final = ("accept", "protocol", "extensions")
_OWN: Final = frozenset({"upgrade", "connection", *(f"sec-websocket-{what}" for what in _PARTS)})


@frozen
class Upgraded:
    """A server's consent to speak WebSocket; `headers` lack the upgrade's own.

    `behind` are the bytes that came behind the head, frames already, and `received` is the number of those before.
    """

    headers: tuple[tuple[str, str], ...]
    subprotocol: str | None
    extensions: str | None
    behind: bytes
    received: int


async def open_upgraded(open_stream: StreamOpener, request: OpenRequest) -> tuple[trio.abc.Stream, Upgraded]:
    """Open a stream and upgrade it, both within `connect_timeout`; closes the stream if that fails.

    Raises:
        ConnectError: as `upgrade`, or the stream failed to open.
    """
    deadline = deadline_of(request)
    stream = await opened(open_stream, request, deadline)
    try:
        return stream, await upgrade(stream, request, deadline)
    except BaseException:
        with suppress(Exception):  # it is over anyway, and a stream that cannot be closed is its maker's
            await trio.aclose_forcefully(stream)
        raise


async def upgrade(stream: trio.abc.Stream, request: OpenRequest, deadline: float = math.inf) -> Upgraded:
    """Ask the server at the other end of a stream to speak WebSocket, until the deadline; the caller closes the stream.

    Raises:
        ConnectError: the upgrade failed; the sentence has the cause and the way out.
        ConnectTimeout: no answer by the deadline.
        ConnectionRejected: the server answered with another status than 101.
    """
    connection, key = h11.Connection(h11.CLIENT), base64.b64encode(secrets.token_bytes(16))
    data = request_bytes(connection, address_of(request).target, _headers(request, key))
    head, reader = await answer_to(data, connection, stream, request, deadline)
    if head.status == 101:
        return _accepted(head, request, key, reader)
    raise ConnectionRejected(head.status, head.headers, reader.body.decode(errors="replace"))


async def answer_to(
    data: bytes, connection: h11.Connection, stream: trio.abc.Stream, request: OpenRequest, deadline: float
) -> tuple[Head, AnswerReader]:
    """Send `data`, which `connection` has made, and return the answer's head, and reader, which has read a refusal.

    Raises:
        ConnectError: no answer came; the sentence has the cause and the way out.
        ConnectTimeout: no answer by the deadline.
    """
    reader = AnswerReader(stream, request.max_header_size, encrypted=address_of(request).encrypted)
    head: Head | None = None
    with trio.move_on_at(deadline):
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # a server that refuses before it has read everything: its answer can be read all the same
        except Exception as error:
            raise ConnectError(f"the upgrade failed: the stream raised {described(error)}") from error
        head = await reader.read_head(connection)
        if head.status != 101:
            await reader.read_body(head, connection, len(data))
    if head is None:
        rest = f"the rest of the server's answer ({reader.received} bytes had come)" if reader.received else None
        raise ConnectTimeout(request.connect_timeout or 0.0, awaited=rest)
    return head, reader


def accept_token(key: bytes) -> bytes:
    """Return a server's answer to the `Sec-WebSocket-Key` of a request."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _headers(request: OpenRequest, key: bytes) -> Iterator[tuple[str, str]]:
    yield "Host", address_of(request).host_header
    yield "Upgrade", "websocket"
    yield "Connection", "Upgrade"
    yield "Sec-WebSocket-Key", key.decode()
    yield "Sec-WebSocket-Version", "13"
    if request.subprotocols:
        yield "Sec-WebSocket-Protocol", ", ".join(request.subprotocols)
    if request.extensions:
        yield "Sec-WebSocket-Extensions", ", ".join(request.extensions)
    yield from request.headers


def request_bytes(connection: h11.Connection, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a GET request; raises `ConnectError` where it has a character that no request can have."""
    try:
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        asked = h11.Request(method="GET", target=target, headers=encoded)
        return (connection.send(asked) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    except (h11.LocalProtocolError, UnicodeError):  # not its cause: it shows what may be a secret
        raise ConnectError(
            "the URL, a header or the auth_token has a character that no HTTP request can have"
        ) from None


def _accepted(head: Head, request: OpenRequest, key: bytes, reader: AnswerReader) -> Upgraded:
    """Return the result of a 101; raises `ConnectError` for an invalid one."""
    problem = _problem(head, request, accept_token(key).decode())
    if problem is not None:
        raise ConnectError(f"the server's 101 is an invalid upgrade: {problem}")
    chosen = head.values("sec-websocket-protocol")
    extensions = ", ".join(head.values("sec-websocket-extensions"))
    behind = reader.behind()
    headers = tuple(pair for pair in head.headers if pair[0] not in _OWN)
    subprotocol = chosen[0] if chosen else None
    return Upgraded(headers, subprotocol, extensions or None, behind, reader.received - len(behind))


def _problem(head: Head, request: OpenRequest, accept: str) -> str | None:
    """Return the fault of a 101, and the way out."""
    if head.version != "1.1":
        return f"it is HTTP/{head.version}, which has none; let the proxy between speak HTTP/1.1 to the server"
    if head.problem is not None:
        return f"it is malformed HTTP ({head.problem}); a proxy may have garbled it"
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        values = [value.lower() for value in head.values(name.lower())]
        if token not in values:
            how = "has another value" if values else "is missing"
            return f"its {name} header {how}; let the proxy between pass it on ({name}: {token})"
    accepts = [value for name, value in head.headers if name == "sec-websocket-accept"]
    if accepts != [accept]:
        several = ", as it is there more than once" if len(accepts) > 1 else ""
        how = f"does not fit our key{several}; a proxy may have answered from a cache" if accepts else "is missing"
        return f"its Sec-WebSocket-Accept header {how}; is that a WebSocket server?"
    offered = {offer.partition(";")[0].strip() for offer in request.extensions}
    for extension in head.values("sec-websocket-extensions"):
        if extension.partition(";")[0].strip() not in offered:
            return f"it chose the extension {extension!r}, which was not offered; turn that off on the server"
    chosen = head.values("sec-websocket-protocol")
    if chosen and (len(chosen) > 1 or chosen[0] not in request.subprotocols):
        return f"it chose the subprotocol {chosen[0]!r}, which was not offered; is that the URL of Phoenix's socket?"
    return None
