"""The upgrade from HTTP to WebSocket (RFC 6455, 4.1), for every transport that speaks WebSocket.

Only a valid 101 is a success. Each way in which an answer is something else has a sentence of its own, which names the
cause and the way out, as what stands between client and server is known to nobody better than to who reads it.

Whatever that is, it answers in the server's place, in HTTP of any quality. So the block of status and headers counts as
soon as it is there; h11 reads it, and where h11 refuses it, what can be read of it counts all the same. Bytes that are
something else than HTTP are told apart by how they begin.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import h11
import trio

from ..errors import ConnectError, ConnectionRejected, ConnectTimeout
from .base import OpenRequest, address_of
from .network import described, explain_tls, refused_certificate

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

READ: Final = 4 * 1024
LONGEST_BODY: Final = 4 * 1024  # bytes of a refusal's body: what helps to understand it stands at its beginning
BODY_TIME: Final = 1.0  # seconds for them
RECOGNIZING: Final = 0.2  # seconds for the rest of a first line that is something else than HTTP, so as to name that

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d+(?:\.\d+)?)[ \t]+([1-9]\d\d)(?!\d)")
_HEADER_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")

HTTP2_HEADER: Final = 9  # bytes of the header of a frame
LONGEST_SHOWN: Final = 60  # characters of a first line that are shown in a sentence

_CHECK: Final = "check the URL's host and port"
_HTTP2: Final = rb".{3}[\x04\x07].\x00\x00\x00\x00|PRI \* HTTP/2"
_PROTOCOLS: Final = [
    (re.compile(pattern, re.DOTALL), name, hint)
    for pattern, name, hint in (
        (rb"[\x14-\x17]\x03[\x00-\x04]", "TLS", "the URL should begin with wss:// rather than ws://"),
        (_HTTP2, "HTTP/2", "let the server, or the proxy before it, accept HTTP/1.1"),
        (rb"GET ", "an echo of our request", _CHECK),
        (rb"\s*<", "a bare HTML page", _CHECK),
        (rb"[\x81\x82\x88\x89]", "WebSocket frames", "let the server answer the upgrade first"),
        (rb"\x05[\x00-\xff]|\x00[\x5a-\x5d]", "SOCKS", "pass the address of a proxy as the option proxy"),
        (rb"SSH-", "SSH", _CHECK),
        (rb"(?:220|421|5\d\d)[ -]", "SMTP or FTP", _CHECK),
        (rb"\* (?:OK|BYE|PREAUTH)", "IMAP", _CHECK),
        (rb"\+OK", "POP3", _CHECK),
        (rb"-[A-Z]+ ", "Redis", _CHECK),
        (rb"RFB ", "VNC", _CHECK),
        (rb"AMQP", "AMQP", _CHECK),
        (rb"RTSP/|SIP/|ICY ", "a media protocol", _CHECK),
        (rb".{3}\x00[\x0a\xff]", "MySQL", _CHECK),
        (rb"E\x00\x00", "PostgreSQL", _CHECK),
        (rb"\x20\x02", "MQTT", _CHECK),
        (rb"ERROR\r?\n", "memcached", _CHECK),
    )
]


async def upgrade(stream: trio.abc.Stream, request: OpenRequest, deadline: float) -> "Answer":
    """Ask the server at the other end of a stream to speak WebSocket, and return its consent; raises `ConnectError`."""
    address, key = address_of(request), base64.b64encode(secrets.token_bytes(16))
    asked = [("Host", address.host_header), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    asked += [("Sec-WebSocket-Key", key.decode()), ("Sec-WebSocket-Version", "13")]
    for name, offers in (("Protocol", request.subprotocols), ("Extensions", request.extensions)):
        asked += [(f"Sec-WebSocket-{name}", ", ".join(offers))] if offers else []
    asked += request.headers
    answer = await answer_to(stream, request, address.target, asked, deadline)
    if answer.status != 101:
        raise ConnectionRejected(answer.status, answer.headers, answer.body.decode(errors="replace"))
    problem = _problem(answer, request, accept_token(key).decode())
    if problem is not None:
        raise ConnectError(f"the server's 101 is an invalid upgrade: {problem}")
    return answer


def accept_token(key: bytes) -> bytes:
    """Return a server's answer to the `Sec-WebSocket-Key` of a request."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _problem(answer: "Answer", request: OpenRequest, accept: str) -> str | None:
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


