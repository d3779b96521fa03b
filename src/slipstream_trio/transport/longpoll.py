"""The long-polling transport.

A session is opened by a GET, which returns a token; its answer is read as that to an upgrade is. With the token, one
GET after the other waits for messages, and POSTs bring them to the server, one at a time so that they stay in order.
Both run in the tasks that call, `receive` and `send`: nothing in the background could outlive them. httpcore speaks
HTTP for them over streams of ours, so that TLS, proxies, faults and virtual time are the same as for WebSockets.
"""

import base64
import codecs
import io
import json
import re
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import h11
import httpcore
import trio

from ..errors import ConnectError, ConnectionRejected
from .base import ABNORMAL_CLOSURE, Frame, OpenRequest, StreamOpener, Transport, TransportEnded, address_of
from .common import LEAST_PIECE, LEAST_READ, next_piece
from .cookies import Cookies
from .network import close_at_once, deadline_of, open_stream as network_stream, opened
from .upgrade import answer_to

LONGEST_BATCH: Final = 100  # frames a POST: Phoenix reads no more of them
LARGEST_BATCH: Final = 2**20  # bytes of a POST that has several frames: Phoenix reads no body above 8 MB
LONGEST_SILENCE: Final = 30.0  # seconds without a byte after which a poll is lost: Phoenix lets one wait for 10
LONGEST_EMPTY: Final = 4096  # bytes of a response, token included: what is longer has messages, and counts as heard
LONGEST_REST: Final = 50.0  # seconds after which a stream is not used again: servers and proxies close it after 60
FRAMES_AT_ONCE: Final = 100
BYTES_AT_ONCE: Final = 64 * 1024
CHUNKS_AT_ONCE: Final = 64
"""Frames decoded, or returned by `receive`, bytes of them, and chunks read, before other tasks run: a response may have
thousands. One frame is decoded in one go, however long it is; what stands around the frames may have as many bytes.
"""

NDJSON: Final = "application/x-ndjson"

_TOKEN_PREFIX: Final = "base64url.bearer.phx."  # noqa: S105 - the name of the subprotocol, not a token
_CLOSES: Final = {403: (1008, "forbidden"), 410: (3410, "session_gone")}
"""The code and the text by which phoenix.js closes after a status; 1011 for all others."""

_SERVER: Final = httpcore.URL("http://server")
"""Where it is sent is the network's business; a scheme with TLS would make httpcore add that."""

_FRAMES: Final = re.compile(r'"messages"\s*:\s*\[\s*')
_COMMA: Final = re.compile(r"\s*,\s*")
"""In a response. Within a string of JSON the first cannot be, as a quote would have a backslash before it."""

_decoded_at: Final = json.JSONDecoder().raw_decode


class LongpollConnector:
    """Opens sessions of long-polling; a URL that ends in /websocket stands for its neighbour /longpoll."""

    name = "longpoll"

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self.open_stream: StreamOpener = open_stream or network_stream

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:  # noqa: ARG002 - no control frames
        """Open a session; see `Connector.open`."""
        transport = _Longpoll(self.open_stream, request)
        try:
            await transport.open()
            yield transport
        finally:
            with trio.CancelScope(shield=True):
                for connection in list(transport.connections.values()):
                    await connection.aclose()


connector: Final = LongpollConnector


class _Answer(NamedTuple):
    """The content of a response: without `messages`, and with the status of HTTP, if it is not Phoenix that answers."""

    status: int
    messages: Sequence[str] | None = None
    token: str | None = None


