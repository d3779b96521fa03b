"""Times of records: on the wall's clock, in the order of the monotonic one."""

from typing import Final

from ..telemetry import Record

JUMP: Final = 1_000_000_000
"""Nanoseconds by which the two clocks may part before it is believed that one of them was set, or is another one."""


class WallClock:
    """Tells when the records of one recording happened.

    Monotonic times have the finer order, but begin anywhere, and anew when a machine does; system times are comparable,
    but are set back and forth. So monotonic times are taken, shifted by what the first record says, and shifted anew
    where the clocks have parted by a second. A clock that was set back changes nothing: what comes is not earlier.
    """

    def __init__(self) -> None:
        self._shift: int | None = None
        self._back = 0  # by how much the system's clock was set back
        self._latest = (0, 0)

    def at(self, record: Record) -> int:
        """Return when a record was emitted, in nanoseconds since the epoch."""
        measurements, shift = record.measurements, self._shift
        monotonic_time: int = measurements["monotonic_time"]
        system_time = measurements.get("system_time")  # an end has none, and its start has told
        if system_time is None and shift is None:
            start: Record = record.start  # type: ignore[attr-defined] # it is the end of a span
            system_time = start.measurements["system_time"] + measurements["duration"]
        if system_time is not None:
            parted = 0 if shift is None else monotonic_time + shift - system_time - self._back
            if parted > JUMP and system_time < self._latest[0] and monotonic_time >= self._latest[1]:
                self._back += parted
            elif shift is None or abs(parted) > JUMP:
                self._shift = shift = system_time + self._back - monotonic_time
            self._latest = system_time, monotonic_time
        assert shift is not None
        return monotonic_time + shift
