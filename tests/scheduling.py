"""Orders in which Trio may run tasks: what must hold in any of them is tried in many.

Trio shuffles the tasks that can run at once, and lets Hypothesis decide how. So a test that draws an `order` is run in
another one each time, and a failure can be repeated.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypothesis import Phase, given, settings, strategies as st
from tests.drawing import examples
from trio.testing import MockClock

__all__ = ["in_any_order", "play"]

LONGEST = 10_000
"""Virtual seconds after which something hangs."""


def in_any_order(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test, which has an argument `order`, be run in many orders of its tasks; it may have parameters, too."""
    # To shrink an order makes it no simpler.
    many = settings(examples(40), phases=[Phase.generate])
    drawn: Callable[..., None] = many(given(order=st.random_module())(test))
    return drawn


def play(scene: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run an async function in virtual time; fails if it hangs."""

    async def limited() -> None:
        with trio.fail_after(LONGEST):
            await scene(*arguments)

    trio.run(limited, clock=MockClock(autojump_threshold=0))
