"""Outgoing frames, uncompressed: a client masks each with a key of its own (RFC 6455, 5.3).

The libraries do the same, at several times the cost: a message is an event, a generator, and copies.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from .base import Frame

masked: Callable[[bytes, bytes], bytes] | None = None
with suppress(ImportError):
    from websockets.speedups import apply_mask as masked  # in C

__all__ = ["CLOSE", "PONG", "close_frame", "data_frames"]

TEXT: Final = 0x81
BINARY: Final = 0x82
CLOSE: Final = 0x88
PONG: Final = 0x8A
"""First bytes of a frame that is the last (and here the only one) of its message; the rest of it is the opcode."""


def data_frames(messages: Iterable[Frame]) -> list[bytes]:
    """Return a frame for each message."""
    return [
        _frame(TEXT, message.encode()) if isinstance(message, str) else _frame(BINARY, message) for message in messages
    ]


def close_frame(code: int, text: str = "") -> bytes:
    """Return a close frame; the text is cut to its limit of 123 bytes."""
    return _frame(CLOSE, code.to_bytes(2, "big") + text.encode()[:123].decode(errors="ignore").encode())


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 2**16:
        head = bytes((first, 0xFE, size >> 8, size & 0xFF))
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    if masked is not None:
        return head + mask + masked(payload, mask)
    keys = int.from_bytes((mask * (size // 4 + 1))[:size], "little")  # all bytes at once, as one large number
    return head + mask + (int.from_bytes(payload, "little") ^ keys).to_bytes(size, "little")