# One request, and its answer, read as far as possible, however it ends


async def answer_to(
    stream: trio.abc.Stream, request: OpenRequest, target: str, headers: Iterable[tuple[str, str]], deadline: float
) -> "Answer":
    """Send a GET request over a stream, and read the answer, a refusal's body too; raises `ConnectError`."""
    answer = Answer(stream, request)
    try:
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        data = answer.connection.send(h11.Request(method="GET", target=target, headers=encoded)) or b""
    except (h11.LocalProtocolError, UnicodeError):  # not its cause: it shows what may be a secret
        problem = "the URL, a header or the auth_token has a character that no HTTP request can have"
        raise ConnectError(problem) from None
    with trio.move_on_at(deadline):
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # a server that refuses before it has read everything: its answer can be read all the same
        except Exception as error:
            raise ConnectError(f"the upgrade failed: the stream raised {described(error)}") from error
        await answer.read_head()
        if answer.status != 101:
            await answer.read_body(len(data))
    if not answer.status:
        rest = f"the rest of the server's answer ({answer.received} bytes had come)" if answer.received else None
        raise ConnectTimeout(request.connect_timeout or 0.0, awaited=rest)
    return answer


class Answer:
    """The answer to one request."""

    def __init__(self, stream: trio.abc.Stream, request: OpenRequest) -> None:
        self.version: str = ""  # of HTTP
        self.status: int = 0  # until the block of status line and headers has come
        self.headers: tuple[tuple[str, str], ...] = ()  # that can be read, with names in lower case
        self.problem: str | None = None  # why h11 refuses the block
        self.body: bytes = b""  # as much as was read of it
        self.received: int = 0  # bytes
        self.buffer: bytearray = bytearray()  # in the end what is behind the block: of a 101, frames already
        self.connection: h11.Connection = h11.Connection(h11.CLIENT)  # by which the request is made
        self._stream = stream
        self._request = request
        self._broken_by: BaseException | None = None

    def values(self, name: str) -> list[str]:
        """Return the values of a header, those that commas join apart."""
        parts = [part for known, value in self.headers if known == name for part in value.split(",")]
        return [part.strip() for part in parts if part.strip()]

    async def read_head(self) -> None:
        """Read the final block of status line and headers; 1xx are passed over, save for 101."""
        passed_over, line, raw = 0, None, b""
        while line is None or (line[2].startswith(b"1") and line[2] != b"101"):
            passed_over += len(raw)
            if passed_over > self._request.max_header_size:
                raise self._too_large()
            raw = await self._read_block()
            line = _STATUS_LINE.match(raw)
        try:
            self.connection.receive_data(raw)
            event = self.connection.next_event()
            assert isinstance(event, h11.Response | h11.InformationalResponse)
            pairs = list(event.headers)
        except h11.RemoteProtocolError as error:
            matches = [_HEADER_LINE.fullmatch(line) for line in re.split(rb"\r?\n", raw)[1:-2]]
            pairs = [(match[1], match[2]) for match in matches if match]
            self.problem = str(error).partition(": bytearray")[0]
            if None in matches:
                self.problem = f"header line {matches.index(None) + 1} cannot be read"
        self.headers = tuple([(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in pairs])
        self.version, self.status = line[1].decode(), int(line[2])

    async def read_body(self, echoed: int) -> None:
        """Read the body, as far as it comes in time."""
        # More is read for the bytes of the request: it may be sent back, with a secret across the limit.
        connection, most = self.connection, LONGEST_BODY + echoed
        with trio.move_on_after(BODY_TIME), suppress(Exception):  # of h11 or the stream: it is what has come until then
            while self.problem is not None:  # nothing is known about its length
                self.body = bytes(self.buffer)
                if len(self.body) >= most or not await self._read():
                    return
            if self.buffer:  # h11 takes b"" for the end
                connection.receive_data(bytes(self.buffer))
            while len(self.body) < most:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await self._stream.receive_some(READ)))
                elif isinstance(event, h11.Data):
                    self.body += event.data
                else:
                    return

    async def _read_block(self) -> bytes:
        searched = 0
        while True:
            if not b"HTTP/".startswith(self.buffer[:5]):
                raise await self._not_http()
            if b"\n" in self.buffer and not _STATUS_LINE.match(self.buffer):
                raise ConnectError(f"the status line of the server's answer is malformed{self._shown()}; {_CHECK}")
            blank = _BLANK_LINE.search(self.buffer, max(0, searched - 2))
            searched = len(self.buffer)
            if (blank.end() if blank is not None else searched) > self._request.max_header_size:
                raise self._too_large()
            if blank is not None:
                block = bytes(self.buffer[: blank.end()])
                del self.buffer[: blank.end()]
                return block
            if not await self._read():
                raise self._hung_up()

    async def _read(self) -> bool:
        """Read on; returns whether anything came."""
        try:
            data = await self._stream.receive_some(READ)
            self.buffer += data
        except trio.BrokenResourceError as error:
            self._broken_by = error.__cause__ or error
            return False
        except Exception as error:
            raise ConnectError(f"the upgrade failed: the stream raised {described(error)}") from error
        self.received += len(data)
        return len(data) > 0

    # Sentences

    async def _not_http(self) -> ConnectError:
        with trio.move_on_after(RECOGNIZING):
            while b"\n" not in self.buffer and len(self.buffer) < LONGEST_SHOWN:
                is_text = self.buffer.decode("latin-1").isprintable()
                if (not is_text and (self._named() or len(self.buffer) > HTTP2_HEADER)) or not await self._read():
                    break
        name, hint = self._named() or ("an unknown protocol", _CHECK)
        return ConnectError(f"the server's answer looks like {name} rather than HTTP{self._shown()}: {hint}")

    def _named(self) -> tuple[str, str] | None:
        return next(((name, hint) for pattern, name, hint in _PROTOCOLS if pattern.match(self.buffer)), None)

    def _shown(self) -> str:
        """Return the first line for a sentence, if it is text: cut between words, so that no half secret is left."""
        line = bytes(self.buffer[:200]).splitlines()[:1]
        text = line[0].decode("latin-1") if line else ""
        if len(text) > LONGEST_SHOWN:
            text = text[:LONGEST_SHOWN].rpartition(" ")[0]
        return f" ('{text}')" if text.isprintable() and text and not text.startswith("GET ") else ""

    def _too_large(self) -> ConnectError:
        limit = f"{self._request.max_header_size} bytes{self._shown()}; see max_header_size"
        return ConnectError(f"the headers of the server's answer exceed {limit}")

    def _hung_up(self) -> ConnectError:
        if refused_certificate(self._broken_by) and self._broken_by is not None:
            return ConnectError(f"TLS handshake failed: {explain_tls(self._broken_by)}")
        how = "the server hung up" if self._broken_by is None else "the connection broke"
        if self.received:
            place = f"{self.received} bytes into its answer{self._shown()}"
            return ConnectError(f"{how} during the upgrade, {place}; its log, or that of a proxy between, may tell why")
        # In TLS 1.3 the client is done with its handshake before the server has looked at the client's certificate, and
        # the server's answer to that may be lost in the reset that follows.
        hint = ", or expects TLS (wss://)"
        if address_of(self._request).encrypted:
            hint = "; or it wants a client certificate (see ssl_context)"
        return ConnectError(f"{how} during the upgrade, without an answer: it speaks another protocol there{hint}")
