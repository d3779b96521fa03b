"""The check of a callback client's class: misspelt callbacks, and those of another kind, would never be called."""

import inspect
from typing import Any

from ...errors.base import did_you_mean

__all__ = ["check_callbacks"]


def check_callbacks(cls: type, base: type) -> None:
    """Raise `TypeError` for what a class derived from `Client` defines in a way in which it could not be used."""
    known = {name: value for name, value in vars(base).items() if not name.startswith("_")}
    for name, value in vars(cls).items():
        own = f"{cls.__name__}.{name}"
        if not inspect.isfunction(value):
            continue
        if inspect.isfunction(known.get(name)):
            _check_kind(own, value, known[name])
        elif name.startswith(("handle_", "on_", "termin")):
            spelt = name.replace("on_", "handle_", 1) if name.startswith("on_") else name
            if hint := did_you_mean(spelt, known, 0.85):  # a method of the user's own may be called handle_order
                raise TypeError(f"{own}: Client has no such callback, so it would never be called{hint}")


def _check_kind(own: str, value: Any, defined: Any) -> None:
    function, is_async = inspect.unwrap(value), inspect.iscoroutinefunction(defined)
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{own} has a `yield`, and nobody would iterate over it: return, or await, in its place")
    if inspect.iscoroutinefunction(function) != is_async:
        kind, word = ("async", "`async def`") if is_async else ("synchronous", "`def`")
        raise TypeError(f"{own} has to be {kind}: write {word}")
    given = [each for each in inspect.signature(defined).parameters.values() if each.kind is not each.KEYWORD_ONLY]
    try:
        inspect.signature(value, follow_wrapped=False).bind(*given)
    except TypeError:
        names = ", ".join(each.name for each in given)
        raise TypeError(f"{own} would be called with other parameters: write ({names})") from None
