"""Messages to frames and back: Phoenix's serializers V2 (text and binary) and V1, and those of users.

The formats were observed on Phoenix 1.7.24 and 1.8.12.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import takewhile
from typing import Any, Final, Protocol, final

from ..errors import ProtocolError, SerializationError
from .codec import TOO_DEEP, Codec, MsgspecCodec, StdlibCodec, checked, default_codec
from .message import REPLY, Frame, Message

PUSH: Final = 0
REPLY_KIND: Final = 1
BROADCAST: Final = 2

_LONGEST: Final = 255  # bytes of a topic, event or ref in a binary frame, whose lengths take one byte each


class Serializer(Protocol):
    """Turns a client's messages into frames, and frames into messages. Stateless, without I/O."""

    name: str
    """The name in `State.options`."""
    vsn: str
    """The `vsn` parameter that tells the server which serializer to use; without one, it is told that of `connect`."""

    def encode(self, message: Message) -> Frame:
        """Return the frame of a message to the server; raises `SerializationError`."""
        ...

    def decode(self, frame: Frame) -> Message:
        """Return the message of a frame from the server; raises `ProtocolError`."""
        ...


class V2Serializer:
    """Phoenix's serializer 2.0.0: JSON arrays, and binary frames for payloads that are `bytes`.

    Parameters:
        codec: the JSON codec; None takes msgspec where it is installed, else the standard library.
    """

    name = "v2"
    vsn = "2.0.0"

    def __init__(self, codec: Codec | None = None) -> None:
        self.codec: Codec = codec or default_codec()
        self._decode_text = self.codec.decode_message

    def encode(self, message: Message) -> Frame:
        """Return the frame of a message to the server; raises `SerializationError`."""
        if type(message.payload) is bytes:
            strings = {name: getattr(message, name) or "" for name in message._fields[:4]}
            return join_binary(PUSH, strings, message.payload)
        try:
            return self.codec.encode(list(message))
        except SerializationError as error:
            raise located(error, message, self.codec) from None

    def decode(self, frame: Frame) -> Message:
        """Return the message of a frame from the server; raises `ProtocolError`."""
        if isinstance(frame, str):
            try:
                return self._decode_text(frame)
            except ProtocolError:
                if frame[:1] in ("\x00", "\x01", "\x02"):
                    raise ProtocolError("a binary message as text: long-polling brings those to servers only") from None
                raise
        match frame[:1]:  # a push has no ref, a broadcast neither ref nor join_ref, a reply has a status
            case b"\x00":
                (join_ref, topic, event), payload = split_binary(frame, 3)
                return Message(join_ref or None, None, topic, event, payload)
            case b"\x01":
                (join_ref, ref, topic, status), response = split_binary(frame, 4)
                return Message(join_ref or None, ref, topic, REPLY, {"status": status, "response": response})
            case b"\x02":
                (topic, event), payload = split_binary(frame, 2)
                return Message(None, None, topic, event, payload)
            case b"":
                raise ProtocolError("an empty binary frame")
        raise ProtocolError(f"a binary frame of unknown kind {frame[0]}")


class V1Serializer:
    """Phoenix's serializer 1.0.0: JSON objects. Messages from the server have no join_ref, and none are binary.

    Parameters:
        codec: the JSON codec; None takes msgspec where it is installed, else the standard library.
    """

    name = "v1"
    vsn = "1.0.0"

    def __init__(self, codec: Codec | None = None) -> None:
        self.codec: Codec = codec or default_codec()

    def encode(self, message: Message) -> Frame:
        """Return the frame of a message to the server; raises `SerializationError`."""
        if type(message.payload) is bytes:
            problem = "serializer 1.0.0 has no binary payloads: connect with vsn='2.0.0'"
            raise SerializationError(problem, "payload", message.topic, message.event)
        try:
            return self.codec.encode(message._asdict())
        except SerializationError as error:
            raise located(error, message, self.codec) from None

    def decode(self, frame: Frame) -> Message:
        """Return the message of a frame from the server; raises `ProtocolError`."""
        if not isinstance(frame, str):
            raise ProtocolError("a binary frame, which serializer 1.0.0 does not have")
        value = self.codec.decode(frame)
        if type(value) is not dict:
            raise ProtocolError(f"not an object but {type(value).__name__}")
        missing = {"topic", "event", "payload", "ref"} - value.keys()
        if missing:
            raise ProtocolError(f"an object without {', '.join(sorted(missing))}")
        return checked(Message(None, value["ref"], value["topic"], value["event"], value["payload"]))


def decoded_together(serializer: Serializer, frames: Sequence[Frame]) -> list[Message] | None:
    """Return the messages of small frames; None where they have to be decoded one by one, to find the malformed one."""
    if type(serializer) is not V2Serializer or set(map(type, frames)) != {str}:
        return None
    codec: Any = serializer.codec
    try:
        if type(codec) is MsgspecCodec:
            return codec.decode_messages(frames)  # type: ignore[arg-type] # as was just seen
        return list(map(codec.decode_message, frames))
    except ProtocolError:
        return None


