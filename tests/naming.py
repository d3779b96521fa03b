"""Names of parametrized tests."""

from typing import Any

__all__ = ["short"]


def short(value: Any) -> str:
    """Return the beginning of a value as a test's name, without backslashes: by those pytest finds no test again."""
    return ascii(value)[:40].replace("\\", "/")
