"""The part that the WebSocket transports have in common: reading, collecting what is to be written, and the end.

Plain messages are taken out of what was read by the lane; everything else is given to the transport, and by it to its
WebSocket library, frame by frame. What the library wants to write, and all that goes to the server, is collected, and
written by `send`, which the connection's writer alone calls: a cancelled write leaves half a frame on the wire.
"""

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, final

import trio

from ..errors import EndedBy
from .base import ABNORMAL_CLOSURE, Frame, OpenRequest, StreamOpener, Transport, TransportEnded
from .lane import MESSAGE_TOO_BIG, OPCODE, WHOLE_BINARY, WHOLE_TEXT, Lane
from .network import close_at_once, deadline_of, opened
from .upgrade import Answer, upgrade

masked: Callable[[bytes, bytes], bytes] | None = None
with suppress(ImportError):
    from websockets.speedups import apply_mask as masked  # in C

CLOSE: Final = 0x88
PONG: Final = 0x8A
"""First bytes of a frame that is the last (and here the only one) of its message; the rest of it is the opcode."""

# Headers of the answer to an upgrade that say nothing beside it.
UPGRADES_OWN: Final = re.compile("upgrade|connection|sec-websocket-(accept|protocol|extensions)")

LEAST_READ: Final = 16 * 1024
MOST_READ: Final = 64 * 1024
"""Bytes a read: more than the least only where a frame lacks them. With its last bytes the next may come.

A read of 64 KiB brings thousands of small frames, and all else waits while these are handled. And memory for a read is
allocated whole, and cut down to what has come, which leaves pieces too small for the next read.
"""

LEAST_PIECE: Final = 16 * 1024
MOST_PIECE: Final = 64 * 1024
GROWTH: Final = 4
SLOW: Final = 0.1
"""Bytes a write; the part of what has gone out already that the next may have; and seconds after which the next is of
the least again.

A stream does not tell how far a write has come, so a large one goes out in pieces. Small ones show the progress of slow
lines, but each costs a system call and a pass of the scheduler. A slow line takes at once what its buffers hold, and
no more: the piece at which it is found to be slow is small, as these are.
"""

PONGS: Final = 16  # the most that wait to be written, so that a server which pings and does not read fills no memory
PIECES_A_PASS: Final = 64  # for the library, before other tasks run: a read may bring thousands of control frames


@final
class Opening(AbstractAsyncContextManager["WebSocketTransport"]):
    """Opens a stream and upgrades it, both within `connect_timeout`, for a block, which gets a transport over it."""

    __slots__ = ("_how", "_transport")

    def __init__(
        self,
        open_stream: StreamOpener,
        request: OpenRequest,
        kind: type["WebSocketTransport"],
        wake: Callable[[], None],
    ) -> None:
        self._how = open_stream, request, kind, wake

    async def __aenter__(self) -> "WebSocketTransport":
        open_stream, request, kind, wake = self._how
        del self._how  # an open connection needs none of that
        deadline = deadline_of(request)
        stream = await opened(open_stream, request, deadline)
        try:
            answer = await upgrade(stream, request, deadline)
            self._transport = kind(stream, answer, request.max_message_size, wake)
        except BaseException:
            await close_at_once(stream)
            raise
        return self._transport

    async def __aexit__(self, *_: object) -> None:
        await self._transport.abort()


