"""Following a recording while it is written: across rotation, and from before its file is there."""

import os
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO

from ..errors import RecordingError
from .files import parts
from .read import CHUNK, entries_of
from .schema import Damage, Entry

__all__ = ["follow"]

Identity = tuple[int, int]  # the identity of a file, whatever its name


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
            following = _open_next(newest, None if file is None else _identity(os.fstat(file.fileno())), wait)
            if following is None:
                return
            # The one before is closed only now, so that the next one cannot have its identity.
            if file is not None:
                file.close()
            file = following
            for entry in entries_of(str(newest), _written(file, newest, wait)):
                if not (isinstance(entry, Damage) and entry.last):
                    yield entry
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
            if _identity(os.fstat(file.fileno())) == its:
                return file
            file.close()  # rotated in between
            break
        else:
            if not wait():
                return None


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _identity_of(path: Path) -> Identity | None:
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return None


def _written(file: IO[bytes], newest: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    """Give what a file has, until it is not the one that is written to any more, or the waiting is over."""
    moved = False
    while True:
        if chunk := file.read(CHUNK):
            yield chunk
        elif moved:
            return
        elif _identity_of(newest) != _identity(os.fstat(file.fileno())):
            moved = True  # what was written in between is read once more
        elif not wait():
            return
