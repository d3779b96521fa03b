"""Cookies are secret: whoever has them is the client, to the server."""

import re
from collections.abc import Iterable
from typing import Final

from ..telemetry.secrecy import MASK

__all__ = ["masked"]

_VALUE: Final = re.compile(r"(\s*[^=;]+=)[^;]*")


def masked(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return headers with the values of cookies taken out: whoever has them is the client, to the server."""
    return tuple((name, _masked(value) if name == "set-cookie" else value) for name, value in headers)


def _masked(cookie: str) -> str:
    found = _VALUE.match(cookie)
    return MASK if found is None else f"{found[1]}{MASK}{cookie[found.end() :]}"