class WebSocketTransport(Transport):
    """A WebSocket that is open; `wake` is called when something waits to be written."""

    def __init__(self, stream: trio.abc.Stream, answer: Answer, limit: int, wake: Callable[[], None]) -> None:
        told = (pair for pair in answer.headers if not UPGRADES_OWN.fullmatch(pair[0]))
        self.response_headers: tuple[tuple[str, str], ...] = tuple(told)
        self._stream = stream
        self._wake = wake
        self._limit = limit
        self._lane = Lane(limit, compressed=bool(answer.values("sec-websocket-extensions")))
        self._clock = trio.lowlevel.current_clock()
        self._progress = answer.received
        self._busy = self._was_busy = False
        self._read_at = self._clock.current_time()
        self._messages: list[Frame] = []
        self.heard: float | None = None  # here, as a name that comes later makes the object twice as large
        self.write_blocked_since: float | None = None
        self._passed_on = 0
        self._pending: list[bytes] = []
        self._pongs: list[bytes] = []
        self._closing = False  # a close frame was collected
        self._closed_with: int | None = None
        self._close_frame, self._close_text = b"", ""
        self._end: tuple[int, str, EndedBy, str | None] | None = None  # unless the stream just ended
        self._is_over = False
        self._over: trio.Event | None = None  # of those who wait for that
        self._failure: Exception | None = None  # raised by the stream, though streams do not raise it
        self._broken_by: BaseException | None = None
        self._lane.feed(bytes(answer.buffer))

    @property
    def progress(self) -> int:  # type: ignore[override]  # nobody else may write it
        """Bytes read; it moves while what was read is being handled, here or by who has received it, and once after."""
        if self._busy or self._was_busy:
            self._progress += 1
        self._was_busy = self._busy
        return self._progress

    @abstractmethod
    async def _digest(self, piece: bytes) -> Frame | None:
        """Give the library bytes of one frame; returns the message that they complete, if they do.

        If the library has found the end in them, this calls `_closed_by_server` or `_violated`.
        """

    def _frames(self, messages: Sequence[Frame]) -> list[bytes]:
        return [
            _frame(WHOLE_TEXT, message.encode()) if isinstance(message, str) else _frame(WHOLE_BINARY, message)
            for message in messages
        ]

    # Reading

    async def receive(self) -> Sequence[Frame]:
        """Return the messages that have come, all that are whole."""
        self._busy = True
        while not self._is_over:
            if self._passed_on >= PIECES_A_PASS:
                self._passed_on = 0
                await trio.lowlevel.checkpoint()
                if self._messages:
                    break  # they may be large, and take long to handle
            self._lane.take(self._messages)
            piece = self._without_text(self._lane.pass_on())
            if self._lane.heard:
                self.heard = self._read_at
            if self._closed_with is not None:
                self._messages.clear()  # too late
            if piece:
                self._passed_on += 1
                message = await self._digest(piece)
                if message is not None:
                    self._messages.append(message)
            elif self._messages:
                break
            else:
                await self._read_on()
        if self._messages:
            messages, self._messages = self._messages, []
            return messages
        self._busy = False
        raise self._ended()

    def _without_text(self, piece: bytes) -> bytes:
        """Return a close frame, once it is there, without its text: libraries log it, and it may repeat a secret."""
        if not piece or self._lane.opcode != CLOSE & OPCODE:
            return piece
        frame = self._close_frame = self._close_frame + piece
        if self._lane.lacks:
            return b""
        with suppress(UnicodeDecodeError):  # that is for the library to find
            self._close_text = frame[4:].decode()
            frame = bytes((CLOSE, min(len(frame) - 2, 2))) + frame[2:4]
        return frame

    async def _read_on(self) -> None:
        lane = self._lane
        if lane.fault is not None:
            self._violated(*lane.fault)
            return
        self._busy = False
        try:
            data = await self._stream.receive_some(min(LEAST_READ + max(lane.lacks, 0), MOST_READ))
            data = data if type(data) is bytes else bytes(memoryview(data))
        except Exception as error:  # noqa: BLE001 - any exception is the stream's, and is the end of it
            self._note(error)
            data = b""
        self._busy = True
        if data:
            self._progress += len(data)
            self._read_at = self._clock.current_time()
            self._passed_on = 0
            lane.feed(data)
        else:
            self._set_over()

    # Writing

    async def send(self, frames: Sequence[Frame]) -> None:
        """Write the frames, unless it has ended, and what was collected, joined."""
        too_late = bool(frames) and (self._closing or self._is_over)
        if not too_late:
            self._pending += self._frames(frames)
        try:
            while self._pongs or self._pending:
                data = b"".join((*self._pongs, *self._pending))
                self._pongs.clear()
                self._pending.clear()
                start, size = 0, LEAST_PIECE
                while start < len(data):
                    self.write_blocked_since = began = self._clock.current_time()
                    await self._stream.send_all(data[start : start + size])
                    start += size
                    if start < len(data):
                        size = next_piece(start, self._clock.current_time() - began)
        except Exception as error:  # noqa: BLE001 - any exception is the stream's, and is the end of it
            self._note(error)
            too_late = True
        finally:
            self.write_blocked_since = None
        if too_late:
            raise self._ended()

    def _collect(self, frame: bytes) -> None:
        """Let a control frame be written: one close frame at most."""
        if frame[0] == PONG:
            self._pongs.append(frame)
            del self._pongs[:-PONGS]
            if len(self._pongs) > 1:
                return  # the writer knows already
        elif frame[0] == CLOSE and self._closing:
            return
        else:
            self._closing = self._closing or frame[0] == CLOSE
            self._pending.append(frame)
        self._wake()

    def _note(self, error: Exception) -> None:
        if isinstance(error, trio.BrokenResourceError):
            self._broken_by = self._broken_by or error.__cause__ or error
        elif not isinstance(error, trio.ClosedResourceError):
            self._failure = self._failure or error

    # The end

    async def close(self, code: int, reason: str) -> None:
        """Collect a close frame, and wait until `receive` has found the end."""
        if not (self._closing or self._is_over):
            self._closed_with = code
            self._collect(_close_frame(code, reason))
        self._over = self._over or trio.Event()
        if self._is_over:
            self._over.set()
        await self._over.wait()

    async def abort(self) -> None:
        """Close the stream at once."""
        await close_at_once(self._stream)

    def _set_over(self) -> None:
        self._is_over = True
        if self._over is not None:
            self._over.set()

    def _closed_by_server(self, code: int) -> None:
        """End it, as a close frame has come: the answer to ours, where we have closed."""
        by: EndedBy = "server" if self._closed_with is None else "client"
        self._end = self._end or (code, self._close_text, by, None)
        self._set_over()

    def _violated(self, code: int, text: str) -> None:
        """End it, as what came breaks the protocol or a limit; tell the server, unless we have closed before."""
        self._collect(_close_frame(code, text if code == MESSAGE_TOO_BIG else ""))
        if self._closed_with is None:
            reason = "message_too_big" if code == MESSAGE_TOO_BIG else "protocol_error"
            self._end = self._end or (code, text, "client", reason)
        self._set_over()

    def _ended(self) -> TransportEnded:
        """Tell how it has ended, or is about to."""
        if self._end is not None:
            code, text, ended_by, reason = self._end
            return TransportEnded(code, text, ended_by=ended_by, reason=reason)
        if self._closed_with is not None:
            return TransportEnded(self._closed_with, ended_by="client")
        text = "" if self._failure is None else f"the stream raised {type(self._failure).__name__}"
        ended = TransportEnded(ABNORMAL_CLOSURE, text, ended_by="network")
        ended.__cause__ = self._failure or self._broken_by
        return ended


def next_piece(written: int, took: float) -> int:
    """Return the most bytes of the next piece, after so many bytes, and the seconds that the piece before it took."""
    return LEAST_PIECE if took > SLOW else min(max(LEAST_PIECE, written // GROWTH), MOST_PIECE)


def _close_frame(code: int, text: str = "") -> bytes:
    """Return a close frame; the text is cut to its limit of 123 bytes."""
    return _frame(CLOSE, code.to_bytes(2, "big") + text.encode()[:123].decode(errors="ignore").encode())


def _frame(first: int, payload: bytes) -> bytes:
    """Return a frame, masked with a key of its own (RFC 6455, 5.3): libraries do it at several times the cost."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 2**16:
        head = bytes((first, 0xFE, size >> 8, size & 0xFF))
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    if masked is not None:
        return head + mask + masked(payload, mask)
    keys = int.from_bytes((mask * (size // 4 + 1))[:size], "little")  # all bytes at once, as one large number
    return head + mask + (int.from_bytes(payload, "little") ^ keys).to_bytes(size, "little")
