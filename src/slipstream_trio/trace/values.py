"""The values in a recording, as JSON and back.

JSON types are themselves. Everything else is an object with the key `$`: the name of an attrs class of the protocol,
with its fields; or one of

| `$` | what |
|---|---|
| `bytes` | `base64` |
| `tuple` | `items` |
| `datetime` | `iso` |
| `float` | `text`: "nan", "inf", "-inf" |
| `str` | `base64` of UTF-8, for text with surrogates, which are written as if they were characters |
| `dict` | `items`: pairs, for keys that are not strings, or that are `$` |
| `change` | in a state that tells what has changed since the last: `put` and `gone`, the items and keys of a mapping |
| `redacted` | nothing: a frame that is not shown |
| `object` | `type` and `repr` of what has no place in JSON |
"""

import math
import reprlib
import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from .. import protocol
from ..errors import SerializationError
from ..protocol import STATE_FIELDS, Message, Options, State
from ..protocol.codec import MAX_DIGITS, check_value
from ..protocol.state import View, changes
from .redact import DEEPEST, Redacted, Redactor
from .schema import encode_line

TAG: Final = "$"
CHANGE: Final = "change"
DOLLAR, BACKSLASH = b"$\\"
NESTED: Final = frozenset({dict, list})
LONGEST_REPR: Final = 1000
LARGEST: Final = 10**MAX_DIGITS  # from here on an integer can only have been refused: codecs take fewer digits

_UNWRITTEN: Final = frozenset({"JoinPacing", "Presence", "PresenceChange", "Transition"})
CLASSES: Final[Mapping[str, type]] = {
    name: kind
    for name, kind in vars(protocol).items()
    if isinstance(kind, type) and attrs.has(kind) and name not in _UNWRITTEN
}
"""The attrs classes that are written field by field."""

HOW: Final[Mapping[str, str]] = {
    **dict.fromkeys(("payload", "params", "response", "return"), "payload"),
    **dict.fromkeys(("reason", "termination_reason", "close_reason", "stacktrace", "message", "hint", "url"), "text"),
    **{name: name for name in ("raw_message", "state", "arguments", "frame", "body", "headers")},
    "response_headers": "headers",
}
"""As what fields are redacted, of records and in them, or are not written as they are; by their names."""


@frozen
class Unencodable:
    """The stand-in in a recording for an object that JSON cannot hold.

    Attributes:
        type: the object's type, with its module.
        text: its repr, or the beginning of that.
    """

    type: str
    text: str

    def __repr__(self) -> str:
        return self.text


FIELDS: Final[Mapping[type, Mapping[str, str | None]]] = {
    kind: {
        # Of params and headers, options tell only how they were given.
        name: None if kind is Options and name != "url" else HOW.get(name)
        for name in (STATE_FIELDS if kind is State else [field.name for field in attrs.fields(kind)])
    }
    for kind in CLASSES.values()
}
"""What is written of each, and as what it is redacted: of a state the flat names, as what it keeps together inside is
its own business."""


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of the fields that a class of attrs, or of named tuples, shows."""
    return tuple(FIELDS.get(kind) or getattr(kind, "_fields", None) or (field.name for field in attrs.fields(kind)))


def shown(value: Any) -> dict[str, Any] | None:
    """Return the fields that an attrs object or a message shows, by name; None of anything else."""
    kind = type(value)
    return {name: getattr(value, name) for name in names_of(kind)} if kind is Message or attrs.has(kind) else None


def field_of(value: Any, how: str | None, redactor: Redactor) -> Any:
    """Return a field, encoded, after it was redacted as what `HOW` says: by the method of the redactor of that name."""
    return encoded(value if how is None else getattr(redactor, how)(value), redactor, how == "payload")


def remember(table: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Put something into a table of so many at most, instead of the oldest."""
    if len(table) >= most and key not in table:
        del table[next(iter(table))]
    table[key] = value


def fields_of(value: Any, redactor: Redactor) -> dict[str, Any]:
    """Return the fields of an instance of one of `CLASSES`, encoded."""
    return {name: field_of(getattr(value, name), how, redactor) for name, how in FIELDS[type(value)].items()}


def changes_of(before: State, after: State, redactor: Redactor) -> dict[str, Any]:
    """Return the fields in which a state differs from the one before: of a mapping, what has changed in it."""
    fields = {}
    for name, change in sorted(changes(before, after), key=lambda its: its[1] is not None):
        if change is None:
            fields[name] = field_of(getattr(after, name), FIELDS[State][name], redactor)
        else:
            put, gone = (encode_value(part, redactor) for part in change)
            fields[name] = {TAG: CHANGE, "put": put, "gone": gone}
    return fields


