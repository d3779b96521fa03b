"""Recording: telemetry records go into files as they happen."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Final

from attrs import Factory, define, field

from ..errors import RecordingError
from ..telemetry import HandleStart, Record, Telemetry, default_telemetry
from ..telemetry.secrecy import SECRETS
from .encode import RECORDED, Encoder, records_of
from .files import Files, Fsync
from .redact import Payloads, Redactor
from .schema import end_line, header_line
from .writer import Writer

QUEUE: Final = 16 * 2**20
FLUSH_INTERVAL: Final = 0.2
CLOSE_TIMEOUT: Final = 10.0


@define(eq=False)
class Recording:
    """A recording in progress: a telemetry handler."""

    _writer: Writer
    _telemetry: Telemetry
    _redactor: Redactor
    _max_size: int | None
    _encoder: Encoder = field(init=False, default=Factory(lambda self: Encoder(self._redactor), takes_self=True))
    _id: str = field(init=False, default=Factory(lambda self: self._telemetry.ids.span_id(), takes_self=True))
    _part: int = field(default=0, init=False)
    _size: int = field(default=0, init=False)

    @property
    def written(self) -> int:
        """The number of records in the files."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """The number of records missing in them."""
        return self._writer.dropped

    @property
    def error(self) -> Exception | None:
        """The last error of writing, or of encoding, or None; `dropped` counts the losses."""
        return self._writer.error

    def header(self) -> bytes:
        """Return the first line of the next file."""
        self._part += 1
        self._size = 0
        self._encoder.restart()
        now = self._telemetry.time_ns()
        return header_line(self._id, self._part, now, self._redactor.redacted, self._encoder.alive)

    def handle(self, record: Record) -> None:
        """Take in a record: it is encoded at once, as its user may change it, and written later."""
        if type(record) is HandleStart:
            return
        writer, encoder, count = self._writer, self._encoder, records_of(record)
        with writer.lock:
            if (why := writer.refuses()) is not None:
                encoder.notice(record)
                writer.drop(count, why)
                return
            if self._max_size is not None and self._size >= self._max_size:
                writer.begin(self.header())
            elif writer.missing:
                encoder.restart()  # what was lost may be what these lines would refer to
            try:
                lines = encoder.lines(record)
            except Exception as error:  # noqa: BLE001 - it is the user's objects that are encoded
                writer.drop(count, "not_encodable", error)
            else:
                self._size += writer.put(lines, count)

    def close(self, timeout: float) -> bool:
        """Write the waiting lines; returns whether that was done within `timeout` seconds."""
        return self._writer.close(lambda written, dropped: end_line(written, dropped, self._encoder.alive), timeout)


@contextmanager
def record(
    path: str | PathLike[str],
    *,
    telemetry: Telemetry | None = None,
    secrets: Collection[str] | None = SECRETS,
    payloads: Payloads = "keep",
    max_size: int | None = None,
    keep: int = 5,
    queue: int = QUEUE,
    flush_interval: float = FLUSH_INTERVAL,
    fsync: Fsync = "close",
    close_timeout: float = CLOSE_TIMEOUT,
) -> Iterator[Recording]:
    """Record all telemetry for the time of a `with` block.

    Records are encoded when they happen, and written by a thread. A connection never waits for the disk, nor fails with
    it: what cannot be written is dropped and counted, and the recording says where it is missing.

    A file that is there already is not overwritten, but moved on to `path.1`, as by rotation.

    Parameters:
        path: the file; with gzip if its name ends in .gz.
        telemetry: the bus; None: the process's.
        secrets: names whose values are hidden, `SECRETS` and more if you like; None hides nothing.
        payloads: "keep", "omit", "size" (its size stands for each), or a function that returns what is to be written in
            place of a payload; the same for the same payload, so that the recording can be replayed.
        max_size: bytes of lines (before compression) after which another file is begun, and this one becomes `path.1`.
        keep: the number of files to keep before the current one.
        queue: bytes that may wait to be written.
        flush_interval: seconds after which a line is written at the latest; so much is lost if the process is killed.
        fsync: "never", "close" or "always": when lines are forced onto the disk, so that they survive a loss of power.
        close_timeout: seconds that leaving the block may take, while what waits is written.

    Yields:
        The recording, which counts.

    Raises:
        RecordingError: the file cannot be opened.
    """
    bus = telemetry or default_telemetry
    files = Files(path, keep=keep, fsync=fsync)
    writer = Writer(files, limit=queue, flush_interval=flush_interval)
    redactor = Redactor(secrets, payloads)
    recording = Recording(writer, telemetry=bus, redactor=redactor, max_size=max_size)
    try:
        files.open(recording.header())
    except OSError as error:
        raise RecordingError(os.fspath(path), f"cannot be written: {error.strerror or error}") from error
    writer.start()
    handler_id = f"recording {id(recording)}"
    bus.attach_many(handler_id, RECORDED, recording.handle, prefix=True)
    try:
        yield recording
    finally:
        bus.detach(handler_id)
        recording.close(close_timeout)
