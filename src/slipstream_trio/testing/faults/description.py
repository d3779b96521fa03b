"""Faults of a network, and their moments: frozen values, whose `repr` can be pasted into a test."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeAlias

from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, in_, instance_of

__all__ = [
    "AtByte", "AtFrame", "AtTime", "Corrupt", "EachByte", "EachFrame", "Fault", "Faults", "Ignore", "Link", "Moment",
    "Refuse", "Reset", "Rule", "SlowOpening", "Stall", "Toward", "Truncate", "Vanish",
]  # fmt: skip

Toward: TypeAlias = Literal["client", "server"]
"""A direction: that in which bytes travel."""


def _number(kind: str, valid: Callable[[Any], bool], *, whole: bool = False) -> Any:
    """Return a validator of numbers; None is valid where it is the default."""

    def check(instance: Any, attribute: "Attribute[Any]", value: Any) -> None:
        if value is None and attribute.default is None:
            return
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not valid(value):
            raise ValueError(f"{type(instance).__name__}.{attribute.name} is {kind}, not {value!r}")

    return check


_SECONDS: Final = _number("a time in seconds of at least 0", lambda value: value >= 0)
_COUNT: Final = _number("a whole number of at least 1", lambda value: value >= 1, whole=True)
_SHARE: Final = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
_BANDWIDTH: Final = _number("a number of bytes of more than 0", lambda value: value > 0)


# At the opening of a connection


@frozen
class Refuse:
    """The connection is refused.

    In memory opening it raises `ConnectionRefusedError`. The proxy can only accept it and reset it at once.
    """


@frozen
class Ignore:
    """The connection is never answered, as if the packets that open it were lost.

    In memory opening it takes for ever. The proxy accepts it, and sends nothing until the client leaves.
    """


@frozen
class SlowOpening:
    """The connection is opened after `seconds`, and up to `jitter` seconds more."""

    seconds: float = field(validator=_SECONDS)
    jitter: float = field(default=0.0, validator=_SECONDS)


# On an open connection


@frozen
class Stall:
    """Bytes wait, and none is lost; the sender is slowed down once the link's buffer is full.

    It lasts for `seconds`, or for None until `FaultyNetwork.heal`, in one direction or in `both`.
    """

    seconds: float | None = field(default=None, validator=_SECONDS)
    both: bool = False


@frozen
class Vanish:
    """The peer is gone silently: bytes sent are lost, and neither FIN nor RST ever arrives.

    This leaves the connection half open: only a timeout finds out. Without `both`, one direction works on.
    """

    both: bool = True


@frozen
class Reset:
    """The connection is cut: both ends get a TCP reset."""


@frozen
class Truncate:
    """The rest is lost, and both ends get an ordinary end of the stream."""


@frozen
class Corrupt:
    """Some bytes, `count` of them in a row, are replaced by others."""

    count: int = field(default=1, validator=_COUNT)


Fault: TypeAlias = Refuse | Ignore | SlowOpening | Stall | Vanish | Reset | Truncate | Corrupt

# The faults that have no moment: they happen when a connection is opened.
OPENING: Final = (Refuse, Ignore, SlowOpening)


# Moments


@frozen
class AtByte:
    """Once `number` bytes of a connection, from 0 on, have passed in the rule's direction, the upgrade's included."""

    number: int = field(validator=_number("a whole number of at least 0", lambda value: value >= 0, whole=True))


@frozen
class AtFrame:
    """In a WebSocket frame of a connection in the rule's direction, by its `number` from 1, control frames included.

    `into` says where: 0 is before its first byte, 1 after its last, 0.5 half-way.
    """

    number: int = field(validator=_COUNT)
    into: float = field(default=0.5, validator=_SHARE)


@frozen
class AtTime:
    """So many `seconds` after a connection was opened."""

    seconds: float = field(validator=_SECONDS)


@frozen
class EachByte:
    """At every byte, with a `probability` from 0 to 1; 0.0001 is once in 10,000 bytes, on average."""

    probability: float = field(validator=_SHARE)


@frozen
class EachFrame:
    """In every WebSocket frame, with a `probability` from 0 to 1; `into` as for `AtFrame`, None: somewhere in it."""

    probability: float = field(validator=_SHARE)
    into: float | None = field(default=None, validator=_SHARE)


Moment: TypeAlias = AtByte | AtFrame | AtTime | EachByte | EachFrame


def _from_one(given: Iterable[int] | None) -> Any:
    numbers = tuple(given) if isinstance(given, Iterable) else given
    valid = type(numbers) is tuple and all(type(each) is int and each >= 1 for each in numbers)
    if numbers is not None and not valid:
        what = "Rule.connections are numbers from 1, such as [1] for the first, or None for all"
        raise ValueError(f"{what}; not {numbers!r}")
    return numbers


@frozen
class Rule:
    """A fault, and when it happens.

    Attributes:
        when: the moment; None for `Refuse`, `Ignore` and `SlowOpening`, which happen at the opening.
        toward: the direction in which bytes and frames are counted, and which is hit: the server sends to "client".
        connections: the numbers of the connections that it holds for, from 1, in the order in which they were opened;
            None: all.
        chance: the share of these connections that it holds for, from 0 to 1.
    """

    fault: Fault = field(validator=instance_of(Fault))
    when: Moment | None = field(default=None)
    toward: Toward = field(default="client", validator=in_(("client", "server")))
    connections: tuple[int, ...] | None = field(default=None, converter=_from_one)
    chance: float = field(default=1.0, validator=_SHARE)

    @when.validator
    def _check_when(self, _: "Attribute[Any]", when: Any) -> None:
        kind = type(self.fault).__name__
        if isinstance(self.fault, OPENING):
            if when is not None:
                raise ValueError(f"{kind} happens when a connection is opened: leave out the moment, {when!r}")
        elif not isinstance(when, Moment):
            raise ValueError(f"{kind} needs a moment, such as AtFrame(3) or EachByte(0.0001), not {when!r}")  # noqa: TRY004 - as the others


@frozen
class Link:
    """One direction of a network.

    Attributes:
        latency: the time that bytes travel, in seconds.
        jitter: the most to add to it, in seconds; bytes never overtake one another.
        bandwidth: bytes a second; None: no limit.
        buffer: the most bytes under way; beyond, the sender waits, as for a TCP window.
    """

    latency: float = field(default=0.0, validator=_SECONDS)
    jitter: float = field(default=0.0, validator=_SECONDS)
    bandwidth: float | None = field(default=None, validator=_BANDWIDTH)
    buffer: int = field(default=65_536, validator=_COUNT)


@frozen
class Faults:
    """The faults of a network.

    They are decided by the seed, the rule's place among the rules, the connection's number (and name), the
    direction, and the number of the byte or frame; clocks and the division into reads do not matter. So the same
    seed makes the same faults at the same bytes, whatever the tasks' order. `AtTime` is exact under a mock clock.

    Attributes:
        seed: makes the decisions; any whole number.
        toward_client: the direction from the server to the client.
        toward_server: the other one.
        rules: the faults; where several hit the same byte, they do in this order.
    """

    seed: int = field(default=0, validator=_number("a whole number", lambda _: True, whole=True))
    toward_client: Link = field(default=Link(), validator=instance_of(Link))
    toward_server: Link = field(default=Link(), validator=instance_of(Link))
    rules: tuple[Rule, ...] = field(default=(), converter=tuple[Rule, ...], validator=deep_iterable(instance_of(Rule)))
