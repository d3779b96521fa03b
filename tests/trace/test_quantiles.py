"""Quantiles: exact for a few values, within 1 % for many, in little memory."""

import math
import random

import pytest
from hypothesis import given, strategies as st

from slipstream_trio.trace.stats import EXACT, Quantiles

SHARES = (0.01, 0.5, 0.9, 0.99, 1.0)


def total(quantiles: Quantiles, ranks: int) -> int:
    """Return the sum of the values in the middle of so many equal parts."""
    return sum(quantiles.quantile((rank + 0.5) / ranks) for rank in range(ranks))


def fed(values: list[int]) -> Quantiles:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    return quantiles


@given(st.lists(st.integers(min_value=0, max_value=10**15), min_size=1, max_size=50), st.sampled_from(SHARES))
def test_quantiles_of_few_values_are_values_that_occurred(values: list[int], share: float) -> None:
    quantiles = fed(values)
    assert quantiles.exact
    assert quantiles.quantile(share) == sorted(values)[math.ceil(share * len(values)) - 1]
    assert (quantiles.count, quantiles.least, quantiles.most) == (len(values), min(values), max(values))
    assert total(quantiles, len(values)) == sum(values)


@pytest.mark.parametrize("shape", ["wide", "narrow", "zeros", "equal"])
def test_quantiles_of_many_values_are_wrong_by_one_percent_at_most(shape: str) -> None:
    draw = random.Random(7)
    values = {
        "wide": [round(draw.lognormvariate(12, 3)) for _ in range(20 * EXACT)],
        "narrow": [draw.randrange(1_000_000, 1_010_000) for _ in range(2 * EXACT)],
        "zeros": [draw.choice([0, 1, 5]) for _ in range(2 * EXACT)],
        "equal": [123_456] * (EXACT + 1),
    }[shape]
    quantiles = fed(values)
    assert not quantiles.exact
    for share in SHARES:
        exact = sorted(values)[math.ceil(share * len(values)) - 1]
        assert quantiles.quantile(share) == pytest.approx(exact, rel=0.0101, abs=0.5)
    assert (quantiles.count, quantiles.least, quantiles.most) == (len(values), min(values), max(values))
    parts = len(values) // 100
    middles = sorted(values)[parts // 2 - 1 :: parts][:100]
    assert total(quantiles, 100) == pytest.approx(sum(middles), rel=0.0101, abs=50)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    draw = random.Random(3)
    quantiles = fed([10 ** draw.randrange(13) + draw.randrange(1000) for _ in range(20_000)])
    assert len(quantiles._buckets) < 1_700


def test_of_nothing_everything_is_zero() -> None:
    quantiles = Quantiles()
    assert (quantiles.quantile(0.5), quantiles.least, quantiles.most, quantiles.count) == (0, 0, 0, 0)
