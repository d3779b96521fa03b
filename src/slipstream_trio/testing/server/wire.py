"""The server's side of the wire: of Phoenix's serializers, and of WebSocket frames, which wsproto reads.

Refs, and even topics and events, may be any JSON value here: Phoenix gives them back as they came.
"""

import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from struct import pack
from typing import Any, Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from ...errors import ProtocolError
from ...protocol.codec import default_codec
from ...protocol.message import REPLY, Frame, Message
from ...protocol.serializer import BROADCAST, PUSH, REPLY_KIND, join_binary, split_binary
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


class Wire:
    """One version of the protocol, as a server speaks it.

    2.0.0 has arrays, and binary frames for payloads that are `bytes`. 1.0.0, which is whatever begins with "1.", has
    objects; it tells clients no join_ref, but reads one where a client sends it.
    """

    def __init__(self, vsn: str = "2.0.0") -> None:
        self.vsn: str = "1.0.0" if vsn.startswith("1.") else "2.0.0"
        self._codec = default_codec()

    def decode(self, frame: Frame) -> Message:
        """Return the message of a client's frame; raises `ProtocolError`."""
        if self.vsn == "1.0.0":
            # Invalid UTF-8 becomes lone surrogates, which a codec refuses.
            value = self._codec.decode(frame if isinstance(frame, str) else frame.decode(errors="surrogateescape"))
            if type(value) is not dict or not {"topic", "event", "payload", "ref"} <= value.keys():
                raise ProtocolError("not an object with topic, event, payload and ref")
            return Message(value.get("join_ref"), value["ref"], value["topic"], value["event"], value["payload"])
        if isinstance(frame, bytes):
            if len(frame) < 5 or frame[0] != PUSH:
                raise ProtocolError("not a binary push")
            (join_ref, ref, topic, event), payload = split_binary(frame, 4)
            return Message(join_ref, ref, topic, event, payload)
        value = self._codec.decode(frame)
        if type(value) is not list or len(value) < 5:
            raise ProtocolError("not an array of five")
        return Message(*value[:5])

    def encode(self, message: Message) -> Frame:
        """Return a message's frame, of a broadcast where join_ref is null; raises `SerializationError`."""
        join_ref, ref, topic, event, payload = message
        if self.vsn == "1.0.0":
            return self._codec.encode({"event": event, "payload": payload, "ref": ref, "topic": topic})
        match payload:
            case bytes() if join_ref is None:
                return join_binary(BROADCAST, {"topic": topic, "event": event}, payload)
            case bytes():
                return join_binary(PUSH, {"join_ref": self._ref(join_ref), "topic": topic, "event": event}, payload)
            case {"status": str(status), "response": bytes(response)} if event == REPLY:
                strings = {"join_ref": self._ref(join_ref), "ref": self._ref(ref), "topic": topic, "status": status}
                return join_binary(REPLY_KIND, strings, response)
        return self._codec.encode(list(message))

    def encode_reply(self, join_ref: Any, ref: Any, topic: Any, status: str, response: Any) -> Frame:
        """Return the frame of a reply; raises `SerializationError`."""
        return self.encode(Message(join_ref, ref, topic, REPLY, {"response": response, "status": status}))

    def _ref(self, ref: Any) -> str:
        """Binary frames have strings only: Phoenix makes a string of any ref, and an empty one of null."""
        if ref is None:
            return ""
        return ref if type(ref) is str else self._codec.encode(ref)


class Framing(PerMessageDeflate):
    """One connection's frames, both ways; wsproto asks it about each of the client's, accepted offer or not.

    Beyond a limit the connection is closed with 1009. Cowboy (`cowboy_websocket.erl`) has one, for a frame's payload as
    for a message, and for what it inflates to. Bandit counts the bytes on the wire, headers included
    (`websocket/frame.ex`), has another limit for messages in several frames (`connection.ex`), and one by a ratio for
    what they inflate to (`permessage_deflate.ex`).
    """

    def __init__(
        self,
        limit: int = sys.maxsize,  # of the client's frames
        offer: str | None = None,  # the client's, of permessage-deflate; None: it made none, or is not to have it
        *,
        limits_wire: bool = False,  # whether the limits are Bandit's, or else Cowboy's
        role: ConnectionType = ConnectionType.SERVER,  # the side whose frames are written
    ) -> None:
        super().__init__()
        # The answer to the offer: with one, frames to this client are compressed, and so cannot be shared with others.
        self.extension: str | None = None
        with suppress(ValueError):  # a parameter that is not a number
            if offer and isinstance(parameters := self.accept(offer), str):
                self.extension = f"{self.name};{parameters}".rstrip(";")
        self._connection = Connection(role, [self] if role is ConnectionType.SERVER else [])
        self._parts: list[Any] = []
        self._longest_frame = self._longest_message = limit
        if limits_wire:  # a header has 6, 8 or 14 bytes
            self._longest_frame = max(min(125, limit - 6), min(65_535, limit - 8), limit - 14)
            self._longest_message = 8_000_000
        self._limits_wire = limits_wire
        self._length = 0
        self._deflated = bytearray()
        self._inflater: Any = None
        self._in_control = self._is_deflated = False

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

    def enabled(self) -> bool:
        """Be asked about each frame, accepted or not."""
        return True

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
