"""Outages: times without a connection that nobody asked for; and what many share: a clock, a restart, an eviction."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from attrs import Factory, define, evolve

from .facts import ASKED, SECOND, Connection, Facts
from .finding import Cause, Finding, between

AWAY: Final = frozenset({502, 503, 504, *range(520, 525), 530})  # a proxy says that there is no server behind it
FINAL: Final = frozenset({301, 308, 401, 403, 404})  # after these no other attempt follows, by default

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


@define(eq=False)
class Outage:
    """How the last connection `ended` (None: there was none yet), and the attempts until there was one, `back`."""

    ended: Connection | None
    socket: str
    began: int
    attempts: list[Connection] = Factory(list)
    back: Connection | None = None

    @property
    def all(self) -> list[Connection]:
        """The connections that it is about, the first first."""
        return self.attempts if self.ended is None else [self.ended, *self.attempts]

    @property
    def until(self) -> int:
        """When it was over, or the last attempt had failed."""
        return (self.back.opened or self.back.last) if self.back is not None else self.all[-1].last

    @property
    def status(self) -> int | None:
        """That of the first attempt that was answered, though not with an upgrade; a server may be away for a while."""
        away = frozenset({None}) if self.ended is None else AWAY | {None}
        return next((each.status for each in self.attempts if each.status not in away), None)

    @property
    def gave_up(self) -> bool:
        """Whether no other attempt followed; an old recording does not tell, but by the status."""
        return self.back is None and (self.status in FINAL or any(each.gave_up for each in self.all))

    @property
    def code(self) -> int | None:
        """The close code of the connection that ended, None where there was none, or its end is explained."""
        return None if self.ended is None or self.ended.explained else self.ended.code


def outages(facts: Facts) -> list[Outage]:
    """Return the outages of all sockets, in the order in which they began."""
    current: dict[str, Outage] = {}
    found: list[Outage] = []
    for connection in sorted(facts.connections.values(), key=lambda each: each.began):
        socket, is_opened = connection.socket, connection.opened is not None
        if is_opened and (before := current.pop(socket, None)) is not None:
            before.back = connection
        is_told = not is_opened and connection.explained
        if connection.ended is None or connection.reason in ASKED or is_told:
            continue
        if socket not in current:
            ended, began = (connection, connection.last) if is_opened else (None, connection.began)
            current[socket] = Outage(ended, socket, began)
            found.append(current[socket])
        if not is_opened:
            current[socket].attempts.append(connection)
    return found


Told = tuple[Sequence[Outage], Cause | None, Iterable[str], dict[str, Any]]
"""Outages of one cause, the cause (None: told already), what else shows it, and the words that its text lacks."""
Rule = Callable[[Facts, Sequence[Outage]], Iterable[Told]]


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
    return evolve(finding, cause=EVICTED.name, evidence=evidence, **changed)


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
