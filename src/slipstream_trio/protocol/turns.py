"""Whose turn it is: a server works off the joins of a socket one at a time, in the order in which they were sent.

`join/3` runs in the server's process for the socket, and while it runs that process answers nothing else. So the time
that a join may take is counted from its turn, which begins when the join before it is answered; and what is answered
shows that everything sent before it was worked off. A join that its sender has given up is still the server's to work
off, and keeps its turn until then.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs
from attrs import frozen

from .mappings import number_of

__all__ = ["Turns", "turns_of"]

CHUNK: Final = 64
"""Joins of a chunk: so many are copied at most when one more is sent, whatever the number of those that wait."""

Join = tuple[int, str]
"""The number of a join's ref, and its topic."""


@frozen(eq=False)
class Turns:
    """The joins that the server has not worked off, in the order in which they were sent; compared by value.

    It is a queue in chunks: `head` from `start` on, then `chunks`, then `tail`, which is never full. A join that is
    sent copies the tail, and one that is worked off is stepped over. Without a join `head` is empty.

    Attributes:
        began: when the turn began, None where that is not known.
        by_timeout: whether it began because the one before it took too long: nothing was heard then.
        late: rejoins that are overdue and have lost their turn to a timeout; also some that are pending no more.
    """

    head: tuple[Join, ...] = ()
    start: int = 0
    chunks: tuple[tuple[Join, ...], ...] = ()
    tail: tuple[Join, ...] = ()
    began: float | None = None
    by_timeout: bool = False
    late: tuple[Join, ...] = ()

    @property
    def first(self) -> int:
        """The number of the join whose turn it is, 0 if there is none."""
        return self.head[self.start][0] if self.head else 0

    @property
    def topic(self) -> str:
        """Its topic; there has to be one."""
        return self.head[self.start][1]

    def __len__(self) -> int:
        return len(self.head) - self.start + CHUNK * len(self.chunks) + len(self.tail)

    def __iter__(self) -> Iterator[Join]:
        yield from self.head[self.start :]
        for chunk in self.chunks:
            yield from chunk
        yield from self.tail

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Turns) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Turns) else False
        return (self.began, self.by_timeout, *self) == (other.began, other.by_timeout, *other)

    def __hash__(self) -> int:
        return hash((self.began, self.by_timeout, *self))

    def added(self, number: int, topic: str) -> "Turns":
        """Return these with a join that was sent now; if it is the only one, its turn is still to be begun."""
        join = (number, topic)
        if not self.head:
            return Turns((join,), late=self.late)
        chunks, tail = self.chunks, (*self.tail, join)
        if len(tail) == CHUNK:
            chunks, tail = (*chunks, tail), ()
        return Turns(self.head, self.start, chunks, tail, self.began, self.by_timeout, self.late)

    def without(self, count: int) -> "Turns":
        """Return these without the first few; the turn of the next is still to be begun."""
        head, start, chunks, tail = self.head, self.start + count, self.chunks, self.tail
        while head and start >= len(head):
            start -= len(head)
            if chunks:
                head, chunks = chunks[0], chunks[1:]
            else:
                head, tail = tail, ()
        return Turns(head, start, chunks, tail, late=self.late)

    def begun(self, now: float, *, by_timeout: bool) -> "Turns":
        """Return these with the turn of the first begun."""
        return Turns(self.head, self.start, self.chunks, self.tail, now, by_timeout, self.late)

    def with_late(self, late: tuple[Join, ...]) -> "Turns":
        """Return these with other joins that are late."""
        return attrs.evolve(self, late=late)


def turns_of(joins: Mapping[str, str], began: float | None, late: Iterable[Join], *, by_timeout: bool) -> Turns:
    """Return the turns of joins, given as ref to topic, in any order."""
    numbers = sorted((number, topic) for ref, topic in joins.items() if (number := number_of(ref)))
    return Turns(tuple(numbers), began=began, by_timeout=by_timeout, late=tuple(sorted(late)))
