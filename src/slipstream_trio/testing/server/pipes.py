"""Streams in memory, how any stream is cut or ended, queues with limits, and tasks beside a block."""

import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from operator import index
from typing import Final

import attrs
import trio

_BUFFER: Final = 65_536
# Raised by a stream whose peer has left, or that `reset` has cut.
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
# Bytes to write, or a function that makes them in their turn: a compressor must see frames in the wire's order.
Item = bytes | Callable[[], bytes]


@attrs.define(eq=False)
class _Pipe:
    """One direction."""

    data: bytearray = attrs.field(factory=bytearray)
    ended: bool = False
    unread: bool = False
    reset: bool = False
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def end(self) -> None:
        self.ended = True
        self.changed.unpark_all()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory; like a socket it buffers 64 KiB, then sending waits.

    It can be reset: the other end then gets `trio.BrokenResourceError`, as for a TCP reset. `closed` is of this end.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.closed: bool = False
        self._incoming = incoming
        self._outgoing = outgoing
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, waiting while the other end's buffer is full.

        Raises:
            trio.BrokenResourceError: the other end is gone.
            trio.ClosedResourceError: this end is closed.
        """
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            rest = memoryview(bytes(data))
            while True:
                room = self._room()
                self._outgoing.data += rest[:room]
                rest = rest[room:]
                self._outgoing.changed.unpark_all()
                if not rest:
                    return
                await self._outgoing.changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the other end's buffer."""
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            while not self._room():
                await self._outgoing.changed.park()

    async def send_eof(self) -> None:
        """Send the end of the stream."""
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            self._check_open()
            self._outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, waiting for at least one; b"" after the other end's last.

        Raises:
            trio.BrokenResourceError: the other end reset the connection.
            trio.ClosedResourceError: this end is closed.
        """
        size = _BUFFER if max_bytes is None else index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        pipe = self._incoming
        with self._alone("receiving"):
            if pipe.data or pipe.ended or self.closed:
                await trio.lowlevel.checkpoint()
            while not (pipe.data or pipe.ended or self.closed):
                await pipe.changed.park()
            self._check_open()
            if pipe.reset:
                raise trio.BrokenResourceError("connection reset by peer")
        taken = bytes(pipe.data[:size])
        del pipe.data[: len(taken)]
        pipe.changed.unpark_all()
        return taken

    async def aclose(self) -> None:
        """Close this end: the other end reads what was sent, then b""; its sends fail."""
        self._close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Cut the connection, as a TCP reset does: the other end also loses the bytes that it has not yet read."""
        self._outgoing.reset = True
        self._outgoing.data.clear()
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._outgoing.end()
        self._incoming.unread = True
        self._incoming.changed.unpark_all()

    @contextmanager
    def _alone(self, doing: str) -> Iterator[None]:
        if doing in self._busy:
            raise trio.BusyResourceError(f"another task is {doing}")
        self._busy.add(doing)
        try:
            yield
        finally:
            self._busy.discard(doing)

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end is closed")

    def _room(self) -> int:
        """Return how many bytes may be sent now; raises what sending raises."""
        self._check_open()
        if self._outgoing.ended:
            raise trio.ClosedResourceError("send_eof was called")
        if self._outgoing.unread:
            raise trio.BrokenResourceError("the other end is closed")
        return _BUFFER - len(self._outgoing.data)


def memory_pipe() -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a new connection in memory."""
    one, other = _Pipe(), _Pipe()
    return MemoryStream(one, other), MemoryStream(other, one)


def reset(stream: trio.abc.Stream) -> None:
    """Cut a stream: with a TCP reset where it has one."""
    if isinstance(stream, trio.SSLStream):
        reset(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        # Closing with a linger time of 0 sends RST.
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream.socket.close()
    elif isinstance(stream, MemoryStream):
        stream.reset()


class Gauge:
    """Counts bytes; tasks can wait until there are fewer than the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size: int = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        """Whether `wait_room` would wait."""
        return self.size >= self.limit

    def remove(self, size: int) -> None:
        """Count fewer bytes."""
        self.size -= size
        if not self.full:
            self._waiting.unpark_all()

    async def wait_room(self) -> None:
        """Wait until there are fewer bytes than the limit; does not pass the scheduler where there are."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.full:
            await self._waiting.park()


class Outbox:
    """The frames to write to one client, in order; its gauge counts their bytes, with the write under way."""

    def __init__(self, limit: int) -> None:
        self.gauge: Gauge = Gauge(limit)
        self._ready: deque[tuple[Item, int]] = deque()
        self._held: list[tuple[Item, int]] | None = None
        self._closed = False
        self._filled = trio.lowlevel.ParkingLot()

    def put(self, item: Item, size: int, *, ahead: bool = False) -> None:
        """Queue an item of about `size` bytes, `ahead` of those held; drop it after `close`: nothing follows that."""
        if self._closed:
            return
        self.gauge.size += size
        if self._held is not None and not ahead:
            self._held.append((item, size))
        else:
            self._ready.append((item, size))
            self._filled.unpark_all()

    def hold(self) -> None:
        """Hold the items put from now on until `release`."""
        self._held = self._held or []

    def release(self) -> None:
        """Queue the held items."""
        self._ready += self._held or ()
        self._held = None
        self._filled.unpark_all()

    def close(self) -> None:
        """Accept nothing more; queued items can still be taken."""
        self.release()
        self._closed = True

    async def take(self) -> tuple[bytes, int] | None:
        """Wait for something to write; return one write's worth, and what its gauge counts; None at the end."""
        while not self._ready:
            if self._closed:
                return None
            await self._filled.park()
        chunks: list[bytes] = []
        size = counted = 0
        while self._ready and size < 262_144:
            item, weight = self._ready.popleft()
            chunks.append(item if isinstance(item, bytes) else item())
            size += len(chunks[-1])
            counted += weight
        return b"".join(chunks), counted


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that ends with its block, whose own exception leaves it unchanged: in no group."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: BLE001 - raised below, outside of the nursery's group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
