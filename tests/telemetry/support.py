"""Records made by hand, and an id source and clocks that count."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from trio.testing import MockClock

from slipstream_trio.telemetry import MessageDiscarded, Origin, Telemetry


@contextmanager
def taken_for_real() -> Iterator[MockClock]:
    """Give a virtual clock that is taken for Trio's own, which is told by its name."""
    MockClock.__name__ = "SystemClock"
    try:
        yield MockClock(autojump_threshold=0)
    finally:
        MockClock.__name__ = "MockClock"


ORIGIN = Origin("c" * 16, "7" * 32, "5" * 16, 1)
DROPPED = MessageDiscarded.name
FAILURE = ("slipstream", "telemetry", "handler", "failure")


class CountingIds:
    """Ids in order; counts how many were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def trace_id(self) -> str:
        self.asked += 1
        return f"{self.asked:032x}"

    def span_id(self) -> str:
        self.asked += 1
        return f"{self.asked:016x}"


class CountingBus:
    """A bus, and how often its id source and its clocks were asked."""

    def __init__(self) -> None:
        self.ids = CountingIds()
        self.times = 0
        self._clock = count(10**18)
        self.bus = Telemetry(ids=self.ids, time_ns=self.time, monotonic_ns=self.time)

    def time(self) -> int:
        self.times += 1
        return next(self._clock)

    @property
    def asked(self) -> int:
        return self.times + self.ids.asked


def dropped(number: int = 0, origin: Origin = ORIGIN) -> MessageDiscarded:
    """Return a record; which one, its ref tells."""
    return MessageDiscarded(origin, 10**18, 5, "in", "room", "event", str(number), "not_joined")
