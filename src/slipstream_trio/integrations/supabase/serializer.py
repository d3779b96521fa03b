"""Supabase's serializer 2.0.0: Phoenix's, and two binary kinds for what users broadcast.

Sources: supabase/realtime, lib/realtime_web/socket/v2_serializer.ex; supabase/supabase-js,
packages/core/realtime-js/src/lib/serializer.ts.
"""

from typing import Any, Final, final

from ...errors import ProtocolError, SerializationError
from ...protocol import Codec, Frame, Message, V2Serializer

__all__ = ["BROADCAST", "SupabaseSerializer"]

BROADCAST: Final = "broadcast"
PUSH_KIND, KIND = 3, 4
BINARY, JSON = 0, 1
HEADER: Final = 5
LONGEST: Final = 255


@final
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
        if not _is_broadcast(message):
            return self._phoenix.encode(message)
        event, body = message.payload["event"], message.payload["payload"]
        try:
            strings = [text.encode() for text in (message.join_ref or "", message.ref or "", message.topic, event)]
            data = body if type(body) is bytes else self._codec.encode(body).encode()
        except (UnicodeEncodeError, SerializationError):
            return self._phoenix.encode(message)  # which fails too, and says where
        if max(map(len, strings)) <= LONGEST:
            encoding = BINARY if data is body else JSON
            return b"".join([bytes([PUSH_KIND, *map(len, strings), 0, encoding]), *strings, data])
        if data is body:
            problem = f"topic and event have at most {LONGEST} bytes each where the payload is binary"
            raise SerializationError(problem, "", message.topic, message.event)
        return self._phoenix.encode(message)  # as text, which has no such limit

    def decode(self, frame: Frame) -> Message:
        """Return the message of a frame from the server; raises `ProtocolError`."""
        if isinstance(frame, str) or frame[:1] != bytes([KIND]):
            return self._phoenix.decode(frame)
        strings, start = [], HEADER
        for length in frame[1 : HEADER - 1]:
            strings.append(frame[start : start + length])
            start += length
        if start > len(frame):
            raise ProtocolError("a user broadcast that ends inside its header")
        encoding, body = frame[HEADER - 1], frame[start:]
        if encoding not in (BINARY, JSON):
            raise ProtocolError(f"a user broadcast of unknown encoding {encoding}")
        try:
            topic, event, meta = (string.decode() for string in strings)
            value = body if encoding == BINARY else self._codec.decode(body.decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a user broadcast that is not UTF-8: {error}") from None
        payload = {"type": BROADCAST, "event": event, "payload": value}
        return Message(None, None, topic, BROADCAST, {**payload, "meta": self._codec.decode(meta)} if meta else payload)


def _is_broadcast(message: Message) -> bool:
    """Tell whether kind 3 has a place for all that is in a message."""
    payload: Any = message.payload
    return (
        message.event == BROADCAST
        and type(payload) is dict
        and payload.keys() == {"type", "event", "payload"}
        and payload["type"] == BROADCAST
        and type(payload["event"]) is str
    )
