"""Hypothesis strategies for everything that goes over a Phoenix connection, and for connections themselves.

All of them are functions that return a strategy. They shrink to the plainest values, and discard nothing. It needs the
extra `testing`.
"""

from ...errors.base import lacks

try:
    from .faults import fault_rules, faults, links, moments
    from .frames import bad_frames, frames, good_frames, messages, odd_frames
    from .names import events, refs, statuses, topics
    from .payloads import binary_payloads, json_payloads, json_scalars, json_values, payloads
    from .server_scripts import acts, server_scripts
    from .states import History, close_codes, histories, inputs, opening_state, options, states
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__ = [
    "History",
    "acts",
    "bad_frames",
    "binary_payloads",
    "close_codes",
    "events",
    "fault_rules",
    "faults",
    "frames",
    "good_frames",
    "histories",
    "inputs",
    "json_payloads",
    "json_scalars",
    "json_values",
    "links",
    "messages",
    "moments",
    "odd_frames",
    "opening_state",
    "options",
    "payloads",
    "refs",
    "server_scripts",
    "states",
    "statuses",
    "topics",
]
