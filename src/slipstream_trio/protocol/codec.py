"""JSON, strictly: what both codecs accept and refuse is the same, so that installing msgspec changes speed alone.

Refused when decoding, as they are not JSON, or have no place in Python: NaN and Infinity, numbers beyond the range of a
float, lone surrogates, nesting beyond `MAX_DEPTH`. Refused when encoding: everything but dict (with str keys), list,
str, int, finite float, bool and None.
"""

import json
import math
import re
from typing import Any, Final, Protocol

from ..errors import ProtocolError, SerializationError
from .message import Message

__all__ = ["MAX_DEPTH", "Codec", "MsgspecCodec", "StdlibCodec", "default_codec"]

MAX_DEPTH: Final = 128
"""How deep arrays and objects may be nested, the frame's own array included.

Both decoders recurse, and where they give up depends on the depth of the caller's stack; this limit does not.
"""

MAX_DIGITS: Final = 4300
"""How long an integer may be, its sign included: Python's own default, as msgspec counts it."""

# Possessive, and the closing quote optional: on no text does it backtrack, which would cost 120 bytes a character
# of a long string, and quadratic time on one that is never closed.
_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NESTING: Final = {"[": 1, "{": 1, "]": -1, "}": -1}
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
            _refuse_surrogates(value)
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
    """msgspec's JSON (the extra `fast`): the same values, five times as fast."""

    name = "msgspec"

    def __init__(self) -> None:
        import msgspec

        self._error = msgspec.MsgspecError
        self._decode = msgspec.json.Decoder().decode
        self._decode_message = msgspec.json.Decoder(Message).decode
        self._encode = msgspec.json.Encoder().encode

    def decode(self, text: str) -> Any:
        """Return the value of a JSON text; raises `ProtocolError`."""
        check_depth(text)
        try:
            return self._decode(text)
        except (self._error, UnicodeEncodeError) as error:  # the latter: the text itself has a lone surrogate
            raise ProtocolError(f"not JSON: {error}") from None

    def decode_message(self, text: str) -> Message:
        """Return the message of a V2 text frame; raises `ProtocolError`."""
        if len(text) > MAX_DEPTH:
            check_depth(text)
        try:
            return self._decode_message(text)
        except (self._error, UnicodeEncodeError):
            # Either it is no message, or it has more than five elements, which are to be ignored.
            return message_of(self.decode(text))

    def encode(self, value: Any) -> str:
        """Return a value as compact JSON; raises `SerializationError`."""
        check_value(value)
        try:
            return self._encode(value).decode()
        except (ValueError, OverflowError) as error:
            raise SerializationError(f"not a JSON value: {error}") from None


def default_codec() -> Codec:
    """Return msgspec's codec where msgspec is installed, else the standard library's."""
    try:
        return MsgspecCodec()
    except ImportError:
        return StdlibCodec()


def message_of(value: Any) -> Message:
    """Return the V2 array `value` as a message; raises `ProtocolError`."""
    if type(value) is not list:
        raise ProtocolError(f"not an array but {_kind(value)}")
    if len(value) < len(Message._fields):
        raise ProtocolError(f"an array of {len(value)} elements, not of five")
    return checked(Message(*value[:5]))


def checked(message: Message) -> Message:
    """Return `message` if its refs, topic and event have the types they must have; raises `ProtocolError`."""
    for name in ("join_ref", "ref"):
        ref = getattr(message, name)
        if ref is not None and type(ref) is not str:
            raise ProtocolError(f"{name} is {_kind(ref)}, not a string or null")
    for name in ("topic", "event"):
        text = getattr(message, name)
        if type(text) is not str:
            raise ProtocolError(f"{name} is {_kind(text)}, not a string")
    return message


def check_depth(text: str) -> None:
    """Refuse a text whose arrays and objects are nested deeper than `MAX_DEPTH`; raises `ProtocolError`."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for character in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += _NESTING[character]
        if depth > MAX_DEPTH:
            raise ProtocolError(f"nested deeper than {MAX_DEPTH}")


def check_value(value: Any, depth: int = 0) -> None:
    """Refuse what is not a JSON value; raises `SerializationError`."""
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind is float:
        if not math.isfinite(value):
            raise SerializationError(f"{value} is not a JSON number")
    elif depth == MAX_DEPTH:
        raise SerializationError(f"nested deeper than {MAX_DEPTH}")
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise SerializationError(f"an object's keys are strings; a key of type {_kind(key)} is not")
            check_value(item, depth + 1)
    elif kind is list:
        for item in value:
            check_value(item, depth + 1)
    else:
        raise SerializationError(
            f"{_kind(value)} is not a JSON type: use dict, list, str, int, float, bool or None, or bytes as the payload"
        )


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


def _refuse_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ProtocolError("not JSON: a lone surrogate") from None


def _kind(value: Any) -> str:
    return type(value).__name__