def changed(name: str, before: Any, change: Any) -> Any:
    """Return the value of a field of a state that a recording has as it is, or as what has changed in it."""
    test = tests_of(State)[name]
    if type(change) is not dict or change.get(TAG) != CHANGE:
        return tested(name, decode_value(change), test)
    put, gone = tested(name, decode_value(change["put"]), test), set(decode_value(change["gone"]))
    return {**{key: item for key, item in before.items() if key not in gone}, **put}


def encode_value(value: Any, redactor: Redactor, depth: int = 0) -> Any:
    """Return a value in JSON types.

    What `redactor` hides as a payload, a header or a frame is hidden where the protocol's classes have such; of any
    other value, it hides what is secret.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is bool or value is None or (kind is int and -LARGEST < value < LARGEST):
        return value
    if depth > DEEPEST:
        return _by_repr(value, redactor)
    encode = _ENCODERS.get(kind)
    if encode is not None:
        return encode(value, redactor, depth)
    if kind in FIELDS:
        return {TAG: kind.__name__, **fields_of(value, redactor)}
    if isinstance(value, str) and not depth:  # a topic's name in an enumeration; in a payload it is refused
        return encode_value(redactor.object(str.__str__(value)), redactor)
    if isinstance(value, View):  # a state's, by topics: mappings of users are refused where they are pushed
        return _encode_dict({str.__str__(topic): item for topic, item in value.items()}, redactor, depth)
    return _by_repr(value, redactor)


def plain_text(value: Any) -> bytes | None:
    """Return the JSON of a value that consists of JSON's types; None for one that has others, or that needs a `$`."""
    kind = type(value)
    if value is None or kind is bool or (kind is str and value.isascii()):
        return encode_line(value)
    try:
        if kind is not str and kind is not int:
            check_value(value)
        text = encode_line(value)
    except (SerializationError, ValueError, OverflowError):  # it has other types, a lone surrogate, too many digits
        return None
    # To look for one byte takes a tenth of what it takes to look for several.
    marked = (DOLLAR in text and text.find(b'"$"') >= 0) or (BACKSLASH in text and text.find(b"\\ud") >= 0)
    return None if marked else text


