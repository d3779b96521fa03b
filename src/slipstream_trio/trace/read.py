"""Reading recordings, as streams: whatever their size, little of them is in memory at a time."""

import os
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from os import PathLike
from pathlib import Path
from typing import IO, Final

from attrs import frozen

from ..errors import RecordingError
from ..telemetry import Record
from .decode import Decoder
from .files import parts
from .schema import Damage, Entry, Header, Recorded

CHUNK: Final = 1 << 18
REPORT_EVERY: Final = 1 << 20  # bytes between two reports of progress
JUMP: Final = 1_000_000_000  # nanoseconds by which two clocks may part before one of them was set, or is another one
LONGEST_HEADER: Final = 1 << 20  # bytes; in what is no recording, its first line may be all of a disk
GZIP: Final = b"\x1f\x8b\x08"
Told = Callable[[Path, Entry], object]  # takes what a recording says beside its records


class RecordingWarning(UserWarning):
    """A line of a recording cannot be read, and `told` was not given."""


@frozen
class Progress:
    """The progress of reading a file.

    Attributes:
        path: the file.
        done: bytes of it that were read.
        size: bytes that it has.
        lines: lines that were read.
    """

    path: str
    done: int
    size: int
    lines: int


Report = Callable[[Progress], object]


def read(
    path: str | PathLike[str], *, progress: Report | None = None, damaged: Callable[[Damage], object] | None = None
) -> Iterator[Recorded]:
    """Read the records of one file of a recording, plain or gzip, one by one.

    A file that was cut off, even within its last line, is read up to there.

    Parameters:
        path: the file.
        progress: called now and then, and at the end.
        damaged: called with each line that cannot be read; without it, each is a `RecordingWarning`. The last line of a
            recording that was cut off is not one.

    Raises:
        RecordingError: the file cannot be opened, is not a recording, or one of another major version.
    """
    for entry in read_entries(path, progress=progress):
        if isinstance(entry, Recorded):
            yield entry
        elif isinstance(entry, Damage) and not entry.last:
            if damaged is None:
                warnings.warn(f"{path}: {entry}", RecordingWarning, stacklevel=2)
            else:
                damaged(entry)


