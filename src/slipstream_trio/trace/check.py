"""Checks of recordings: broken invariants, unreadable lines, missing records, and their places."""

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Final, Literal

from attrs import frozen

from .read import Report, files_of, read_files
from .schema import Damage, End, Entry, Header, Recorded
from .verify import Verifier, Violation

WHY: Final[Mapping[str, str]] = {
    "queue_full": "they came faster than they were written",
    "write_failed": "they could not be written",
    "not_encodable": "they could not be encoded",
    "ring_full": "the flight recorder keeps the latest only",
    "began_before": "the connection was open when the recording began",
}

Kind = Literal["violation", "damaged", "missing", "unfinished"]


@frozen
class Flaw:
    """A result of checking a recording.

    Attributes:
        path: the file.
        line: the number of the line, from 1.
        kind: "violation" of an invariant; "damaged": the line cannot be read, or lines are gone that nobody knows of;
            "missing": records that the recorder knows to be missing; "unfinished": a connection that had not ended when
            the recording did.
        connection_id: the connection that it is about, None where that cannot be told.
        invariant: the number of the invariant that is broken, None for other kinds.
        problem: the fault, in a sentence.
    """

    path: str
    line: int
    kind: Kind
    connection_id: str | None
    invariant: int | None
    problem: str

    @property
    def wrong(self) -> bool:
        """Whether it is a fault, rather than unfinished or known to be missing."""
        return self.kind in ("violation", "damaged")

    def __str__(self) -> str:
        what = self.kind if self.invariant is None else f"invariant {self.invariant}"
        whose = "" if self.connection_id is None else f"connection {self.connection_id}: "
        return f"{self.path}:{self.line}: {what}: {whose}{self.problem}"


class Checker:
    """Checks recordings entry by entry.

    Attributes:
        records: the number of records read.
        missing: the number that the recorder reports as missing.
        connections: the number of connections.
    """

    def __init__(self) -> None:
        self._path, self._line = "", 0
        self.records: int = 0
        self.missing: int = 0
        self.connections: int = 0
        self._begin("", 0)

    def _begin(self, recording: str, part: int) -> None:
        self._verifier = Verifier()
        self._recording, self._part = recording, part
        self._whole = part == 1
        self._end: End | None = None

    def feed(self, path: str, entry: Entry) -> list[Flaw]:
        """Check the next line, of files in their order; returns its findings."""
        if isinstance(entry, Header):
            return self._header(path, entry)
        self._path, self._line = path, entry.line
        if isinstance(entry, Recorded):
            self.records += 1
            return list(map(self._violation, self._verifier.feed(entry)))
        if isinstance(entry, End):
            self._end = entry
            read = self._verifier.records
            if read == entry.records or not self._whole:
                return []
            problem = f"{entry.records:,} records were written, and {read:,} were read: lines are gone, or came in"
            return [self._flaw("damaged", problem)]
        if isinstance(entry, Damage):
            self._whole = False
            if entry.last:
                return [self._flaw("unfinished", entry.problem)]
            flaw = self._flaw("damaged", entry.problem, entry.connection_id)
        else:
            self.missing += entry.records or 0
            many = "records" if entry.records is None else f"{entry.records:,} records"
            problem = f"{many} are missing before this: {WHY.get(entry.reason, entry.reason)}"
            flaw = self._flaw("missing", problem, entry.connection_id)
        self._verifier.missed(entry.connection_id)
        return [flaw]

    def check(self, paths: Iterable[Path], *, progress: Report | None = None) -> Iterator[Flaw]:
        """Check files in their order; gives findings as they are made."""
        for path, entry in read_files(paths, progress=progress):
            yield from self.feed(str(path), entry)
        yield from self.finish()

    def finish(self) -> list[Flaw]:
        """Check that all connections have ended; returns findings for the others."""
        flaws = [
            self._flaw("unfinished", "it had not ended here", violation.connection_id)
            if self._end is None or violation.connection_id in self._end.open
            else self._violation(violation)
            for violation in self._verifier.finish()
        ]
        self.connections += self._verifier.connections
        self._begin("", 0)
        return list(dict.fromkeys(flaws))

    def _header(self, path: str, header: Header) -> list[Flaw]:
        flaws, gone = [], ""
        if header.recording != self._recording:
            flaws = self.finish()
            self._begin(header.recording, header.part)
            for connection_id in header.open:
                self._verifier.missed(connection_id)
            gone = "what was recorded before is not here" if header.part > 1 else ""
        elif header.part != self._part + 1:
            self._verifier.missed()
            self._whole = False
            gone = f"it follows part {self._part}"
        self._path, self._line, self._part = path, header.line, header.part
        return [*flaws, self._flaw("missing", f"this is part {header.part}: {gone}")] if gone else flaws

    def _violation(self, its: Violation) -> Flaw:
        return self._flaw("violation", its.problem, its.connection_id, its.invariant)

    def _flaw(self, kind: Kind, problem: str, connection_id: str | None = None, invariant: int | None = None) -> Flaw:
        return Flaw(self._path, self._line, kind, connection_id, invariant, problem)


def check(paths: Iterable[str | PathLike[str]], *, progress: Report | None = None) -> Iterator[Flaw]:
    """Check recordings; gives findings as they are made.

    Parameters:
        paths: their files; of a recording that was rotated, the newest alone finds those before it.
        progress: called now and then.

    Raises:
        RecordingError: a file cannot be opened, is not a recording, or one of another major version.
    """
    yield from Checker().check(files_of(paths), progress=progress)
