"""The flight recorder: the latest records of each connection in memory, written out only if it ends badly."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Final

from attrs import define, field

from ..errors import RecordingError
from ..telemetry import ClientConnectStart, Record, Telemetry, default_telemetry
from ..telemetry.secrecy import SECRETS
from .encode import RECORDED, Encoder, records_of
from .files import open_private
from .recorder import Part
from .redact import Payloads, Redactor
from .schema import header_line, missing_line, start_time

CLOSE_TIMEOUT: Final = 10.0
SEGMENTS: Final = 8  # pieces of a ring; the oldest is dropped as a whole, as lines refer to earlier ones of their piece
MOST_WAITING: Final = 64 * 2**20  # bytes that may wait to be written
MOST_ENDED: Final = 256  # connections that have ended and may yet be told something of
GOOD_ENDS: Final = frozenset({"closed_by_client", "disconnected", "reconnect", "cancelled"})


def ended_badly(end: Record) -> bool:
    """Tell whether a connection ended otherwise than because its user wanted it to.

    Parameters:
        end: the record of its connect stop or exception.
    """
    return end.name[-1] == "exception" or end.metadata["termination_reason"] not in GOOD_ENDS


@define
class _Ring:
    """The latest lines of one connection."""

    encoder: Encoder
    size: int
    segments: deque[Part] = field(factory=deque)
    in_all: int = 0
    dropped: int = 0
    left_out: int = 0
    path: Path | None = None

    def add(self, record: Record) -> bytes:
        if not self.segments or len(self.segments[-1].data) >= self.size // SEGMENTS:
            self.encoder.restart()
            self.segments.append(Part())
        try:
            lines = self.encoder.lines(record)
        except Exception:
            self.encoder.restart()  # what it has noted for lines after this one is nowhere
            self.left_out += records_of(record)
            raise
        if self.left_out and lines:
            lines = missing_line(self.left_out, "not_encodable") + lines
            self.left_out = 0
        latest = self.segments[-1]
        latest.data += lines
        latest.records += records_of(record)
        self.in_all += len(lines)
        while self.in_all > self.size and len(self.segments) > 1:
            oldest = self.segments.popleft()
            self.in_all -= len(oldest.data)
            self.dropped += oldest.records
        return lines


@define(eq=False)
class FlightRecorder:
    """Rings of records, one a connection: a telemetry handler.

    Attributes:
        paths: the files, the latest last.
        dropped: the number of connections, or lines after a connection's end, that could not be written.
        error: the last error of writing, or of a function of the user's; or None.
    """

    _directory: Path
    _telemetry: Telemetry
    _redactor: Redactor
    _size: int
    _when: Callable[[Record], bool]
    _keep: int
    paths: list[Path] = field(factory=list, init=False)
    dropped: int = field(default=0, init=False)
    error: Exception | None = field(default=None, init=False)
    _rings: dict[str, _Ring] = field(factory=dict, init=False)
    _ended_last: dict[str, str] = field(factory=dict, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _queue: queue.SimpleQueue[tuple[Path, bytes, bool] | None] = field(factory=queue.SimpleQueue, init=False)
    _waiting: int = field(default=0, init=False)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._write_all, name="slipstream flight recorder", daemon=True)
        self._thread.start()

    def handle(self, record: Record) -> None:
        """Take in a record: it is encoded at once."""
        connection_id = record.origin.connection_id
        if connection_id is None:
            return
        with self._lock:
            if (ring := self._rings.get(connection_id)) is None:
                if record.name[1] != "connection" and record.name != ClientConnectStart.name:
                    return  # it has ended, and well
                # Of the connection that its socket had before, nothing more will come.
                self._rings.pop(self._ended_last.pop(record.origin.socket_id, ""), None)
                ring = self._rings[connection_id] = _Ring(Encoder(self._redactor), self._size)
            try:
                lines = ring.add(record)
                if ring.path is not None:
                    self._put(ring.path, lines)
                elif record.name[1:3] == ("connection", "connect") and record.name[-1] != "start":
                    self._ended(connection_id, ring, record)
            except Exception as error:  # noqa: BLE001 - objects and functions of the user's; no connection's business
                self.error = error
                self.dropped += 1

    def close(self, timeout: float) -> bool:
        """Write the waiting lines; returns whether that was done within `timeout` seconds."""
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _ended(self, connection_id: str, ring: _Ring, end: Record) -> None:
        if not self._when(end):
            del self._rings[connection_id]
            return
        self._ended_last[end.origin.socket_id] = connection_id
        if len(self._ended_last) > MOST_ENDED:
            self._rings.pop(self._ended_last.pop(next(iter(self._ended_last))), None)
        now = self._telemetry.time_ns()
        ring.path = self._directory / f"{start_time(now):%Y%m%dT%H%M%SZ}-{connection_id}.jsonl"
        alive, missing = ([connection_id], [missing_line(ring.dropped, "ring_full")]) if ring.dropped else ([], [])
        header = header_line(self._telemetry.ids.span_id(), 1, now, self._redactor.redacted, alive)
        self._put(ring.path, b"".join([header, *missing, *(each.data for each in ring.segments)]), begins=True)
        ring.segments.clear()

    def _put(self, path: Path, data: bytes, *, begins: bool = False) -> None:
        if self._waiting > MOST_WAITING:
            self.dropped += 1
            return
        self._waiting += len(data)
        self._queue.put((path, data, begins))

    # In the thread

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            path, data, begins = item
            try:
                if begins or path in self.paths:
                    with open(path, "ab", opener=open_private) as file:
                        file.write(data)
                    if path not in self.paths:
                        self.paths.append(path)
                        while len(self.paths) > self._keep:
                            self.paths.pop(0).unlink(missing_ok=True)
                else:  # its beginning could not be written, or is deleted again, and without it nothing can be read
                    self.dropped += 1
            except OSError as error:
                self.error = error
                self.dropped += 1
            with self._lock:
                self._waiting -= len(data)


@contextmanager
def flight_recorder(
    directory: str | PathLike[str],
    *,
    telemetry: Telemetry | None = None,
    when: Callable[[Record], bool] = ended_badly,
    size: int = 2**18,
    keep: int = 100,
    secrets: Collection[str] | None = SECRETS,
    payloads: Payloads = "keep",
) -> Iterator[FlightRecorder]:
    """Keep the latest records of each connection in memory during a `with` block; write out those that end badly.

    A file is named after the time and the connection. What is told of a connection after its end, such as pushes that
    were lost with it, is added to its file until its socket has another one.

    Parameters:
        directory: where files are written; it is made if it is not there.
        telemetry: the bus; None: the process's.
        when: tells of the record of a connection's end whether to write; by default, if it ended otherwise than because
            the user wanted it to.
        size: bytes of lines that are kept of each connection.
        keep: the number of files to keep; the oldest of this block's are deleted.
        secrets: names whose values are hidden; see `record`.
        payloads: their treatment; see `record`.

    Yields:
        The recorder, which lists the files.

    Raises:
        RecordingError: the directory cannot be made or written to.
    """
    bus = telemetry or default_telemetry
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(str(path), f"no directory can be made here: {error.strerror or error}") from error
    if not os.access(path, os.W_OK):
        raise RecordingError(str(path), "the directory cannot be written to")
    redactor = Redactor(secrets, payloads)
    recorder = FlightRecorder(path, telemetry=bus, redactor=redactor, size=size, when=when, keep=keep)
    handler_id = f"flight recorder {id(recorder)}"
    bus.attach_many(handler_id, RECORDED, recorder.handle, prefix=True)
    try:
        yield recorder
    finally:
        bus.detach(handler_id)
        recorder.close(CLOSE_TIMEOUT)
