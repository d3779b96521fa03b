"""Reading recordings, as streams: whatever their size, little of them is in memory at a time."""

import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import IO, Final

from attrs import frozen

from ..errors import RecordingError
from .decode import Decoder
from .files import parts
from .lines import decode_line
from .schema import Damage, Entry, Header, Recorded

__all__ = ["Progress", "RecordingWarning", "files_of", "read", "read_entries", "read_files", "read_header", "read_line"]

CHUNK: Final = 1 << 18
REPORT_EVERY: Final = 1 << 20
"""Bytes between two reports of progress."""

GZIP: Final = b"\x1f\x8b"


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


def read(
    path: str | PathLike[str],
    *,
    progress: Callable[[Progress], object] | None = None,
    damaged: Callable[[Damage], object] | None = None,
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
    tell = damaged or _warn(str(path))
    for entry in read_entries(path, progress=progress):
        if isinstance(entry, Recorded):
            yield entry
        elif isinstance(entry, Damage) and not entry.last:
            tell(entry)


def read_entries(path: str | PathLike[str], *, progress: Callable[[Progress], object] | None = None) -> Iterator[Entry]:
    """Read all entries of a file of a recording: its records, and the places where some are missing or damaged.

    Parameters:
        path: the file.
        progress: called now and then, and at the end.

    Raises:
        RecordingError: the file cannot be opened, is not a recording, or one of another major version.
    """
    name = os.fspath(path)
    decoder = Decoder(name)
    number = 0
    try:
        with Path(path).open("rb") as file:
            for number, (line, whole) in enumerate(_lines(file, name, progress), 1):
                entry = read_line(decoder, number, line)
                if isinstance(entry, Damage) and not whole:
                    entry = Damage(number, "the recording was cut off here", last=True)
                if number == 1 and not isinstance(entry, Header):
                    raise RecordingError(name, "not a recording: its first line is not a header")
                if entry is not None:
                    yield entry
    except OSError as error:
        raise RecordingError(name, f"it cannot be read: {error.strerror or error}") from error
    if number == 0:
        raise RecordingError(name, "not a recording: it is empty")


def read_files(
    paths: Iterable[Path], *, progress: Callable[[Progress], object] | None = None
) -> Iterator[tuple[Path, Entry]]:
    """Read all entries of files of recordings, one after the other; gives each with its file.

    Parameters:
        paths: the files, as `files_of` found them.
        progress: called now and then, with the progress in one file.

    Raises:
        RecordingError: a file cannot be opened, is not a recording, or one of another major version.
    """
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


def files_of(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """Return the files of recordings, in the order in which they were written.

    Parameters:
        paths: all of them; of a recording that was rotated, the newest alone finds those before it.

    Raises:
        RecordingError: one cannot be opened, is not a recording, or one of another major version.
    """
    found: dict[Path, Header] = {}
    for path in map(Path, paths):
        found[path] = header = read_header(path)
        for older in parts(path)[:-1]:
            if older not in found and (other := read_header(older)).recording == header.recording:
                found[older] = other
    begun: dict[str, datetime] = {}
    for header in found.values():
        begun[header.recording] = min(header.started, begun.get(header.recording, header.started))
    headers = sorted(found.items(), key=lambda item: (begun[item[1].recording], item[1].recording, item[1].part))
    return [path for path, _ in headers]


def read_line(decoder: Decoder, number: int, line: bytes) -> Entry | None:
    """Return the entry of a line; None for a kind of later versions.

    Parameters:
        decoder: the file's.
        number: the line's number, from 1.
        line: without its end.

    Raises:
        RecordingError: it is the header of another schema.
    """
    try:
        value = decode_line(line)
    except (ValueError, RecursionError) as error:
        return Damage(number, f"not JSON: {error}")
    return decoder.decode(number, value)


def _lines(file: IO[bytes], name: str, progress: Callable[[Progress], object] | None) -> Iterator[tuple[bytes, bool]]:
    """Give the lines of a file, and whether each is whole."""
    size = os.fstat(file.fileno()).st_size
    rest: list[bytes] = []
    count = reported = 0
    for chunk in _chunks(file):
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            whole = [b"".join(rest), *others[:-1]]
            rest = [others[-1]]
            for line in whole:
                yield line, True
            count += len(whole)
        if progress is not None and file.tell() - reported >= REPORT_EVERY:
            reported = file.tell()
            progress(Progress(name, reported, size, count))
    last = b"".join(rest)
    if last:
        yield last, False
        count += 1
    if progress is not None:
        progress(Progress(name, size, size, count))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    start = file.read(len(GZIP))
    file.seek(0)
    if start == GZIP:
        yield from _unzipped(file)
        return
    while chunk := file.read(CHUNK):
        yield chunk


def _unzipped(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress members, one after the other; the last may be cut off, and others damaged."""
    inflate = zlib.decompressobj(wbits=31)
    data = b""
    while data or (data := file.read(CHUNK)):
        try:
            out = inflate.decompress(data, CHUNK)
        except zlib.error:
            # Its content is lost, and the line that it was in; the next member is found by its first bytes.
            yield b"\n(damaged)\n"
            data = _next_member(file, data)
            inflate = zlib.decompressobj(wbits=31)
            continue
        if out:
            yield out
        data = inflate.unconsumed_tail
        if inflate.eof:
            data = inflate.unused_data
            inflate = zlib.decompressobj(wbits=31)


def _next_member(file: IO[bytes], data: bytes) -> bytes:
    magic = GZIP + b"\x08"
    data = data[1:]
    while (found := data.find(magic)) < 0:
        chunk = file.read(CHUNK)
        if not chunk:
            return b""
        data = data[-len(magic) :] + chunk
    return data[found:]


def _warn(path: str) -> Callable[[Damage], None]:
    def warn(damage: Damage) -> None:
        warnings.warn(f"{path}: {damage}", RecordingWarning, stacklevel=3)

    return warn
