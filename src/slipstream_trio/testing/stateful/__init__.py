"""State machines over the pure core, for Hypothesis to run: the invariants of a connection always hold.

A user's subclass adds the rules of an application's own protocol. It needs the extra `testing`.
"""

from ...errors.base import lacks

try:
    from .core_connection import CoreConnection
    from .machine import ConnectionMachine, ServerModel
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__ = ["ConnectionMachine", "CoreConnection", "ServerModel"]
