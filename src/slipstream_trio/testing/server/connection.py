"""One client's connection, after its upgrade; in Phoenix, a socket's transport process."""

import math
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import trio
from wsproto.events import CloseConnection, Ping, Pong

from ...errors import ProtocolError
from ...protocol.message import Frame, Message
from .channel import Channel, Router
from .mount import Accept, Handler, Mount, Request
from .pipes import GONE, Outbox, reset
from .wire import Control, FrameViolation, Framing, Wire, frame_bytes

if TYPE_CHECKING:
    from .server import PhoenixServer

_READ_SIZE: Final = 16_384
_HOPELESS: Final = 16  # an outbox of so many times its limit cuts the connection, as broadcasts do not wait


class Connection:
    """A client's connection, which Phoenix calls the socket: `Channel.socket`, `PhoenixServer.connections`.

    Attributes:
        request: the request that opened it.
        id: the id for `PhoenixServer.disconnect`.
        assigns: the values that `Mount.connect` assigned.
        received: the last messages from the client, the newest last; see `PhoenixServer`'s `keep_received`.
        close_code: the code of the first close frame, either way; 1006 without one; None while open.
        closed_by: the side that closed it first; "lost" if it ended without a close frame; None while it is open.
    """

    def __init__(
        self,
        server: "PhoenixServer",
        stream: trio.abc.Stream,
        mount: Mount,
        request: Request,
        accepted: Accept,
        *,
        framing: Framing,
        first_data: bytes = b"",  # what came behind the request
    ) -> None:
        self.server: PhoenixServer = server
        self.request: Request = request
        self.id: str | None = accepted.id
        self.assigns: dict[str, Any] = dict(accepted.assigns)
        self.wire: Wire = Wire(request.params.get("vsn", "1.0.0"))
        self.received: deque[Message] = deque(maxlen=server.keep_received)
        self.close_code: int | None = None
        self.closed_by: Literal["client", "server", "lost"] | None = None
        self.router: Router = Router(self, mount)
        self._timeout = math.inf if mount.timeout is None else mount.timeout
        self._stream = stream
        self._framing = framing
        self._first_data = first_data
        self.outbox: Outbox = Outbox(mount.outbox_limit)
        self._reading = trio.CancelScope()
        self._receiving = trio.CancelScope()
        self._unpaused = trio.Event()
        self._unpaused.set()
        self._writable = trio.Event()
        self._writable.set()
        self._unreadable = False
        self._everything = trio.CancelScope()
        self._flushed = trio.Event()
        self.living: trio.Nursery  # the channels
        self._changed = trio.lowlevel.ParkingLot()
        self._handled = 0
        self._ended = trio.Event()
        self._handler: Handler = mount.handler(self) if mount.handler else self.router

    def __repr__(self) -> str:
        return f"<Connection {self.request.path} id={self.id!r} topics={list(self.router.processes)}>"

    # For tests and for channels

    @property
    def channels(self) -> Mapping[str, Channel]:
        """The channels joined on this connection, by topic."""
        return {topic: process.channel for topic, process in self.router.processes.items()}

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: the queue is sent, then a close frame; its channels end silently.

        Parameters:
            code: the close code, any that fits into two bytes.
            reason: the close reason, up to 123 bytes of UTF-8.

        Raises:
            ValueError: no close frame can have this code.
        """
        if code not in range(0x1_0000):
            raise ValueError(f"code: a whole number from 0 to 65535, such as 1000 or 4001; not {code!r}")
        self._say_close("server", code, code, reason)
        self._reading.cancel()

    def drop(self) -> None:
        """Cut the connection without a close frame, as a TCP reset does."""
        self._everything.cancel()
        reset(self._stream)

    async def ping(self, payload: bytes = b"") -> None:
        """Send the client a WebSocket ping of up to 125 bytes."""
        await self.outbox.gauge.wait_room()
        self._put_control(Ping(payload))

    async def send_raw(self, *frames: Frame) -> None:
        """Send the client frames of any content: `str` as text frames, `bytes` as binary ones.

        It waits while the outbox is full. Thousands of frames sent at once cost little more than their encoding.
        """
        await self.outbox.gauge.wait_room()
        for frame in frames:
            self.put(frame)

    async def send_bytes(self, data: bytes) -> None:
        """Send the client any bytes, also invalid frames, behind the queue."""
        await self.outbox.gauge.wait_room()
        self.outbox.put(data, len(data))

    def pause_reading(self) -> None:
        """Read nothing from the client until `resume_reading`, so that its messages pile up on its side.

        Its idle time does not count meanwhile.
        """
        if self._unpaused.is_set():
            self._unpaused = trio.Event()
            self._receiving.cancel()

    def resume_reading(self) -> None:
        """Read on after `pause_reading`."""
        self._unpaused.set()

    def pause_writing(self) -> None:
        """Write nothing to the client until `resume_writing`; a write under way goes on."""
        if self._writable.is_set():
            self._writable = trio.Event()
            self._changed.unpark_all()

    def resume_writing(self) -> None:
        """Write on after `pause_writing`."""
        self._writable.set()

    async def wait_written(self) -> None:
        """Wait until the queue has been written; returns at once while writing is paused, and after the end."""
        await trio.lowlevel.checkpoint()
        while self.outbox.gauge.size and self._writable.is_set() and not self._ended.is_set():
            await self._changed.park()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, and all its channels with it."""
        await self._ended.wait()

    # For the server, the router and the processes

    def put(self, frame: Frame, data: bytes | None = None, *, ahead: bool = False) -> None:
        """Queue a frame at once, of which the uncompressed bytes may be known; see `Outbox.put`."""
        if self._framing.extension is not None:
            self.outbox.put(partial(self._framing.encode, frame), len(frame), ahead=ahead)
        else:
            data = frame_bytes(frame) if data is None else data
            self.outbox.put(data, len(data), ahead=ahead)

    def deliver(self, frame: Frame, shared: bytes) -> bool:
        """Queue a broadcast, given its uncompressed bytes too; returns whether the outbox is full."""
        if self.outbox.gauge.size >= _HOPELESS * self.outbox.gauge.limit:
            self.drop()
        else:
            self.put(frame, shared)
        return self.outbox.gauge.full

    async def wait_handled(self, count: int) -> None:
        """Wait until `count` of the client's messages were handled, or the connection has ended."""
        while self._handled < count and not self._ended.is_set():
            await self._changed.park()

    async def run(self) -> None:
        """Serve the client until the connection ends."""
        try:
            with self._everything:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    async with trio.open_nursery() as self.living:
                        with self._reading:
                            await self._read()
                        self.living.cancel_scope.cancel()
                    await self._finish_closing()
                    nursery.cancel_scope.cancel()
        finally:
            if self.close_code is None:
                self.close_code, self.closed_by = 1006, "lost"
            self._ended.set()
            self._changed.unpark_all()
            self._handler.ended()

    async def _read(self) -> None:
        data = self._first_data
        while True:
            try:
                for item in self._framing.receive(data):
                    if not await self._handle(item):
                        return
            except FrameViolation as violation:
                self._unreadable = True
                self.close(violation.code)
                return
            await self.outbox.gauge.wait_room()
            if not (data := await self._receive()):
                self._everything.cancel()
                return

    async def _receive(self) -> bytes:
        while True:
            await self._unpaused.wait()
            with trio.move_on_after(self._timeout) as self._receiving:
                try:
                    return bytes(await self._stream.receive_some(_READ_SIZE))
                except GONE:
                    return b""
            # Otherwise it was paused, and may have been resumed before this task noticed.
            if self._unpaused.is_set() and trio.current_time() >= self._receiving.deadline:
                self.close(self.server.web_server.idle_code)
                await trio.lowlevel.checkpoint()  # close has cancelled this

    async def _handle(self, item: Frame | Control) -> bool:
        """Handle a message or control frame of the client; returns whether to read on."""
        match item:
            case Ping(payload):
                self._put_control(Pong(payload))
            case CloseConnection():
                echo = self.server.web_server.echoes_close_code
                self._say_close("client", int(item.code), int(item.code) if echo else 1000, "")
                return False
            case str() | bytes() as frame:
                try:
                    message = self.wire.decode(frame)
                except ProtocolError as error:
                    self.server.report(f"Phoenix cannot read this frame: {error}", None)
                    self.close(1011)
                    return False
                self.received.append(message)
                await self._handler.handle(message)
                self._handled += 1
                self._changed.unpark_all()
        return True

    async def _write(self) -> None:
        try:
            while (taken := await self.outbox.take()) is not None:
                data, counted = taken
                await self._writable.wait()
                await self._stream.send_all(data)
                self.outbox.gauge.remove(counted)
                self._changed.unpark_all()
            self._flushed.set()
        except GONE:
            self._everything.cancel()

    def _put_control(self, event: Control) -> None:
        # Encoded when its turn comes: once a close frame is encoded, wsproto encodes nothing else.
        self.outbox.put(partial(self._framing.encode, event), 0)

    def _say_close(self, by: Literal["client", "server"], code: int, said: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.closed_by = code, by
            self.outbox.release()
            self._put_control(CloseConnection(code=said, reason=reason))
            self.outbox.close()

    async def _finish_closing(self) -> None:
        """Wait a while for the client's answer to the close frame, or for its end; then close the stream."""
        # To close it at once, with bytes unread, would make TCP discard the data that the client has not yet read.
        with trio.move_on_after(self.server.close_timeout):
            await self._flushed.wait()
            try:
                if self._unreadable and isinstance(self._stream, trio.abc.HalfCloseableStream):  # TLS cannot end so
                    with suppress(*GONE):
                        await self._stream.send_eof()
                while self.closed_by != "client":
                    data = bytes(await self._stream.receive_some(_READ_SIZE))
                    try:
                        items = () if self._unreadable else self._framing.receive(data)
                        if not data or any(isinstance(item, CloseConnection) for item in items):
                            break
                    except FrameViolation:
                        self._unreadable = True  # wsproto reads no further; wait for the client's end
                await self._stream.aclose()
            except trio.BrokenResourceError:
                pass  # the client has gone
