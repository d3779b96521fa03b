"""The stream between trio-websocket and the network: it collects what is written, and watches what is read."""

from collections.abc import Callable
from typing import Final

import trio

from .lane import FrameHeaders
from .upgrade import accept_token

__all__ = ["CLOSE", "CollectingStream"]

LEAST_READ: Final = 4 * 1024
MOST_READ: Final = 64 * 1024
"""Bytes a read.

More after a read that was filled, less after one that was not nearly. With 4 KiB at a time, a message of 64 KiB takes
five times as long. But memory for a read is allocated whole, and cut down to what has come: where all reads are for
64 KiB and what comes is small, the process grows by some MiB a minute, of pieces too small for the next read.
"""

PIECE: Final = 64 * 1024
"""Bytes a write.

A stream does not tell how far a write has come, so a large one goes out in pieces. Smaller ones would show the progress
of slower lines (at 64 KiB/s it shows every second), but each costs a system call and a pass of the scheduler.
"""

KEY: Final = b"sec-websocket-key"

PONG: Final = b"\x8a"
CLOSE: Final = b"\x88"
"""First bytes of a frame that is the last (and here the only one) of its message; the rest of it is the opcode."""


class CollectingStream(trio.abc.Stream):
    """The stream that trio-websocket writes to and reads from.

    The first thing written is an upgrade request, which is answered here: the server's answer came before.

    Parameters:
        stream: the stream to the server.
        behind: what came behind the server's answer.
        wake: called when something waits to be written.
        max_message_size: a message from the server that is longer, in bytes, ends what is read.

    Attributes:
        frames: the frames that were read.
        progress: how many bytes were read.
        working: whether trio-websocket is still at work on what was read last.
        heard: as `Transport` has it; `write_blocked_since` likewise.
        closing: whether a close frame was collected.
        broken_by: what has broken the stream, where it told.
        failure: what the stream has raised that streams do not raise.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        wake: Callable[[], None],
        max_message_size: int | None = None,
        behind: bytes | bytearray = b"",
    ) -> None:
        self.frames: FrameHeaders = FrameHeaders(max_message_size)
        self.progress: int = 0
        self.working: bool = False
        self.heard: float | None = None
        self.write_blocked_since: float | None = None
        self.closing: bool = False
        self.broken_by: BaseException | None = None
        self.failure: Exception | None = None
        self._stream = stream
        self._wake = wake
        self._clock = trio.lowlevel.current_clock()
        self._behind = behind
        self._acceptance: bytes | None = None
        self._exceeded = False
        self._pending: list[bytes] = []
        self._pong: int | None = None
        self._read_size = LEAST_READ

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Collect a frame: trio-websocket writes each with one call."""
        if self._acceptance is None:
            await trio.lowlevel.checkpoint()
            self._acceptance = acceptance_of(bytes(data))
        else:
            self.collect(bytes(data))

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
        """Write what was collected, joined."""
        while self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pong = None
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), PIECE):
                self.write_blocked_since = self._clock.current_time()
                await self._stream.send_all(data[start : start + PIECE])
        except Exception as error:
            raise self._broken("send_all", error) from error
        finally:
            self.write_blocked_since = None

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: collecting never waits."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read on; b"" behind the last message that is within the limit, too, as if it were the stream's end."""
        self.working = False
        if self._acceptance:
            accepted, self._acceptance = self._acceptance, b""
            return accepted
        if self._exceeded:
            return b""
        try:
            data, self._behind = self._behind, b""
            data = data or await self._stream.receive_some(self._read_size if max_bytes is None else max_bytes)
        except Exception as error:
            raise self._broken("receive_some", error) from error
        received = len(data)
        self.progress += received
        self.working = received > 0
        if received >= self._read_size or self._read_size > LEAST_READ:
            self._read_size = read_size_after(self._read_size, received)
        if data and self.frames.feed(data):
            self.heard = self._clock.current_time()
            if self.frames.excess is not None:
                self._exceeded = True
                return data[: self.frames.before_excess]
        return data

    async def aclose(self) -> None:
        """Leave it open: trio-websocket closes while its close frame waits to be written; the connector closes last."""
        await trio.lowlevel.checkpoint()

    def _broken(self, method: str, error: Exception) -> trio.BrokenResourceError:
        """Take note of what the stream has raised: any exception is the stream's, and is the end of it."""
        if isinstance(error, trio.BrokenResourceError):
            self.broken_by = self.broken_by or error.__cause__ or error
        elif not isinstance(error, trio.ClosedResourceError):
            self.failure = self.failure or error
        return trio.BrokenResourceError(f"{method} raised {type(error).__name__}")


def acceptance_of(request: bytes) -> bytes:
    """Return what a server answers to an upgrade request that it accepts, without any extension."""
    key = next(line.partition(b":")[2].strip() for line in request.split(b"\r\n") if line[:17].lower() == KEY)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_token(key) + b"\r\n\r\n"
    )


def read_size_after(size: int, received: int) -> int:
    """Return how many bytes to ask for, when a read of up to `size` has brought `received`."""
    if received >= size:
        return min(size * 4, MOST_READ)
    if received < size // 4:
        return max(size // 2, LEAST_READ)
    return size
