"""What the tests of codecs need beside `slipstream_trio.testing.strategies`."""

import math
from typing import Any

from slipstream_trio.testing.strategies.payloads import unsendable

UNSENDABLE: list[Any] = unsendable()


def exactly(value: Any) -> Any:
    """Return something that is equal only for values of the same types, the sign of a zero and all."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [exactly(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else 0
    return type(value), value, sign
