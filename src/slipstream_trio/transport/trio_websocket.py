"""The trio-websocket transport: the only file that imports trio_websocket.

trio-websocket writes each frame at once, from whichever task has one, and a cancelled write leaves half a frame on the
wire. So it is given a stream of ours which only collects what it writes; `send` writes that out in one go, and is
called by the connection's writer alone. Pongs and close frames, which trio-websocket writes from its own reader task,
take the same way: they wake the writer.

Two things it leaves to us. Of the pongs that wait to be written only the latest is (RFC 6455, 5.5.3), so that a server
which pings and does not read fills no memory. And a frame that breaks the protocol is answered with a close frame that
says so: trio-websocket just stops there, as if that close had come from the server.
"""

import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import trio
import trio_websocket

from ..errors import ConnectError, ConnectionRejected, ConnectTimeout
from .base import Connector, Frame, OpenRequest, Transport, TransportEnded
from .tls import explain_tls, refused_certificate

__all__ = ["TrioWebSocketConnector", "connector"]

LEAST_READ: Final = 4 * 1024
MOST_READ: Final = 64 * 1024
"""Bytes a read.

More after a read that was filled, less after one that was not nearly. With 4 KiB at a time, a message of 64 KiB takes
five times as long. But memory for a read is allocated whole, and cut down to what has come: where all reads are for
64 KiB and what comes is small, the process grows by some MiB a minute, of pieces too small for the next read.
"""

LONGEST_HANDSHAKE: Final = 2**20
"""Bytes of a response to the upgrade, a refusal's body included."""

ABNORMAL_CLOSURE: Final = 1006

_ENCRYPTED: Final = ("wss", "https")

PONG: Final = b"\x8a"
CLOSE: Final = b"\x88"
"""First bytes of a frame that is the last (and here the only one) of its message; the rest of it is the opcode."""

VIOLATIONS: Final = frozenset({1002, 1007})
"""Codes that trio-websocket gives for frames that break the protocol, or hold text that is no UTF-8."""

T = TypeVar("T")

StreamOpener = Callable[[OpenRequest], Awaitable[trio.abc.Stream]]
"""Opens the stream that the WebSocket runs over: TCP, TLS, or a stream in memory."""


def connector() -> Connector:
    """Return the connector of this transport."""
    return TrioWebSocketConnector()


class TrioWebSocketConnector:
    """Opens WebSockets with trio-websocket.

    Parameters:
        open_stream: opens the stream to run over; None opens TCP or TLS connections, as the URL says.
    """

    name = "trio_websocket"

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self._open_stream = open_stream or open_tcp

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
        """Open a WebSocket; see `Connector.open`."""
        timeout = request.connect_timeout
        deadline = trio.current_time() + timeout if timeout is not None else float("inf")
        try:
            raw = await _in_time(deadline, timeout, self._open_stream(request))
        except OSError as error:
            raise ConnectError(f"no connection: {error}") from error
        stream = _CollectingStream(raw, wake)
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                # No exception may enter the nursery, which would wrap it in a group.
                try:
                    reader = _Reader(nursery)
                    connection = await _in_time(deadline, timeout, _shake_hands(reader, stream, request))
                    yield _TrioWebSocket(connection, stream, reader)
                except BaseException as error:  # noqa: BLE001 - raised again below
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(raw)
        if failure is not None:
            raise failure


async def open_tcp(request: OpenRequest) -> trio.abc.Stream:
    """Open the TCP or TLS connection that a URL asks for."""
    host, port, encrypted = _address(request.url)
    try:
        if not encrypted:
            return await trio.open_tcp_stream(host, port)
        context = request.ssl_context or ssl.create_default_context()
        stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=context, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    except (OSError, UnicodeError) as error:  # the latter: a host's name that IDNA has no form for
        raise ConnectError(f"no connection to {host} port {port}: {_reason(error)}") from error
    except trio.BrokenResourceError as error:
        raise ConnectError(f"no TLS with {host} port {port}: {explain_tls(_cause(error))}") from error
    return stream


