"""JSON, strictly: what both codecs accept and refuse is the same, so that installing msgspec changes speed alone.

Refused when decoding, as they are not JSON, or have no place in Python: NaN and Infinity, numbers beyond the range of a
float, lone surrogates, nesting beyond `MAX_DEPTH`. Refused when encoding: everything but dict (with str keys), list,
str, int, finite float, bool and None.
"""

import json
import math
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from itertools import accumulate, repeat
from typing import Any, Final, Protocol

from ..errors import ProtocolError, SerializationError
from .message import Message

MAX_DEPTH: Final = 128
"""The greatest depth of nested arrays and objects, the frame's own array included.

Both decoders recurse, and where they give up depends on the depth of the caller's stack; this limit does not.
"""

TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH}"

MAX_DIGITS: Final = 4300  # the most of an integer, its sign included: Python's own default, as msgspec counts it

# The greatest depth of a payload that msgspec checks while it decodes: as deep as GeoJSON's multi-polygons. The type
# that says so branches in two at each level, and msgspec shares no branches: another level doubles the 10 ms that it
# takes to make the decoder, once in a process.
SHALLOW: Final = 8

_BLOCK: Final = MAX_DEPTH // 2  # brackets: from half of the limit down, a block cannot exceed it
_OPENING, _CLOSING = 1, 255  # as signed bytes: 1 and -1
_MARKS: Final = bytes.maketrans(b"[{]}", bytes([_OPENING, _OPENING, _CLOSING, _CLOSING]))
_UNMARKED: Final = bytes(set(range(256)) - set(b'[{]}"'))
_NEW_MESSAGE: Final[Any] = tuple.__new__  # with the class and a tuple: a third of what `Message(…)` takes
_LEAVES: Final = frozenset({str, int, bool, type(None)})


class Codec(Protocol):
    """Turns JSON text into values and back."""

    name: str

    def decode(self, text: str) -> Any:
        """Return the value of a JSON text; raises `ProtocolError`."""
        ...

    def decode_message(self, text: str) -> Message:
        """Return the message of a V2 text frame; raises `ProtocolError`."""
        ...

    def encode(self, value: Any) -> str:
        """Return a value as compact JSON; raises `SerializationError`."""
        ...


class StdlibCodec:
    """The standard library's json, with the checks that it lacks."""

    name = "json"

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
        self._long_decoder = json.JSONDecoder(parse_float=_finite, parse_int=_bounded, parse_constant=_no_constant)
        self._encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)

    def decode(self, text: str) -> Any:
        """Return the value of a JSON text; raises `ProtocolError`."""
        check_depth(text)
        try:
            text.encode()
            value = (self._decoder if len(text) <= MAX_DIGITS else self._long_decoder).decode(text)
        except ValueError as error:
            raise ProtocolError(f"not JSON: {error}") from None
        if "\\ud" in text or "\\uD" in text:
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise ProtocolError("not JSON: a lone surrogate") from None
        return value

    def decode_message(self, text: str) -> Message:
        """Return the message of a V2 text frame; raises `ProtocolError`."""
        return message_of(self.decode(text))

    def encode(self, value: Any) -> str:
        """Return a value as compact JSON; raises `SerializationError`."""
        check_value(value)
        try:
            text = self._encoder.encode(value)
            text.encode()
        except ValueError as error:  # a lone surrogate, or an integer of thousands of digits
            raise SerializationError(f"not a JSON value: {error}") from None
        return text


class MsgspecCodec:
    """msgspec's JSON (the extra `fast`): the same values, five times as fast.

    To measure the depth of a text costs up to as much as to decode it. So msgspec finds out on its way, by a type that
    is `SHALLOW` levels deep; only a text that does not fit into it is measured, and decoded again without a type.
    """

    name = "msgspec"

    def __init__(self) -> None:
        import msgspec

        self._misfit = (msgspec.MsgspecError, RecursionError, UnicodeEncodeError)  # of a text with a lone surrogate
        self._decode = msgspec.json.Decoder().decode
        self._decode_message = msgspec.json.Decoder(Message).decode
        self._decode_shallow_message = _shallow_decoder(of_messages=True)
        self._encode = msgspec.json.Encoder().encode

    def decode(self, text: str) -> Any:
        """Return the value of a JSON text; raises `ProtocolError`."""
        try:
            return _shallow_decoder(of_messages=False)(text)
        except self._misfit:
            return self._decode_checked(text)

    def decode_message(self, text: str) -> Message:
        """Return the message of a V2 text frame; raises `ProtocolError`."""
        try:
            if len(text) <= 2 * MAX_DEPTH:  # too short to be too deep, and a message without a detour
                return self._decode_message(text)
            return _NEW_MESSAGE(Message, self._decode_shallow_message(text))  # type: ignore[no-any-return]
        except self._misfit:
            # It is deep, no JSON, or no message, or has more than five elements, which are to be ignored.
            return message_of(self._decode_checked(text))

    def decode_messages(self, texts: Sequence[str]) -> list[Message]:
        """Return the messages of short V2 text frames, without a call for each; raises `ProtocolError`."""
        try:
            if max(map(len, texts)) <= 2 * MAX_DEPTH:
                return list(map(self._decode_message, texts))
            return list(map(_NEW_MESSAGE, repeat(Message), map(self._decode_shallow_message, texts)))
        except self._misfit:
            return list(map(self.decode_message, texts))

    def _decode_checked(self, text: str) -> Any:
        check_depth(text)
        try:
            return self._decode(text)
        except self._misfit as error:
            raise ProtocolError(f"not JSON: {error}") from None

    def encode(self, value: Any) -> str:
        """Return a value as compact JSON; raises `SerializationError`."""
        check_value(value)
        try:
            return self._encode(value).decode()
        except (ValueError, OverflowError) as error:
            raise SerializationError(f"not a JSON value: {error}") from None


