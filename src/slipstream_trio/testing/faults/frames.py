"""Counts the WebSocket frames in a stream of bytes: where each begins, and how long it is."""

import re
from typing import Final

from attrs import frozen

__all__ = ["FrameCounter", "SeenFrame"]

_HEAD_END: Final = b"\r\n\r\n"
_UPGRADE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*websocket", re.IGNORECASE)
_LONGEST_HEAD: Final = 65_536
_LONGEST_STATUS: Final = 12
_LONGEST_HEADER: Final = 14


@frozen
class SeenFrame:
    """A frame whose header is whole: its number, from 1, its first byte, and its length, header included."""

    number: int
    start: int
    length: int


class FrameCounter:
    """Follows one direction of a connection from its upgrade on; `blind` unless it is a plain WebSocket."""

    def __init__(self) -> None:
        self.blind: bool = False
        self._status = b""
        self._head: bytes | None = b""
        self._header = b""
        self._payload = 0
        self._position = 0
        self._number = 0

    def feed(self, data: bytes) -> tuple[list[SeenFrame], int]:
        """Return the frames whose headers are whole now, and the number of last bytes of an incomplete one."""
        seen: list[SeenFrame] = []
        rest = b"" if self.blind else self._skip_head(data)
        if self.blind:
            return seen, 0
        rest, self._header = self._header + rest, b""
        at = 0
        while True:
            skipped = min(self._payload, len(rest) - at)
            self._payload -= skipped
            self._position += skipped
            at += skipped
            if self._payload or at == len(rest):
                return seen, 0
            size = _frame_size(rest[at : at + _LONGEST_HEADER])
            if size is None:
                self._header = rest[at:]
                return seen, len(self._header)
            header, self._payload = size
            self._number += 1
            seen.append(SeenFrame(self._number, self._position, header + self._payload))
            self._position += header
            at += header

    def _skip_head(self, data: bytes) -> bytes:
        """Follow the HTTP head; returns the bytes behind it."""
        if self._head is None:
            return data
        if data and len(self._status) < _LONGEST_STATUS:
            self._status = (self._status + data)[:_LONGEST_STATUS]
            refused = self._status.startswith(b"HTTP/") and not b"HTTP/1.1 101".startswith(self._status)
            self.blind = refused or not self._status[:1].isalpha()
        joined = self._head + data
        end = joined.find(_HEAD_END, max(0, len(self._head) - len(_HEAD_END)), _LONGEST_HEAD)
        if end < 0:
            self._head = joined
            self.blind = self.blind or len(joined) > _LONGEST_HEAD
            self._position += len(data)
            return b""
        self.blind = self.blind or not _UPGRADE.search(joined, 0, end)
        rest = joined[end + len(_HEAD_END) :]
        self._head = None
        self._position += len(data) - len(rest)
        return rest


def _frame_size(data: bytes) -> tuple[int, int] | None:
    """Return the sizes of the header and of the payload of a frame, or None if its header is not whole."""
    if len(data) < 2:
        return None
    size = data[1] & 0x7F
    extended = {126: 2, 127: 8}.get(size, 0)
    header = 2 + extended + (4 if data[1] & 0x80 else 0)
    if len(data) < header:
        return None
    return header, int.from_bytes(data[2 : 2 + extended]) if extended else size
