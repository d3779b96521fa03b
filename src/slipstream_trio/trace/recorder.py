"""Recording: telemetry records go into files as they happen, by a thread, so that no event loop waits for a disk."""

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from os import PathLike

from attrs import Factory, define, field

from ..errors import RecordingError
from ..telemetry import HandleStart, Record, Telemetry, default_telemetry
from ..telemetry.secrecy import SECRETS
from .encode import RECORDED, Encoder, records_of
from .files import Files, Fsync
from .redact import Payloads, Redactor
from .schema import end_line, header_line, missing_line

URGENT = 1 << 18  # bytes that are written without waiting for more
RETRY = 1.0  # seconds after which writing is tried again, when it has failed


@define(eq=False)
class Part:
    """Lines of one file, that wait."""

    header: bytes | None = None  # the first line of a file that begins with these; None: they go on in the one before
    data: bytearray = field(factory=bytearray)
    records: int = 0  # how many of the lines are of records
    missing: int = 0  # how many records others say to be missing; if these are lost, that has to be said again


class Writer:
    """Lines on their way into files; all threads may call what is public, and `lock` is held for moments only."""

    def __init__(self, files: Files, *, limit: int, flush_interval: float) -> None:
        self._files = files
        self._limit = limit
        self._flush_interval = flush_interval
        self.lock: threading.RLock = threading.RLock()  # of whoever calls `put`, `begin`, `drop` or `refuses`
        self._changed = threading.Condition(self.lock)
        self._queue = [Part()]
        self._last: Callable[[int, int], bytes] | None = None  # makes the last line; given when it is closed
        self._full = False
        self._why = ""
        self.waiting: int = 0  # bytes that wait
        self.written: int = 0  # records that are written
        self.dropped: int = 0  # records that are not, and will not be
        self.missing: int = 0  # those of them of which no line says so yet; the next `put` begins with it
        self.broken: bool = False  # whether writing has just failed; lines are not taken then
        self.error: Exception | None = None  # the last error of writing, or of what was dropped
        self.thread: threading.Thread = threading.Thread(target=self._run, name="slipstream recording", daemon=True)

    def refuses(self) -> str | None:
        """Return why lines are not taken, if so. Once too many wait, none are until half of them are written."""
        self._full = self.waiting > (self._limit // 2 if self._full else self._limit)
        return "write_failed" if self.broken else "queue_full" if self._full else None

    def put(self, lines: bytes, records: int) -> int:
        """Let lines of so many records be written after those before; returns their size. The caller holds `lock`."""
        part, before = self._queue[-1], self.waiting
        if self.missing:
            part.missing += self.missing
            lines = self._told() + lines
        part.data += lines
        part.records += records
        self.waiting = now = before + len(lines)
        if not before or before < URGENT <= now:
            self._changed.notify()
        return len(lines)

    def drop(self, records: int, why: str, error: Exception | None = None) -> None:
        """Note that so many records are not written. The caller holds `lock`."""
        self.dropped += records
        self.missing += records
        self._why = why
        self.error = error or self.error

    def _told(self) -> bytes:
        """Return the line, if any, that says what is missing."""
        missing, self.missing = self.missing, 0
        return missing_line(missing, self._why) if missing else b""

    def begin(self, header: bytes) -> None:
        """Go on in another file, which begins with this line. The caller holds `lock`."""
        self._queue.append(Part(header))

    def close(self, last: Callable[[int, int], bytes], timeout: float) -> bool:
        """Write the waiting lines, and end the thread; returns whether that was done within `timeout` seconds."""
        with self.lock:
            self._last = last
            self._changed.notify()
        self.thread.join(timeout)
        return not self.thread.is_alive()

    # In the thread

    def _run(self) -> None:
        while parts := self._next():
            while parts and self._write(parts[0]):
                del parts[0]
            if parts:
                self._lose(parts)
                with self.lock:
                    self._changed.wait_for(lambda: self._last, RETRY)
                    self.broken = False
        try:
            with closing(self._files):
                assert self._last is not None  # else it would wait for more
                self._files.write(self._told() + self._last(self.written, self.dropped))
        except OSError as error:
            self.error = error

    def _next(self) -> list[Part]:
        """Wait for lines, and for more of them; returns none at the end."""
        with self.lock:
            self._changed.wait_for(lambda: self._last or self.waiting)
            self._changed.wait_for(lambda: self._last or self.waiting >= URGENT, self._flush_interval)
            parts, self._queue = [part for part in self._queue if part.data or part.header is not None], [Part()]
            return parts

    def _write(self, part: Part) -> bool:
        try:
            if part.header is not None:
                self._files.open(part.header)  # where that fails, the next write opens it
            if part.data:
                self._files.write(part.data)
        except OSError as error:
            self.error = error
            return False
        with self.lock:
            self.waiting -= len(part.data)
            self.written += part.records
        return True

    def _lose(self, parts: list[Part]) -> None:
        """Drop these, and what waits behind them, as it refers to them; of the files that were to begin, the last will.

        Each would be a file of a header alone, and push one out that has records.
        """
        with self.lock:
            parts += self._queue
            self._queue = [Part(next((part.header for part in reversed(parts[1:]) if part.header is not None), None))]
            self.waiting -= sum(len(part.data) for part in parts)
            lost, told = (sum(getattr(part, name) for part in parts) for name in ("records", "missing"))
            if lost or told:
                self.drop(lost, "write_failed")
                self.missing += told
            self.broken = True


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
    queue: int = 16 * 2**20,
    flush_interval: float = 0.2,
    fsync: Fsync = "close",
    close_timeout: float = 10.0,
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
    recording = Recording(writer, telemetry=bus, redactor=Redactor(secrets, payloads), max_size=max_size)
    try:
        files.open(recording.header())
    except OSError as error:
        raise RecordingError(os.fspath(path), f"cannot be written: {error.strerror or error}") from error
    writer.thread.start()
    handler_id = f"recording {id(recording)}"
    bus.attach_many(handler_id, RECORDED, recording.handle, prefix=True)
    try:
        yield recording
    finally:
        bus.detach(handler_id)
        recording.close(close_timeout)
