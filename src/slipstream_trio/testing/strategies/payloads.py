"""Payloads: JSON values, bytes, and what can be neither sent nor received."""

from typing import Any

from hypothesis import strategies as st

from ...protocol import MAX_DEPTH

__all__ = ["binary_payloads", "json_payloads", "json_scalars", "json_values", "payloads", "unsendable_payloads"]


def json_scalars() -> st.SearchStrategy[Any]:
    """JSON values without parts: null, booleans, numbers (large integers too) and text."""
    return (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8"))
    )


def json_values() -> st.SearchStrategy[Any]:
    """JSON values of all kinds, nested a few levels deep: all that a payload may be, and both codecs take."""
    keys = st.text(st.characters(codec="utf-8"))
    return st.recursive(
        json_scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


def json_payloads() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects, as most applications push; an empty one is the simplest."""
    keys = st.sampled_from(["body", "n", "user"]) | st.text(st.characters(codec="utf-8"), max_size=8)
    return st.dictionaries(keys, json_values(), max_size=4)


def binary_payloads(max_size: int = 300) -> st.SearchStrategy[bytes]:
    """Payloads of binary frames.

    Parameters:
        max_size: the most bytes of one.
    """
    return st.binary(max_size=max_size)


def payloads() -> st.SearchStrategy[Any]:
    """All that can be pushed with vsn 2.0.0: JSON objects mostly, any other JSON value, and bytes."""
    return json_payloads() | json_values() | binary_payloads()


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


def unsendable() -> list[Any]:
    """Return values that are no payload, whatever is around them."""
    return [
        *((), (1, 2), {1}, frozenset(), b"", b"x", bytearray(), object(), 1j, range(3), int, ...),
        *({1: 2}, {None: 1}, {True: 1}, {1.5: 1}, {b"k": 1}, {("a",): 1}, {Text("k"): 1}),
        *(float("nan"), float("inf"), float("-inf"), "\ud800", "a\udfff", {"\ud800": 1}, "\ud83d\ude00"),
        *(Text("x"), Number(1), Mapping(), Mapping(a=1), cycle(), nested(MAX_DEPTH + 1)),
    ]


def unsendable_payloads() -> st.SearchStrategy[Any]:
    """Values that no push can send, in lists and objects: each raises `SerializationError` before a ref is taken.

    Tuples, sets, bytes inside of JSON, keys that are no strings, NaN and infinities, lone surrogates, subclasses of
    str, int and dict, cycles, and absurd nesting.
    """
    # By index and in a list, as some of the values have no repr of their own, and bytes alone could be sent.
    values = unsendable()
    bad = st.integers(0, len(values) - 1).map(lambda index: [values[index]])
    return st.recursive(
        bad, lambda inner: st.lists(inner, min_size=1, max_size=2) | inner.map(lambda value: {"k": value}), max_leaves=3
    )
