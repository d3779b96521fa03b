"""Whose turn it is: a server works off the joins of a socket one at a time, in the order in which they were sent.

`join/3` runs in the server's process for the socket, and while it runs that process answers nothing else. So the time
that a join may take is counted from its turn, which begins when the join before it is answered; and what is answered
shows that everything sent before it was worked off. A join that its sender has given up is still the server's to work
off, and keeps its turn until then.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
from attrs import frozen

from .mappings import NO_ITEMS, first_of, queue_of

__all__ = ["Join", "Turns", "turns_of"]

Join = tuple[int, str]
"""The number of a join's ref, and its topic."""


@frozen
class Turns:
    """The joins that the server has not worked off, in the order in which they were sent.

    Attributes:
        queue: the joins, in a persistent queue: one more copies nothing, however many wait.
        began: when the turn began, None where that is not known.
        by_timeout: whether it began because the one before it took too long: nothing was heard then.
        late: rejoins that are overdue and have lost their turn to a timeout; also some that are pending no more.
    """

    queue: Any = NO_ITEMS
    began: float | None = None
    by_timeout: bool = False
    late: tuple[Join, ...] = attrs.field(default=(), eq=False)

    @property
    def first(self) -> int:
        """The number of the join whose turn it is, 0 if there is none."""
        return first_of(self.queue)[0] if self.queue else 0

    @property
    def topic(self) -> str:
        """Its topic; there has to be one."""
        topic: str = first_of(self.queue)[1]
        return topic

    def __len__(self) -> int:
        return len(self.queue)

    def __iter__(self) -> Iterator[Join]:
        return iter(self.queue)

    def added(self, number: int, topic: str) -> "Turns":
        """Return these with a join that was sent now; if it is the only one, its turn is still to be begun."""
        return Turns(self.queue.enqueue((number, topic)), self.began, self.by_timeout, self.late)

    def without_first(self) -> "Turns":
        """Return these without the first; the turn of the next is still to be begun."""
        return Turns(self.queue.dequeue(), late=self.late)

    def begun(self, now: float, *, by_timeout: bool) -> "Turns":
        """Return these with the turn of the first begun."""
        return Turns(self.queue, now, by_timeout, self.late)

    def with_late(self, late: tuple[Join, ...]) -> "Turns":
        """Return these with other joins that are late."""
        return attrs.evolve(self, late=late)

    def __reduce__(self) -> tuple[Callable[..., "Turns"], tuple[Any, ...]]:
        # A persistent queue cannot be copied and pickled.
        return turns_of, (list(self), self.began, self.by_timeout, self.late)


def turns_of(joins: Iterable[Join], began: float | None, by_timeout: bool, late: Iterable[Join]) -> Turns:  # noqa: FBT001 - for copies
    """Return the turns of joins, given in any order."""
    return Turns(queue_of(sorted(joins)), began, by_timeout, tuple(sorted(late)))