def encoded(value: Any, redactor: Redactor, depth: int = 0) -> Any:
    """Return what `encode_value` makes of a value, after a quick look whether it changes anything in it."""
    plain = type(value) in NESTED and plain_text(value) is not None
    return value if plain else encode_value(value, redactor, depth)


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {TAG: "str", "base64": b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _encode_dict(value: dict[Any, Any], redactor: Redactor, depth: int) -> Any:
    if TAG in value or not all(type(key) is str and (key.isascii() or _text(key) is key) for key in value):
        pairs = [[encode_value(each, redactor, depth + 1) for each in pair] for pair in value.items()]
        return {TAG: "dict", "items": pairs}
    return {key: encode_value(item, redactor, depth + 1) for key, item in value.items()}


def _encode_items(value: Any, redactor: Redactor, depth: int) -> list[Any]:
    return [encode_value(item, redactor, depth + 1) for item in value]


def _encode_message(message: Message, redactor: Redactor, depth: int) -> Any:
    payload = redactor.message_payload(message)
    fields = {name: encode_value(item, redactor) for name, item in message._replace(payload=None)._asdict().items()}
    return {TAG: "Message", **fields, "payload": encode_value(payload, redactor, depth + 1)}


def _by_repr(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, Unencodable):
        return {TAG: "object", "type": value.type, "repr": encode_value(value.text, redactor)}
    try:
        text = f"{value:#x}" if type(value) is int else repr(value)
    except Exception as error:  # noqa: BLE001 - a repr may raise anything, and the object is the user's
        text = f"<its repr raised {type(error).__name__}>"
    text = redactor.object(text[: 10 * LONGEST_REPR])[:LONGEST_REPR]
    kind = type(value)
    return {TAG: "object", "type": f"{kind.__module__}.{kind.__qualname__}", "repr": _text(text)}


_ENCODERS: Final[Mapping[type, Callable[[Any, Redactor, int], Any]]] = {
    float: lambda value, _, __: value if math.isfinite(value) else {TAG: "float", "text": str(value)},
    bytes: lambda value, _, __: {TAG: "bytes", "base64": b64encode(value).decode()},
    list: _encode_items,
    tuple: lambda value, redactor, depth: {TAG: "tuple", "items": _encode_items(value, redactor, depth)},
    dict: _encode_dict,
    datetime: lambda value, _, __: {TAG: "datetime", "iso": value.isoformat()},
    Message: _encode_message,
    Redacted: lambda _, __, ___: {TAG: "redacted"},
}


# Tests of what comes back, by the types that fields are declared with: a line may have anything in a field

Test = tuple[frozenset[type], Callable[[Any], bool]]  # types that need no closer look, and what looks at others
FURTHEST: Final = 2**62  # the largest whole number: in nanoseconds 2116, and a difference of two still has 64 bits
EXACT: Final = 2**53  # the largest whole number that may stand for a float

_SIMPLE: Final[Mapping[Any, Callable[[Any], bool]]] = {
    Any: lambda _: True,
    int: lambda value: type(value) is int and -FURTHEST <= value <= FURTHEST,
    float: lambda value: math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= EXACT,
    bytes: lambda value: type(value) is bytes or type(value) is Redacted,  # a frame, which may be hidden
    datetime: lambda value: type(value) is datetime and value.tzinfo is not None,
}


def _function_of(hint: Any) -> Callable[[Any], bool]:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin is Literal:
        return _function_of(type(parts[0]))  # later versions may have more of them
    if origin is None:
        return lambda value: type(value) is hint
    if parts[-1] is ...:
        item = _function_of(parts[0])
        return lambda value: type(value) is tuple and all(map(item, value))
    tests = [_function_of(part) for part in parts]
    if origin is Union or origin is types.UnionType:
        first, *others = tests
        return lambda value: first(value) or any(test(value) for test in others)
    if origin is tuple:
        return lambda value: (
            type(value) is tuple
            and len(value) == len(tests)
            and all(test(item) for test, item in zip(tests, value, strict=True))
        )
    key, item = tests  # of a mapping
    return lambda value: isinstance(value, Mapping) and all(map(key, value)) and all(map(item, value.values()))


# And back

Shared = tuple[Any, Any]  # the input that was handled, and its message, which what came of it refers to


def decode_value(value: Any, shared: Shared | None = None) -> Any:
    """Return the value that `encode_value` encoded, with what it shares with an input; raises ValueError."""
    kind = type(value)
    if kind is list:
        return [decode_value(item, shared) if type(item) in NESTED else item for item in value]
    if kind is not dict:
        return value
    name = value.get(TAG)
    if name is None:
        return {key: decode_value(item, shared) if type(item) in NESTED else item for key, item in value.items()}
    try:
        if name in CLASSES:
            return from_fields(CLASSES[name], value, shared)
        if shared is not None and name in _SHARED:
            return _SHARED[name](*shared)
        decode = _DECODERS.get(name)
        # Kinds of later versions are shown as they were written.
        return Unencodable(str(name), repr(value)) if decode is None else decode(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an object {name!r} that cannot be read: {type(error).__name__}: {error}") from None


def thing(value: Any, shared: Shared | None = None) -> Any:
    """Return an input, an event or an effect; one of a later version is shown as it was written."""
    decoded = decode_value(value, shared)
    if type(decoded) not in FIELDS and type(decoded) is not Unencodable:
        raise ValueError(f"{type(decoded).__name__} is not an input, an event or an effect")
    return decoded


@cache
def tests_of(kind: type) -> Mapping[str, Test]:
    """Return for each field of an attrs class the test of its values."""
    tests, hints = {}, get_type_hints(State.__init__ if kind is State else kind)
    for name in names_of(kind):
        hint = hints[name]
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        tests[name] = frozenset({str, bool, types.NoneType}.intersection(parts)), _function_of(hint)
    return tests


def tested(name: str, value: Any, test: Test) -> Any:
    """Return the value of a field; raises ValueError where it is of another type."""
    if type(value) not in test[0] and not test[1](value):
        raise ValueError(f"{name} cannot be {reprlib.repr(value)}")
    return value


def from_fields(kind: type, fields: Mapping[str, Any], shared: Shared | None = None) -> Any:
    """Return an instance of an attrs class; fields that it does not have are ignored."""
    given = {}
    for name, test in tests_of(kind).items():
        if name in fields:
            value = fields[name]
            given[name] = value = decode_value(value, shared) if type(value) in NESTED else value
            if type(value) not in test[0]:  # `tested` takes as long as all the rest
                tested(name, value, test)
    return kind(**given)


_DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "bytes": lambda value: b64decode(value["base64"], validate=True),
    "str": lambda value: b64decode(value["base64"], validate=True).decode("utf-8", "surrogatepass"),
    "tuple": lambda value: tuple(map(decode_value, value["items"])),
    "datetime": lambda value: datetime.fromisoformat(value["iso"]),
    "float": lambda value: float(value["text"]),
    "dict": lambda value: {decode_value(key): decode_value(item) for key, item in value["items"]},
    "redacted": lambda _: Redacted(),
    "object": lambda value: Unencodable(value["type"], decode_value(value["repr"])),
    "Message": lambda value: Message(
        *(tested(name, decode_value(value[name]), test) for name, test in tests_of(Message).items())
    ),
}

_SHARED: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "@input": lambda given, _: given,
    "@message": lambda _, message: message,
    "@payload": lambda _, message: message.payload,
    "@response": lambda _, message: message.payload["response"],
}
