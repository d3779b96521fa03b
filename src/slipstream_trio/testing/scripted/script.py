"""What a server does, as frozen data whose `repr` can be pasted into a test."""

from typing import Any, Literal, get_args

import attrs
from attrs import frozen

__all__ = ["Act", "Deed", "JoinFate", "ServerScript"]

Deed = Literal["reply", "push", "burst", "broadcast", "raw", "ping", "sleep", "stop", "crash", "close", "drop"]
"""What a channel can do."""

JoinFate = Literal["accept", "refuse", "crash", "slow", "crash_after"]
"""What becomes of a join; "slow" accepts it after 1.5 seconds, "crash_after" accepts it and crashes at once."""


@frozen
class Act:
    """One thing that a channel does.

    Attributes:
        deed: what it does:
            "reply" answers the push with `value`, a pair of status and response (again, if it has answered);
            "push" pushes `value`, a pair of event and payload; "burst" pushes `value` ticks numbered from 0;
            "broadcast" broadcasts `value`, a pair of event and payload, which may bear a reserved event's name;
            "raw" sends the frame `value` as it is; "ping" sends a WebSocket ping; "sleep" waits for `value` seconds;
            "stop" ends the channel (phx_close), "crash" crashes it (phx_error);
            "close" closes the connection with the code `value`, "drop" cuts it.
        value: as told above; None where nothing is.
    """

    deed: Deed = attrs.field(validator=attrs.validators.in_(get_args(Deed)))
    value: Any = None


def _check(instance: "ServerScript", _: Any, __: Any) -> None:
    for status in instance.upgrades:
        if status is not None and status not in range(200, 600):
            raise ValueError(f"ServerScript.upgrades: each is an HTTP status, or None to accept; not {status!r}")
    for fate in instance.joins:
        if fate not in get_args(JoinFate):
            raise ValueError(f"ServerScript.joins: each is one of {', '.join(get_args(JoinFate))}; not {fate!r}")
    for act in (act for acts in instance.pushes for act in acts):
        if not isinstance(act, Act):
            raise ValueError(f"ServerScript.pushes: each is a list of Act; not of {act!r}")  # noqa: TRY004 - as the others


def _tuples(lists: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(items) for items in lists)


@frozen
class ServerScript:
    """What a server does to its clients, in order; once the script is over, it accepts all and echoes every push.

    Attributes:
        upgrades: of each connection in turn: the HTTP status that refuses it, None to accept it.
        joins: the fate of each join in turn, whatever its topic.
        pushes: of each push in turn, whatever its channel: what that channel does then. Nothing at all, (), is a push
            that never gets its reply.

    Raises:
        ValueError: there is no such status or fate, or what is said of a push is no list of `Act`.
    """

    upgrades: tuple[int | None, ...] = attrs.field(default=(), converter=tuple[int | None, ...])
    joins: tuple[JoinFate, ...] = attrs.field(default=(), converter=tuple[JoinFate, ...])
    pushes: tuple[tuple[Act, ...], ...] = attrs.field(default=(), converter=_tuples, validator=_check)
