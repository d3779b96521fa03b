"""Lines of JSON: to bytes and back, by msgspec where it is installed, else by the standard library.

Unlike the codec of frames this one checks nothing on the way out: what is written was made by `values`, which leaves
JSON types only.
"""

import json
from collections.abc import Callable
from typing import Any, Final

encode_line: Callable[[Any], bytes]  # returns the line of a value, without a line feed
_decode: Callable[[bytes], Any]
try:
    import msgspec
except ImportError:
    _encoder: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False)
    encode_line, _decode = lambda value: _encoder.encode(value).encode("ascii"), json.loads
else:
    encode_line, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


def decode_line(line: bytes) -> Any:
    """Return the value of a line."""
    try:
        return _decode(line)
    except ValueError:
        # msgspec refuses lone surrogates, which another writer may have escaped.
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
