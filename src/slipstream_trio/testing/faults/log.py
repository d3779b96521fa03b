"""What was done to a network, for tests to look at and for failures to print."""

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
        fault: what happened.
        toward: in which direction; None at the opening, and for what a test did by hand.
        byte: how many bytes had come before it in this direction; None where no bytes were counted.
        frame: the frame that it was in; None where no frames were counted.
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
    """What was injected. Its `str` shows the faults, to be pasted into a test, and what they did last.

    Parameters:
        faults: what is wrong with the network.
        keep: how many entries are kept, the newest.

    Attributes:
        faults: what is wrong with the network.
        entries: what happened, the newest last; two compare equal whenever they happened.
        counts: how often, by the fault's name; of all, also of those not kept.
        connections: how many connections were asked for.
    """

    def __init__(self, faults: Faults, *, keep: int = 10_000) -> None:
        self.faults: Faults = faults
        self.entries: deque[Injected] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()
        self.connections: int = 0

    def add(self, entry: Injected) -> None:
        """Take note of a fault."""
        self.entries.append(entry)
        self.counts[type(entry.fault).__name__] += 1

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"faults = {self.faults!r}", f"{total} faults on {self.connections} connections"]
        if total > _SHOWN:
            lines.append(f"the last {_SHOWN}:")
        return "\n".join([*lines, *map(str, list(self.entries)[-_SHOWN:])])
