"""Sockets that evict each other: of one process, or of several recordings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from .facts import SECOND, Facts
from .finding import Cause, Finding
from .outages import Outage, Told

# fmt: off
EVICTED: Final = Cause("evicted", "serious", "application",
    "sockets of one user evict each other: whenever one connects, the server closes the other",
    "open one socket for a user, and share it; or let the server tell sessions apart")
# fmt: on


def right_after(end: int, opened: int) -> bool:
    """Tell whether an end is due to an opening elsewhere; what tells of them may have come the other way round."""
    return -SECOND // 50 <= end - opened < SECOND // 2


def evicted(finding: Finding) -> Finding:
    """Return the ends of a socket as evictions by one of another recording."""
    changed = {name: getattr(EVICTED, name) for name in ("gravity", "blame", "mechanism", "advice")}
    evidence = (*finding.evidence, "each as the socket of another recording opened")
    return attrs.evolve(finding, cause=EVICTED.name, evidence=evidence, **changed)


def evictions(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    """Find ends right after the opening of another socket, which soon has its end in the same way."""
    opened = [(each.opened, each.socket) for each in facts.connections.values() if each.opened is not None]
    told = [
        each
        for each in rest
        if each.code in (1000, 1001, 1006) or (each.code or 0) >= 4000
        if any(socket != each.socket and right_after(each.began, when) for when, socket in opened)
    ]
    ends = Counter(each.socket for each in told)
    if len(ends) >= 2 and max(ends.values()) >= 2:
        yield told, EVICTED, ["each as another socket opened"], {}
