"""Disks for the recordings of simulated clients: in memory, written when the world says so, and failing as told."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ...trace.files import Files
from ...trace.writer import NewFile, Writer

__all__ = ["Disk"]

_LIMIT: Final = 1 << 18
"""Bytes that may wait."""


class _Blackout(Files):
    """Files on a disk that is full at times; without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(path or Path(os.devnull), keep=1, fsync="never")
        self.full: bool = False
        self._kept = path is not None

    def open(self, header: bytes) -> None:
        if self._kept:
            super().open(header)

    def write(self, lines: Sequence[bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._kept:
            super().write(lines)


class Disk(Writer):
    """Takes the lines of a recording as `Writer` does, without a thread: `flush` writes them.

    Parameters:
        path: the file; None: lines are not kept, but `digest` gets them.
        digest: is given each line.
    """

    def __init__(self, path: Path | None, digest: Callable[[bytes], object]) -> None:
        self._disk = _Blackout(path)
        super().__init__(self._disk, limit=_LIMIT, flush_interval=0.0)
        self.path: Path | None = path
        self._digest = digest

    @property
    def full(self) -> bool:
        """Whether writes fail."""
        return self._disk.full

    @full.setter
    def full(self, full: bool) -> None:
        self._disk.full = full

    def begin(self, header: bytes) -> None:
        """Begin the file."""
        self._disk.open(header)

    def put(self, line: bytes | NewFile) -> None:
        """Let a line be written after those before."""
        if not isinstance(line, NewFile):
            self._digest(line)
        super().put(line)

    def flush(self) -> None:
        """Write what waits."""
        batch, self._queue = self._queue, []
        self.broken = False
        if batch:
            self._write(batch)

    def close(self, last: Callable[[int, int], bytes], timeout: float) -> bool:  # noqa: ARG002 - as of `Writer`
        """Write what waits, and the last line."""
        self.full = False
        self.flush()
        line = last(self.written, self.lost)
        self._digest(line)
        self._attempt(lambda: self._disk.write([line]))
        return self._attempt(self._disk.close)

    def tear(self, share: float) -> None:
        """Cut off a part of the last 4 KiB of a closed file, as a loss of power does."""
        if self.path is not None:
            size = self.path.stat().st_size
            os.truncate(self.path, size - int(min(size, 4096) * share))
