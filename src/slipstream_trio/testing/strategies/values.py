"""Topics, events, refs, statuses, and payloads: JSON values and bytes."""

from typing import Any

from hypothesis import strategies as st

from ...protocol.message import HEARTBEAT, PHOENIX, RESERVED_EVENTS

LONGEST_NAME = 255  # the most bytes of a topic, an event or a ref in a binary frame


def _text() -> st.SearchStrategy[str]:
    """Text that is UTF-8 (no lone surrogates), and short enough for a binary frame."""
    return st.text(st.characters(codec="utf-8"), max_size=8)


def topics() -> st.SearchStrategy[str]:
    """Topics, plain ones first; also empty, long and non-ASCII ones. All of them fit a binary frame."""
    odd = ["", ":", "room:", "räume:☃", "room:😀", "x" * LONGEST_NAME, "\x00", PHOENIX, "room:*"]
    return st.sampled_from(["room:lobby", "room:1", "a", "a:b:c"]) | st.sampled_from(odd) | _text()


def events(*, reserved: bool = False) -> st.SearchStrategy[str]:
    """Names of events, plain ones first; also empty, long and non-ASCII ones.

    Parameters:
        reserved: whether "phx_reply", "phx_close" and the other reserved names are among them. An
            application can broadcast such an event; a client cannot push it.
    """
    unreserved = _text().map(lambda event: f"_{event}" if event in RESERVED_EVENTS else event)
    odd = st.sampled_from(["", "ä", "☃", "e" * LONGEST_NAME, HEARTBEAT, "phx_", "phx_unknown"])
    plain = st.sampled_from(["new_msg", "tick", "presence_state", "presence_diff"]) | odd | unreserved
    return plain | st.sampled_from(sorted(RESERVED_EVENTS)) if reserved else plain


def refs() -> st.SearchStrategy[str]:
    """Refs as clients make them: decimal strings from "1" on; most are low, so that they meet those in use."""
    return (st.integers(1, 9) | st.integers(1, 2**63)).map(str)


def statuses() -> st.SearchStrategy[str]:
    """Statuses of replies: "ok" and "error" mostly, but any string may be one."""
    return st.sampled_from(["ok", "ok", "error", "error", "", "OK", "later"]) | _text()


def json_scalars() -> st.SearchStrategy[Any]:
    """JSON values without parts: null, booleans, numbers (large integers too) and text."""
    numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    return st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"))


def json_values() -> st.SearchStrategy[Any]:
    """JSON values of all kinds, nested a few levels deep: every payload that both codecs accept."""
    keys = st.text(st.characters(codec="utf-8"))

    def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)

    return st.recursive(json_scalars(), nest, max_leaves=8)


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
