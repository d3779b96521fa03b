"""The trio-websocket transport: the only file that imports trio_websocket.

trio-websocket runs on a stream of ours. The upgrade is not its own (see `upgrade`): it is given a clean answer. After
that it sees only what the lane passes on (control frames and fragments), one frame at a time,
and its reader has taken in each before the next is looked at, so that messages keep their order. What it writes, pongs
and answers to close frames, is collected for the connection's writer.

Two things it leaves to us. A frame that breaks the protocol is answered with a close frame that says so:
trio-websocket just stops there, as if that close had come from the server. And the limit of a message is held by the
lane: where trio-websocket does it, its end looks like that of a server which closes with the same code.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
import trio_websocket

from . import network
from .base import Frame, OpenRequest, StreamOpener
from .common import CLOSE, Opening, WebSocketTransport
from .upgrade import accept_token

__all__ = ["TrioWebSocketConnector", "connector"]


class TrioWebSocketConnector:
    """Opens WebSockets with trio-websocket."""

    name = "trio_websocket"

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self.open_stream: StreamOpener = open_stream or network.open_stream

    def open(self, request: OpenRequest, wake: Callable[[], None]) -> Opening:
        """Open a WebSocket; see `Connector.open`."""
        return Opening(self.open_stream, request, _TrioWebSocket, wake)


connector: Final = TrioWebSocketConnector


class _LibraryStream(trio.abc.Stream):
    """The stream that trio-websocket reads from and writes to, and the nursery that it starts its reader task in.

    The reader is a task of the run's own: few connections ever have one, and a nursery for it would take 1.5 KiB of
    each. `collect` takes what trio-websocket writes; `failure` and `ended` are those of its reader.
    """

    def __init__(self) -> None:
        self.collect: Callable[[bytes], None] | None = None
        self.failure: Exception | None = None
        self.ended: bool = True  # until there is one
        self._scope = trio.CancelScope()
        self._piece = b""
        self._reader = trio.lowlevel.ParkingLot()
        self._giver = trio.lowlevel.ParkingLot()

    def start_soon(self, task: Callable[[], Awaitable[Any]]) -> None:
        self.ended = False
        trio.lowlevel.spawn_system_task(self._run, task)

    async def _run(self, task: Callable[[], Awaitable[Any]]) -> None:
        try:
            with self._scope:
                await task()
        except Exception as error:  # noqa: BLE001 - kept: it is the cause of the transport's end
            self.failure = error
        finally:
            self.ended = True
            self._giver.unpark_all()

    async def stop(self) -> None:
        self._scope.cancel()
        while not self.ended:
            await self._giver.park()

    async def give(self, piece: bytes) -> None:
        """Give the reader bytes, and wait until it has handled them."""
        self._piece = piece
        self._reader.unpark()
        while not self.ended and (self._piece or not self._reader):
            await self._giver.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - it is always None
        while not self._piece:
            self._giver.unpark_all()
            await self._reader.park()
        piece, self._piece = self._piece, b""
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Collect a frame: trio-websocket writes each with one call. The first thing is its upgrade request."""
        await trio.lowlevel.checkpoint()
        if self.collect is not None:
            self.collect(bytes(data))
            return
        # It gets a server's acceptance, without any extension.
        lines = bytes(data).split(b"\r\n")
        key = next(line.partition(b":")[2].strip() for line in lines if line.lower().startswith(b"sec-websocket-key:"))
        self._piece = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_token(key) + b"\r\n\r\n"
        )

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: collecting never waits."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Leave the real stream open: the connector closes it."""
        await trio.lowlevel.checkpoint()


class _TrioWebSocket(WebSocketTransport):
    _connection: trio_websocket.WebSocketConnection
    _library: _LibraryStream | None = None
    _answered = False

    async def _begin(self) -> _LibraryStream:
        """Start trio-websocket, when something comes that is for it: an idle connection has none."""
        self._library = library = _LibraryStream()
        both: Any = library
        self._connection = await trio_websocket.wrap_client_stream(
            both, both, "", "/", max_message_size=sys.maxsize, receive_buffer_size=None
        )
        library.collect = self._collect_answer
        return library

    async def abort(self) -> None:
        if self._library is not None:
            with trio.CancelScope(shield=True):
                await self._library.stop()
        await super().abort()

    def _collect_answer(self, frame: bytes) -> None:
        self._answered = self._answered or frame[0] == CLOSE
        self._collect(frame)

    async def _digest(self, piece: bytes) -> Frame | None:
        library = self._library or await self._begin()
        await library.give(piece)
        end = self._connection.closed
        if end is not None:
            # trio-websocket answers close frames, and stops at frames that break the protocol, as if it had answered.
            if self._answered:
                self._closed_by_server(int(end.code))
            else:
                self._violated(int(end.code), end.reason or "")
        elif library.ended:
            self._broken_by = library.failure
            self._set_over()
        elif self._lane.message_passed:
            return await self._connection.get_message()
        return None
