"""The server's side of Phoenix's serializers: clients' frames to messages, messages to frames for clients.

Refs, and even topics and events, may be any JSON value here: Phoenix gives them back as they came.
"""

from typing import Any, Final, Protocol

from ...errors import ProtocolError, SerializationError
from ...protocol.codec import Codec, default_codec
from ...protocol.message import REPLY, Frame, Message

__all__ = ["V1Wire", "V2Wire", "Wire", "wire_for"]

PUSH: Final = 0
REPLY_KIND: Final = 1
BROADCAST: Final = 2

_LONGEST: Final = 255


class Wire(Protocol):
    """One version of the protocol, as a server speaks it."""

    vsn: str

    def decode(self, frame: Frame) -> Message:
        """Return the message of a client's frame; raises `ProtocolError`."""
        ...

    def encode(self, message: Message) -> Frame:
        """Return the frame of a push, phx_close or phx_error; raises `SerializationError`."""
        ...

    def encode_reply(self, join_ref: Any, ref: Any, topic: Any, status: str, response: Any) -> Frame:
        """Return the frame of a reply; raises `SerializationError`."""
        ...

    def encode_broadcast(self, topic: str, event: str, payload: Any) -> Frame:
        """Return the frame of a broadcast; raises `SerializationError`."""
        ...


class V2Wire:
    """Serializer 2.0.0: arrays, and binary frames for payloads that are `bytes`."""

    vsn = "2.0.0"

    def __init__(self, codec: Codec | None = None) -> None:
        self._codec = codec or default_codec()

    def decode(self, frame: Frame) -> Message:
        """Return the message of a client's frame; raises `ProtocolError`."""
        if isinstance(frame, bytes):
            return _decode_push(frame)
        value = self._codec.decode(frame)
        if type(value) is not list or len(value) < 5:
            raise ProtocolError("not an array of five")
        return Message(*value[:5])

    def encode(self, message: Message) -> Frame:
        """Return the frame of a push, phx_close or phx_error; raises `SerializationError`."""
        if type(message.payload) is bytes:
            strings = [self._ref(message.join_ref), message.topic, message.event]
            return _encode_binary(PUSH, strings, message.payload)
        return self._codec.encode(list(message))

    def encode_reply(self, join_ref: Any, ref: Any, topic: Any, status: str, response: Any) -> Frame:
        """Return the frame of a reply; raises `SerializationError`."""
        if type(response) is bytes:
            strings = [self._ref(join_ref), self._ref(ref), topic, status]
            return _encode_binary(REPLY_KIND, strings, response)
        return self._codec.encode([join_ref, ref, topic, REPLY, {"response": response, "status": status}])

    def encode_broadcast(self, topic: str, event: str, payload: Any) -> Frame:
        """Return the frame of a broadcast; raises `SerializationError`."""
        if type(payload) is bytes:
            return _encode_binary(BROADCAST, [topic, event], payload)
        return self._codec.encode([None, None, topic, event, payload])

    def _ref(self, ref: Any) -> str:
        """Binary frames have strings only: Phoenix makes a string of any ref, and an empty one of null."""
        if ref is None:
            return ""
        return ref if type(ref) is str else self._codec.encode(ref)


class V1Wire:
    """Serializer 1.0.0: objects. It tells clients no join_ref, but reads one where a client sends it."""

    vsn = "1.0.0"

    def __init__(self, codec: Codec | None = None) -> None:
        self._codec = codec or default_codec()

    def decode(self, frame: Frame) -> Message:
        """Return the message of a client's frame; raises `ProtocolError`."""
        try:
            value = self._codec.decode(frame if isinstance(frame, str) else frame.decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(f"not JSON: {error}") from None
        if type(value) is not dict or not {"topic", "event", "payload", "ref"} <= value.keys():
            raise ProtocolError("not an object with topic, event, payload and ref")
        return Message(value.get("join_ref"), value["ref"], value["topic"], value["event"], value["payload"])

    def encode(self, message: Message) -> Frame:
        """Return the frame of a push, phx_close or phx_error; raises `SerializationError`."""
        return self._object(message.ref, message.topic, message.event, message.payload)

    def encode_reply(self, join_ref: Any, ref: Any, topic: Any, status: str, response: Any) -> Frame:  # noqa: ARG002
        """Return the frame of a reply; raises `SerializationError`."""
        return self._object(ref, topic, REPLY, {"response": response, "status": status})

    def encode_broadcast(self, topic: str, event: str, payload: Any) -> Frame:
        """Return the frame of a broadcast; raises `SerializationError`."""
        return self._object(None, topic, event, payload)

    def _object(self, ref: Any, topic: Any, event: str, payload: Any) -> str:
        return self._codec.encode({"event": event, "payload": payload, "ref": ref, "topic": topic})


def wire_for(vsn: Any) -> Wire | None:
    """Return the serializer for a client's `vsn` parameter, or None where Phoenix answers with 403."""
    match vsn.split(".") if type(vsn) is str else ():
        case ["2", "0", patch] if patch.isdecimal():
            return V2Wire()
        case ["1", "0", patch] if patch.isdecimal():
            return V1Wire()
    return None


def _decode_push(frame: bytes) -> Message:
    """Binary, client to server: kind 0, four lengths, join_ref, ref, topic, event, payload."""
    if len(frame) < 5 or frame[0] != PUSH:
        raise ProtocolError("not a binary push")
    strings, start = [], 5
    for length in frame[1:5]:
        strings.append(frame[start : start + length])
        start += length
    if start > len(frame):
        raise ProtocolError("a binary frame that ends inside its header")
    try:
        join_ref, ref, topic, event = (string.decode() for string in strings)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a binary frame whose header is not UTF-8: {error}") from None
    return Message(join_ref, ref, topic, event, frame[start:])


def _encode_binary(kind: int, strings: list[str], payload: bytes) -> bytes:
    encoded = [string.encode() for string in strings]
    longest = max(map(len, encoded))
    if longest > _LONGEST:
        raise SerializationError(
            f"a binary frame's topic, event and refs have at most {_LONGEST} bytes each, not {longest}"
        )
    return b"".join([bytes([kind, *map(len, encoded)]), *encoded, payload])
