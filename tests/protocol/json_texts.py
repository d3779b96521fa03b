"""Hypothesis strategies for JSON values, JSON texts, and texts that are nearly JSON."""

import json
import math
from typing import Any

from hypothesis import strategies as st

from slipstream_trio.protocol import MAX_DEPTH

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)
"""What both codecs take."""

topics = st.sampled_from(["room", "phoenix", "a:b", ""]) | st.text(max_size=5)
refs = st.none() | st.sampled_from(["1", "2", "10"])
messages = st.tuples(refs, refs, topics, st.sampled_from(["ev", "phx_reply", "phx_close"]) | topics, values)


def _written(value: Any, *, ascii_only: bool, indented: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, indent=1 if indented else None)


valid_texts = st.builds(_written, values | messages, ascii_only=st.booleans(), indented=st.booleans())

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
fragments = (
    st.sampled_from([*_NUMBERS, "null", "true", "nul", "{}", "[]", "[1,]", '{"a":1,}', "{1:2}", "'a'", "/**/1", ""])
    | st.sampled_from(_STRINGS).map(lambda inner: f'"{inner}"')
    | st.sampled_from(_STRINGS).map(lambda inner: f'{{"{inner}":1}}')
    | st.sampled_from(_DEEP)
    | valid_texts
)


def _assembled(parts: list[str], before: str, after: str) -> str:
    return f"{before}[{','.join(parts)}]{after}"


_AROUND = st.sampled_from(["", "", "", " ", "\n\t\r", "\ufeff", "\x0c", "\xa0", "x", ","])
assembled_texts = st.builds(_assembled, st.lists(fragments, max_size=6), _AROUND, _AROUND)
"""Arrays of what is and what is not JSON."""


@st.composite
def mutated_texts(draw: st.DrawFn) -> str:
    """Valid texts with some of their bytes changed, cut out or put in, as far as UTF-8 survives that."""
    data = bytearray(draw(valid_texts).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        junk = draw(st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"[", b"}", b",", b"\\ud800", b"9", b"e9"]))
        data[at : at + draw(st.integers(0, 2))] = junk
    return data.decode(errors="ignore")


texts = st.text() | valid_texts | mutated_texts() | assembled_texts | fragments


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
unsendable = st.integers(0, len(UNSENDABLE) - 1).map(lambda index: UNSENDABLE[index])  # some have no repr


def exactly(value: Any) -> Any:
    """Return something that is equal only for values of the same types, the sign of a zero and all."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [exactly(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else 0
    return type(value), value, sign
