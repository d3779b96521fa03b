"""Topics, events, refs and statuses."""

from hypothesis import strategies as st

from ...protocol.message import HEARTBEAT, PHOENIX, RESERVED_EVENTS

__all__ = ["LONGEST_NAME", "events", "refs", "statuses", "topics"]

LONGEST_NAME = 255
"""The most bytes of a topic, an event or a ref in a binary frame."""

_COMMON_TOPICS = ["room:lobby", "room:1", "a", "a:b:c"]
_ODD_TOPICS = ["", ":", "room:", "räume:☃", "room:😀", "x" * LONGEST_NAME, "\x00", PHOENIX, "room:*"]
_COMMON_EVENTS = ["new_msg", "tick", "presence_state", "presence_diff"]
_ODD_EVENTS = ["", "ä", "☃", "e" * LONGEST_NAME, HEARTBEAT, "phx_", "phx_unknown"]


def _text() -> st.SearchStrategy[str]:
    """Text that is UTF-8 (no lone surrogates), and short enough for a binary frame."""
    return st.text(st.characters(codec="utf-8"), max_size=8)


def topics() -> st.SearchStrategy[str]:
    """Topics, plain ones first; also empty, long and non-ASCII ones. All of them fit a binary frame."""
    return st.sampled_from(_COMMON_TOPICS) | st.sampled_from(_ODD_TOPICS) | _text()


def events(*, reserved: bool = False) -> st.SearchStrategy[str]:
    """Names of events, plain ones first; also empty, long and non-ASCII ones.

    Parameters:
        reserved: whether "phx_reply", "phx_close" and the other reserved names are among them. An
            application can broadcast such an event; a client cannot push it.
    """
    plain = st.sampled_from(_COMMON_EVENTS) | st.sampled_from(_ODD_EVENTS) | _text().map(_unreserved)
    return plain | st.sampled_from(sorted(RESERVED_EVENTS)) if reserved else plain


def _unreserved(event: str) -> str:
    return f"_{event}" if event in RESERVED_EVENTS else event


def refs() -> st.SearchStrategy[str]:
    """Refs as clients make them: decimal strings from "1" on; most are low, so that they meet those in use."""
    return (st.integers(1, 9) | st.integers(1, 2**63)).map(str)


def statuses() -> st.SearchStrategy[str]:
    """Statuses of replies: "ok" and "error" mostly, but any string may be one."""
    return st.sampled_from(["ok", "ok", "error", "error", "", "OK", "later"]) | _text()
