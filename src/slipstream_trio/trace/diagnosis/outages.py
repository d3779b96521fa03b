"""Outages: times in which a socket had no connection, and had not asked for that."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from attrs import define

from .facts import ASKED, Connection, Facts
from .finding import Cause

AWAY: Final = frozenset(
    {502, 503, 504, *range(520, 525), 530}
)  # by which a proxy says that there is no server behind it
FINAL: Final = frozenset({301, 308, 401, 403, 404})  # after these no other attempt follows, by default


@define(eq=False)
class Outage:
    """How the last connection `ended` (None: there was none yet), and the attempts until there was one, `back`."""

    ended: Connection | None
    attempts: list[Connection]
    back: Connection | None = None

    @property
    def all(self) -> list[Connection]:
        """The connections that it is about, the first first."""
        return self.attempts if self.ended is None else [self.ended, *self.attempts]

    @property
    def socket(self) -> str:
        """The socket's id."""
        return self.all[0].socket

    @property
    def began(self) -> int:
        """When it began."""
        return self.ended.last if self.ended is not None else self.attempts[0].began

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


def outages(facts: Facts) -> Iterator[Outage]:
    """Give the outages of all sockets, in the order in which they began."""
    current: dict[str, Outage] = {}
    found: list[Outage] = []
    for connection in sorted(facts.connections.values(), key=lambda each: each.began):
        outage = current.get(connection.socket)
        if connection.opened is not None and outage is not None:
            outage.back = connection
            del current[connection.socket]
        is_told = connection.opened is None and connection.explained
        if connection.ended is None or connection.reason in ASKED or is_told:
            continue
        if connection.opened is not None:
            found.append(Outage(connection, []))
        elif outage is None:
            found.append(Outage(None, [connection]))
        else:
            outage.attempts.append(connection)
            continue
        current[connection.socket] = found[-1]
    yield from found


Told = tuple[Sequence[Outage], Cause | None, Iterable[str], dict[str, Any]]
"""Outages of one cause, the cause (None: told already), what else shows it, and the words that its text lacks."""
Rule = Callable[[Facts, Sequence[Outage]], Iterable[Told]]
