"""Payloads for logs: short whatever their size, and with secrets masked."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

__all__ = ["MASK", "SENSITIVE", "brief"]

SENSITIVE: Final = re.compile(
    r"token|passw|passphrase|secret|authorization|cookie|credential|signature|session|jwt|bearer"
    r"|(api|access|private|signing)[_-]?key",
    re.IGNORECASE,
)
"""Matches the keys whose values are not shown."""

MASK: Final = "[redacted]"
DEPTH: Final = 6
"""How deep a payload is shown."""


def brief(value: Any, limit: int, sensitive: "re.Pattern[str]" = SENSITIVE) -> str:
    """Return a payload as JSON, or as much of it as fits.

    No more of the payload is looked at than is shown.

    Parameters:
        limit: how long it gets at most, in characters; "…" marks what is cut off.
        sensitive: matches the keys whose values are masked.
    """
    parts: list[str] = []
    size = 0
    for part in _parts(value, limit, sensitive, DEPTH):
        parts.append(part)
        size += len(part)
        if size > limit:
            return "".join(parts)[: limit - 1] + "…"
    return "".join(parts)


def _parts(value: Any, limit: int, sensitive: "re.Pattern[str]", depth: int) -> Iterator[str]:
    if isinstance(value, bytes | bytearray | memoryview):
        yield f"<{len(value)} bytes>"
    elif isinstance(value, str):
        yield json.dumps(value[: limit + 1])
    elif not isinstance(value, Mapping | list | tuple):
        yield str(value) if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"
    elif not depth:
        yield "…"
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, item) in enumerate(islice(value.items(), limit)):
            yield f"{', ' if number else ''}{json.dumps(str(key)[: limit + 1])}: "
            yield from [f'"{MASK}"'] if sensitive.search(str(key)) else _parts(item, limit, sensitive, depth - 1)
        yield "}"
    else:
        yield "["
        for number, item in enumerate(islice(value, limit)):
            yield ", " if number else ""
            yield from _parts(item, limit, sensitive, depth - 1)
        yield "]"
