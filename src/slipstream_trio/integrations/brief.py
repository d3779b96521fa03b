"""Payloads for logs: short whatever their size, and with secrets masked."""

import json
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from ..telemetry.secrecy import MASK, SECRETS, is_secret

__all__ = ["brief"]

DEPTH: Final = 6
"""How deep a payload is shown."""


def brief(value: Any, limit: int, secrets: Collection[str] = SECRETS) -> str:
    """Return a payload as JSON, or as much of it as fits into `limit` characters, without the values of secret keys.

    No more of the payload is looked at than is shown.
    """
    parts: list[str] = []
    size = 0
    for part in _parts(value, limit, secrets, DEPTH):
        parts.append(part)
        size += len(part)
        if size > limit:
            return "".join(parts)[: limit - 1] + "…"
    return "".join(parts)


def _parts(value: Any, limit: int, secrets: Collection[str], depth: int) -> Iterator[str]:
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
            yield from [f'"{MASK}"'] if is_secret(str(key), secrets) else _parts(item, limit, secrets, depth - 1)
        yield "}"
    else:
        yield "["
        for number, item in enumerate(islice(value, limit)):
            yield ", " if number else ""
            yield from _parts(item, limit, secrets, depth - 1)
        yield "]"
