"""Bounded queues: of frames to write to a client, and of bytes to handle."""

from collections import deque
from collections.abc import Callable

import trio

# Bytes to write, or a function that makes them in their turn: a compressor must see frames in the wire's order.
Item = bytes | Callable[[], bytes]


class Gauge:
    """Counts bytes; tasks can wait until there are fewer than the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size: int = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        """Whether `wait_room` would wait."""
        return self.size >= self.limit

    def remove(self, size: int) -> None:
        """Count fewer bytes."""
        self.size -= size
        if not self.full:
            self._waiting.unpark_all()

    async def wait_room(self) -> None:
        """Wait until there are fewer bytes than the limit; does not pass the scheduler where there are."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.full:
            await self._waiting.park()


class Outbox:
    """The frames to write to one client, in order; its gauge counts their bytes, with the write under way."""

    def __init__(self, limit: int) -> None:
        self.gauge: Gauge = Gauge(limit)
        self._ready: deque[tuple[Item, int]] = deque()
        self._held: list[tuple[Item, int]] | None = None
        self._closed = False
        self._filled = trio.lowlevel.ParkingLot()

    def put(self, item: Item, size: int, *, ahead: bool = False) -> None:
        """Queue an item of about `size` bytes, `ahead` of those held; drop it after `close`: nothing follows that."""
        if self._closed:
            return
        self.gauge.size += size
        if self._held is not None and not ahead:
            self._held.append((item, size))
            return
        self._ready.append((item, size))
        if self._filled:
            self._filled.unpark_all()

    def hold(self) -> None:
        """Hold the items put from now on until `release`."""
        self._held = self._held or []

    def release(self) -> None:
        """Queue the held items."""
        self._ready += self._held or ()
        self._held = None
        self._filled.unpark_all()

    def close(self) -> None:
        """Accept nothing more; queued items can still be taken."""
        self.release()
        self._closed = True

    async def take(self) -> tuple[bytes, int] | None:
        """Wait for something to write; return one write's worth, and what its gauge counts; None at the end."""
        while not self._ready:
            if self._closed:
                return None
            await self._filled.park()
        chunks: list[bytes] = []
        size = counted = 0
        while self._ready and size < 262_144:
            item, weight = self._ready.popleft()
            chunks.append(item if isinstance(item, bytes) else item())
            size += len(chunks[-1])
            counted += weight
        return b"".join(chunks), counted
