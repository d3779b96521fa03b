"""What a soak counts, and what it must not find."""

import gc
import os
import sys
from collections import Counter
from pathlib import Path

import trio
from attrs import define, field

from slipstream_trio.telemetry import Record
from slipstream_trio.trace import Verifier, Violation

__all__ = ["Figures", "Held", "Watch", "held"]

_CONNECT = ("slipstream", "connection", "connect")
_PUSH_STOP = ("slipstream", "client", "push", "stop")


@define
class Held:
    """What the process holds at a moment.

    Attributes:
        resident: bytes of memory, as the system sees it.
        blocks: memory blocks of Python's.
        tasks: Trio's.
        files: open files, sockets among them.
    """

    resident: int
    blocks: int
    tasks: int
    files: int


@define
class Figures:
    """What came of a soak.

    Attributes:
        counts: how often what happened.
        violations: of a trace's invariants, the first of them.
        failures: what must not happen, in words, the first of them.
        warm: what was held once everybody was at work.
        last: and at the end of the work.
        before: before anything was.
        after: when everybody had left.
    """

    counts: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    failures: list[str] = field(factory=list)
    warm: Held | None = None
    last: Held | None = None
    before: Held | None = None
    after: Held | None = None

    def fail(self, problem: str) -> None:
        """Take note of what must not happen."""
        self.counts["failures"] += 1
        if len(self.failures) < 20:
            self.failures.append(problem)

    def judge(self, *, growth: float) -> list[str]:
        """Return what is wrong, in sentences; nothing, if all is well.

        Parameters:
            growth: by how much memory may grow from `warm` to `last`, as a share of it.
        """
        wrong = [f"it failed: {failure}" for failure in self.failures]
        wrong += [f"a trace is broken: {violation}" for violation in self.violations[:20]]
        if self.counts["lost in silence"]:
            wrong.append(f"{self.counts['lost in silence']} messages were lost and not announced")
        if self.counts["out of order"]:
            wrong.append(f"{self.counts['out of order']} messages came twice or out of order")
        if self.before and self.after and self.after.tasks != self.before.tasks:
            wrong.append(f"{self.after.tasks - self.before.tasks} tasks are left")
        if self.before and self.after and self.after.files > self.before.files:
            wrong.append(f"{self.after.files - self.before.files} files are left open")
        if self.warm and self.last:
            for name in ("resident", "blocks"):
                warm, last = getattr(self.warm, name), getattr(self.last, name)
                if last > warm * (1 + growth):
                    wrong.append(f"memory grew: {name} from {warm:,} to {last:,}")
        wrong += [
            f"nothing was {what}" for what in ("received", "connected", "joined", "left") if not self.counts[what]
        ]
        return wrong


class Watch:
    """A handler of all telemetry: counts, and verifies every trace while it grows.

    Parameters:
        figures: where it is written down.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        # One for each connection, so that what is known of those that have ended is not held.
        self._verifiers: dict[str | None, Verifier] = {}

    @property
    def open(self) -> int:
        """How many connections have begun and not ended."""
        return len(self._verifiers)

    def __call__(self, record: Record) -> None:
        """See a record."""
        name, counts = record.name, self._figures.counts
        counts["records"] += 1
        connection_id = record.origin.connection_id
        if name == (*_CONNECT, "start"):
            self._verifiers[connection_id] = Verifier()
        verifier = self._verifiers.get(connection_id)
        if verifier is not None and (name[1] == "connection" or name == _PUSH_STOP):
            self._violated(verifier.feed(record))
        if name[:3] == _CONNECT and name != (*_CONNECT, "start"):
            counts["connections"] += 1
            if verifier is not None:
                self._violated(verifier.finish())
                del self._verifiers[connection_id]
        if name[-1] == "exception" or name[-2:] == ("handler", "failure"):
            self._figures.fail(f"{' '.join(name)}: {record.metadata}")
        elif name[1] == "client":
            counts[_COUNTED.get((name[2:], record.metadata.get("outcome")), "")] += 1

    def _violated(self, found: list[Violation]) -> None:
        self._figures.violations += map(str, found)


_COUNTED = {
    (("connect", "stop"), "ok"): "connected",
    (("connect", "stop"), "error"): "connects failed",
    (("push", "stop"), "ok"): "pushes answered",
    (("push", "stop"), "timeout"): "pushes timed out",
    (("push", "stop"), "lost"): "pushes lost",
    (("join", "stop"), "ok"): "joined",
    (("gap",), None): "gaps",
    (("overflow",), None): "overflows",
    (("reply_orphaned",), None): "replies orphaned",
    (("message_dropped",), None): "messages dropped before they were sent",
    (("rejoin_scheduled",), None): "rejoins scheduled",
}


def held(*, tidy: bool = True) -> Held:
    """Return what the process holds now.

    Parameters:
        tidy: whether garbage is collected first, which takes a while.
    """
    if tidy:
        gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - without an object for each
    return Held(resident, sys.getallocatedblocks(), trio.lowlevel.current_statistics().tasks_living, files)