class _CollectingStream(trio.abc.Stream):
    """The stream that trio-websocket writes to and reads from.

    The first thing written is the upgrade request, and goes out at once: there is no writer yet.
    """

    def __init__(self, stream: trio.abc.Stream, wake: Callable[[], None]) -> None:
        self._stream = stream
        self._wake = wake
        self._asked = False
        self._pending: list[bytes] = []
        self._pong: int | None = None
        self._received = 0
        self._read_size = LEAST_READ
        self.opened = False
        self.closing = False
        self.broken_by: BaseException | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing was ever received."""
        return not self._received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Collect a frame: trio-websocket writes each with one call."""
        if self._asked:
            self.collect(bytes(data))
        else:
            self._asked = True
            await self._stream.send_all(data)

    def collect(self, frame: bytes) -> None:
        """Let a frame be written."""
        if frame[:1] == PONG and self._pong is not None:
            self._pending[self._pong] = frame
            return  # the writer knows already that something waits
        if frame[:1] == PONG:
            self._pong = len(self._pending)
        self.closing = self.closing or frame[:1] == CLOSE
        self._pending.append(frame)
        self._wake()

    async def flush(self) -> None:
        """Write what was collected, in one write."""
        while self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pong = None
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(self._read_size if max_bytes is None else max_bytes)
        except trio.BrokenResourceError as error:
            self.broken_by = _cause(error)
            raise
        self._read_size = read_size_after(self._read_size, len(data))
        if not self.opened:
            self._received += len(data)
            if self._received > LONGEST_HANDSHAKE:
                raise trio.BrokenResourceError("the response to the upgrade does not end")
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Reader:
    """Stands in for the nursery that trio-websocket starts its reader task in.

    The task ends by raising if the upgrade is refused, and ends silently, with the opener waiting on, if the peer hangs
    up or talks nonsense; and so it does with whoever waits for the peer's close frame. Here its end is noticed, and an
    exception kept.

    Attributes:
        failure: what the task raised.
        handshake: cancelled at the end of the task; what waits for the upgrade runs in it.
        closing: likewise; what waits for the peer's close frame runs in it.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.failure: Exception | None = None
        self.handshake = trio.CancelScope()
        self.closing = trio.CancelScope()

    def start_soon(self, task: Callable[[], Awaitable[Any]]) -> None:
        self._nursery.start_soon(self._run, task)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task: Callable[[], Awaitable[Any]]) -> None:
        try:
            await task()
        except Exception as error:  # noqa: BLE001 - kept: it is what the opener raises, or the end of the transport
            self.failure = error
        finally:
            self.handshake.cancel()
            self.closing.cancel()


class _TrioWebSocket(Transport):
    def __init__(
        self, connection: trio_websocket.WebSocketConnection, stream: _CollectingStream, reader: _Reader
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._reader = reader
        self._closing: trio.Event | None = None
        self.response_headers = _decoded(connection.handshake_headers)

    async def receive(self) -> Sequence[Frame]:
        try:
            return (await self._connection.get_message(),)
        except trio_websocket.ConnectionClosed:
            if self._closing is not None:
                await self._closing.wait()
            ended = self._ended()
            if ended.code in VIOLATIONS and not self._stream.closing:
                # The server has not closed: it broke the protocol, and nobody has told it.
                self._stream.collect(_close_frame(ended.code))
            raise ended from None

    async def send(self, frames: Sequence[Frame]) -> None:
        try:
            try:
                for frame in frames:
                    await self._connection.send_message(frame)
            finally:
                # Also when the peer has closed: the answer to its close frame waits here.
                await self._stream.flush()
        except (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._ended() from None

    async def close(self, code: int, reason: str) -> None:
        self._closing = trio.Event()
        try:
            with self._reader.closing:
                await self._connection.aclose(code, reason or None)
        finally:
            self._closing.set()

    def _ended(self) -> TransportEnded:
        closed = self._connection.closed
        if closed is None:
            return TransportEnded(ABNORMAL_CLOSURE)
        return TransportEnded(int(closed.code), closed.reason or "")


def read_size_after(size: int, received: int) -> int:
    """Return how many bytes to ask for, when a read of up to `size` has brought `received`."""
    if received >= size:
        return min(size * 4, MOST_READ)
    if received < size // 4:
        return max(size // 2, LEAST_READ)
    return size


def _close_frame(code: int) -> bytes:
    """Return a client's close frame, masked as all of its frames."""
    mask = secrets.token_bytes(4)
    body = code.to_bytes(2, "big")
    return CLOSE + bytes((0x80 | len(body),)) + mask + bytes(byte ^ key for byte, key in zip(body, mask, strict=False))


async def _shake_hands(
    reader: _Reader, stream: _CollectingStream, request: OpenRequest
) -> trio_websocket.WebSocketConnection:
    parts = urlsplit(request.url)
    with reader.handshake:
        connection = await trio_websocket.wrap_client_stream(
            cast(trio.Nursery, reader),
            cast(trio.SocketStream, stream),
            parts.netloc,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            subprotocols=request.subprotocols,
            extra_headers=[(name.encode(), value.encode()) for name, value in request.headers],
            max_message_size=request.max_message_size,
            receive_buffer_size=None,
        )
        stream.opened = True
        return connection
    raise _refusal(reader.failure, stream, encrypted=parts.scheme in _ENCRYPTED)


def _refusal(failure: Exception | None, stream: _CollectingStream, *, encrypted: bool) -> ConnectError:
    if isinstance(failure, trio_websocket.ConnectionRejected):
        body = (failure.body or b"").decode(errors="replace")
        return ConnectionRejected(failure.status_code, _decoded(failure.headers), body)
    if failure is not None:
        return ConnectError(f"the upgrade failed: {failure}")
    if stream.broken_by is not None and refused_certificate(stream.broken_by):
        return ConnectError(f"no TLS: {explain_tls(stream.broken_by)}")
    # In TLS 1.3 the client is done with its handshake before the server has looked at the client's certificate, and
    # what the server says to that may be lost in the reset that follows.
    hint = "; or it wants a client certificate (see ssl_context)" if encrypted and stream.silent else ""
    return ConnectError(f"the server hung up during the upgrade, or is no WebSocket server{hint}")


async def _in_time(deadline: float, timeout: float | None, operation: Awaitable[T]) -> T:
    try:
        with trio.fail_at(deadline):
            return await operation
    except trio.TooSlowError:
        raise ConnectTimeout(timeout or 0.0) from None


def _address(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    encrypted = parts.scheme in _ENCRYPTED
    return parts.hostname or "", parts.port or (443 if encrypted else 80), encrypted


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error


def _reason(error: BaseException) -> str:
    """The exception that is behind an OSError of Trio's "all attempts failed"."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return str(error)


def _decoded(headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
