"""The topics of a connection, and the turns of their joins.

Every change costs the share of one topic, however many there are. So their deadlines are in a heap that is never
changed in place, and the earliest is known without a scan. It is a leftist heap (C. A. Crane, 1972), by weight (S. Cho
and S. Sahni, 1998): every node is at least as early as those below it, and of the two heaps below a node the left one
has at least as many entries. So the right edge of n entries is at most log2(n + 1) long, and merging follows right
edges only. Whatever is not on them is shared between the heap before and the heap after.

Entries are not taken out when they are settled: whoever asks for the earliest drops those that mean nothing any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs
from attrs import frozen
from rpds import HashTrieMap, Queue

if TYPE_CHECKING:
    PersistentMap = HashTrieMap
else:
    PersistentMap = Mapping  # the class itself cannot be subscripted when annotations are read at run time

NOTHING: Final[Any] = HashTrieMap()  # a persistent map that has nothing in it, of any types


def queue_of(items: Iterable[Any]) -> Any:
    """Return a persistent queue of items; it is of any type, as rpds's stubs differ from what it does."""
    # The first removal turns a queue over, a step for each item: here, once, rather than for each state made from one.
    whole: Any = Queue((None, *items))
    return whole.dequeue()


NO_ITEMS: Final = queue_of(())  # a persistent queue that has nothing in it

# Returns the first item of a queue that has one: `peek` is a method in some versions of rpds, in others the item.
first_of: Final[Callable[[Any], Any]] = (methodcaller if callable(queue_of((0,)).peek) else attrgetter)("peek")

Rejoin = Literal["first", "again", "overdue"]
"""A join of the library's: "again", if one before it failed on this connection; "overdue", if it has passed its limit,
and its answer still counts."""

Entry: TypeAlias = tuple[float, int, str]  # a deadline, the number of the ref that it is about, and the topic

# The number of entries, the earliest of them (of two at the same time, the one with the lower number), and what is
# below. Plain tuples: one is made for every step of a merge, and Python frees the deepest chain of them without
# recursion.
Heap: TypeAlias = "tuple[int, Entry, Heap, Heap] | None"

KEPT: Final[Any] = object()  # the default of a record that stays as it is; None takes it out
_SLACK: Final = 64  # entries that a heap of deadlines may have beyond twice those that count, before it is made anew


@frozen
class Pending:
    """A join that is not answered."""

    number: int  # that of its ref
    timeout: float | None  # seconds that will run from its turn; None where its turn has begun, or nothing will run
    deadline: float | None
    rejoin: Rejoin | None = None  # None for a join of the user's

    @property
    def limit(self) -> float | None:
        """The time at which the timer has to look at it."""
        return None if self.rejoin == "overdue" else self.deadline


@frozen
class Leaving:
    """A leave that is not complete."""

    ref: str
    limit: float | None

    @property
    def number(self) -> int:
        """The number of its ref."""
        return number_of(self.ref)


@frozen
class Topics:
    """The topics of a connection; `joins` and `failed` lead to join_refs, `failed` those of rejoins on this connection.

    The heap has the deadlines of `pending` and `leaving`, and entries that mean nothing any more. The earliest always
    means something.
    """

    joins: PersistentMap[str, str] = NOTHING
    pending: PersistentMap[str, Pending] = NOTHING
    leaving: PersistentMap[str, Leaving] = NOTHING
    failed: PersistentMap[str, str] = NOTHING
    heap: Heap = attrs.field(default=None, eq=False, repr=False)
    # Join_refs that were looked up. A persistent map takes five times as long as a dict to answer, and one is asked for
    # every message that comes in; the topics change seldom.
    seen: dict[str, str] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def join_ref(self, topic: str) -> str | None:
        """Return the join_ref of a topic, None where it is not joined."""
        ref = self.seen.get(topic)
        if ref is None:
            ref = self.joins.get(topic)
            if ref is not None:
                self.seen[topic] = ref
        return ref

    def pending_join(self, topic: str, number: int) -> Pending | None:
        """Return the join of this number if it is pending, None if it is answered, left, replaced or given up."""
        pending = self.pending.get(topic)
        return pending if pending is not None and pending.number == number else None

    def changed(
        self, topic: str, *, join: Any = KEPT, pending: Any = KEPT, leaving: Any = KEPT, failed: Any = KEPT
    ) -> "Topics":
        """Return these with other records of a topic, by the names of the maps; None takes one out."""
        joins = self.joins if join is KEPT else _put(self.joins, topic, join)
        pending_joins = self.pending if pending is KEPT else _put(self.pending, topic, pending)
        leaves = self.leaving if leaving is KEPT else _put(self.leaving, topic, leaving)
        failures = self.failed if failed is KEPT else _put(self.failed, topic, failed)
        heap = self.heap
        for record in (pending, leaving):
            if record is not KEPT and record is not None and record.limit is not None:
                heap = merged(heap, (1, (record.limit, record.number, topic), None, None))
        while heap is not None and not _counts(heap[1], pending_joins, leaves):
            heap = merged(heap[2], heap[3])
        if heap is not None and heap[0] > 2 * (len(pending_joins) + len(leaves)) + _SLACK:
            heap = _heap(pending_joins, leaves)
        return Topics(joins, pending_joins, leaves, failures, heap)

    def without(self, topic: str) -> "Topics":
        """Return these without a topic, whose join has failed if it is pending; of a rejoin, the ref is kept."""
        pending = self.pending.get(topic)
        failed = None if pending is None or pending.rejoin is None else self.joins.get(topic)
        return self.changed(topic, join=None, pending=None, leaving=None, failed=failed)

    def due(self, now: float) -> str | None:
        """Return the topic whose deadline is the earliest, if that has come."""
        return self.heap[1][2] if self.heap is not None and self.heap[1][0] <= now else None

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        return None if self.heap is None else self.heap[1][0]

    def __reduce__(self) -> tuple[Callable[..., "Topics"], tuple[Any, ...]]:
        # The heap may be nested deeper than what copies and pickles by recursion can go.
        return _remade, (dict(self.joins), dict(self.pending), dict(self.leaving), dict(self.failed))


