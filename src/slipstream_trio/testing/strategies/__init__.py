"""Hypothesis strategies for everything that goes over a Phoenix connection, and for connections themselves.

All of them are functions that return a strategy. They shrink to the plainest values, and discard nothing. It needs the
extra `testing`.
"""

from ...errors.base import lacks

try:
    import hypothesis as _needed  # noqa: F401
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None
from .frames import bad_frames, frames, good_frames, messages, odd_frames
from .servers import faults, server_scripts
from .states import History, histories, inputs, opening_state, options, states
from .values import binary_payloads, events, json_payloads, json_scalars, json_values, payloads, refs, statuses, topics

__all__ = [
    "History", "bad_frames", "binary_payloads", "events", "faults", "frames", "good_frames", "histories", "inputs",
    "json_payloads", "json_scalars", "json_values", "messages", "odd_frames", "opening_state", "options", "payloads",
    "refs", "server_scripts", "states", "statuses", "topics",
]  # fmt: skip
