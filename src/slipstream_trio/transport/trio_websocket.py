"""The trio-websocket transport: the only file that imports trio_websocket.

trio-websocket writes each frame at once, from whichever task has one, and a cancelled write leaves half a frame on the
wire. So it is given a stream of ours which only collects what it writes; `send` writes that out in one go, and is
called by the connection's writer alone. Pongs and close frames, which trio-websocket writes from its own reader task,
take the same way: they wake the writer.

The upgrade is not its own either (see `upgrade`): it is given a clean answer, and what came behind the server's.

Three things it leaves to us. Of the pongs that wait to be written only the latest is (RFC 6455, 5.5.3), so that a
server which pings and does not read fills no memory. A frame that breaks the protocol is answered with a close frame
that says so: trio-websocket just stops there, as if that close had come from the server. And the limit of a message is
held by our stream: where trio-websocket does it, its end looks like that of a server which closes with the same code,
and a message before the one that is too long may be lost.
"""

import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Any, Final, cast

import trio
import trio_websocket

from . import network
from .base import ABNORMAL_CLOSURE, Connector, Frame, OpenRequest, Transport, TransportEnded
from .collecting import CLOSE, CollectingStream
from .upgrade import StreamOpener, open_upgraded

__all__ = ["TrioWebSocketConnector", "connector"]

VIOLATIONS: Final = frozenset({1002, 1007})
"""Codes that trio-websocket gives for frames that break the protocol, or hold text that is no UTF-8."""

MESSAGE_TOO_BIG: Final = 1009


def connector() -> Connector:
    """Return the connector of this transport."""
    return TrioWebSocketConnector()


class TrioWebSocketConnector:
    """Opens WebSockets with trio-websocket.

    Parameters:
        open_stream: opens the stream to run over; None: over the network. An exception of its own becomes the
            cause of a `ConnectError`, and one of the stream's the cause of the transport's end.
    """

    name = "trio_websocket"

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self._open_stream = open_stream or network.open_stream

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
        """Open a WebSocket; see `Connector.open`."""
        raw, upgraded = await open_upgraded(self._open_stream, request)
        stream = CollectingStream(raw, wake, request.max_message_size, upgraded.behind)
        stream.progress = upgraded.received
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                # No exception may enter the nursery, which would wrap it in a group.
                try:
                    reader = _Reader(nursery)
                    connection = await trio_websocket.wrap_client_stream(
                        cast(trio.Nursery, reader),
                        cast(trio.SocketStream, stream),
                        "",
                        "/",
                        max_message_size=sys.maxsize,
                        receive_buffer_size=None,
                    )
                    yield _TrioWebSocket(connection, stream, reader, upgraded.headers)
                except BaseException as error:  # noqa: BLE001 - raised again below
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            with suppress(Exception):  # it is over anyway, and a stream that cannot be closed is its maker's
                await trio.aclose_forcefully(raw)
        if failure is not None:
            raise failure


