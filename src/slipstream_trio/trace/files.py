"""Files: those of a recording, written, rotated and left readable whatever happens; and those of exports."""

import errno
import gzip
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, pairwise, takewhile
from os import PathLike
from pathlib import Path
from typing import IO, Literal, TextIO

Fsync = Literal["never", "close", "always"]
"""When what was written is forced onto the disk: never, when a file is closed, or with every batch of lines."""


class Files:
    """The file that is written to, and those before it: `path.1`, the latest, to `path.<keep>`.

    Each batch of lines is written at once. With gzip (if the name ends in .gz), each is a member of its own, so that a
    file which was cut off can be read up to its last whole batch.
    """

    def __init__(self, path: str | PathLike[str], *, keep: int, fsync: Fsync) -> None:
        self.path: Path = Path(path)
        self._keep = keep
        self._fsync = fsync
        self._header = b""
        self._file: int | None = None
        self._size = 0

    def open(self, header: bytes) -> None:
        """Begin a file with its first line, and move on one that is there; where that fails, `write` tries again."""
        self._header = header
        self.close()
        if not self.path.is_symlink() and self.path.is_file() and self.path.stat().st_size:
            files = [self.path, *(_numbered(self.path, number) for number in range(1, self._keep + 1))]
            for newer, older in reversed([*pairwise(files)]):
                if newer.exists():
                    newer.replace(older)
        self._file = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._size = 0
        self.write(header)

    def write(self, lines: bytes | bytearray) -> None:
        """Write lines, all or none; raises an `OSError` where that cannot be done."""
        if self._file is None:
            self.open(self._header)
        assert self._file is not None
        rest = memoryview(gzip.compress(lines, 6, mtime=0) if self.path.suffix == ".gz" else lines)
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if self._fsync == "always":
                os.fsync(self._file)
        except OSError:  # what was written of them is removed, so that what follows can be read
            os.ftruncate(self._file, self._size)
            if self._size:
                os.lseek(self._file, self._size, os.SEEK_SET)
            else:
                # Without its header nothing in it could be read: it is begun again, and an empty file is not moved on.
                os.close(self._file)
                self._file = None
            raise
        self._size = size

    def close(self) -> None:
        """Close the file, if one is open; raises an `OSError` where it is not forced onto the disk, or not closed."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._fsync != "never":
                os.fsync(file)
        finally:
            os.close(file)


def open_private(path: str | PathLike[str], flags: int) -> int:
    """Open a file, which nobody else can read then, and no link or device; returns its descriptor: an opener."""
    refused = OSError(errno.EINVAL, "a link, or something else than a file, is there", os.fspath(path))
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise refused
    # Without waiting: a FIFO that nobody reads would hold up the program. Not every system has all of these.
    for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
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
    older = takewhile(Path.exists, (_numbered(newest, number) for number in count(1)))
    return [newest, *older][::-1]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


@contextmanager
def written(path: str | PathLike[str] | TextIO, *, mode: int = 0o666) -> Iterator[TextIO]:
    """Write a text file for the time of a block; one whose name ends in `.gz` is compressed.

    The file gets its name once it is whole: a failure leaves the previous file. A device or a pipe is written to as it
    is; a link stays, and an open file stays open. Of the permissions, `mode`, the process's mask takes some.
    """
    if not isinstance(path, str | PathLike):
        yield path
        return
    target = Path(path).resolve()
    special = target.exists() and not target.is_file()
    with target.open("wb") if special else replaced(target, mode=mode) as raw, ExitStack() as stack:
        # A header of gzip has neither a name nor a time here, so that the same export gives the same file.
        zipped = Path(path).suffix == ".gz"
        binary = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0)) if zipped else raw
        yield stack.enter_context(io.TextIOWrapper(binary, encoding="utf-8", newline="\n"))


@contextmanager
def replaced(target: Path, *, mode: int) -> Iterator[IO[bytes]]:
    """Write a file for the time of a block, after which it has its name; a failure leaves the previous file."""
    # With a dot, so that readers of a whole directory pass it over.
    partial = target.with_name(f".{target.name}.part")
    try:
        with open(partial, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as raw:
            yield raw
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
