"""Identifiers of traces, connections, spans and sockets, in the sizes of W3C Trace Context."""

import os
import random
from typing import Protocol

__all__ = ["IdSource", "RandomIds"]

TRACE_BITS = 128
SPAN_BITS = 64


class IdSource(Protocol):
    """Where ids come from. Tests give a deterministic one; an integration may give its tracer's."""

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        ...

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero: for spans, connections and sockets."""
        ...


class RandomIds:
    """Ids from a pseudo-random generator.

    Ids need to be distinct, not secret, and `secrets` costs three times as much a message.

    Parameters:
        seed: for reproducible ids; None seeds from the operating system, in a forked child again.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - see the docstring
        if seed is None:
            os.register_at_fork(after_in_child=self._random.seed)

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        return f"{self._random.getrandbits(TRACE_BITS) or 1:032x}"

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero."""
        return f"{self._random.getrandbits(SPAN_BITS) or 1:016x}"