@cache  # of the process, as it has no state
def default_codec() -> Codec:
    """Return msgspec's codec where msgspec is installed, else the standard library's."""
    try:
        return MsgspecCodec()
    except ImportError:
        return StdlibCodec()


@cache
def _shallow_decoder(*, of_messages: bool) -> Callable[[str], Any]:
    """Return what decodes values, or the five values of a message, that are not deeper than `SHALLOW`."""
    from msgspec.json import Decoder

    scalar = shallow = str | int | float | bool | None
    for _ in range(SHALLOW):
        shallow = scalar | list[shallow] | dict[str, shallow]  # type: ignore[valid-type]
    kind: Any = tuple[str | None, str | None, str, str, shallow] if of_messages else shallow  # type: ignore[valid-type]
    return Decoder(kind).decode


def message_of(value: Any) -> Message:
    """Return the V2 array `value` as a message; raises `ProtocolError`."""
    if type(value) is not list:
        raise ProtocolError(f"not an array but {type(value).__name__}")
    if len(value) < len(Message._fields):
        raise ProtocolError(f"an array of {len(value)} elements, not of five")
    return checked(Message(*value[:5]))


def checked(message: Message) -> Message:
    """Return `message` if its refs, topic and event have the types they must have; raises `ProtocolError`."""
    for name in ("join_ref", "ref"):
        ref = getattr(message, name)
        if ref is not None and type(ref) is not str:
            raise ProtocolError(f"{name} is {type(ref).__name__}, not a string or null")
    for name in ("topic", "event"):
        text = getattr(message, name)
        if type(text) is not str:
            raise ProtocolError(f"{name} is {type(text).__name__}, not a string")
    return message


def check_depth(text: str) -> None:
    """Refuse a text whose arrays and objects are nested deeper than `MAX_DEPTH`; raises `ProtocolError`."""
    # It takes linear time: a few passes at the speed of C, and of the brackets one by one only near the limit.
    marks = _marks(text)
    if marks.count(_OPENING) <= MAX_DEPTH:
        return
    if "\\" in text:  # without escapes, each quote begins a string or ends it
        marks = _marks(text.replace(r"\\", "").replace(r"\"", ""))
    # Most strings have no bracket in them, and vanish; with the others, every second piece is outside of strings.
    marks = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    depth = 0
    for start in range(0, len(marks), _BLOCK):
        block = marks[start : start + _BLOCK]
        opened = block.count(_OPENING)
        # A depth changes by one at a time, so it passes the limit at one above.
        if depth + opened > MAX_DEPTH and MAX_DEPTH + 1 in accumulate(memoryview(block).cast("b"), initial=depth):
            raise ProtocolError(TOO_DEEP)
        depth += 2 * opened - len(block)


def _marks(text: str) -> bytes:
    """Return the quotes of a text, and its brackets as +1 and -1."""
    return text.encode(errors="replace").translate(_MARKS, _UNMARKED)


def check_value(value: Any, depth: int = 0) -> None:  # noqa: C901 - a call for each leaf takes twice as long
    """Refuse what is not a JSON value; raises `SerializationError`."""
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind is float:
        if not math.isfinite(value):
            raise SerializationError(f"{value} is not a JSON number: use a finite one, or None")
    elif depth == MAX_DEPTH:
        raise SerializationError(TOO_DEEP)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise SerializationError(f"an object's keys are strings; a key of type {type(key).__name__} is not")
            if type(item) not in _LEAVES:
                check_value(item, depth + 1)
    elif kind is list:
        for item in value:
            if type(item) not in _LEAVES:
                check_value(item, depth + 1)
    else:
        kinds = "dict, list, str, int, float, bool or None, or bytes as the payload"
        way_out = "its value" if isinstance(value, Enum) else kinds
        raise SerializationError(f"{type(value).__name__} is not a JSON type: use {way_out}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number beyond the range of a float")
    return number


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} characters")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
