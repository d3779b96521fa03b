"""One timer a socket: it sleeps until the earliest of all deadlines."""

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

if TYPE_CHECKING:
    from .socket import Socket

__all__ = ["Timed", "Timer"]

SWEEP_ABOVE: Final = 64
"""So many entries of operations that are over may stay in the heap, besides as many as there are live ones."""

WATCH_INTERVAL: Final = 0.25
STALL: Final = 0.1
"""While somebody wants to know when the event loop stands still: seconds between two looks, and by how many of them a
look has to be late to be told."""

ENTRIES_A_STEP: Final = 128
"""How many deadlines are handled before other tasks run: each settles a task, and may emit telemetry."""


class Timed(Protocol):
    """An operation with a time limit."""

    @property
    def over(self) -> bool:
        """Whether it has ended, so that its deadline means nothing any more."""
        ...

    def expire(self) -> None:
        """End it, as its time is up."""
        ...


@final
class Timer:
    """The deadlines of a socket: those of operations, by a heap, and that of the connection, which is asked for it."""

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._heap: list[tuple[float, int, Timed]] = []
        self._numbers = count()
        self._sweep_at = SWEEP_ABOVE
        self._next = math.inf
        self._sleep: trio.CancelScope | None = None

    def add(self, deadline: float, timed: Timed) -> None:
        """Expire an operation at `deadline` (infinity: never), unless it is over by then."""
        if deadline == math.inf:
            return
        heapq.heappush(self._heap, (deadline, next(self._numbers), timed))
        if len(self._heap) > self._sweep_at:
            # Most operations end before their deadline; their entries would make the heap grow with the traffic.
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEEP_ABOVE
        self.arm(deadline)

    def arm(self, deadline: float) -> None:
        """Wake up at `deadline`, if not before."""
        if deadline < self._next:
            self._next = deadline
            if self._sleep is not None:
                self._sleep.deadline = min(self._sleep.deadline, deadline)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Sleep until something is due, and see to it, until cancelled."""
        emitter = self._socket._emitter
        # Trio does not export the class of its own clock. Of others, the time passes when nobody looks, or not at all.
        is_real = type(trio.lowlevel.current_clock()).__name__ == "SystemClock"
        while True:
            watches = is_real and emitter.watches_loop
            until = min(self._next, trio.current_time() + WATCH_INTERVAL) if watches else self._next
            with trio.CancelScope(deadline=until) as self._sleep:
                await trio.sleep_forever()
            late = trio.current_time() - self._sleep.deadline
            self._sleep = None
            if watches and late >= STALL:
                emitter.stalled(late)
            if trio.current_time() < self._next:
                continue
            await self._socket._settle_input()
            self._next = math.inf
            now = trio.current_time()
            self.arm(self._socket._tick(now))
            self.arm(self._expire(now))

    def _expire(self, now: float) -> float:
        """Expire what is due, but not too much at a time; returns when to go on (infinity: never)."""
        heap = self._heap
        for _ in range(ENTRIES_A_STEP):
            if not heap or heap[0][0] > now:
                break
            timed = heapq.heappop(heap)[2]
            if not timed.over:
                timed.expire()
        while heap and heap[0][2].over:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf
