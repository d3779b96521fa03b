"""The thread that writes lines, so that the event loop never waits for a disk."""

import threading
import time
from collections.abc import Callable

from attrs import define, field

from .files import Files
from .schema import missing_line

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
    """Lines on their way into files.

    All that is public may be called from any thread; `lock` is held for moments only.
    """

    def __init__(self, files: Files, *, limit: int, flush_interval: float) -> None:
        self._files = files
        self._limit = limit
        self._flush_interval = flush_interval
        self.lock: threading.RLock = threading.RLock()  # of whoever calls `put`, `begin`, `drop` or `refuses`
        self._changed = threading.Condition(self.lock)
        self._queue = [Part()]
        self._closing = False
        self._last: Callable[[int, int], bytes] | None = None
        self._full = False
        self._why = ""
        self.waiting: int = 0  # bytes that wait
        self.written: int = 0  # records that are written
        self.dropped: int = 0  # records that are not, and will not be
        self.missing: int = 0  # those of them of which no line says so yet; the next `put` begins with it
        self.broken: bool = False  # whether writing has just failed; lines are not taken then
        self.error: Exception | None = None  # the last error of writing, or of what was dropped
        self._thread = threading.Thread(target=self._run, name="slipstream recording", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

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
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # In the thread

    def _run(self) -> None:
        while parts := self._next():
            while parts and self._write(parts[0]):
                del parts[0]
            if parts:
                self._lose(parts)
                with self.lock:
                    self._changed.wait_for(lambda: self._closing, RETRY)
                    self.broken = False
        if self._last is not None:
            last = self._last
            self._attempt(lambda: self._files.write(self._told() + last(self.written, self.dropped)))
        self._attempt(self._files.close)

    def _next(self) -> list[Part]:
        """Wait for lines, and for more of them; returns none at the end."""
        with self.lock:
            while not (self.waiting or self._closing):
                self._changed.wait()
            until = time.monotonic() + self._flush_interval
            while not self._closing and self.waiting < URGENT and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            parts, self._queue = [part for part in self._queue if part.data or part.header is not None], [Part()]
            return parts

    def _write(self, part: Part) -> bool:
        header = part.header
        if header is not None and not self._attempt(lambda: self._files.open(header)):
            return False  # the next write opens it
        if part.data and not self._attempt(lambda: self._files.write(part.data)):
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

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except OSError as error:
            self.error = error
            return False
        return True
