"""One timer a socket: sleeps until whatever is due first."""

import math
from collections.abc import Callable

import trio

__all__ = ["Timer"]


class Timer:
    """Calls a function whenever something is due.

    Parameters:
        due: given the current time, does what is due, and returns when it is to be called next (infinity: never).
            It may be called early, and then finds nothing to do.
    """

    def __init__(self, due: Callable[[float], float]) -> None:
        self._due = due
        self._next = math.inf
        self._sleep: trio.CancelScope | None = None

    def arm(self, deadline: float) -> None:
        """See to it that `due` is called at `deadline`, if not before."""
        if deadline < self._next:
            self._next = deadline
            if self._sleep is not None:
                self._sleep.deadline = deadline

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Sleep and call, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._next) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            self._next = math.inf
            self.arm(self._due(trio.current_time()))
