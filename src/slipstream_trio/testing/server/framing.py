"""WebSocket frames on the server's side: wsproto reads them, this module writes the uncompressed ones."""

from collections.abc import Iterator
from struct import pack
from typing import Any, Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ...protocol.message import Frame

__all__ = ["BoundedDeflate", "FrameViolation", "Framing", "frame_bytes"]

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_MASK_SIZE: Final = 4
_SLICE: Final = 1024

Control = Ping | Pong | CloseConnection
Protocol = FrameDecoder | FrameProtocol


class FrameViolation(Exception):
    """The client violated the WebSocket protocol, or a limit.

    Attributes:
        code: the close code to end the connection with.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame_bytes(frame: Frame) -> bytes:
    """Return a whole, uncompressed frame from a server.

    wsproto would do it too, at several times the cost, and a broadcast is encoded once for all clients.
    """
    first, data = (_TEXT, frame.encode()) if isinstance(frame, str) else (_BINARY, frame)
    length = len(data)
    if length < 126:
        return pack("!BB", first, length) + data
    if length < 65536:
        return pack("!BBH", first, 126, length) + data
    return pack("!BBQ", first, 127, length) + data


class Framing:
    """One connection's frames, both ways, with the limits of the client's frames, and the compression."""

    def __init__(self, max_frame_size: int, max_fragmented_size: int, deflate: "BoundedDeflate | None" = None) -> None:
        self._connection = Connection(ConnectionType.SERVER, [deflate] if deflate else [])
        self._deflate = deflate
        self._max_frame_size = max_frame_size
        self._max_fragmented_size = max_fragmented_size
        self._parts: list[str | bytes] = []
        self._frame_size = 0
        self._message_size = 0

    @property
    def compressed(self) -> bool:
        """Whether frames to this client are compressed, and so cannot be shared with others."""
        return self._deflate is not None

    def encode(self, frame: Frame) -> bytes:
        """Return the bytes that carry a frame to the client, compressed."""
        return self._connection.send(TextMessage(data=frame) if isinstance(frame, str) else BytesMessage(data=frame))

    def encode_control(self, event: Control) -> bytes:
        """Return the bytes of a ping, pong or close frame."""
        return self._connection.send(event)

    def receive(self, data: bytes) -> Iterator[tuple[Frame, int] | Control]:
        """Yield the client's whole messages with their size in bytes, pings, pongs and close.

        Raises:
            FrameViolation: the client broke the protocol or a limit; the connection must be closed.
        """
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    if (message := self._assemble(event)) is not None:
                        yield message
                case CloseConnection() if self._connection.state is ConnectionState.OPEN:
                    # Not the client's close frame: wsproto says in this way that it could not go on.
                    raise FrameViolation(event.code)
                case Ping() | Pong() | CloseConnection():
                    yield event

    def _assemble(self, event: TextMessage | BytesMessage) -> tuple[Frame, int] | None:
        data = event.data if isinstance(event, TextMessage) else bytes(event.data)
        size = len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
        self._parts.append(data)
        self._frame_size += size
        self._message_size += size
        header = _header_size(self._frame_size)
        fragmented = self._message_size > self._frame_size
        if self._frame_size + header > self._max_frame_size or (
            fragmented and self._message_size > self._max_fragmented_size
        ):
            raise FrameViolation(1009)
        if event.frame_finished:
            self._frame_size = 0
        if not event.message_finished:
            return None
        parts, total = self._parts, self._message_size
        self._parts, self._message_size = [], 0
        if isinstance(event, TextMessage):
            return "".join(part for part in parts if isinstance(part, str)), total
        return b"".join(part for part in parts if isinstance(part, bytes)), total


def _header_size(length: int) -> int:
    extended = 0 if length < 126 else 2 if length < 65536 else 8
    return 2 + extended + _MASK_SIZE


class BoundedDeflate(PerMessageDeflate):
    """permessage-deflate that refuses messages of more than `ratio` times their compressed size."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self._ratio = ratio
        self._deflated = 0
        self._inflated = 0
        self._in_control = False

    def accept(self, offer: str) -> bool | str | None:
        """Return the parameters to answer a client's offer with, or None to do without."""
        try:
            return super().accept(offer)
        except ValueError:  # a parameter that is not a number
            return None

    def frame_inbound_header(self, proto: Protocol, opcode: Opcode, *rest: Any) -> CloseReason | RsvBits:
        """Note whether a control frame begins."""
        self._in_control = opcode.iscontrol()
        return super().frame_inbound_header(proto, opcode, *rest)

    def frame_inbound_payload_data(self, proto: Protocol, data: bytes) -> bytes | CloseReason:
        """Inflate a part of a frame, a slice at a time, so that a bomb expands to at most 1 MiB."""
        if self._in_control:
            return super().frame_inbound_payload_data(proto, data)
        pieces: list[bytes] = []
        for start in range(0, len(data), _SLICE):
            deflated = data[start : start + _SLICE]
            piece = super().frame_inbound_payload_data(proto, deflated)
            if isinstance(piece, CloseReason):
                return piece
            pieces.append(piece)
            if self._exceeds_ratio(len(deflated), len(piece)):
                return CloseReason.MESSAGE_TOO_BIG
        return b"".join(pieces)

    def frame_inbound_complete(self, proto: Protocol, fin: bool) -> bytes | CloseReason | None:  # noqa: FBT001
        """Inflate the rest of a message at its end."""
        rest = super().frame_inbound_complete(proto, fin)
        if self._in_control:
            return rest
        if isinstance(rest, bytes) and self._exceeds_ratio(0, len(rest)):
            return CloseReason.MESSAGE_TOO_BIG
        if fin:
            self._deflated = self._inflated = 0
        return rest

    def _exceeds_ratio(self, deflated: int, inflated: int) -> bool:
        self._deflated += deflated
        self._inflated += inflated
        return self._inflated > self._ratio * self._deflated
