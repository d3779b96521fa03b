"""Which files make up a recording, and what is read from them one after the other."""

import os
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path

from attrs import frozen

from .files import parts
from .read import Progress, read_entries
from .schema import Entry, Header, Recorded

__all__ = ["Source", "Told", "sources"]

Told = Callable[[Path, Entry], object]
"""Takes what a recording says beside its records."""


@frozen
class Source:
    """The files of one recording, in order.

    Attributes:
        recording: the recording's id.
        paths: its files, the oldest first.
    """

    recording: str
    paths: tuple[Path, ...]

    def records(
        self, *, told: Told = lambda *_: None, progress: Callable[[Progress], object] | None = None
    ) -> Iterator[Recorded]:
        """Read the records, one by one.

        Parameters:
            told: called with what else is read: headers, damaged lines, and where records are missing.
            progress: called now and then, with the progress in one file.

        Raises:
            RecordingError: a file cannot be read.
        """
        for path in self.paths:
            for entry in read_entries(path, progress=progress):
                if isinstance(entry, Recorded):
                    yield entry
                else:
                    told(path, entry)


def sources(paths: Iterable[str | PathLike[str]]) -> list[Source]:
    """Return the recordings that files belong to, in the order in which they were named.

    Files of one recording are put together, in order. The newest of them, named alone, brings those before it that are
    there.

    Raises:
        RecordingError: a file cannot be read, or is no recording.
    """
    found: dict[str, dict[Path, Header]] = {}
    for path in map(Path, paths):
        header = _header(path)
        files = found.setdefault(header.recording, {})
        files[path] = header
        for older in parts(path)[:-1]:
            # A file of another recording was there before, and was moved on.
            if older not in files and (its := _header(older)).recording == header.recording:
                files[older] = its
    return [Source(recording, _in_order(files)) for recording, files in found.items()]


def _in_order(files: dict[Path, Header]) -> tuple[Path, ...]:
    once = {os.path.realpath(path): path for path in files}
    return tuple(sorted(once.values(), key=lambda path: files[path].part))


def _header(path: Path) -> Header:
    entries = read_entries(path)
    header = next(entries)
    assert isinstance(header, Header)  # `read_entries` raises otherwise
    return header
