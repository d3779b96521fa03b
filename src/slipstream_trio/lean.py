"""Records that are made quickly.

A frozen attrs class sets each field by a call, which makes up most of what a record costs. A lean class sets them as
any other class does, and its instances become those of the frozen class at the end.
"""

from typing import Any, TypeVar

import attrs

__all__ = ["lean"]

T = TypeVar("T")


def lean(kind: type[T]) -> type[T]:
    """Return a class that makes instances of a frozen, slotted attrs class, from all of its fields by position."""
    fields: Any = attrs.fields(kind)  # type: ignore[arg-type] # it is of attrs
    lines = [f"self.{field.name} = {field.alias}" for field in fields]
    names = ", ".join(["self", *(field.alias for field in fields)])
    made: dict[str, Any] = {}
    # As attrs itself makes its methods. Both classes have the same slots, so that one can become the other.
    exec(f"def __init__({names}):\n " + "\n ".join([*lines, "self.__class__ = kind"]), {"kind": kind}, made)  # noqa: S102
    methods = {name: getattr(object, name) for name in ("__setattr__", "__delattr__")}
    return type(kind.__name__, (kind,), {"__slots__": (), **made, **methods})
