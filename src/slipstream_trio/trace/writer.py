"""The thread that writes lines, so that the event loop never waits for a disk."""

import threading
import time
from collections.abc import Callable

from attrs import frozen

from .files import Files

__all__ = ["LossReport", "NewFile", "Writer"]

URGENT = 1 << 18  # bytes that are written without waiting for more
RETRY = 1.0  # seconds after which writing is tried again, when it has failed


@frozen
class NewFile:
    """Go on in another file, which begins with this line."""

    header: bytes


class LossReport(bytes):
    """A line that says how many records are missing, and the line of the record after them.

    Attributes:
        missing: their number; if these lines are lost, the recording cannot say so.
    """

    missing: int = 0


class Writer:
    """Lines on their way into files.

    All that is public may be called from any thread; `lock` is held for moments only.

    Attributes:
        lock: held by whoever calls `put` or `has_room`.
        waiting: bytes that wait.
        written: lines that are written.
        lost: lines that could not be.
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
        self._queue: list[bytes | NewFile] = []
        self._closing = False
        self._last: Callable[[int, int], bytes] | None = None
        self._full = False
        self.waiting: int = 0
        self.written: int = 0
        self.lost: int = 0
        self.untold: int = 0
        self.broken: bool = False
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="slipstream recording", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def has_room(self) -> bool:
        """Tell whether lines are taken. Once too many wait, none are until half of them are written."""
        if self._full:
            self._full = self.waiting > self._limit // 2
        else:
            self._full = self.waiting > self._limit
        return not self._full and not self.broken

    def put(self, line: bytes | NewFile) -> None:
        """Let a line be written after those before; a `NewFile` is not counted. The caller holds `lock`."""
        if not self._queue:
            self._changed.notify()
        self._queue.append(line)
        if type(line) is not NewFile:
            before = self.waiting
            self.waiting = before + len(line)  # type: ignore[arg-type]
            if before < URGENT <= self.waiting:
                self._changed.notify()

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
        while (batch := self._next()) is not None:
            if not self._write(batch):
                self._rest()
        if self._last is not None:
            last = self._last
            self._attempt(lambda: self._files.write([last(self.written, self.lost)]))
        self._attempt(self._files.close)

    def _next(self) -> list[bytes | NewFile] | None:
        """Wait for lines; returns None at the end."""
        with self.lock:
            while not self._queue and not self._closing:
                self._changed.wait()
            until = time.monotonic() + self._flush_interval
            while not self._closing and self.waiting < URGENT and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            batch, self._queue = self._queue, []
            return batch or None

    def _write(self, batch: list[bytes | NewFile]) -> bool:
        """Write lines, file by file; when that fails, those that follow are lost too, as they refer to those before."""
        start = 0
        for end, item in enumerate(batch):
            if isinstance(item, NewFile):
                header = item.header
                if not self._flush(batch[start:end]):
                    return self._lose(batch[end:])
                if not self._attempt(lambda: self._files.open(header)):  # noqa: B023
                    return self._lose(batch[end + 1 :])  # the next write opens it
                start = end + 1
        return self._flush(batch[start:]) or self._lose([])

    def _flush(self, items: list[bytes | NewFile]) -> bool:
        lines = [item for item in items if not isinstance(item, NewFile)]
        if not lines:
            return True
        if not self._attempt(lambda: self._files.write(lines)):
            return self._lose(items)
        with self.lock:
            self.waiting -= sum(map(len, lines))
            self.written += len(lines)
        return True

    def _lose(self, items: list[bytes | NewFile]) -> bool:
        """Drop these, and what waits behind them; of the files that were to begin, the last one will."""
        with self.lock:
            dropped = (*items, *self._queue)
            lines = [item for item in dropped if not isinstance(item, NewFile)]
            # Each would be a file of a header alone, and push one out that has records.
            self._queue = [*[item for item in dropped if isinstance(item, NewFile)][-1:]]
            self.waiting -= sum(map(len, lines))
            self.lost += len(lines)
            self.untold += len(lines) + sum(line.missing for line in lines if isinstance(line, LossReport))
            self.broken = True
        return False

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
