"""WebSocket frames on the server's side: wsproto reads them, this module writes the uncompressed ones."""

import sys
import zlib
from collections.abc import Iterator
from struct import pack
from typing import Any, Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from ...protocol.message import Frame
from ...transport.lane import WHOLE_BINARY, WHOLE_TEXT

_INFLATED_PIECE: Final = 16_384
_INFLATE_RATIO: Final = 25  # Bandit's limit of a message's size to its compressed size, from 32 KiB on

Control = Ping | Pong | CloseConnection


class FrameViolation(Exception):
    """The client violated the WebSocket protocol, or a limit; `code` is the close code to end the connection with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame_bytes(frame: Frame) -> bytes:
    """Return a whole, uncompressed frame from a server, as wsproto does at several times the cost."""
    first, data = (WHOLE_TEXT, frame.encode()) if isinstance(frame, str) else (WHOLE_BINARY, frame)
    length = len(data)
    if length < 126:
        return pack("!BB", first, length) + data
    if length < 65536:
        return pack("!BBH", first, 126, length) + data
    return pack("!BBQ", first, 127, length) + data


class Framing:
    """One connection's frames, both ways, with the limits of the client's frames, and the compression."""

    def __init__(
        self,
        max_frame_size: int = sys.maxsize,
        offer: str | None = None,  # the client's, of permessage-deflate; None: it made none, or is not to have it
        *,
        limits_wire: bool = False,  # whether the limits are Bandit's, or else Cowboy's
        role: ConnectionType = ConnectionType.SERVER,  # the side whose frames are written
    ) -> None:
        incoming = _Incoming(max_frame_size, limits_wire=limits_wire)
        # The answer to the offer: with one, frames to this client are compressed, and so cannot be shared with others.
        self.extension: str | None = incoming.answer(offer) if offer else None
        self._connection = Connection(role, [incoming] if role is ConnectionType.SERVER else [])
        self._parts: list[Any] = []

    def encode(self, item: Frame | Control) -> bytes:
        """Return the bytes that carry a frame to the client, compressed, or a ping, pong or close frame."""
        if isinstance(item, str):
            return self._connection.send(TextMessage(data=item))
        return self._connection.send(BytesMessage(data=item) if isinstance(item, bytes) else item)

    def receive(self, data: bytes) -> Iterator[Frame | Control]:
        """Yield the client's whole messages, pings, pongs and close; raises `FrameViolation`."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._parts.append(event.data)
                    if event.message_finished:
                        parts, self._parts = self._parts, []
                        yield ("" if isinstance(event, TextMessage) else b"").join(parts)
                case CloseConnection() if self._connection.state is ConnectionState.OPEN:
                    # Not the client's close frame: wsproto says in this way that it could not go on.
                    raise FrameViolation(event.code)
                case Ping() | Pong() | CloseConnection():
                    yield event


class _Incoming(PerMessageDeflate):
    """Applies the limits, and inflates whole messages, if the client's offer of permessage-deflate was accepted.

    Beyond a limit the connection is closed with 1009. Cowboy (`cowboy_websocket.erl`) has one, for a frame's payload as
    for a message, and for what it inflates to. Bandit counts the bytes on the wire, headers included
    (`websocket/frame.ex`), has another limit for messages in several frames (`connection.ex`), and one by a ratio for
    what they inflate to (`permessage_deflate.ex`).
    """

    def __init__(self, limit: int, *, limits_wire: bool) -> None:
        super().__init__()
        self._longest_frame = self._longest_message = limit
        if limits_wire:  # a header has 6, 8 or 14 bytes
            self._longest_frame = max(min(125, limit - 6), min(65_535, limit - 8), limit - 14)
            self._longest_message = 8_000_000
        self._limits_wire = limits_wire
        self._length = 0
        self._deflated = bytearray()
        self._inflater: Any = None
        self._in_control = self._is_deflated = False

    def enabled(self) -> bool:
        """Be asked about each frame, accepted or not."""
        return True

    def answer(self, offer: str) -> str | None:
        """Return what to answer a client's offer with, or None to do without."""
        try:
            parameters = self.accept(offer)
        except ValueError:  # a parameter that is not a number
            return None
        return f"{self.name};{parameters}".rstrip(";") if isinstance(parameters, str) else None

    def frame_inbound_header(self, proto: Any, opcode: Opcode, rsv: RsvBits, length: int) -> CloseReason | RsvBits:  # noqa: ARG002
        """Refuse a frame that is too large, or makes its message too large."""
        self._in_control, begins = opcode.iscontrol(), opcode in (Opcode.TEXT, Opcode.BINARY)
        if begins:
            self._length, self._is_deflated = 0, rsv.rsv1
        if not self._in_control:
            self._length += length
        if length > self._longest_frame or (opcode is Opcode.CONTINUATION and self._length > self._longest_message):
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(begins and super().enabled(), False, False)  # noqa: FBT003 - wsproto's

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:  # noqa: ARG002
        """Keep a part of a compressed message until its end."""
        if self._in_control or not self._is_deflated:
            return data
        self._deflated += data
        return b""

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:  # noqa: ARG002, FBT001
        """Inflate a message at its end, no further than to its limit."""
        if self._in_control or not self._is_deflated or not fin:
            return None
        largest = self._longest_message
        if self._limits_wire:
            # Bandit inflates in pieces, and looks at the ratio where a second one follows.
            largest = (-(-_INFLATE_RATIO * len(self._deflated) // _INFLATED_PIECE) + 1) * _INFLATED_PIECE
        if self._inflater is None or self.client_no_context_takeover:
            self._inflater = zlib.decompressobj(-self.client_max_window_bits)
        deflated, self._deflated = self._deflated + b"\x00\x00\xff\xff", bytearray()
        try:
            inflated: bytes = self._inflater.decompress(deflated, largest + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return inflated if len(inflated) <= largest else CloseReason.MESSAGE_TOO_BIG
