"""Identifiers of traces, connections, spans and sockets, in the sizes of W3C Trace Context."""

import os
import random
from typing import Final, Protocol

__all__ = ["IdSource", "RandomIds"]

BLOCK: Final = 256  # the number of span ids made at a time
ZERO: Final = "0" * 16
ONE: Final = f"{1:016x}"


class IdSource(Protocol):
    """A source of ids. Tests use a deterministic one; an integration may use its tracer's."""

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        ...

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero: for spans, connections and sockets."""
        ...


class RandomIds:
    """Random ids, made many at a time, as making one alone costs more than a message's other records.

    Parameters:
        seed: for reproducible ids; None takes them from the operating system, so that the next one cannot be guessed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - reproducible
        self._span_ids: list[str] = _AHEAD if seed is None else []

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        return f"{self._random.getrandbits(128) or 1:032x}"

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero."""
        while True:
            try:
                return self._span_ids.pop()
            except IndexError:
                ids = self._random.getrandbits(BLOCK * 64).to_bytes(BLOCK * 8, "big").hex(" ", 8).split()
                self._span_ids.extend([ONE if each == ZERO else each for each in ids] if ZERO in ids else ids)


_AHEAD: Final[list[str]] = []
"""Span ids made ahead, of all sources that the operating system feeds: a child process makes ids of its own."""

if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=_AHEAD.clear)
