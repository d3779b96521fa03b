"""Following a recording while it is written: across rotation, and from before its file is there."""

import os
import zlib
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Final

from ..errors import RecordingError
from .decode import Decoder
from .files import parts
from .read import read_line
from .schema import Entry, Header

__all__ = ["follow"]

CHUNK: Final = 1 << 18
GZIP: Final = b"\x1f\x8b"

Identity = tuple[int, int]
"""The identity of a file, whatever its name."""


def follow(path: str | PathLike[str], *, wait: Callable[[], bool]) -> Iterator[Entry]:
    """Read a recording, and go on with the lines added to it.

    Begins with the file as it is now, or when it appears. When it is rotated, the rest of it is read and then the
    files after it; a new recording at the same path is followed too.

    Parameters:
        path: the file that is written to.
        wait: called when there is nothing more to read, to wait a while; False ends it.

    Raises:
        RecordingError: the file cannot be read, or is not a recording.
    """
    newest = Path(path)
    file: IO[bytes] | None = None
    try:
        while True:
            following = _open_next(newest, None if file is None else _identity(file), wait)
            if following is None:
                return
            # The one before is closed only now, so that the next one cannot have its identity.
            if file is not None:
                file.close()
            file = following
            yield from _entries(file, newest, wait)
    except OSError as error:
        raise RecordingError(str(newest), f"it cannot be read: {error.strerror or error}") from error
    finally:
        if file is not None:
            file.close()


def _open_next(newest: Path, identity: Identity | None, wait: Callable[[], bool]) -> IO[bytes] | None:
    """Open the file after the one of this identity, when there is one; None when the waiting is over."""
    while True:
        files = parts(newest)
        known = [_identity_of(path) for path in files]
        after = known.index(identity) + 1 if identity in known else 0
        for path, its in list(zip(files, known, strict=True))[-1 if identity is None else after :]:
            if its is None:
                continue
            try:
                file = path.open("rb")
            except FileNotFoundError:
                break
            if _identity(file) == its:
                return file
            file.close()  # rotated in between
            break
        else:
            if not wait():
                return None


def _identity(file: IO[bytes]) -> Identity:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _identity_of(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _entries(file: IO[bytes], newest: Path, wait: Callable[[], bool]) -> Iterator[Entry]:
    """Read a file until it is not the one that is written to any more, or the waiting is over."""
    decoder = Decoder(str(newest))
    rest = b""
    number = 0
    for chunk in _chunks(file, newest, wait):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            entry = read_line(decoder, number, line)
            if number == 1 and not isinstance(entry, Header):
                raise RecordingError(str(newest), "not a recording: its first line is not a header")
            if entry is not None:
                yield entry


def _chunks(file: IO[bytes], newest: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    inflate = None
    for number, chunk in enumerate(_written(file, newest, wait)):
        if number == 0 and chunk.startswith(GZIP):
            inflate = zlib.decompressobj(wbits=31)
        if inflate is None:
            yield chunk
            continue
        data = chunk
        while data:
            try:
                yield inflate.decompress(data)
            except zlib.error as error:
                raise RecordingError(str(newest), f"it cannot be unpacked: {error}") from error
            data = inflate.unused_data
            if inflate.eof:
                inflate = zlib.decompressobj(wbits=31)


def _written(file: IO[bytes], newest: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    moved = False
    while True:
        chunk = file.read(CHUNK)
        if chunk:
            yield chunk
        elif moved:
            return
        elif _identity_of(newest) != _identity(file):
            moved = True  # what was written in between is read once more
        elif not wait():
            return
