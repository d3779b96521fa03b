"""The queue of frames on their way to the transport, and the one task that writes them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import trio

from ..protocol import Frame, Message
from ..transport import Transport

if TYPE_CHECKING:
    from .push import Pushes

FRAMES: Final = 256
BYTES: Final = 2**20


@final
class Writer:
    """Frames in wire order, and the task that joins those that are queued into one write, while there are any.

    Users wait for room before they put a frame; heartbeats, joins and leaves do not, so it is bounded but for these.
    One frame may be larger than the whole bound.
    """

    def __init__(self, pushes: "Pushes") -> None:
        self.taken: int = 0  # frames, since the beginning; frame n may have been sent if n <= taken
        self.mark_written: float | None = None  # when the frame that was marked last was written
        self._mark: int | None = None
        self._pushes = pushes
        self._frames: list[tuple[Frame, Message | None]] = []
        self._bytes = 0
        self._start: Callable[[], None] | None = None
        self._task: trio.lowlevel.ParkingLot | None = None
        self._drained: trio.Event | None = None
        self._idle = False  # whether the task waits to be woken, or started
        self._looked_at = 0
        self._writing = False
        self._woken = False
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether a user may put a frame."""
        return len(self._frames) < FRAMES and self._bytes < BYTES

    @property
    def number(self) -> int:
        """The number of the frame that was put last."""
        return self.taken + len(self._frames)

    def put(self, frame: Frame, sent: Message | None = None) -> None:
        """Queue a frame; `sent` is its message, if nobody will be told otherwise should it be left over."""
        self._frames.append((frame, sent))
        self._bytes += len(frame)
        self._woken = True
        if self._idle:
            self.wake()

    def mark(self) -> None:
        """Take note of when the frame that was put last is written."""
        self._mark, self.mark_written = self.number, None

    def open(self, start: Callable[[], None]) -> None:
        """Begin to write; `start` starts a task that calls `run`, whenever there is something after a while."""
        self._start, self._idle = start, True
        if self._woken:
            self.wake()

    def wake(self) -> None:
        """Let the task write what there is, even if that is nothing: the transport may have control frames."""
        self._woken = True
        if self._idle:
            self._idle = False
            if self._task is not None:
                self._task.unpark_all()
            elif self._start is not None:
                self._start()

    async def run(self, transport: Transport) -> None:
        """Write what is queued until there was nothing for a while, or `close` is called; raises `TransportEnded`."""
        self._task = trio.lowlevel.ParkingLot()
        try:
            await self._run(transport, self._task)
        finally:
            self._task = None

    async def _run(self, transport: Transport, task: trio.lowlevel.ParkingLot) -> None:
        while True:
            self._writing = False
            if self._drained is not None:
                self._drained.set()
            if not self._woken and not self._closed:
                self._idle = True
                if self.taken > 1:  # after a join alone, many connections are idle
                    await task.park()
            if not self._woken:
                return
            self._woken, self._writing = False, True
            frames = [frame for frame, _ in self._frames]
            self._frames.clear()
            self._bytes = 0
            self.taken += len(frames)
            self._pushes.serve()
            await transport.send(frames)
            if self._mark is not None and self._mark <= self.taken:
                self._mark, self.mark_written = None, trio.current_time()

    def look(self) -> None:
        """Let the task end if it has had nothing to do since the last look."""
        if self._idle and self._looked_at == self.taken and self._task is not None:
            self._task.unpark_all()
        self._looked_at = self.taken

    async def drained(self) -> None:
        """Wait until everything that was put is written."""
        while self._frames or self._writing:
            self._drained = trio.Event()
            await self._drained.wait()

    def close(self) -> None:
        """Take no more: the task ends when it has written what is queued."""
        self._closed = True
        self._idle = False
        if self._task is not None:
            self._task.unpark_all()

    def left_over(self) -> list[Message]:
        """Return the messages of sends that were never written, and forget all frames."""
        sent = [message for _, message in self._frames if message is not None]
        self._frames.clear()
        self._bytes = 0
        return sent
