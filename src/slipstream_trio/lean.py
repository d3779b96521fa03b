"""Records that are made quickly.

A frozen attrs class sets each field by a call, which makes up most of what a record costs. A lean one is made by a
function that sets them as those of any other class, and lets it become one of the frozen class at the end.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

T = TypeVar("T")


def lean(kind: type[T]) -> Callable[..., T]:
    """Return a function that makes instances of a frozen, slotted attrs class, from all of its fields by position."""
    fields: Any = attrs.fields(kind)  # type: ignore[arg-type] # it is of attrs
    # Both classes have the same slots, so that one can become the other.
    plain = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    blank = type(kind.__name__, (kind,), {"__slots__": (), **plain})
    names = ", ".join(field.alias for field in fields)
    lines = [f"def make({names}):", "made = blank()", *(f"made.{field.name} = {field.alias}" for field in fields)]
    made: dict[str, Any] = {}
    # As attrs itself makes its methods.
    exec("\n ".join([*lines, "made.__class__ = kind", "return made"]), {"kind": kind, "blank": blank}, made)  # noqa: S102
    return made["make"]  # type: ignore[no-any-return] # it was made just now
