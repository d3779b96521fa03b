"""JSON texts, texts that are nearly JSON, and values that no payload can have."""

import json
import math
from typing import Any

from hypothesis import strategies as st

from slipstream_trio.protocol import MAX_DEPTH
from slipstream_trio.testing.strategies import json_values

_NUMBERS = ["0", "-0", "1e5", "1E-400", "1e999", "-1e999", "1.7976931348623159e308", "01", "1.", ".5", "+1", "NaN"]
_NUMBERS += ["Infinity", "-Infinity", "1e", "- 1", "0x1", "1_0", "123456789012345678901234567890"]
_NUMBERS += [sign + "9" * digits + tail for sign in ("", "-") for digits in (4299, 4300, 4301) for tail in ("", ".0")]
_STRINGS = [r"\ud800", r"\udc00", r"\uD83D\uDE00", r"\ud83dx", r"\udc00\ud800", r"\\ud800", r"\u0000", r"\x41", r"\u12"]
_STRINGS += ["\x00", "\x1f", "\x7f", "\u2028", r"\/", "\\", r"\"", '"', "\ud800", "\udfff", "\ufeff"]
_DEEP = [
    opening * depth + core + closing * depth
    for opening, closing in (("[", "]"), ('{"a":', "}"))
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 1_100)
    for core in ("", "0")
]
_WORDS = ["null", "true", "nul", "{}", "[]", "[1,]", '{"a":1,}', "{1:2}", "'a'", "/**/1", ""]
_AROUND = ["", "", "", " ", "\n\t\r", "\ufeff", "\x0c", "\xa0", "x", ","]
_JUNK = [b'"', b"\\", b"[", b"}", b",", b"\\ud800", b"9", b"e9"]


def valid_json_texts(values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[str]:
    """JSON texts, compact or indented, in ASCII or not.

    Parameters:
        values: what is written; None: any JSON value.
    """
    values = json_values() if values is None else values
    return st.builds(json.dumps, values, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))


def nearly_json_texts(texts: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[str]:
    """Texts that look like JSON, most of which are not: damaged ones, and arrays of what is JSON and what is not.

    Parameters:
        texts: the texts that are damaged; None: any JSON text.
    """
    valid = valid_json_texts() if texts is None else texts
    arrays = st.lists(_fragments(valid), max_size=6).map(lambda parts: f"[{','.join(parts)}]")
    around = st.sampled_from(_AROUND)
    assembled = st.tuples(around, arrays, around).map("".join)
    return _damaged(valid) | assembled | _fragments(valid)


def json_texts() -> st.SearchStrategy[str]:
    """Texts of all kinds: any text, JSON, and nearly JSON."""
    return st.text() | valid_json_texts() | nearly_json_texts()


def _fragments(valid: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.sampled_from([*_NUMBERS, *_WORDS])
        | st.sampled_from(_STRINGS).map(lambda inner: f'"{inner}"')
        | st.sampled_from(_STRINGS).map(lambda inner: f'{{"{inner}":1}}')
        | st.sampled_from(_DEEP)
        | valid
    )


@st.composite
def _damaged(draw: st.DrawFn, valid: st.SearchStrategy[str]) -> str:
    """Valid texts with some of their bytes changed, cut out or put in, as far as UTF-8 survives that."""
    data = bytearray(draw(valid).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        junk = draw(st.binary(max_size=2) | st.sampled_from(_JUNK))
        data[at : at + draw(st.integers(0, 2))] = junk
    return data.decode(errors="ignore")


class Text(str):
    """A str that is not one."""

    __slots__ = ()


class Number(int):
    """An int that is not one."""


class Mapping(dict[str, Any]):
    """A dict that is not one."""


def cycle() -> list[Any]:
    """Return a list that contains itself."""
    endless: list[Any] = []
    endless.append({"again": [endless]})
    return endless


def nested(depth: int) -> Any:
    """Return an integer in so many lists and dicts."""
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


UNSENDABLE: list[Any] = [
    *((), (1, 2), {1}, frozenset(), b"", b"x", bytearray(), object(), 1j, range(3), int, ...),
    *({1: 2}, {None: 1}, {True: 1}, {1.5: 1}, {b"k": 1}, {("a",): 1}, {Text("k"): 1}),
    *(float("nan"), float("inf"), float("-inf"), "\ud800", "a\udfff", {"\ud800": 1}, "\ud83d\ude00"),
    *(Text("x"), Number(1), Mapping(), Mapping(a=1), cycle(), nested(MAX_DEPTH + 1)),
]
"""Values that are no payload, whatever is around them."""


def unsendable_payloads() -> st.SearchStrategy[Any]:
    """Values that no push can send, in lists and objects: each raises `SerializationError` before a ref is taken.

    Tuples, sets, bytes inside of JSON, keys that are no strings, NaN and infinities, lone surrogates, subclasses of
    str, int and dict, cycles, and absurd nesting.
    """
    # By index and in a list, as some of the values have no repr of their own, and bytes alone could be sent.
    bad = st.integers(0, len(UNSENDABLE) - 1).map(lambda index: [UNSENDABLE[index]])
    return st.recursive(
        bad, lambda inner: st.lists(inner, min_size=1, max_size=2) | inner.map(lambda value: {"k": value}), max_leaves=3
    )


def exactly(value: Any) -> Any:
    """Return something that is equal only for values of the same types, the sign of a zero and all."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [exactly(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else 0
    return type(value), value, sign