class _Stream(httpcore.AsyncNetworkStream):
    """A stream as httpcore has it, which takes it for plain: TLS and proxies are the business of what opens streams."""

    def __init__(self, session: "_Longpoll", stream: trio.abc.Stream) -> None:
        self._session = session
        self._stream = stream
        self._response = 0
        self._read_at = trio.current_time()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            try:
                data = bytes(await self._stream.receive_some(min(max_bytes, LEAST_READ)))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.ReadError("the connection broke") from error.__cause__ or error
            self._session.counted += len(data)
            self._response += len(data)
            self._read_at = trio.current_time()
            if self._response > self._session.limit:
                # Raised here: httpcore's generators want to be left by an exception from within.
                raise self._session.too_big(self._session.limit)
            return data
        raise httpcore.ReadTimeout(f"nothing came for {timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see `write_blocked_since`
        self._response = 0
        try:
            start, size = 0, LEAST_PIECE
            while start < len(buffer):
                began = trio.current_time()
                if start and self._session.posting_since is not None:  # a poll is one piece, and no progress of a POST
                    self._session.posting_since = began
                await self._stream.send_all(buffer[start : start + size])
                start += size
                size = next_piece(start, trio.current_time() - began)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError("the connection broke") from error.__cause__ or error

    async def aclose(self) -> None:
        await close_at_once(self._stream)

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether to leave an idle stream: one that has something to read has ended."""
        if info != "is_readable":
            return None
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        rested = trio.current_time() - self._read_at > LONGEST_REST
        return rested or (isinstance(stream, trio.SocketStream) and stream.socket.is_readable())


class _Longpoll(Transport):
    """A session; `limit` is the most bytes of one response, `counted` the bytes of all, and looks at `progress`.

    `posting_since` is the time at which the POST under way was begun, or has last come on; None without one.
    """

    def __init__(self, open_stream: StreamOpener, request: OpenRequest) -> None:
        self.limit: int = request.max_message_size + request.max_header_size
        self.counted: int = 0
        self.posting_since: float | None = None
        self._open_stream = open_stream
        # By method: one connection waits for messages, the other one posts.
        self.connections: dict[str, httpcore.AsyncHTTP11Connection] = {}
        self._request = request
        self._address = address_of(request)
        path, _, query = self._address.target.partition("?")
        its = f"{path.removesuffix('/websocket')}/longpoll" if path.endswith("/websocket") else path
        self._target = f"{its}?{query}"
        self._cookies = Cookies(keeps=request.cookies)
        self._token: str | None = None
        self._frames: deque[str] = deque()
        self._decoding = 0  # answers, at the moment
        self._polling = trio.CancelScope()
        self._ended: TransportEnded | None = None

    @property
    def progress(self) -> int:  # type: ignore[override]  # nobody else may write it
        if self._frames or self._decoding:
            self.counted += 1
        return self.counted

    @property
    def write_blocked_since(self) -> float | None:  # type: ignore[override]
        """When the POST under way has last come on: a POST is answered when the server has handled what is in it.

        What is heard meanwhile shows that it does, though a join takes its time.
        """
        since = self.posting_since
        return since if since is None or self.heard is None else max(since, self.heard)

    async def open(self) -> None:
        """Open the session; raises `ConnectError`."""
        request, deadline = self._request, deadline_of(self._request)
        stream = await self._opened("GET", deadline)
        opening = await answer_to(stream, request, self._target, self._headers(), deadline)
        if opening.connection.their_state is not h11.DONE:
            await self.connections["GET"].aclose()
        answer = await _parsed(opening.status, said := opening.body.decode(errors="replace"))
        # A session that is gone is replaced in the same answer: so the first one is opened.
        if answer.messages is None or answer.status != 410 or answer.token is None:
            raise ConnectionRejected(answer.status, opening.headers, said)
        self.response_headers, self._token = opening.headers, answer.token
        self._cookies.keep(request, opening.headers)

    async def _opened(self, method: str, deadline: float) -> trio.abc.Stream:
        """Open a connection for requests of a method, in place of one before; raises `ConnectError`."""
        if method in self.connections:
            await self.connections[method].aclose()
        stream = await opened(self._open_stream, self._request, deadline)
        self.connections[method] = httpcore.AsyncHTTP11Connection(_SERVER.origin, _Stream(self, stream))
        return stream

    async def receive(self) -> Sequence[Frame]:
        await trio.lowlevel.checkpoint()
        while not (batch := self._next_batch()):
            if self._ended is not None:
                raise self._ended
            # The end of it is raised when what came before it is given.
            with trio.CancelScope() as self._polling, suppress(TransportEnded):
                answer = await self._asked("GET", (200, 204))  # the latter: nothing came
                self._frames.extend(answer.messages or ())
                self.heard = trio.current_time() if answer.messages else self.heard
        return batch

    def _next_batch(self) -> list[Frame]:
        batch: list[Frame] = []
        left = BYTES_AT_ONCE
        while self._frames and left > 0 and len(batch) < FRAMES_AT_ONCE:
            frame = self._frames.popleft()
            size = len(frame) if frame.isascii() else len(frame.encode(errors="replace"))
            if size > self._request.max_message_size:
                self._end(self.too_big(size))
                self._frames.clear()
            else:
                batch.append(frame)
                left -= size
        return batch

    async def send(self, frames: Sequence[Frame]) -> None:
        for kind, content in _bodies(frames):
            if self._ended is not None:
                raise self._ended
            self.posting_since = trio.current_time()
            try:
                await self._asked("POST", (200,), kind, content)
            finally:
                self.posting_since = None

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - nobody is told: Phoenix ends unused sessions
        await trio.lowlevel.checkpoint_if_cancelled()
        self._end(TransportEnded(code, ended_by="client"))

    def _end(self, ended: TransportEnded) -> TransportEnded:
        self._ended = self._ended or ended
        self._polling.cancel()
        return ended

    async def _asked(self, method: str, good: Collection[int], *request: Any) -> _Answer:
        """Send a request, and return the answer; raises `TransportEnded`."""
        try:
            status, body = await self._exchange(method, *request)
        except TransportEnded as ended:
            raise self._end(ended)  # noqa: B904 - it is the very one
        except Exception as error:
            ours = isinstance(error, httpcore.NetworkError | httpcore.TimeoutException | ConnectError)
            text = str(error) if ours else type(error).__name__
            raise self._end(TransportEnded(ABNORMAL_CLOSURE, text, ended_by="network")) from error
        self._decoding += 1
        answer = await _parsed(status, body)
        self._decoding -= 1
        self._token = answer.token or self._token
        if answer.messages is None or answer.status not in good:
            said = "" if answer.messages is not None or answer.status != 200 else ", and not as Phoenix does"
            if answer.status == 500:
                said = ": is a message binary? Phoenix cannot bring those to clients that poll"
            text = f"a request was answered with status {answer.status}{said}"
            code, text = _CLOSES.get(answer.status, (1011, text))
            raise self._end(TransportEnded(code, text, ended_by="server"))
        return answer

    async def _exchange(self, method: str, kind: str | None = None, content: bytes = b"") -> tuple[int, str]:
        """Send a request; returns the status and the body of the answer."""
        target = self._target if self._token is None else f"{self._target}&token={quote(self._token, safe='')}"
        headers = [(name.encode(), value.encode()) for name, value in self._headers()]
        if kind is not None:
            headers += [(b"Content-Type", kind.encode()), (b"Content-Length", str(len(content)).encode())]
        url = httpcore.URL(scheme=_SERVER.scheme, host=_SERVER.host, target=target)
        timeout = {"timeout": {"read": LONGEST_SILENCE if method == "GET" else None}}
        # A channel, as httpcore's own generator would be left unfinished by a write that is cancelled.
        giving, parts = trio.open_memory_channel[bytes](1)
        giving.send_nowait(content)
        giving.close()
        request = httpcore.Request(method, url, headers=headers, content=parts, extensions=timeout)
        used = self.connections.get(method)
        if used is None or used.is_closed() or used.has_expired():
            await self._opened(method, deadline_of(self._request))
        response = await self.connections[method].handle_async_request(request)
        set_by_it = [value for name, value in response.headers if name.lower() == b"set-cookie"]
        self._cookies.keep(self._request, [("set-cookie", value.decode("latin-1")) for value in set_by_it])
        return response.status, await self._read(response, hears=method == "GET")

    async def _read(self, response: httpcore.Response, *, hears: bool) -> str:
        """Read a body; returns "" if it is not UTF-8."""
        text, decode, is_text = io.StringIO(), codecs.getincrementaldecoder("utf-8")().decode, True
        assert isinstance(response.stream, AsyncIterable)
        number = size = 0
        async for chunk in response.stream:
            number, size = number + 1, size + len(chunk)
            try:
                text.write(decode(chunk))
            except UnicodeDecodeError:  # not raised: httpcore's generators want to be left by an exception from within
                is_text = False
            if not number % CHUNKS_AT_ONCE:
                await trio.lowlevel.cancel_shielded_checkpoint()  # shielded for the same reason
            if hears and size > LONGEST_EMPTY:
                self.heard = trio.current_time()
        with trio.CancelScope(shield=True):  # what was read is given, and the connection can be used again
            await response.aclose()
        return text.getvalue() if is_text else ""

    def _headers(self) -> list[tuple[str, str]]:
        request = self._cookies.added_to(self._request)
        headers = [("Host", self._address.host_header), ("Accept", "application/json")]
        for subprotocol in request.subprotocols:
            if subprotocol.startswith(_TOKEN_PREFIX):
                encoded = subprotocol.removeprefix(_TOKEN_PREFIX)
                headers.append(("X-Phoenix-AuthToken", base64.b64decode(encoded + "==").decode()))
        own = {"accept", "content-type"}  # Phoenix reads the first Accept, and no Content-Type where there are two
        return headers + [(name, value) for name, value in request.headers if name.lower() not in own]

    def too_big(self, size: int) -> TransportEnded:
        """Return the end by a response of so many bytes."""
        text = f"a response of at least {size} bytes; max_message_size is {self._request.max_message_size}"
        return TransportEnded(1009, text, ended_by="client", reason="message_too_big")


async def _parsed(status: int, body: str) -> _Answer:
    """Return what a response says, in steps."""
    said: Any = None
    messages: list[str] = []
    with suppress(ValueError, RecursionError):
        found = _FRAMES.search(body, 0, BYTES_AT_ONCE) if status == 200 else None
        rest = body if found is None else body[: found.end()] + body[await _decode(body, found.end(), messages) :]
        said = json.loads(rest) if status == 200 and len(rest) <= BYTES_AT_ONCE else None
    around = said.get("messages", None if messages else []) if isinstance(said, dict) else None
    if around == [] and isinstance(said.get("status"), int):
        token = said.get("token")
        return _Answer(said["status"], messages, token if isinstance(token, str) else None)
    return _Answer(status)


async def _decode(body: str, at: int, messages: list[str]) -> int:
    """Decode the strings of a list, which begins there; returns where it ends. Raises `ValueError`."""
    passed = at
    while body.startswith('"', at):
        message, at = _decoded_at(body, at)
        messages.append(message)
        if not len(messages) % FRAMES_AT_ONCE or at - passed > BYTES_AT_ONCE:
            await trio.lowlevel.checkpoint()
            passed = at
        comma = _COMMA.match(body, at)
        if comma is None:
            break
        at = comma.end()
    return at


def _bodies(frames: Iterable[Frame]) -> Iterator[tuple[str, bytes]]:
    """Yield the content types and contents of the POSTs that bring frames to the server."""
    lines: list[bytes] = []
    for frame in frames:
        # Phoenix takes a line for text if it begins like an array, else for base64. So objects, the frames of version
        # 1.0.0, go alone, and so does what another serializer spreads over lines.
        is_alone = isinstance(frame, str) and (frame[:1] != "[" or "\n" in frame)
        line = frame.encode() if isinstance(frame, str) else base64.b64encode(frame)
        if lines and (is_alone or len(lines) == LONGEST_BATCH or sum(map(len, (*lines, line))) > LARGEST_BATCH):
            yield NDJSON, b"\n".join(lines)
            lines = []
        if is_alone:
            yield "application/json", line
        else:
            lines.append(line)
    if lines:
        yield NDJSON, b"\n".join(lines)
