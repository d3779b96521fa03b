"""Payloads: JSON values and bytes."""

from typing import Any

from hypothesis import strategies as st

__all__ = ["binary_payloads", "json_payloads", "json_scalars", "json_values", "payloads"]


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
    """JSON values of all kinds, nested a few levels deep: every payload that both codecs accept."""
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


def binary_payloads() -> st.SearchStrategy[bytes]:
    """Payloads of binary frames."""
    return st.binary(max_size=300)


def payloads() -> st.SearchStrategy[Any]:
    """Payloads for vsn 2.0.0: JSON objects mostly, any other JSON value, and bytes."""
    return json_payloads() | json_values() | binary_payloads()
