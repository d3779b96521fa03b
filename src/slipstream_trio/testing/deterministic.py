"""Ids and clocks that are the same in every run, for telemetry that can be compared word for word."""

from itertools import count
from typing import Final

from ..telemetry import Telemetry

EPOCH_NS: Final = 1_700_000_000_000_000_000  # 2023-11-14 22:13:20 UTC: a time not mistaken for zero, or for now
NS_PER_S: Final = 1_000_000_000
_STEP_NS: Final = 1_000


class SequentialIds:
    """Ids that count: the first trace is "00…01", and so is the first span."""

    def __init__(self) -> None:
        self._traces = count(1)
        self._spans = count(1)

    def trace_id(self) -> str:
        """Return the next trace id: 32 lowercase hex digits."""
        return f"{next(self._traces):032x}"

    def span_id(self) -> str:
        """Return the next id of a span, a connection or a socket: 16 lowercase hex digits."""
        return f"{next(self._spans):016x}"


class SteppingClock:
    """A clock that moves by a microsecond at each reading, and by `advance`.

        clock = SteppingClock()
        telemetry = Telemetry(ids=SequentialIds(), time_ns=clock.time_ns, monotonic_ns=clock.monotonic_ns)

    Both of its readings are of one time: between two of them, both clocks have gone on by as many nanoseconds.
    """

    def __init__(self) -> None:
        self._elapsed_ns = 0

    def time_ns(self) -> int:
        """Return the system time, in nanoseconds since the epoch, and move on."""
        return EPOCH_NS + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        """Return the nanoseconds since the clock's beginning, and move on."""
        self._elapsed_ns += _STEP_NS
        return self._elapsed_ns - _STEP_NS

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Parameters:
            seconds: the time to add, in seconds.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds: at least 0, as a monotonic clock never goes back; not {seconds}")
        self._elapsed_ns += round(seconds * NS_PER_S)


def deterministic_telemetry() -> Telemetry:
    """Return a bus with a `SequentialIds` and a `SteppingClock` of its own, for a `connect` or a machine."""
    clock = SteppingClock()
    return Telemetry(ids=SequentialIds(), time_ns=clock.time_ns, monotonic_ns=clock.monotonic_ns)
