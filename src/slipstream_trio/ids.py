"""Identifiers of traces, connections, spans and sockets, in the sizes of W3C Trace Context."""

import os
import random
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["IdSource", "RandomIds"]

TRACE_BITS: Final = 128
SPAN_BITS: Final = 64
DIGITS: Final = SPAN_BITS // 4

BLOCK: Final = 256
"""How many ids of spans are made at a time."""

ZERO: Final = "0" * DIGITS
ONE: Final = f"{1:0{DIGITS}x}"


class IdSource(Protocol):
    """Where ids come from. Tests give a deterministic one; an integration may give its tracer's."""

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        ...

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero: for spans, connections and sockets."""
        ...


class RandomIds:
    """Random ids, made many at a time: one alone takes longer than all else that is written down of a message.

    Parameters:
        seed: for reproducible ids; None takes them from the operating system, so that nobody can guess the next one.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - reproducible
        self._span_ids: list[str] = []
        if seed is None:
            _UNPREDICTABLE.add(self)

    def forget(self) -> None:
        """Make the next ids anew."""
        self._span_ids.clear()

    def trace_id(self) -> str:
        """Return 32 lowercase hex digits, not all zero."""
        return f"{self._random.getrandbits(TRACE_BITS) or 1:032x}"

    def span_id(self) -> str:
        """Return 16 lowercase hex digits, not all zero."""
        while True:
            try:
                return self._span_ids.pop()
            except IndexError:
                data = self._random.getrandbits(BLOCK * SPAN_BITS).to_bytes(BLOCK * DIGITS // 2, "big")
                ids = data.hex(" ", DIGITS // 2).split()
                self._span_ids.extend([ONE if each == ZERO else each for each in ids] if ZERO in ids else ids)


_UNPREDICTABLE: Final[WeakSet[RandomIds]] = WeakSet()


def _forget_all() -> None:
    """Let a child process make ids of its own; one hook for all sources, as a hook is never given back."""
    for source in list(_UNPREDICTABLE):
        source.forget()


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=_forget_all)
