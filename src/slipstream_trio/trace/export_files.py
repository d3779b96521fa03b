"""Files that an export is written to."""

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TextIO

__all__ = ["replaced", "written"]


@contextmanager
def written(path: str | PathLike[str] | TextIO, *, mode: int = 0o666) -> Iterator[TextIO]:
    """Write a text file for the time of a block; one whose name ends in `.gz` is compressed.

    The file gets its name once it is whole: a failure leaves the previous file. Other outputs, such
    as a device or a pipe, is written to as it is; a link stays, and what it points to is written.

    Parameters:
        path: the file; one that is open is written to, and stays open.
        mode: its permissions; the process's mask applies.

    Raises:
        OSError: it cannot be written.
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
    """Write a file for the time of a block, after which it has its name; a failure leaves the previous file.

    Until then its name begins with a dot, so that readers of a whole directory pass it over.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        with open(partial, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as raw:
            yield raw
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