def _remade(*records: Mapping[str, Any]) -> Topics:
    joins, pending, leaving, failed = map(HashTrieMap, records)
    return Topics(joins, pending, leaving, failed, _heap(pending, leaving))


def _put(records: Any, topic: str, record: Any) -> Any:
    return records.discard(topic) if record is None else records.insert(topic, record)


def _counts(entry: Entry, pending: Mapping[str, Pending], leaving: Mapping[str, Leaving]) -> bool:
    deadline, number, topic = entry
    record = pending.get(topic) or leaving.get(topic)
    return record is not None and record.number == number and record.limit == deadline


def _heap(pending: Mapping[str, Pending], leaving: Mapping[str, Leaving]) -> Heap:
    records: Iterable[tuple[str, Pending | Leaving]] = (*pending.items(), *leaving.items())
    return heap_of((each.limit, each.number, topic) for topic, each in records if each.limit is not None)


# The same, as flat mappings: the constructor's and a recording's view of it


def topics_of(flat: Mapping[str, Mapping[str, Any]]) -> Topics:
    """Return the topics that `flat` mappings, by the names of `State`, describe."""
    joins: Mapping[str, str] = flat.get("joins", {})
    timeouts, rejoins = flat.get("join_timeouts", {}), flat.get("rejoins", {})
    pending = {
        topic: Pending(number_of(joins.get(topic, "")), timeouts.get(topic), deadline, rejoins.get(topic))
        for topic, deadline in flat.get("join_deadlines", {}).items()
    }
    limits = flat.get("leave_deadlines", {})
    leaving = {topic: Leaving(ref, limits.get(topic)) for topic, ref in flat.get("leaves", {}).items()}
    return _remade(dict(joins), pending, leaving, dict(flat.get("failed_rejoins", {})))


# The turns of joins

Join = tuple[int, str]  # the number of a join's ref, and its topic


@frozen
class Turns:
    """The joins that the server has not worked off, in the order in which they were sent.

    It works off the joins of a socket one at a time: `join/3` runs in the server's process for the socket, and while
    it runs that process answers nothing else. So the time that a join may take is counted from its turn, which begins
    when the join before it is answered; and what is answered shows that everything sent before it was worked off. A
    join that its sender has given up is still the server's to work off, and keeps its turn until then.
    """

    queue: Any = NO_ITEMS  # persistent: one more copies nothing, however many wait
    began: float | None = None  # when the turn began, None where that is not known
    by_timeout: bool = False  # whether it began because the one before it took too long: nothing was heard then
    # Rejoins that are overdue and have lost their turn to a timeout; also some that are pending no more.
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

    def without_first(self) -> "Turns":
        """Return these without the first; the turn of the next is still to be begun."""
        return Turns(self.queue.dequeue(), late=self.late)

    def __reduce__(self) -> tuple[Callable[..., "Turns"], tuple[Any, ...]]:
        # A persistent queue cannot be copied and pickled.
        return turns_of, (list(self), self.began, self.by_timeout, self.late)


def turns_of(joins: Iterable[Join], began: float | None, by_timeout: bool, late: Iterable[Join]) -> Turns:  # noqa: FBT001 - for copies
    """Return the turns of joins, given in any order."""
    return Turns(queue_of(sorted(joins)), began, by_timeout, tuple(sorted(late)))


# The heap of deadlines


def merged(one: Heap, other: Heap) -> Heap:
    """Return a heap of the entries of both."""
    if one is None:
        return other
    if other is None:
        return one
    if other[1] < one[1]:
        one, other = other, one
    number, entry, left, right = one
    right = merged(right, other)
    if left is None or left[0] < right[0]:  # type: ignore[index] # the right one has an entry
        left, right = right, left
    return number + other[0], entry, left, right


def heap_of(entries: Iterable[Entry]) -> Heap:
    """Return a heap of some entries."""
    heap: Heap = None
    for number, entry in enumerate(sorted(entries, reverse=True), 1):
        # The latest is the deepest, all to the left: the right edges are as short as they can be.
        heap = (number, entry, heap, None)
    return heap


def number_of(ref: str) -> int:
    """Return the number that a ref is, 0 where it is none that a connection takes."""
    return int(ref) if len(ref) < 19 and ref.isascii() and ref.isdecimal() and ref[0] != "0" else 0
