"""Files that an export is written to."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TextIO

__all__ = ["written"]


@contextmanager
def written(path: str | PathLike[str]) -> Iterator[TextIO]:
    """Write a text file for the time of a block; one whose name ends in `.gz` is compressed.

    The file has its name once it is whole: what fails on the way leaves what was there before.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as raw:
            if path.suffix == ".gz":
                # Its header has neither a name nor a time, so that the same export gives the same file.
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped, _text(zipped) as text:
                    yield text
            else:
                with _text(raw) as text:
                    yield text
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _text(binary: IO[bytes] | gzip.GzipFile) -> io.TextIOWrapper:
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
