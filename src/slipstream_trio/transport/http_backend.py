"""The network that httpcore speaks HTTP over: streams that are opened as those of the other transports are.

httpcore is told that all of it is plain HTTP, as the streams bring TLS and proxies with them.
"""

from contextlib import suppress
from typing import Any, Final

import httpcore
import trio

from .base import OpenRequest, StreamOpener
from .network import close_at_once, deadline_of, opened

__all__ = ["HttpBackend", "ResponseTooLong", "httpcore"]

LONGEST_REST: Final = 50.0
"""Seconds after which a stream is not used again: Phoenix's servers, and many proxies, close it after 60."""

READ_SIZE: Final = 16 * 1024
PIECE: Final = 64 * 1024
"""Bytes a read, and a write; a stream does not tell how far a write has come, so a large one goes out in pieces."""


class ResponseTooLong(Exception):
    """A response has more bytes than `HttpBackend.limit`."""


class HttpBackend(httpcore.AsyncNetworkBackend):
    """Opens streams for httpcore; `unused` is one that is open already, for its first connection.

    `limit` is the most bytes of one response, `received` the number of bytes of all. `posting_since` is the time at
    which the POST under way was begun, or has last come on; None without one.
    """

    def __init__(self, open_stream: StreamOpener, request: OpenRequest) -> None:
        self.limit: int = request.max_message_size + request.max_header_size
        self.received: int = 0
        self.posting_since: float | None = None
        self.unused: trio.abc.Stream | None = None
        self._open_stream = open_stream
        self._request = request
        self._streams: list[trio.abc.Stream] = []

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Return a stream for httpcore, a new one or the one that is open already; raises `ConnectError`."""
        stream, self.unused = self.unused, None
        return _Stream(self, stream or await self.open(deadline_of(self._request)))

    async def open(self, deadline: float) -> trio.abc.Stream:
        """Open a stream; raises `ConnectError`."""
        stream = await opened(self._open_stream, self._request, deadline)
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        """Close all streams, at once."""
        with trio.CancelScope(shield=True):
            while self._streams:
                await self.close_stream(self._streams[-1])

    async def close_stream(self, stream: trio.abc.Stream) -> None:
        """Close a stream, at once."""
        with suppress(ValueError):  # it was closed before
            self._streams.remove(stream)
        await close_at_once(stream)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, backend: HttpBackend, stream: trio.abc.Stream) -> None:
        self._backend = backend
        self._stream = stream
        self._response = 0
        self._read_at = trio.current_time()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        backend = self._backend
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            try:
                data = bytes(await self._stream.receive_some(min(max_bytes, READ_SIZE)))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.ReadError("the connection broke") from error.__cause__ or error
            backend.received += len(data)
            self._response += len(data)
            self._read_at = trio.current_time()
            if self._response > backend.limit:
                # Raised here: httpcore's generators want to be left by an exception from within.
                raise ResponseTooLong
            return data
        raise httpcore.ReadTimeout(f"nothing came for {timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see `write_blocked_since`
        self._response = 0
        try:
            for start in range(0, len(buffer), PIECE):
                if start and self._backend.posting_since is not None:  # a poll is one piece, and no progress of a POST
                    self._backend.posting_since = trio.current_time()
                await self._stream.send_all(buffer[start : start + PIECE])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError("the connection broke") from error.__cause__ or error

    async def aclose(self) -> None:
        await self._backend.close_stream(self._stream)

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether to leave an idle stream: one that has something to read has ended."""
        if info != "is_readable":
            return None
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        rested = trio.current_time() - self._read_at > LONGEST_REST
        return rested or (isinstance(stream, trio.SocketStream) and stream.socket.is_readable())
