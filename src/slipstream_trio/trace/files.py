"""The files of a recording: written, rotated, and left readable whatever happens."""

import errno
import gzip
import os
import stat
from os import PathLike
from pathlib import Path
from typing import Literal

__all__ = ["Files", "Fsync", "open_private", "parts"]

Fsync = Literal["never", "close", "always"]
"""When what was written is forced onto the disk: never, when a file is closed, or with every batch of lines."""


class Files:
    """The file that is written to, and those before it: `path.1`, the latest, to `path.<keep>`.

    Each batch of lines is written at once. With gzip, each is a member of its own, so that a file which was cut off can
    be read up to its last whole batch.

    Parameters:
        path: the file; with gzip if its name ends in .gz.
        keep: the number of files to keep before it.
        fsync: when what was written is forced onto the disk.
    """

    def __init__(self, path: str | PathLike[str], *, keep: int, fsync: Fsync) -> None:
        self.path: Path = Path(path)
        self._zipped = self.path.suffix == ".gz"
        self._keep = keep
        self._fsync = fsync
        self._header = b""
        self._file: int | None = None
        self._size = 0

    def open(self, header: bytes) -> None:
        """Begin a file with its first line. One that is there is moved on, and the oldest deleted.

        Raises:
            OSError: that cannot be done; `write` tries again.
        """
        self._header = header
        self.close()
        if not self.path.is_symlink() and self.path.is_file() and self.path.stat().st_size:
            self._move()
        self._file = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._size = 0
        self.write(header)

    def write(self, lines: bytes | bytearray) -> None:
        """Write lines, all or none.

        Raises:
            OSError: that cannot be done.
        """
        if self._file is None:
            self.open(self._header)
        assert self._file is not None
        rest = memoryview(gzip.compress(lines, 6, mtime=0) if self._zipped else lines)
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if self._fsync == "always":
                os.fsync(self._file)
        except OSError:
            self._take_back()
            raise
        self._size = size

    def close(self) -> None:
        """Close the file, if one is open.

        Raises:
            OSError: it could not be forced onto the disk, or closed.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._fsync != "never":
                os.fsync(file)
        finally:
            os.close(file)

    def _take_back(self) -> None:
        """Remove what was written of a batch, so that what follows it can be read."""
        assert self._file is not None
        os.ftruncate(self._file, self._size)
        if self._size:
            os.lseek(self._file, self._size, os.SEEK_SET)
        else:
            # Without its header nothing in it could be read: it is begun again, and an empty file is not moved on.
            os.close(self._file)
            self._file = None

    def _move(self) -> None:
        for number in range(self._keep, 0, -1):
            older = _numbered(self.path, number)
            newer = _numbered(self.path, number - 1) if number > 1 else self.path
            if newer.exists():
                newer.replace(older)


def open_private(path: str | PathLike[str], flags: int) -> int:
    """Open a file, which nobody else can read from then on; returns its descriptor: an opener for `open`.

    Raises:
        OSError: that cannot be done; or there is a link, or something else than a file, which somebody else may have
            put there.
    """
    # Without waiting: a FIFO that nobody reads would hold up the program. Not every system has all of these.
    also = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    refused = OSError(errno.EINVAL, "a link, or something else than a file, is there", os.fspath(path))
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise refused
    for flag in also:
        flags |= getattr(os, flag, 0)
    file = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):  # it has been put there meanwhile
            raise refused
        if hasattr(os, "fchmod"):
            os.fchmod(file, 0o600)
    except BaseException:
        os.close(file)
        raise
    return file


def parts(path: str | PathLike[str]) -> list[Path]:
    """Return the files of a recording that rotation made, the oldest first, `path` last."""
    newest = Path(path)
    found = []
    number = 1
    while (older := _numbered(newest, number)).exists():
        found.append(older)
        number += 1
    return [*reversed(found), newest]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
