"""The recordings of a fleet as Parquet: a row for each span and event, in typed columns, a folder for each day."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import date, timedelta
from functools import lru_cache
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

from attrs import define, field

from ..errors import ExportError
from ..protocol import (
    CloseConnection,
    FrameReceived,
    HeartbeatAcknowledged,
    SendFrame,
    TimerTicked,
    TransportClosed,
    TransportFailed,
)
from ..telemetry import EventName
from .export_files import replaced
from .export_spans import size_of
from .handles import describe_handle
from .lines import encode_line
from .plain import plain
from .read import Progress, read_files
from .schema import Recorded
from .source import Source, Told, sources

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch, Schema
    from pyarrow.parquet import ParquetWriter

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

DAY: Final = 86_400_000_000
"""Microseconds."""

ROWS: Final = 1024
"""The most rows to hold as objects."""

TEXT: Final = 1 << 22
"""The most characters of payloads to hold as objects."""

GROUP: Final = 1 << 24
"""The bytes of columns after which they are written, as a row group."""

HANDLED: Final = ("slipstream", "connection", "handle", "stop")

_KINDS: Final = {"stop": "span", "exception": "exception", "start": "unfinished"}
_RENAMED: Final = {
    "waited": "waited_ns",
    "attempts": "attempt",
    "termination_reason": "reason",
    "kind": "error_type",
    "params": "payload",
    "frame": "payload",
}
_PLAIN: Final = tuple(
    (key, _RENAMED.get(key, key))
    for key in (
        *("topic", "event", "ref", "status", "outcome", "reason", "ended_by", "code", "message", "sent", "heard"),
        *("received", "attempt", "dropped", "delay", "seconds", "since", "until", "direction", "policy", "consumer"),
        *("phase", "hint", "client", "callback", "stacktrace", "response", *_RENAMED),
    )
)
"""Keys of the metadata, and the columns that they are in."""

_NOW: Final = ("now",)
_OF_INPUTS: Final[Mapping[type, tuple[str, ...]]] = {
    CloseConnection: ("code", "reason"),
    TimerTicked: ("now", "heard"),
    TransportClosed: ("code", "message", "ended_by", "reason"),
    TransportFailed: ("reason",),
}
"""The fields of inputs that are columns."""

_EMPTY: Final[dict[str, Any]] = dict.fromkeys(COLUMNS)

Row = dict[str, Any]


def export_parquet(
    paths: Iterable[str | PathLike[str]],
    directory: str | PathLike[str],
    *,
    told: Told = lambda *_: None,
    progress: Callable[[Progress], object] | None = None,
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
    count = 0
    schema = _schema()
    with ExitStack() as stack:
        for source in sources(paths):
            parts = _Parts(schema, Path(directory), source.recording, stack)
            for rows in _batches(_rows(source, told, progress)):
                parts.add(rows)
                count += len(rows)
            parts.close()
    return count


def _schema() -> "Schema":
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ExportError(f"Parquet needs an extra: pip install 'slipstream-trio[parquet]' ({error})") from error
    types = {kind: pa.type_for_alias(kind) for kind in _TYPES if kind != "timestamp"}
    types["timestamp"] = pa.timestamp("us", tz="UTC")
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


# Files


@define
class _Part:
    """A file that is written."""

    file: IO[bytes]
    writer: "ParquetWriter"
    batches: "list[RecordBatch]" = field(factory=list)


@define
class _Parts:
    """The files of a recording, one for each day; the stack gives them their names, or removes them."""

    schema: "Schema"
    directory: Path
    recording: str
    stack: ExitStack
    days: dict[int, _Part] = field(factory=dict)
    held: int = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, which are written when there are enough for a row group."""
        for day, group in groupby(rows, key=lambda row: row["start_time"] // DAY):
            if day not in self.days:
                self.days[day] = self._open(day)
            batch = _batch(self.schema, list(group))
            self.days[day].batches.append(batch)
            self.held += batch.nbytes
        if self.held >= GROUP:
            self._write()

    def close(self) -> None:
        """Write the rest, and close the files."""
        self._write()
        for part in self.days.values():
            part.writer.close()
            part.file.close()

    def _open(self, day: int) -> _Part:
        from pyarrow.parquet import ParquetWriter

        folder = self.directory / f"day={date(1970, 1, 1) + timedelta(days=day)}"
        target = folder / f"part-{quote(self.recording, safe='')}.parquet"
        if target.exists():
            raise ExportError(f"{target} is there already: delete it, or name another directory")
        folder.mkdir(parents=True, exist_ok=True)
        self.stack.callback(_remove_empty, folder)
        # Payloads are in it, so its owner alone may read it, as with the recording.
        file = self.stack.enter_context(replaced(target, mode=0o600))
        return _Part(file, self.stack.enter_context(ParquetWriter(file, self.schema, compression="zstd")))

    def _write(self) -> None:
        from pyarrow import Table

        for part in self.days.values():
            if part.batches:
                part.writer.write_table(Table.from_batches(part.batches))
                part.batches.clear()
        self.held = 0


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    text = 0
    for row in rows:
        batch.append(row)
        text += len(row["payload"] or "") + len(row["response"] or "")
        if len(batch) >= ROWS or text >= TEXT:
            yield batch
            batch, text = [], 0
    if batch:
        yield batch


def _batch(schema: "Schema", rows: list[Row]) -> "RecordBatch":
    from pyarrow import RecordBatch

    columns = zip(*map(dict.values, rows), strict=True)
    return RecordBatch.from_arrays(list(map(_array, columns, schema.types)), schema=schema)


def _array(values: Sequence[Any], kind: Any) -> "Array":
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(values) > 1:  # a recording may have surrogates in texts, and texts for numbers
            return pa.concat_arrays([_array([value], kind) for value in values])
        text = str(values[0]).encode(errors="replace").decode()
        return pa.array([text if pa.types.is_string(kind) else None], kind)


# Rows


def _rows(source: Source, told: Told, progress: Callable[[Progress], object] | None) -> Iterator[Row]:
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
    metadata, measurements, origin = record.metadata, record.measurements, record.origin
    row = _EMPTY.copy()
    row["name"], row["kind"] = _named(record.name)
    row["start_time"] = record.system_time // 1000
    row["duration_ns"], row["monotonic_ns"] = measurements.get("duration"), measurements["monotonic_time"]
    row["socket_id"], row["generation"] = origin.socket_id, origin.generation
    row["connection_id"], row["trace_id"] = origin.connection_id, origin.trace_id
    row["span_id"] = metadata.get("span_id")
    row["file"], row["line"] = str(path), record.line
    if record.name == HANDLED:
        _handled(row, metadata)
    else:
        _told(row, metadata)
    for key in ("payload", "response"):
        if row[key] is not None:
            row[key] = _json(row[key])
    return row


@lru_cache(maxsize=256)
def _named(name: EventName) -> tuple[str, str]:
    """Return name and kind; a span's without its last word."""
    kind = _KINDS.get(name[-1], "event")
    return " ".join(name[1:] if kind == "event" else name[1:-1]), kind


def _told(row: Row, metadata: Mapping[str, Any]) -> None:
    for key, column in _PLAIN:
        value = metadata.get(key)
        if value is not None:
            row[column] = value
    if isinstance(row["status"], int):
        row["http_status"], row["status"] = row["status"], None
    if isinstance(row["event"], tuple):  # the name of a telemetry event
        row["event"] = " ".join(row["event"])
    if row["name"] == "client join":
        row["payload"] = None  # often a credential
    if row["name"] == "connection handle":
        row["what"] = type(metadata["raw_message"]).__name__


def _handled(row: Row, metadata: Mapping[str, Any]) -> None:
    given = metadata["raw_message"]
    for key, value in describe_handle(metadata).items():
        if key in _EMPTY and (value != "" or key == "payload"):
            row[key] = value
    for key in _OF_INPUTS.get(type(given), _NOW):
        row[key] = getattr(given, key, None)
    if isinstance(given, FrameReceived):
        row["bytes"] = size_of(given.frame)
        for event in metadata["built_events"]:
            if isinstance(event, HeartbeatAcknowledged):
                row["round_trip"] = event.round_trip
    elif isinstance(given, TransportFailed):
        row["http_status"], row["status"] = given.status, None
    elif metadata["return"]:
        row["bytes"] = sum(size_of(sent.frame) or 0 for sent in metadata["return"] if isinstance(sent, SendFrame))


def _json(value: Any) -> str:
    try:
        if not isinstance(value, bytes):
            return encode_line(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # what JSON does not have, such as a number that is none
    return json.dumps(plain(value))
