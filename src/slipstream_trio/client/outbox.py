"""The queue between the tasks that send and the one that writes."""

from collections import deque
from typing import Any, Final

import trio

from ..protocol import Frame

__all__ = ["Outbox"]

FRAMES: Final = 256
BYTES: Final = 2**20


class Outbox:
    """Frames on their way to the writer, in wire order.

    Users wait for `room` before they put; heartbeats, leaves and rejoins do not, so it is bounded but for these. One
    frame may be larger than the whole bound.

    Attributes:
        taken: how many frames the writer has taken since the beginning; frame n may have been sent if n <= taken.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[Frame, Any]] = deque()
        self._bytes = 0
        self._users = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()
        self._writing = False
        self._woken = False
        self._closed = False
        self.taken: int = 0

    @property
    def has_room(self) -> bool:
        """Whether a user may put a frame now, without overtaking those who wait."""
        return self._closed or (len(self._frames) < FRAMES and self._bytes < BYTES and not self._users)

    @property
    def number(self) -> int:
        """The number of the frame that was put last."""
        return self.taken + len(self._frames)

    async def room(self) -> None:
        """Wait until it is worth asking again whether there is room."""
        await self._users.park()

    def reconsider(self) -> None:
        """Let those who wait for room ask again: for some of them it may not matter any more."""
        self._users.unpark_all()

    def put(self, frame: Frame, note: Any = None) -> None:
        """Queue a frame. `note` tells whose it is, should it be left over."""
        self._frames.append((frame, note))
        self._bytes += len(frame)
        self.wake()

    def wake(self) -> None:
        """Let the writer take what there is, even if that is nothing: the transport may have something."""
        self._woken = True
        self._writer.unpark_all()

    async def take(self) -> list[Frame] | None:
        """Return all that is queued, when there is something or `wake` was called; None if closed and empty."""
        self._writing = False
        self._drained.unpark_all()
        while not self._woken and not self._closed:
            await self._writer.park()
        if self._closed and not self._frames and not self._woken:
            return None
        self._woken = False
        self._writing = True
        frames = [frame for frame, _ in self._frames]
        self._frames.clear()
        self._bytes = 0
        self.taken += len(frames)
        self._users.unpark_all()
        return frames

    async def drained(self) -> None:
        """Wait until everything that was put is written."""
        while self._frames or self._writing:
            await self._drained.park()

    def close(self) -> None:
        """Take no more: the writer ends when it has written what is queued, and users do not wait for room."""
        self._closed = True
        self._users.unpark_all()
        self._writer.unpark_all()

    def left_over(self) -> list[Any]:
        """Return the notes of the frames that were never taken, and forget them."""
        notes = [note for _, note in self._frames]
        self._frames.clear()
        self._bytes = 0
        return notes
