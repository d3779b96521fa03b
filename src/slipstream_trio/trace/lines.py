"""Lines of JSON: to bytes and back, by msgspec where it is installed, else by the standard library.

Unlike the codec of frames this one checks nothing on the way out: what is written was made by `values`, which leaves
JSON types only.
"""

import json
from collections.abc import Callable
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False)


def _encode(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("ascii")


encode_line: Callable[[Any], bytes] = _encode  # returns the line of a value, without a line feed

_decode: Callable[[bytes], Any] = json.loads

try:
    import msgspec
except ImportError:
    pass  # the standard library it is
else:
    encode_line = msgspec.json.Encoder().encode
    _decode = msgspec.json.Decoder().decode


def decode_line(line: bytes) -> Any:
    """Return the value of a line."""
    try:
        return _decode(line)
    except ValueError:
        # msgspec refuses lone surrogates, which another writer may have escaped.
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
