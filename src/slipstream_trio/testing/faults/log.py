"""The log of injected faults, for tests to look at and for failures to print."""

from collections import Counter, deque
from typing import Final

import attrs
from attrs import frozen

from .description import Fault, Faults, Toward

__all__ = ["FaultLog", "Injected"]

_SHOWN: Final = 20


@frozen
class Injected:
    """A fault that happened.

    Attributes:
        connection: the connection's name: the name of its opener or listener, if it has one, and its number.
        fault: the fault.
        toward: the direction; None at the opening, and for faults injected by hand.
        byte: the number of bytes before it in this direction; None where bytes were not counted.
        frame: the frame that it was in; None where frames were not counted.
        time: when, in seconds since the network began.
    """

    connection: str
    fault: Fault
    toward: Toward | None = None
    byte: int | None = None
    frame: int | None = None
    time: float = attrs.field(default=0.0, eq=False)

    def __str__(self) -> str:
        where = "" if self.toward is None else f" toward the {self.toward}"
        where += "" if self.byte is None else f", after {self.byte} bytes"
        where += "" if self.frame is None else f", in frame {self.frame}"
        return f"{self.time:.3f} s: connection {self.connection}{where}: {self.fault!r}"


class FaultLog:
    """The injected faults. Its `str` shows the description, to be pasted into a test, and the last entries.

    Parameters:
        faults: the description of the network's faults.
        keep: the number of entries to keep, the newest.

    Attributes:
        faults: the description of the network's faults.
        entries: the injected faults, the newest last; entries compare without their time.
        counts: the number of all faults, kept or not, by name.
        connections: the number of connections opened.
    """

    def __init__(self, faults: Faults, *, keep: int = 10_000) -> None:
        self.faults: Faults = faults
        self.entries: deque[Injected] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()
        self.connections: int = 0

    def add(self, entry: Injected) -> None:
        """Add a fault."""
        self.entries.append(entry)
        self.counts[type(entry.fault).__name__] += 1

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"faults = {self.faults!r}", f"{total} faults on {self.connections} connections"]
        if total > _SHOWN:
            lines.append(f"the last {_SHOWN}:")
        return "\n".join([*lines, *map(str, list(self.entries)[-_SHOWN:])])
