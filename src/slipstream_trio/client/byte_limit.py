"""The bytes that wait in all buffers of a socket: at most `buffer_bytes`.

A buffer is bounded by the number of its messages, which says little where they are large, or the channels many. A
message of up to `LIGHT` bytes counts for `CHARGE`, about what it takes in memory, and is not weighed one by one: how
many wait is counted when so many have come that the limit may be reached. Heavier ones count with what their frames
have as well, from when they are put into a buffer until they are taken out.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heapreplace
from typing import Final, NamedTuple, Protocol, final

from ..protocol import Frame, Message

__all__ = ["LIGHT", "ByteLimit", "Heavy", "Weighed"]

LIGHT: Final = 2048
CHARGE: Final = 1024
"""Bytes of the largest frame that is not weighed, and bytes that each of these counts for."""

LEAST_BETWEEN_LOOKS: Final = 1024
"""Messages: where the limit is nearly reached, a look at all buffers for each of them would take long."""


class Heavy(NamedTuple):
    """A message that was weighed, in a buffer.

    Attributes:
        message: the message.
        size: the bytes of its frame.
    """

    message: Message
    size: int


class Weighed(Protocol):
    """A buffer, as its share of the bytes is seen.

    Attributes:
        heavy: the bytes of the heavy messages in it.
    """

    heavy: int

    @property
    def waiting(self) -> int:
        """The number of all messages in it."""
        ...

    def shed(self) -> None:
        """Drop a message that waits, as its policy says."""
        ...


@final
class ByteLimit:
    """The limit of one socket.

    Parameters:
        limit: bytes.
        buffers: returns all buffers of the socket that there are.
    """

    __slots__ = ("_buffers", "_come", "_limit", "_next_look", "_room")

    def __init__(self, limit: int, buffers: Callable[[], Iterable[Weighed]]) -> None:
        self._limit = self._room = limit
        self._buffers = buffers
        self._come = 0  # messages, since the latest look at all buffers
        self._next_look = max(limit // CHARGE, LEAST_BETWEEN_LOOKS)

    def all_light(self, frames: Sequence[Frame]) -> bool:
        """Take note of messages that are put next; tell whether none of them has to be weighed."""
        if self._come >= self._next_look:
            self.look()
        self._come += len(frames)
        return max(map(len, frames)) <= LIGHT

    def make_room(self, size: int) -> None:
        """Let a heavy message of a size be put into a buffer."""
        if self._room - self._come * CHARGE < size:
            self.look(size)
        self._room -= size

    def look(self, wanted: int = 0) -> None:
        """Look how much waits. If it is too much, those who have the most drop messages, until an eighth is free.

        Parameters:
            wanted: the bytes that are to be put next.
        """
        heap = [(-_weight(buffer), number, buffer) for number, buffer in enumerate(self._buffers())]
        total = -sum(entry[0] for entry in heap)
        if total + wanted > self._limit:
            heapify(heap)
            most = self._limit - self._limit // 8 - wanted
            while total > most and heap[0][0] < 0:
                before, number, buffer = heap[0]
                buffer.shed()
                heapreplace(heap, (-_weight(buffer), number, buffer))
                total += before + _weight(buffer)
        self._room = self._limit - total
        self._come, self._next_look = 0, max(self._room // CHARGE, LEAST_BETWEEN_LOOKS)


def _weight(buffer: Weighed) -> int:
    return buffer.heavy + buffer.waiting * CHARGE
