"""The recordings of a fleet as Parquet: a row for each span and event, in typed columns, a folder for each day."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date, timedelta
from os import PathLike
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from attrs import define, field

from ..errors import ExportError
from ..errors.base import lacks
from ..protocol import FrameReceived, HeartbeatAcknowledged, SendFrame
from ..telemetry import HandleStop
from .files import replaced
from .read import Report, Source, Told, read_files, sources
from .schema import Recorded
from .text import plain, size_of
from .values import FIELDS, plain_text
from .view import describe_handle

__all__ = ["COLUMNS", "export_parquet"]

_TYPES: Final = {
    "string": (
        "name kind direction what socket_id connection_id trace_id span_id topic event ref status outcome reason "
        "ended_by message policy consumer phase hint client callback error_type stacktrace payload response file"
    ),
    "int64": "duration_ns monotonic_ns waited_ns generation code http_status bytes attempt dropped line",
    "double": "now heard received round_trip delay seconds",
    "timestamp": "start_time since until",
    "bool": "sent",
}
COLUMNS: Final[Mapping[str, str]] = {name: kind for kind, names in _TYPES.items() for name in names.split()}
"""The columns and their types; those of "timestamp" are of microseconds, in UTC."""

DAY: Final = 86_400_000_000  # microseconds
ROW: Final = 1 << 11  # the bytes that a row takes, roughly, beside its payloads
ROWS: Final = 1 << 20  # the bytes of rows that are held, and then made into a batch, which takes a fifth of it
HELD: Final = 1 << 22  # the bytes of batches that are held, and then written as a row group: each is remembered
_KINDS: Final = {"stop": "span", "exception": "exception", "start": "unfinished"}
_KEYS: Final = (
    *((name, name) for name in COLUMNS),
    *(("termination_reason", "reason"), ("waited", "waited_ns"), ("attempts", "attempt"), ("kind", "error_type")),
    *(("params", "payload"), ("frame", "payload")),
)
"""Keys of the metadata, and the columns that they are in."""

_REPEATED: Final = [
    *(name for name, kind in COLUMNS.items() if kind in ("string", "bool") and name not in (
        "span_id", "ref", "payload", "response", "message", "reason", "stacktrace",
    )),
    *("generation", "code", "http_status", "attempt"),
]  # fmt: skip
"""Columns whose values come again and again, so that a dictionary of them is smaller."""

Row = dict[str, Any]


def export_parquet(
    paths: Iterable[str | PathLike[str]],
    directory: str | PathLike[str],
    *,
    told: Told = lambda *_: None,
    progress: Report | None = None,
) -> int:
    """Write recordings as Parquet, and return how many rows these are.

    Needs the extra `parquet`. What began on a day is in `day=2026-11-28/part-<recording>.parquet`, a file for each
    recording. The files get their names when all of them are whole, and none is overwritten.

    Parameters:
        paths: the recordings; of one that was rotated, the newest file alone finds those before it.
        directory: where to write; made if it is missing.
        told: called with what else is read: headers, damaged lines, and where records are missing.
        progress: called now and then, with the progress in one file.

    Raises:
        ExportError: a file is there already, or the extra is missing.
        OSError: a file cannot be written.
        RecordingError: a file cannot be read, or is not a recording.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ExportError(lacks("Parquet", error, "parquet")) from None
    time = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(name, time if kind == "timestamp" else kind) for name, kind in COLUMNS.items()])
    count = 0
    with ExitStack() as stack:
        for source in sources(paths):
            name = f"part-{quote(source.recording, safe='')}.parquet"
            parts = _Parts(schema, Path(directory), name, stack)
            for row in _rows(source, told, progress):
                parts.add(row)
                count += 1
            parts.close()
    return count


