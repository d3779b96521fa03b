"""Ends that connections have in common: by the clock, as servers are restarted, or as sockets evict each other."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import attrs

from .facts import SECOND, Connection, Facts
from .finding import Cause, Finding, between
from .outages import Outage, Told

PERIODS: Final = {
    86_400: "each day at {hours:02}:{minutes:02} UTC",
    3600: "each hour, {minutes} min past it",
    1800: "each half hour",
    900: "each quarter of an hour",
    600: "each 10 minutes",
}
"""Seconds between what is done by the clock, and what that is called."""

# fmt: off
RESTARTED: Final = Cause("server_restart", "serious", "server",
    "the server was restarted, or drained: it closed with {codes}",
    "nothing, if that was a deployment; a shorter drain, or more of the same server, makes the outage shorter")
CLOCK: Final = Cause("ends_by_clock", "serious", "server",
    "something ends all connections at fixed times of the clock: {clock}",
    "look for what is scheduled then (a restart at night, a balancer that is reloaded); nothing, if that does no harm")
EVICTED: Final = Cause("evicted", "serious", "application",
    "sockets of one user evict each other: whenever one connects, the server closes the other",
    "open one socket for a user, and share it; or let the server tell sessions apart")
# fmt: on


def by_clock(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    """Find ends at the same time of each day or hour, whatever the age of the connections."""
    codes = (1000, 1001, 1006, 1012)
    ends = [(facts.wall(each.began), each) for each in rest if each.code in codes]
    for seconds, name in PERIODS.items():
        period, close = seconds * SECOND, min(seconds // 100, 60) * SECOND
        groups = [[(when, each) for when, each in ends if (when - first) % period <= close] for first, _ in ends]
        group = max(groups, key=len, default=[])
        ended = [end for _, each in group if (end := each.ended) is not None and end.options is not None]
        lives = [end.life for end in ended]
        phase = group[0][0] % period // SECOND if group else 0
        is_round = (phase + 5) % 1800 < 35  # else they may be all of one age
        is_any_age = is_round or (bool(lives) and max(lives) - min(lives) > 2 * close)
        enough = batches((when for when, _ in group), 60 * SECOND) >= (2 if is_round and seconds >= 3600 else 3)
        most = enough and is_any_age and 3 * len(group) >= 2 * len(ends)
        if most and 2 * _spared(facts, ended, group[0][0], period, close) < len(group):
            clock = name.format(hours=phase // 3600, minutes=phase // 60 % 60)
            ages = [f"connections lived {between(lives)}"] if lives else []
            yield [each for _, each in group], CLOCK, ages, {"clock": clock}
            return


def _spared(facts: Facts, ended: Iterable[Connection], first: int, period: int, close: int) -> int:
    """Return how often a connection was open at one of the times, and came to no harm."""
    return sum(
        (facts.wall(each.last) - 2 * close - first) // period - (facts.wall(each.opened) + close - first) // period
        for each in facts.beside(ended)
        if each.opened is not None and each.life > 3 * close
    )


def batches(times: Iterable[int], apart: int) -> int:
    """Return how many groups times form whose gaps are more than `apart`."""
    ordered = sorted(times)
    return bool(ordered) + sum(later - before > apart for before, later in pairwise(ordered))


def restarted(_: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    """Find ends with 1012; sockets without a channel, or without a drainer, end otherwise at the same time."""
    told = [each for each in rest if each.code == 1012]
    others = [each for each in rest if each.code in (1000, 1001, 1006)]
    told += [
        each
        for each in others
        if any(end.socket != each.socket and abs(each.began - end.began) < 10 * SECOND for end in told)
    ]
    yield sorted(told, key=lambda each: each.began), RESTARTED, (), {}


def all_restarted(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    """Find ends of three sockets, or of all, or such that the server could not be reached after them."""
    told = [each for each in rest if each.code in (1000, 1001)]
    sockets, opened = {each.socket for each in told}, {*facts.opened}
    if len(sockets) < (2 if sockets == opened else 3):
        told = [each for each in told if each.attempts]
    yield told, RESTARTED, (), {}


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
