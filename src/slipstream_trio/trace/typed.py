"""Tests of values by the types that fields are declared with, as a line of a recording may have anything in a field."""

import types
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final, Literal, Union, get_args, get_origin

from .redact import Redacted

Test = tuple[frozenset[type], Callable[[Any], bool]]
"""The types that need no closer look, and a function for values of others."""

FURTHEST: Final = 2**62
"""The largest whole number: nanoseconds get there in 2116, and a difference of two still has 64 bits."""

EXACT: Final = 2**53  # the largest whole number that may stand for a float

_SIMPLE: Final[Mapping[Any, Callable[[Any], bool]]] = {
    Any: lambda _: True,
    int: lambda value: type(value) is int and -FURTHEST <= value <= FURTHEST,
    float: lambda value: (type(value) is float and isfinite(value)) or (type(value) is int and abs(value) <= EXACT),
    bytes: lambda value: type(value) is bytes or type(value) is Redacted,  # a frame, which may be hidden
    datetime: lambda value: type(value) is datetime and value.tzinfo is not None,
}


def test_of(hint: Any) -> Test:
    """Return the test of values of a type."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return frozenset({str, bool, types.NoneType}.intersection(parts)), _function_of(hint)


def _function_of(hint: Any) -> Callable[[Any], bool]:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin is Literal:
        return _function_of(type(parts[0]))  # later versions may have more of them
    if origin is None:
        return lambda value: type(value) is hint
    if parts[-1] is ...:
        item = _function_of(parts[0])
        return lambda value: type(value) is tuple and all(map(item, value))
    tests = [_function_of(part) for part in parts]
    if origin is Union or origin is types.UnionType:
        first, *others = tests
        return lambda value: first(value) or any(test(value) for test in others)
    if origin is tuple:
        return lambda value: (
            type(value) is tuple
            and len(value) == len(tests)
            and all(test(item) for test, item in zip(tests, value, strict=True))
        )
    key, item = tests  # of a mapping
    return lambda value: isinstance(value, Mapping) and all(map(key, value)) and all(map(item, value.values()))
