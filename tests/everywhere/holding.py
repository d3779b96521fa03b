"""How much of the library's a channel or a socket holds on to: a command that was interrupted must not add to that."""

import gc
from collections import Counter, OrderedDict, deque
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType
from typing import Any

__all__ = ["held_by"]

PACKAGE = "slipstream_trio.client"

CONTAINERS = (dict, list, tuple, set, frozenset, deque, OrderedDict, partial, CellType, MethodType, BuiltinMethodType)


def held_by(root: object) -> Counter[str]:
    """Return how many objects of each type of the client's can be reached from one of them.

    Which types there are is the library's own affair: two such counts are for comparison.
    """
    found: Counter[str] = Counter()
    seen: dict[int, object] = {id(root): root}
    waiting: list[object] = [root]
    while waiting:
        one = waiting.pop()
        found[type(one).__name__] += _is_ours(one)
        for other in _neighbours(one):
            if id(other) not in seen:
                seen[id(other)] = other
                waiting.append(other)
    return +found


def _is_ours(one: object) -> bool:
    return type(one).__module__.startswith(PACKAGE)


def _neighbours(one: object) -> list[Any]:
    """Return what an object refers to, if it is the client's, or a container."""
    if isinstance(one, FunctionType):
        return [*(one.__closure__ or ())] if one.__module__.startswith(PACKAGE) else []
    if isinstance(one, CONTAINERS) or (_is_ours(one) and not isinstance(one, type)):
        return [other for other in gc.get_referents(one) if not isinstance(other, type)]
    return []
