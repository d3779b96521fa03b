"""Read-only mappings over others, persistent ones mostly: what a state shows of the records that it keeps."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from rpds import HashTrieMap, Queue

if TYPE_CHECKING:
    PersistentMap = HashTrieMap
else:
    PersistentMap = Mapping  # the class itself cannot be subscripted when annotations are read at run time

NOTHING: Final[Any] = HashTrieMap()  # a persistent map that has nothing in it, of any types
persistent: Final[Callable[[Mapping[Any, Any]], Any]] = HashTrieMap  # makes a persistent map of what is in a mapping


def queue_of(items: Iterable[Any]) -> Any:
    """Return a persistent queue of items; it is of any type, as rpds's stubs differ from what it does.

    The first removal turns a queue over, a step for each item: here, once, rather than for each state made from one.
    """
    whole: Any = Queue((None, *items))
    return whole.dequeue()


NO_ITEMS: Final = queue_of(())  # a persistent queue that has nothing in it

# Returns the first item of a queue that has one: `peek` is a method in some versions of rpds, in others the item.
first_of: Final[Callable[[Any], Any]] = (methodcaller if callable(queue_of((0,)).peek) else attrgetter)("peek")

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class View(Mapping[K, V], Generic[K, V, R]):
    """A mapping that shows one value of each record of another mapping, by default in that one's order.

    With an order, iteration sorts: that of a persistent map differs from one run of Python to the next, and whatever is
    made of a state must not.
    """

    __slots__ = ("_order", "_records", "_value")

    def __init__(
        self, records: Mapping[K, R], value: Callable[[R], V], order: Callable[[tuple[K, R]], Any] | None = None
    ) -> None:
        self._records = records
        self._value = value
        self._order = order

    def __getitem__(self, key: K) -> V:
        return self._value(self._records[key])

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[K]:
        if self._order is None:
            return iter(self._records)
        return (key for key, _ in sorted(self._records.items(), key=self._order))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, View) and other._records is self._records and other._value is self._value:
            return True
        return dict(self.items()) == dict(other) if isinstance(other, Mapping) else NotImplemented

    def since(self, before: "View[K, V, R]") -> tuple[dict[K, V], list[K]]:
        """Return the items that were put since `before`, which shows the same of its records, and the keys gone."""
        old, new, value = before._records, self._records, self._value  # noqa: SLF001 - of its own kind
        if old is new:
            return {}, []
        put: dict[K, V] = {}
        for key, record in new.items():
            known = old.get(key)
            if known is not record and (known is None or value(known) != value(record)):
                put[key] = value(record)
        kept = len(new) - sum(key not in old for key in put)
        gone = [key for key in old if key not in new] if kept < len(old) else []
        return dict(sorted(put.items())), sorted(gone)  # type: ignore[type-var] # refs and topics

    __hash__ = None  # type: ignore[assignment] # like every mapping that is equal to a dict

    def __repr__(self) -> str:
        return repr(dict(self.items()))


def by_ref(item: tuple[Any, str]) -> tuple[int, str]:
    """Return what sorts items by their values, refs: in the order in which they were taken."""
    return len(item[1]), item[1]


def number_of(ref: str) -> int:
    """Return the number that a ref is, 0 where it is none that a connection takes."""
    return int(ref) if len(ref) < 19 and ref.isascii() and ref.isdecimal() and ref[0] != "0" else 0