def serializer_for(vsn: str, codec: Codec | None = None) -> Serializer:
    """Return the serializer of a `vsn` ("2.0.x" or "1.0.x").

    Raises:
        ValueError: there is none; Phoenix would refuse the upgrade with 403.
    """
    match str(vsn).split("."):
        case ["2", "0", patch] if patch.isdecimal():
            return V2Serializer(codec)
        case ["1", "0", patch] if patch.isdecimal():
            return V1Serializer(codec)
    raise ValueError(f"unsupported vsn {vsn!r}: use '2.0.0' or '1.0.0'")


def located(error: SerializationError, message: Message, codec: Codec) -> SerializationError:
    """Return the error with the place of the value that cannot be encoded: its parts are encoded one by one."""
    path, found = "", _refused(zip(message._fields, message, strict=True), codec)
    while found is not None:
        step, value, error = found
        shown = json.dumps(step, ensure_ascii=not str(step).isprintable())  # a lone surrogate could not be printed
        path += f"[{shown}]" if path else str(step)
        found = None if error.problem == TOO_DEEP else _refused(_inside(value), codec)  # a cycle has no innermost value
    return SerializationError(error.problem, path or "payload", message.topic, message.event)


def _refused(parts: Iterable[tuple[str | int, Any]], codec: Codec) -> tuple[str | int, Any, SerializationError] | None:
    """Return the first part that cannot be encoded, None if each can."""
    for step, value in parts:
        try:
            codec.encode(value)
        except SerializationError as error:
            return step, value, error
    return None


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    if type(value) is list:
        yield from enumerate(value)
    elif type(value) is dict:
        yield from takewhile(lambda item: type(item[0]) is str, value.items())  # another key is what is refused


def join_binary(kind: int, strings: Mapping[str, str], payload: bytes) -> bytes:
    """Return a binary frame: its kind, a length for each of its strings, these strings, and the payload behind them."""
    encoded = []
    for name, text in strings.items():
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise SerializationError(f"{name}: {error}") from None
        if len(data) > _LONGEST:
            problem = f"a binary push's {name} has at most {_LONGEST} bytes, this one has {len(data)}"
            raise SerializationError(f"{problem}: send the payload as JSON, or use a shorter one")
        encoded.append(data)
    return b"".join([bytes([kind, *map(len, encoded)]), *encoded, payload])


def split_binary(frame: bytes, count: int) -> tuple[list[str], bytes]:
    """Return the strings of a binary frame, whose lengths follow its kind, and the payload behind them."""
    start = 1 + count
    strings = []
    for length in frame[1:start]:
        strings.append(frame[start : start + length])
        start += length
    if start > len(frame):
        raise ProtocolError("a binary frame that ends inside its header")
    try:
        return [string.decode() for string in strings], frame[start:]
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a binary frame whose header is not UTF-8: {error}") from None


# A serializer of the user's, and payloads that wait


@final
class KeptPayload:
    """A payload as it was when the call was awaited, whatever its owner does with the object since.

    With the library's own serializers it is kept as JSON text, else as a deep copy. Raises `SerializationError` for
    what is not a JSON value, or cannot be copied.
    """

    __slots__ = ("_codec", "_kept")

    def __init__(self, message: Message, serializer: Serializer) -> None:
        codec = serializer.codec if isinstance(serializer, V1Serializer | V2Serializer) else None
        self._codec = None if type(message.payload) is bytes else codec
        try:
            self._kept: Any = deepcopy(message.payload) if self._codec is None else self._codec.encode(message.payload)
        except Exception as error:
            if codec is not None and isinstance(error, SerializationError):
                raise located(error, message, codec) from None
            problem = f"a payload that waits is copied, and this one cannot be: {error!r}"
            raise SerializationError(problem, "payload", message.topic, message.event) from error

    def value(self) -> Any:
        """Return the payload: a value that nobody else has."""
        return deepcopy(self._kept) if self._codec is None else self._codec.decode(self._kept)


def guarded(serializer: Serializer) -> Serializer:
    """Return the serializer; one of the user's raises nothing but `SerializationError` and `ProtocolError`."""
    # So its failure, or that of a codec of the user's, concerns one frame, and never reads as a bug of the library.
    # That it returns something else than it should is a failure, too.
    codec = getattr(serializer, "codec", None)
    ours = type(serializer) in (V1Serializer, V2Serializer) and type(codec) in (StdlibCodec, MsgspecCodec)
    return serializer if ours else _Guarded(serializer)


@final
class _Guarded:
    def __init__(self, serializer: Serializer) -> None:
        self.name: str = serializer.name
        self.vsn: str = getattr(serializer, "vsn", "")
        self._serializer = serializer

    def encode(self, message: Message) -> Frame:
        try:
            frame: Any = self._serializer.encode(message)
        except SerializationError:
            raise
        except Exception as error:
            problem = f"the serializer {self.name!r} failed: {error!r}"
            raise SerializationError(problem, "", message.topic, message.event) from error
        if not isinstance(frame, str | bytes):
            problem = f"the serializer {self.name!r} returned {type(frame).__name__}, not str or bytes"
            raise SerializationError(problem, "", message.topic, message.event)
        return frame

    def decode(self, frame: Frame) -> Message:
        try:
            message: Any = self._serializer.decode(frame)
        except ProtocolError:
            raise
        except Exception as error:
            raise ProtocolError(f"the serializer {self.name!r} failed: {error!r}") from error
        if not isinstance(message, Message):
            raise ProtocolError(f"the serializer {self.name!r} returned {type(message).__name__}, not Message")
        return checked(message)
