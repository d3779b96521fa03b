"""Quantiles of any number of values in little memory: exact while they are few, within 1 % when they are many."""

import math
from array import array
from collections import Counter
from typing import Final

__all__ = ["EXACT", "Quantiles"]

EXACT: Final = 1_000
"""Up to so many values are kept as they are."""

WIDTH: Final = 1.02
"""Beyond that they are counted in buckets, each wider than the one before by this factor."""

LOG_WIDTH: Final = math.log(WIDTH)


class Quantiles:
    """Takes values of 0 and more, and gives their quantiles.

    Up to `EXACT` values are kept, and quantiles are values that occurred. Beyond, buckets are counted whose bounds grow
    by 2 %, and a quantile is the middle of its bucket, so it is wrong by 1 % at most; count, least and most stay exact.
    A bucket more is needed for each 2 %, so from a nanosecond to a day there are fewer than 1,700.
    """

    __slots__ = ("_buckets", "_values", "count", "least", "most", "total")

    def __init__(self) -> None:
        self.count: int = 0
        self.total: int = 0
        self.least: int = 0
        self.most: int = 0
        self._values: array[int] | None = array("q")
        self._buckets: Counter[int] = Counter()

    @property
    def exact(self) -> bool:
        """Whether the values were few enough to be kept."""
        return self._values is not None

    def add(self, value: int) -> None:
        """Take in a value, such as a duration in nanoseconds."""
        self.least = min(value, self.least) if self.count else value
        self.most = max(value, self.most)
        self.count += 1
        self.total += value
        if self._values is None:
            self._buckets[_bucket(value)] += 1
            return
        self._values.append(value)
        if len(self._values) > EXACT:
            self._buckets.update(map(_bucket, self._values))
            self._values = None

    def quantile(self, share: float) -> int:
        """Return the value that a share of all values does not exceed.

        Parameters:
            share: above 0, up to 1.

        Returns:
            The value; 0 without values.
        """
        if not self.count:
            return 0
        rank = max(1, math.ceil(share * self.count))
        if self._values is not None:
            return sorted(self._values)[rank - 1]
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                middle = 0 if bucket < 0 else round(2 * WIDTH**bucket / (WIDTH + 1))
                return min(max(middle, self.least), self.most)
        return self.most


def _bucket(value: int) -> int:
    return math.ceil(math.log(value) / LOG_WIDTH) if value > 0 else -1
