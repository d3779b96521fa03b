"""The deadlines of topics: a heap that is never changed in place, so that the earliest is known without a scan.

It is a leftist heap (C. A. Crane, 1972): every node is at least as early as those below it, and of the two heaps below
a node the left one has the longer right edge. So the right edge of n entries is at most log2(n) long, and merging
follows right edges only. Whatever is not on them is shared between the heap before and the heap after.

Entries are not taken out when they are settled: whoever asks for the earliest drops those that mean nothing any more.
"""

from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Entry", "Heap", "earliest", "heap_of", "merged", "with_entry", "without_earliest"]

Entry: TypeAlias = tuple[float, int, str]
"""A deadline, the number of the ref that it is about, and the topic."""

# The length of the right edge, the earliest entry, and what is below. Plain tuples: one is made for every step of a
# merge, and Python frees the deepest chain of them without recursion.
Heap: TypeAlias = "tuple[int, Entry, Heap, Heap] | None"


def earliest(heap: Heap) -> Entry | None:
    """Return the earliest entry, None if there is none; of two at the same time, the one with the lower number."""
    return None if heap is None else heap[1]


def merged(one: Heap, other: Heap) -> Heap:
    """Return a heap of the entries of both."""
    if one is None:
        return other
    if other is None:
        return one
    if other[1] < one[1]:
        one, other = other, one
    _, entry, left, right = one
    right = merged(right, other)
    if _edge(left) < _edge(right):
        left, right = right, left
    return _edge(right) + 1, entry, left, right


def with_entry(heap: Heap, entry: Entry) -> Heap:
    """Return the heap with one entry more."""
    return merged(heap, (1, entry, None, None))


def without_earliest(heap: Heap) -> Heap:
    """Return the heap without its earliest entry."""
    return None if heap is None else merged(heap[2], heap[3])


def heap_of(entries: Iterable[Entry]) -> Heap:
    """Return a heap of some entries."""
    heap: Heap = None
    for entry in sorted(entries, reverse=True):
        # The latest is the deepest, all to the left: the right edges are as short as they can be.
        heap = (1, entry, heap, None)
    return heap


def _edge(heap: Heap) -> int:
    return 0 if heap is None else heap[0]