@define
class _Parts:
    """The files of a recording, one for each day; the stack gives them their names, or removes them."""

    schema: Any
    directory: Path
    name: str
    stack: ExitStack
    files: dict[int, tuple[Any, IO[bytes]]] = field(factory=dict)
    rows: defaultdict[int, list[Row]] = field(factory=lambda: defaultdict(list))
    batches: defaultdict[int, list[Any]] = field(factory=lambda: defaultdict(list))
    held: int = 0

    def add(self, row: Row) -> None:
        """Add a row; it is written when there are enough for a row group."""
        self.rows[row["start_time"] // DAY].append(row)
        self.held += ROW + len(row.get("payload", "")) + len(row.get("response", ""))
        if self.held >= ROWS:
            self._pack()
            if sum(batch.nbytes for batches in self.batches.values() for batch in batches) >= HELD:
                self._write()

    def close(self) -> None:
        self._pack()
        self._write()
        for writer, file in self.files.values():
            writer.close()
            file.close()

    def _pack(self) -> None:
        import pyarrow as pa

        kind = pa.struct(list(self.schema))
        for day, rows in self.rows.items():
            try:
                values = pa.array(rows, kind)
            except UnicodeEncodeError:  # lone surrogates, which Parquet has no place for
                for row in rows:
                    texts = {key: its for key, its in row.items() if isinstance(its, str)}
                    row |= {key: text.encode(errors="replace").decode() for key, text in texts.items()}
                values = pa.array(rows, kind)
            self.batches[day].append(pa.RecordBatch.from_struct_array(values))
        self.rows.clear()
        self.held = 0

    def _write(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        for day, batches in self.batches.items():
            if day not in self.files:
                target = self.directory / f"day={date(1970, 1, 1) + timedelta(days=day)}" / self.name
                if target.exists():
                    raise ExportError(f"{target} is there already: delete it, or name another directory")
                target.parent.mkdir(parents=True, exist_ok=True)
                # Payloads are in it, so its owner alone may read it, as with the recording.
                file = self.stack.enter_context(replaced(target, mode=0o600))
                writer = ParquetWriter(file, self.schema, compression="zstd", use_dictionary=_REPEATED)
                self.files[day] = self.stack.enter_context(writer), file
            self.files[day][0].write_table(pa.Table.from_batches(batches))
        self.batches.clear()


def _rows(source: Source, told: Told, progress: Report | None) -> Iterator[Row]:
    """Give the rows of a recording: of each span when it ends, at last of those that have no end."""
    unfinished: dict[str | None, tuple[Path, Recorded]] = {}
    for path, entry in read_files(source.paths, progress=progress):
        if not isinstance(entry, Recorded):
            told(path, entry)
        elif entry.name[-1] == "start":
            unfinished[entry.span_id] = path, entry
        else:
            unfinished.pop(entry.span_id, None)
            yield _row(path, entry)
    for path, entry in unfinished.values():
        yield _row(path, entry)


def _row(path: Path, record: Recorded) -> Row:
    name, origin = record.name, record.origin
    details = record.details() if record.start is None else {**record.start.details(), **record.details()}
    row = _handled(details) if name == HandleStop.name else _told(details)
    if isinstance(row.get("status"), int):
        row["http_status"] = row.pop("status")
    for key in ("payload", "response"):
        if key in row:
            text = plain_text(row[key])
            row[key] = json.dumps(plain(row[key])) if text is None else text.decode()
    kind = row["kind"] = _KINDS.get(name[-1], "event")
    row["name"] = " ".join(name[1:] if kind == "event" else name[1:-1])
    row["start_time"] = record.system_time // 1000
    row["duration_ns"], row["monotonic_ns"] = record.measurements.get("duration"), record.monotonic_time
    row["socket_id"], row["span_id"] = origin.socket_id, record.span_id
    row["connection_id"], row["trace_id"], row["generation"] = origin.connection_id, origin.trace_id, origin.generation
    row["file"], row["line"] = str(path), record.line
    return row


def _told(details: Mapping[str, Any]) -> Row:
    row: Row = {column: details[key] for key, column in _KEYS if details.get(key) is not None}
    if "raw_message" in details:
        row["what"] = type(details["raw_message"]).__name__
    if "event" not in details:
        row.pop("payload", None)  # of a join, where it is often a credential
    elif isinstance(row.get("event"), tuple):  # the name of an event of telemetry
        row["event"] = " ".join(row["event"])
    return row


def _handled(details: Mapping[str, Any]) -> Row:
    given = details["raw_message"]
    row = describe_handle(details)
    row["ref"] = row.get("ref") or None
    for key in FIELDS.get(type(given), ()):
        if key != "payload":  # of a join, that is not shown
            row[key] = getattr(given, key)
    for event in details["built_events"]:
        if type(event) is HeartbeatAcknowledged:
            row["round_trip"] = event.round_trip
    if type(given) is FrameReceived:
        row["bytes"] = size_of(given.frame) or None
    elif details["return"]:
        row["bytes"] = sum(size_of(sent.frame) for sent in details["return"] if isinstance(sent, SendFrame))
    return row
