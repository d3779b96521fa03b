"""The upgrade from HTTP to WebSocket (RFC 6455, 4.1), for every transport that speaks WebSocket.

Only a valid 101 is a success. Each way in which an answer is something else has a sentence of its own, which names the
cause and the way out, as what stands between client and server is known to nobody better than to who reads it.
"""

import base64
import hashlib
import math
import secrets
from typing import Final

import trio
from attrs import frozen

from ..errors import ConnectError, ConnectionRejected
from .address import address_of
from .answer import Answer, answer_to
from .base import OpenRequest

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


async def upgrade(stream: trio.abc.Stream, request: OpenRequest, deadline: float = math.inf) -> Upgraded:
    """Ask the server at the other end of a stream to speak WebSocket; the caller closes the stream.

    Raises:
        ConnectError: the upgrade failed, or was not over by the deadline; the sentence has the cause and the way out.
        ConnectionRejected: the server answered with another status than 101.
    """
    address, key = address_of(request), base64.b64encode(secrets.token_bytes(16))
    asked = _headers(request, address.host_header, key.decode())
    answer = await answer_to(stream, request, address.target, asked, deadline, encrypted=address.encrypted)
    if answer.status != 101:
        raise ConnectionRejected(answer.status, answer.headers, answer.body.decode(errors="replace"))
    problem = _problem(answer, request, accept_token(key).decode())
    if problem is not None:
        raise ConnectError(f"the server's 101 is an invalid upgrade: {problem}")
    chosen = answer.values("sec-websocket-protocol")
    extensions = ", ".join(answer.values("sec-websocket-extensions"))
    behind = answer.behind()
    headers = [pair for pair in answer.headers if pair[0] not in _OWN]
    subprotocol = chosen[0] if chosen else None
    return Upgraded(tuple(headers), subprotocol, extensions or None, behind, answer.received - len(behind))


def accept_token(key: bytes) -> bytes:
    """Return a server's answer to the `Sec-WebSocket-Key` of a request."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _headers(request: OpenRequest, host: str, key: str) -> list[tuple[str, str]]:
    headers = [("Host", host), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    headers += [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", "13")]
    if request.subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(request.subprotocols)))
    if request.extensions:
        headers.append(("Sec-WebSocket-Extensions", ", ".join(request.extensions)))
    return [*headers, *request.headers]


def _problem(answer: Answer, request: OpenRequest, accept: str) -> str | None:
    """Return the fault of a 101, and the way out."""
    if answer.version != "1.1":
        return f"it is HTTP/{answer.version}, which has none; let the proxy between speak HTTP/1.1 to the server"
    if answer.problem is not None:
        return f"it is malformed HTTP ({answer.problem}); a proxy may have garbled it"
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        values = [value.lower() for value in answer.values(name.lower())]
        if token not in values:
            how = "has another value" if values else "is missing"
            return f"its {name} header {how}; let the proxy between pass it on ({name}: {token})"
    accepts = [value for name, value in answer.headers if name == "sec-websocket-accept"]
    if accepts != [accept]:
        several = ", as it is there more than once" if len(accepts) > 1 else ""
        how = f"does not fit our key{several}; a proxy may have answered from a cache" if accepts else "is missing"
        return f"its Sec-WebSocket-Accept header {how}; is that a WebSocket server?"
    offered = {offer.partition(";")[0].strip() for offer in request.extensions}
    for extension in answer.values("sec-websocket-extensions"):
        if extension.partition(";")[0].strip() not in offered:
            return f"it chose the extension {extension!r}, which was not offered; turn that off on the server"
    chosen = answer.values("sec-websocket-protocol")
    if chosen and (len(chosen) > 1 or chosen[0] not in request.subprotocols):
        return f"it chose the subprotocol {chosen[0]!r}, which was not offered; is that the URL of Phoenix's socket?"
    return None
