"""Hypothesis strategies for everything that goes over a Phoenix connection, and for connections themselves.

All are functions that return a strategy. They shrink to the plainest values, and discard nothing. Extra: `testing`.
"""

from ...errors.base import lacks

try:
    from . import frames as _frames
    from .frames import *  # noqa: F403 - all that it exports is public, and named there
    from .states import History, histories, inputs, opening_state, options, states
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__ = ["History", "histories", "inputs", "opening_state", "options", "states"]
__all__ += _frames.__all__
