"""Bytes on their way: a queue that is bounded in bytes, whose items become due in order."""

from collections import deque
from typing import Generic, TypeVar

import trio

__all__ = ["Transit"]

T = TypeVar("T")


class Transit(Generic[T]):
    """What is under way in one direction. One task puts, one takes.

    Parameters:
        limit: how many bytes may be under way; beyond, who puts waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[T, float, int]] = deque()
        self._size = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, item: T, due: float, size: int = 0) -> None:
        """Put an item that is due at a time, waiting for room."""
        while size and self._size and self._size + size > self._limit:
            await self._changed.park()
        self._items.append((item, due, size))
        self._size += size
        self._changed.unpark_all()

    async def take(self) -> tuple[T, float, int]:
        """Take the next item, its time and its size, which stays under way until `arrived` is called."""
        while not self._items:
            await self._changed.park()
        return self._items.popleft()

    def arrived(self, size: int) -> None:
        """So many bytes have reached the other end."""
        self._size -= size
        self._changed.unpark_all()