class _Reader:
    """Stands in for the nursery that trio-websocket starts its reader task in.

    The task ends silently if the peer hangs up or talks nonsense, with those waiting on who wait for the peer's close
    frame. Here its end is noticed, and an exception kept.

    Attributes:
        failure: what the task raised.
        closing: cancelled at the end of the task; what waits for the peer's close frame runs in it.
        ended: set at the end of the task.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.failure: Exception | None = None
        self.closing = trio.CancelScope()
        self.ended = trio.Event()

    def start_soon(self, task: Callable[[], Awaitable[Any]]) -> None:
        self._nursery.start_soon(self._run, task)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task: Callable[[], Awaitable[Any]]) -> None:
        try:
            await task()
        except Exception as error:  # noqa: BLE001 - kept: it is the end of the transport
            self.failure = error
        finally:
            self.closing.cancel()
            self.ended.set()


class _TrioWebSocket(Transport):
    def __init__(
        self,
        connection: trio_websocket.WebSocketConnection,
        stream: CollectingStream,
        reader: _Reader,
        headers: tuple[tuple[str, str], ...],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._reader = reader
        self._closing: trio.Event | None = None
        self._closed_with: int | None = None
        self._delivers = True
        self._received = 0
        self._moved = 0
        self._was_busy = False
        self._answered = False
        self.response_headers = headers

    @property
    def progress(self) -> int:  # type: ignore[override]  # nobody else may write it
        """Bytes read; it moves while what was read is on its way through trio-websocket, and once after that.

        Each message takes it a pass of the scheduler or two, and only then does it read again, which takes another.
        """
        stream = self._stream
        busy = self._delivers and (stream.working or stream.frames.messages > self._received)
        if busy or self._was_busy:
            self._moved += 1
        self._was_busy = busy
        return stream.progress + self._moved

    @property
    def heard(self) -> float | None:  # type: ignore[override]
        return self._stream.heard

    @property
    def write_blocked_since(self) -> float | None:  # type: ignore[override]
        return self._stream.write_blocked_since

    async def receive(self) -> Sequence[Frame]:
        try:
            message = await self._connection.get_message()
            self._received += 1
            return (message,)
        except trio_websocket.ConnectionClosed:
            self._delivers = False
            if self._closing is not None:
                await self._closing.wait()
            elif self._connection.closed is None:
                await self._reader.ended.wait()  # it has failed, and is about to tell
            ended = self._ended()
            if ended.reason is not None and not self._stream.closing:
                # The server has not closed: it broke the protocol, or a limit, and nobody has told it.
                self._answered = True
                self._stream.collect(_close_frame(ended))
            raise ended from self._cause_of(ended)

    async def send(self, frames: Sequence[Frame]) -> None:
        try:
            try:
                for frame in frames:
                    await self._connection.send_message(frame)
            finally:
                # Also when the peer has closed: the answer to its close frame waits here.
                await self._stream.flush()
        except (trio_websocket.ConnectionClosed, trio.BrokenResourceError):
            ended = self._ended()
            raise ended from self._cause_of(ended)

    async def close(self, code: int, reason: str) -> None:
        self._closing = trio.Event()
        self._delivers = False
        if self._connection.closed is None:
            self._closed_with = code
        try:
            with self._reader.closing:
                await self._connection.aclose(code, reason or None)
        finally:
            self._closing.set()

    def _ended(self) -> TransportEnded:
        """Tell how it has ended, by what came first; trio-websocket tells neither who closed nor who broke a rule."""
        closed = self._connection.closed
        if self._closed_with is not None:
            if closed is None or not self._stream.frames.close_received:
                return TransportEnded(self._closed_with, ended_by="client")
            return TransportEnded(int(closed.code), closed.reason or "", ended_by="client")
        if closed is None or closed.code == ABNORMAL_CLOSURE:
            return self._cut_off()
        code, text = int(closed.code), closed.reason or ""
        if code in VIOLATIONS and (self._answered or not self._stream.closing):
            return TransportEnded(code, text, ended_by="client", reason="protocol_error")
        return TransportEnded(code, text, ended_by="server")

    def _cut_off(self) -> TransportEnded:
        """Tell how it has ended where nothing more was read: by our stream, or by the network."""
        frames, failure = self._stream.frames, self._stream.failure
        if frames.excess is not None:
            text = f"a message of at least {frames.excess} bytes; max_message_size is {frames.max_message_size}"
            return TransportEnded(MESSAGE_TOO_BIG, text, ended_by="client", reason="message_too_big")
        text = f"the stream raised {type(failure).__name__}" if failure is not None else ""
        return TransportEnded(ABNORMAL_CLOSURE, text, ended_by="network")

    def _cause_of(self, ended: TransportEnded) -> BaseException | None:
        if ended.ended_by != "network":
            return None
        return self._stream.failure or self._stream.broken_by or self._reader.failure


def _close_frame(ended: TransportEnded) -> bytes:
    """Return a client's close frame, masked as all of its frames.

    It tells how long a message was; of a violation its code says enough.
    """
    text = ended.message.encode() if ended.code == MESSAGE_TOO_BIG else b""
    mask = secrets.token_bytes(4)
    body = ended.code.to_bytes(2, "big") + text
    return CLOSE + bytes((0x80 | len(body),)) + mask + bytes(byte ^ key for byte, key in zip(body, cycle(mask)))
