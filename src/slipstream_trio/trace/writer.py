"""The thread that writes lines, so that the event loop never waits for a disk."""

import threading
import time
from collections.abc import Callable

from attrs import define, field

from .files import Files

URGENT = 1 << 18  # bytes that are written without waiting for more
RETRY = 1.0  # seconds after which writing is tried again, when it has failed


@define(eq=False)
class Part:
    """Lines of one file, that wait.

    Attributes:
        header: the first line of a file that begins with these; None where they go on in the one before.
        data: the lines.
        records: how many of them are of records.
        missing: how many records others say to be missing; if these lines are lost, the recording cannot say so.
    """

    header: bytes | None = None
    data: bytearray = field(factory=bytearray)
    records: int = 0
    missing: int = 0


class Writer:
    """Lines on their way into files.

    All that is public may be called from any thread; `lock` is held for moments only.

    Attributes:
        lock: held by whoever calls `put`, `begin` or `has_room`.
        waiting: bytes that wait.
        written: records that are written.
        lost: records that could not be.
        untold: records that are missing, and of which no line says so: what was lost, and what that would have told of.
        broken: whether writing has just failed; lines are not taken then.
        error: the last error of writing.
    """

    def __init__(self, files: Files, *, limit: int, flush_interval: float) -> None:
        self._files = files
        self._limit = limit
        self._flush_interval = flush_interval
        self.lock: threading.RLock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._queue = [Part()]
        self._closing = False
        self._last: Callable[[int, int], bytes] | None = None
        self._expected = False
        self._catch_up: Callable[[], None] = lambda: None
        self._full = False
        self.waiting: int = 0
        self.written: int = 0
        self.lost: int = 0
        self.untold: int = 0
        self.broken: bool = False
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="slipstream recording", daemon=True)

    def start(self, catch_up: Callable[[], None]) -> None:
        """Start the thread, which calls `catch_up` for the lines that it was told to expect."""
        self._catch_up = catch_up
        self._thread.start()

    def expect(self) -> None:
        """Have the lines written of what waits to be encoded, as soon as those of a `put`. The caller holds `lock`."""
        self._expected = True
        if not self.waiting:
            self._changed.notify()

    def has_room(self) -> bool:
        """Tell whether lines are taken. Once too many wait, none are until half of them are written."""
        if self._full:
            self._full = self.waiting > self._limit // 2
        else:
            self._full = self.waiting > self._limit
        return not self._full and not self.broken

    def put(self, lines: bytes, records: int, missing: int = 0) -> None:
        """Let lines of so many records be written after those before; see `Part.missing`. The caller holds `lock`."""
        part, before = self._queue[-1], self.waiting
        part.data += lines
        part.records += records
        part.missing += missing
        self.waiting = now = before + len(lines)
        if not before or before < URGENT <= now:
            self._changed.notify()

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
                self._rest()
        if self._last is not None:
            last = self._last
            self._attempt(lambda: self._files.write(last(self.written, self.lost)))
        self._attempt(self._files.close)

    def _next(self) -> list[Part]:
        """Wait for lines, and for more of them; returns none at the end."""
        with self.lock:
            while True:
                while not (self.waiting or self._expected or self._closing):
                    self._changed.wait()
                until = time.monotonic() + self._flush_interval
                while not self._closing and self.waiting < URGENT and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._expected:
                    self._expected = False
                    self._catch_up()
                parts, self._queue = [part for part in self._queue if part.data or part.header is not None], [Part()]
                if parts or self._closing:  # else what was expected is dropped, or lost already
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
            lost = sum(part.records for part in parts)
            self.lost += lost
            self.untold += lost + sum(part.missing for part in parts)
            self.broken = True

    def _rest(self) -> None:
        """Wait a little before trying again."""
        with self.lock:
            self._changed.wait_for(lambda: self._closing, RETRY)
            self.broken = False

    def _attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except OSError as error:
            self.error = error
            return False
        return True