def read_entries(path: str | PathLike[str], *, progress: Report | None = None) -> Iterator[Entry]:
    """Read all entries of a file of a recording: its records, and the places where some are missing or damaged.

    Parameters:
        path: the file.
        progress: called now and then, and at the end.

    Raises:
        RecordingError: the file cannot be opened, is not a recording, or one of another major version.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            size, reported = os.fstat(file.fileno()).st_size, 0

            def tell(lines: int) -> None:
                nonlocal reported
                if progress is not None and file.tell() - reported >= REPORT_EVERY:
                    reported = file.tell()
                    progress(Progress(name, reported, size, lines))

            lines = yield from _entries(name, iter(partial(file.read, CHUNK), b""), tell)
    except OSError as error:
        raise RecordingError(name, f"it cannot be read: {error.strerror or error}") from error
    if not lines:
        raise RecordingError(name, "not a recording: it is empty")
    if progress is not None:
        progress(Progress(name, size, size, lines))


def read_files(paths: Iterable[Path], *, progress: Report | None = None) -> Iterator[tuple[Path, Entry]]:
    """Read all entries of files of recordings, as `files_of` found them, one after the other; each with its file."""
    for path in paths:
        for entry in read_entries(path, progress=progress):
            yield path, entry


def read_header(path: str | PathLike[str]) -> Header:
    """Read the first line of a file of a recording.

    Raises:
        RecordingError: the file cannot be opened, is not a recording, or one of another major version.
    """
    header = next(read_entries(path))
    assert isinstance(header, Header)
    return header


@frozen
class Source:
    """The files of one recording, by its id; the oldest first."""

    recording: str
    paths: tuple[Path, ...]

    def records(self, *, told: Told = lambda *_: None, progress: Report | None = None) -> Iterator[Recorded]:
        """Read the records, one by one; `told` gets what else is read, each with its file."""
        for path, entry in read_files(self.paths, progress=progress):
            if isinstance(entry, Recorded):
                yield entry
            else:
                told(path, entry)


def sources(paths: Iterable[str | PathLike[str]]) -> list[Source]:
    """Return the recordings that files belong to, in the order in which they were begun; see `files_of`."""
    found: dict[Path, Header] = {}
    for path in map(Path, paths):
        if path.is_fifo():
            raise RecordingError(str(path), "a pipe, which cannot be read twice: write it to a file first")
        found[path] = header = read_header(path)
        for older in parts(path)[:-1]:
            if older not in found and (other := read_header(older)).recording == header.recording:
                found[older] = other
    files = defaultdict[str, list[Path]](list)
    for path in sorted(found, key=lambda path: found[path].part):
        files[found[path].recording].append(path)
    ordered = sorted(files.items(), key=lambda its: (min(found[path].started for path in its[1]), its[0]))
    return [Source(recording, tuple(its)) for recording, its in ordered]


def files_of(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """Return the files of recordings, in the order in which they were written.

    Parameters:
        paths: all of them; of a recording that was rotated, the newest alone finds those before it.

    Raises:
        RecordingError: one cannot be opened, is not a recording, or one of another major version.
    """
    return [path for source in sources(paths) for path in source.paths]


def _entries(name: str, chunks: Iterator[bytes], tell: Callable[[int], object]) -> Generator[Entry, None, int]:
    """Give the entries of a file from its bytes, plain or gzip; returns the number of its lines, as `tell` gets it."""
    decode, number = Decoder(name).decode, 0
    for lines, whole in _lines(name, chunks):
        for line in lines:
            number += 1
            entry = decode(number, line)
            if number == 1 and not isinstance(entry, Header):
                raise RecordingError(name, "not a recording: its first line is not a header")
            if not whole and isinstance(entry, Damage):
                entry = Damage(number, "the recording was cut off here", last=True)
            if entry is not None:
                yield entry
        tell(number)
    return number


def _lines(name: str, chunks: Iterator[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Give lines, as many as came at once; last those that have no end."""
    rest, begun = list[bytes](), False
    try:
        for chunk in _unzipped(chunks):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            if others:
                first, rest = b"".join(rest), [others.pop()]
                yield [first, *others], True
                begun = True
            elif not begun and sum(map(len, rest)) > LONGEST_HEADER:
                break
    except zlib.error as error:
        raise RecordingError(name, f"not a recording: it cannot be unpacked: {error}") from error
    if last := b"".join(rest):
        yield [last], False


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress members, one after the other; the last may be cut off, and those after the first damaged."""
    data = next(chunks, b"")
    if not data.startswith(GZIP[:2]):
        yield data
        yield from chunks
        return
    inflate, begun = zlib.decompressobj(wbits=31), False
    while data or (data := next(chunks, b"")):
        try:
            out = inflate.decompress(data, CHUNK)
        except zlib.error:
            if not begun:
                raise
            # Its content is lost, and the line that it was in; the next member is found by its first bytes.
            yield b"\n(damaged)\n"
            data = data[1:]
            while (found := data.find(GZIP)) < 0 and (chunk := next(chunks, b"")):
                data = data[-len(GZIP) :] + chunk
            data = data[found:] if found >= 0 else b""
            inflate = zlib.decompressobj(wbits=31)
            continue
        if out:
            begun = True
            yield out
        data = inflate.unconsumed_tail
        if inflate.eof:
            data, inflate = inflate.unused_data, zlib.decompressobj(wbits=31)


# Following a recording while it is written: across rotation, and from before its file is there


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
        with ExitStack() as opened:
            while True:
                while (following := _after(file, newest)) is None:
                    if not wait():
                        return
                # The one before is closed only now, so that the next one cannot have its identity.
                opened.close()
                file = opened.enter_context(following)
                for entry in _entries(str(newest), _written(file, newest, wait), lambda _: None):
                    if not (isinstance(entry, Damage) and entry.last):
                        yield entry
    except OSError as error:
        raise RecordingError(str(newest), f"it cannot be read: {error.strerror or error}") from error


def _after(file: IO[bytes] | None, newest: Path) -> IO[bytes] | None:
    """Open the file that was written after one, or the newest; returns None where there is none."""
    following: IO[bytes] | None = None
    # From the newest on, as rotation moves files on: one may be met twice then, but none is passed over.
    for at in count():
        files = [newest] if file is None else parts(newest)[::-1]
        if at >= len(files) or (file is not None and _is_at(files[at], file)):
            break
        with suppress(FileNotFoundError):
            found = files[at].open("rb")
            if following is not None:
                following.close()
            following = found
    return following


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _written(file: IO[bytes], newest: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    """Give what a file has, until it is not the one that is written to any more, or the waiting is over."""
    moved = False
    while True:
        if chunk := file.read(CHUNK):
            yield chunk
        elif moved:
            return
        elif not _is_at(newest, file):
            moved = True  # what was written in between is read once more
        elif not wait():
            return


class WallClock:
    """Tells when the records of one recording happened: on the wall's clock, in the order of the monotonic one.

    Monotonic times begin anywhere, and system times are set back and forth. So monotonic times are shifted by what the
    first record says, and anew where the clocks have parted by a second, but never back: what comes is not earlier.
    """

    def __init__(self) -> None:
        self._shift: int | None = None
        self._back = 0  # by how much the system's clock was set back
        self._latest = (0, 0)

    def at(self, record: Record) -> int:
        """Return when a record was emitted, in nanoseconds since the epoch."""
        measurements, shift = record.measurements, self._shift
        monotonic_time: int = measurements["monotonic_time"]
        system_time = measurements.get("system_time")  # an end has none, and its start has told
        if system_time is None and shift is None:
            start: Record = record.start  # type: ignore[attr-defined] # it is the end of a span
            system_time = start.measurements["system_time"] + measurements["duration"]
        if system_time is not None:
            parted = 0 if shift is None else monotonic_time + shift - system_time - self._back
            if parted > JUMP and system_time < self._latest[0] and monotonic_time >= self._latest[1]:
                self._back += parted
            elif shift is None or abs(parted) > JUMP:
                self._shift = shift = system_time + self._back - monotonic_time
            self._latest = system_time, monotonic_time
        assert shift is not None
        return monotonic_time + shift
