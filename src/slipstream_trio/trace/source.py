"""The files of a recording, and their entries one after the other."""

from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path

from attrs import frozen

from .read import Progress, files_of, read_files, read_header
from .schema import Entry, Recorded

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
        for path, entry in read_files(self.paths, progress=progress):
            if isinstance(entry, Recorded):
                yield entry
            else:
                told(path, entry)


def sources(paths: Iterable[str | PathLike[str]]) -> list[Source]:
    """Return the recordings that files belong to, each with its files in order.

    Parameters:
        paths: files of them; of a recording that was rotated, the newest alone finds those before it.

    Raises:
        RecordingError: a file cannot be read, or is not a recording.
    """
    found: dict[str, list[Path]] = {}
    for path in files_of(paths):
        found.setdefault(read_header(path).recording, []).append(path)
    return [Source(recording, tuple(files)) for recording, files in found.items()]
