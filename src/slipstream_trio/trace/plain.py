"""Values of any kind as JSON: metadata and states, to be shown and not read back."""

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from ..protocol import Message
from .values import shown


def plain(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, bytes by number and in base64, times in ISO 8601."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"bytes": len(value), "base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Message):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return plain_record(value) if attrs.has(type(value)) else repr(value)


def plain_record(record: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of an attrs object as JSON values, under the name of its class."""
    fields = {name: plain(value) for name, value in (shown(record) or {}).items() if name not in without}
    return {"type": type(record).__name__, **fields}


def as_text(value: Any, limit: int) -> str:
    """Return a value as JSON in one line, or the beginning of it and how long all of it is."""
    if isinstance(value, bytes) and len(value) > limit:
        value = {"bytes": len(value), "base64": base64.b64encode(value[: limit // 2]).decode("ascii") + "…"}
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def flat_state(state: Any) -> dict[str, Any]:
    """Return a state as one flat object, so that two can be compared row by row.

    Keys are like "status", "joins[room:lobby]" and "options.url".
    """
    flat: dict[str, Any] = {}
    for name, value in (shown(state) or {}).items():
        if isinstance(value, Mapping):
            flat.update({f"{name}[{key}]": plain(item) for key, item in value.items()})
        elif attrs.has(type(value)):
            flat.update({f"{name}.{key}": plain(item) for key, item in attrs.asdict(value).items()})
        else:
            flat[name] = plain(value)
    return flat
