"""Labels of metrics, of which there must be few: whoever stores metrics keeps a time series for each set of them."""

import threading
from collections.abc import Callable
from typing import Final

__all__ = ["OTHER", "Capped"]

OTHER: Final = "other"
"""What stands for the values that are too many."""


class Capped:
    """A function from values to labels that gives so many different labels at most; what comes later is "other".

    Parameters:
        function: maps a value to its label; None takes the value.
        limit: how many different labels there are at most, "other" not counted.
    """

    def __init__(self, function: Callable[[str], str] | None = None, limit: int = 100) -> None:
        self._function = function
        self._limit = limit
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """Return the label of a value."""
        label = value if self._function is None else self._function(value)
        if label in self._seen:
            return label
        with self._lock:
            if len(self._seen) >= self._limit and label not in self._seen:
                return OTHER
            self._seen.add(label)
        return label
