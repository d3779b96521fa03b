"""How much Hypothesis draws: some in every run of the tests, and far more where `SLIPSTREAM_EXAMPLES` asks for it.

`SLIPSTREAM_EXAMPLES` is a factor: 1 is what a test asks for, as in `nox -s tests_once`; plain `nox`, which runs the
same tests on several Pythons, has less, and `nox -s thorough` far more.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

__all__ = ["FACTOR", "examples"]

FACTOR: Final = float(os.environ.get("SLIPSTREAM_EXAMPLES", "1"))
LEAST: Final = 10


def examples(count: int) -> settings:
    """Return the settings of a test that draws so many examples, times the factor; it may take its time."""
    return settings(
        max_examples=max(LEAST, round(count * FACTOR)), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
