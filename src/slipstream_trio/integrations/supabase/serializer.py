"""Supabase's serializer 2.0.0: Phoenix's, and two binary kinds for what users broadcast.

Sources: supabase/realtime, lib/realtime_web/socket/v2_serializer.ex; supabase/supabase-js,
packages/core/realtime-js/src/lib/serializer.ts.
"""

from typing import Final

from ...errors import ProtocolError, SerializationError
from ...protocol import Codec, Frame, Message, V2Serializer
from ...protocol.serializer import split_binary

BROADCAST: Final = "broadcast"
PUSH_KIND, KIND = 3, 4
BINARY, JSON = 0, 1


class SupabaseSerializer:
    """The serializer for `vsn` 2.0.0 of Supabase Realtime.

    A broadcast, `{"type": "broadcast", "event": …, "payload": …}`, is sent as kind 3, its payload as JSON, `bytes` as
    they are; kind 4 from the server becomes the same. All else is Phoenix's 2.0.0, with the same `codec`.
    """

    name = "supabase"
    vsn = "2.0.0"

    def __init__(self, codec: Codec | None = None) -> None:
        self._phoenix = V2Serializer(codec)
        self._codec = self._phoenix.codec

    def encode(self, message: Message) -> Frame:
        """Return the frame of a message to the server; raises `SerializationError`."""
        match message.event, message.payload:
            case "broadcast", {"type": "broadcast", "event": str(event), "payload": body, **more} if not more:
                return self._encode_broadcast(message, event, body)
        return self._phoenix.encode(message)

    def _encode_broadcast(self, message: Message, event: str, body: object) -> Frame:
        try:
            strings = [text.encode() for text in (message.join_ref or "", message.ref or "", message.topic, event)]
            data = body if type(body) is bytes else self._codec.encode(body).encode()
        except (UnicodeEncodeError, SerializationError):
            return self._phoenix.encode(message)  # which fails too, and says where
        if max(map(len, strings)) > 255:
            problem = "topic and event of a broadcast have at most 255 bytes each"
            raise SerializationError(problem, "", message.topic, message.event)
        encoding = BINARY if data is body else JSON
        return b"".join([bytes([PUSH_KIND, *map(len, strings), 0, encoding]), *strings, data])

    def decode(self, frame: Frame) -> Message:
        """Return the message of a frame from the server; raises `ProtocolError`."""
        if isinstance(frame, str) or frame[:1] != bytes([KIND]):
            return self._phoenix.decode(frame)
        # The encoding stands between the lengths and the strings.
        (topic, event, meta), data = split_binary(frame[:4] + frame[5:], 3)
        if frame[4:5] not in (bytes([BINARY]), bytes([JSON])):
            raise ProtocolError("a user broadcast that ends inside its header, or has an unknown encoding")
        try:
            value = data if frame[4] == BINARY else self._codec.decode(data.decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a user broadcast that is not UTF-8: {error}") from None
        payload = {"type": BROADCAST, "event": event, "payload": value}
        return Message(None, None, topic, BROADCAST, {**payload, "meta": self._codec.decode(meta)} if meta else payload)
