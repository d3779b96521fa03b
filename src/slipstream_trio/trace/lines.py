"""Lines of JSON: to bytes and back, by msgspec where it is installed, else by the standard library.

Unlike the codec of frames this one checks nothing on the way out: what is written was made by `values`, which leaves
JSON types only.
"""

import json
from collections.abc import Callable, Collection
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from .schema import HEADER, SCHEMA, start_time

__all__ = ["decode_line", "encode_line", "end_line", "head", "header_line", "key_of", "missing_line"]

_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False)


def _encode(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("ascii")


encode_line: Callable[[Any], bytes] = _encode
"""Returns the line of a value, without a line feed."""

_decode: Callable[[bytes], Any] = json.loads

try:
    import msgspec
except ImportError:
    pass  # the standard library it is
else:
    encode_line = msgspec.json.Encoder().encode
    _decode = msgspec.json.Decoder().decode


def decode_line(line: bytes) -> Any:
    """Return the value of a line.

    Raises:
        ValueError: invalid JSON.
    """
    try:
        return _decode(line)
    except ValueError:
        # msgspec refuses lone surrogates, which another writer may have escaped.
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def header_line(
    recording: str, part: int, system_time: int, redacted: Collection[str], alive: Collection[str]
) -> bytes:
    """Return the first line of a file.

    Parameters:
        recording: the recording's id.
        part: the number of the file, from 1.
        system_time: in nanoseconds since the epoch.
        redacted: the redacted kinds.
        alive: the connections that are open.
    """
    header = {
        "schema": SCHEMA,
        "library": _library(),
        "recording": recording,
        "part": part,
        "started": start_time(system_time).isoformat(),
        "redacted": list(redacted),
        "open": list(alive),
    }
    return encode_line({HEADER: header}) + b"\n"


def end_line(records: int, dropped: int, alive: Collection[str]) -> bytes:
    """Return the last line of a recording.

    Parameters:
        records: the number of records written.
        dropped: the number of records dropped.
        alive: the connections that are open.
    """
    return encode_line({"end": {"records": records, "dropped": dropped, "open": list(alive)}}) + b"\n"


def _library() -> str:
    try:
        return version("slipstream-trio")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def missing_line(records: int | None, reason: str, connection_id: str | None = None) -> bytes:
    """Return the line that says that records are missing."""
    line: dict[str, Any] = {"missing": {"records": records, "reason": reason}}
    if connection_id is not None:
        line["missing"]["connection_id"] = connection_id
    return encode_line(line) + b"\n"


@lru_cache(maxsize=1024)
def head(name: tuple[str, ...]) -> bytes:
    """Return how the line of an event begins."""
    return b'{"name":%b' % encode_line(" ".join(name))


@lru_cache(maxsize=1024)
def key_of(key: str) -> bytes:
    """Return a key, encoded, as it stands behind other values."""
    return b",%b:" % encode_line(key)
