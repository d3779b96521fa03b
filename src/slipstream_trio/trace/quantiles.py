"""Quantiles of any number of values in little memory: exact while they are few, within 1 % when they are many."""

import math
from array import array
from collections import Counter
from typing import Final

__all__ = ["EXACT", "Quantiles"]

EXACT: Final = 1_000  # up to so many values are kept as they are
WIDTH: Final = 1.02  # beyond that they are counted in buckets, each wider than the one before by this factor
LOG_WIDTH: Final = math.log(WIDTH)


class Quantiles:
    """Takes values of 0 and more, and gives their quantiles.

    Up to `EXACT` values are kept, and quantiles are values that occurred. Beyond, buckets are counted whose bounds grow
    by 2 %, and a quantile is the middle of its bucket, so it is wrong by 1 % at most; count, least and most stay exact.
    A bucket more is needed for each 2 %, so from a nanosecond to a day there are fewer than 1,700.
    """

    __slots__ = ("_buckets", "_counted", "_least", "_most", "_values")

    def __init__(self) -> None:
        self._counted = 0
        self._least = self._most = 0
        self._values: array[int] = array("q")
        self._buckets: Counter[int] = Counter()

    @property
    def count(self) -> int:
        """The number of values."""
        return self._counted + len(self._values)

    @property
    def exact(self) -> bool:
        """Whether the values were few enough to be kept."""
        return not self._counted and len(self._values) <= EXACT

    @property
    def least(self) -> int:
        """The smallest value; 0 without values."""
        kept = [self._least] if self._counted else []
        return min([*kept, *self._values], default=0)

    @property
    def most(self) -> int:
        """The largest value; 0 without values."""
        return max([self._most, *self._values])

    def add(self, value: int) -> None:
        """Take in a value, such as a duration in nanoseconds."""
        self._values.append(value)
        if len(self._values) > EXACT:
            self._least, self._most, self._counted = self.least, self.most, self.count
            self._buckets.update(map(_bucket, self._values))
            self._values = array("q")

    def quantile(self, share: float) -> int:
        """Return the value that a share of all values, above 0 and up to 1, does not exceed; 0 without values."""
        rank = max(1, math.ceil(share * self.count))
        if not self._counted:
            return sorted(self._values)[rank - 1] if self._values else 0
        buckets = self._buckets + Counter(map(_bucket, self._values))
        for bucket in sorted(buckets):
            rank -= buckets[bucket]
            if rank <= 0:
                middle = 0 if bucket < 0 else round(2 * WIDTH**bucket / (WIDTH + 1))
                return min(max(middle, self.least), self.most)
        return self.most


def _bucket(value: int) -> int:
    return math.ceil(math.log(value) / LOG_WIDTH) if value > 0 else -1
