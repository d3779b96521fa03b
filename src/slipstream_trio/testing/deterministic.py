"""Ids and clocks that are the same in every run, for telemetry that can be compared word for word.

clock = SteppingClock()
telemetry = Telemetry(ids=SequentialIds(), time_ns=clock.time_ns, monotonic_ns=clock.monotonic_ns)
"""

from itertools import count
from typing import Final

from ..telemetry import Telemetry

__all__ = ["SequentialIds", "SteppingClock", "deterministic_telemetry"]

EPOCH_NS: Final = 1_700_000_000_000_000_000
"""2023-11-14 22:13:20 UTC: a time not mistaken for zero, or for now."""

NS_PER_S: Final = 1_000_000_000


class SequentialIds:
    """Ids that count: the first trace is "00…01", and so is the first span.

    Parameters:
        start: the number of the first id of each kind; at least 1, as an id is never all zero.

    Raises:
        ValueError: `start` is less than 1.
    """

    def __init__(self, start: int = 1) -> None:
        if start < 1:
            raise ValueError(f"start: at least 1, as an id is never all zero; not {start}")
        self._traces = count(start)
        self._spans = count(start)

    def trace_id(self) -> str:
        """Return the next trace id: 32 lowercase hex digits."""
        return f"{next(self._traces):032x}"

    def span_id(self) -> str:
        """Return the next id of a span, a connection or a socket: 16 lowercase hex digits."""
        return f"{next(self._spans):016x}"


class SteppingClock:
    """A clock that moves by one step at each reading, and by `advance`.

        clock = SteppingClock()
        telemetry = Telemetry(ids=SequentialIds(), time_ns=clock.time_ns, monotonic_ns=clock.monotonic_ns)

    Both of its readings are of one time: between two of them the system clock and the monotonic clock have gone on
    by the same number of nanoseconds.

    Parameters:
        step_ns: the step of each reading, in nanoseconds; 0 makes it stand still.
        start_ns: the system time at its beginning, in nanoseconds since the epoch.

    Raises:
        ValueError: `step_ns` is negative: a monotonic clock never goes back.
    """

    def __init__(self, step_ns: int = 1_000, start_ns: int = EPOCH_NS) -> None:
        if step_ns < 0:
            raise ValueError(f"step_ns: at least 0, as a monotonic clock never goes back; not {step_ns}")
        self._step_ns = step_ns
        self._start_ns = start_ns
        self._elapsed_ns = 0

    def time_ns(self) -> int:
        """Return the system time, in nanoseconds since the epoch, and move on."""
        return self._start_ns + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        """Return the nanoseconds since the clock's beginning, and move on."""
        now = self._elapsed_ns
        self._elapsed_ns += self._step_ns
        return now

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
