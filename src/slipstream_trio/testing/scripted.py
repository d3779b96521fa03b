"""Servers that follow a script: plain data about the answers to upgrades, joins and pushes, and their times.

A script is frozen data whose `repr` can be pasted into a test; Phoenix's behaviour around it is that of
`slipstream_trio.testing.server`. Strategies draw scripts (`testing.strategies.server_scripts`). Extra: `testing`.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import trio
from attrs import define, field, frozen
from attrs.validators import deep_iterable as each, in_, instance_of, optional

from .server import Channel, JoinRefused, Mount, PhoenixServer, Refuse, Request, Stop

__all__ = ["Act", "Deed", "JoinFate", "ServerScript", "scripted_server"]

Deed = Literal["reply", "push", "burst", "broadcast", "raw", "ping", "sleep", "stop", "crash", "close", "drop"]
"""An action of a channel."""

JoinFate = Literal["accept", "refuse", "crash", "slow", "crash_after"]
"""The outcome of a join; "slow" accepts it after 1.5 seconds, "crash_after" accepts it and crashes at once."""


@frozen
class Act:
    """One thing that a channel does.

    Attributes:
        deed: the action:
            "reply" answers the push with `value`, a pair of status and response (again, if it has answered);
            "push" pushes `value`, a pair of event and payload; "burst" pushes `value` ticks numbered from 0;
            "broadcast" broadcasts `value`, a pair of event and payload, which may bear a reserved event's name;
            "raw" sends the frame `value` as it is; "ping" sends a WebSocket ping; "sleep" waits for `value` seconds;
            "stop" ends the channel (phx_close), "crash" crashes it (phx_error);
            "close" closes the connection with the code `value`, "drop" cuts it.
        value: as told above; None for the others.
    """

    deed: Deed = field(validator=in_(get_args(Deed)))
    value: Any = None


def _tuples(lists: Any) -> tuple[tuple[Act, ...], ...]:
    return tuple(map(tuple, lists))


@frozen
class ServerScript:
    """A server's behaviour, step by step; once the script is over, it accepts all and echoes every push.

    Attributes:
        upgrades: of each connection in turn: the HTTP status that refuses it, None to accept it.
        joins: the fate of each join in turn, whatever its topic.
        pushes: of each push in turn, whatever its channel: the acts of that channel; () leaves it unanswered.

    Raises:
        ValueError: an unknown status or fate.
        TypeError: a push whose acts are not a list of `Act`.
    """

    upgrades: tuple[int | None, ...] = field(
        default=(), converter=tuple[int | None, ...], validator=each(optional(in_(range(200, 600))))
    )
    joins: tuple[JoinFate, ...] = field(
        default=(), converter=tuple[JoinFate, ...], validator=each(in_(get_args(JoinFate)))
    )
    pushes: tuple[tuple[Act, ...], ...] = field(default=(), converter=_tuples, validator=each(each(instance_of(Act))))


def scripted_server(script: ServerScript) -> PhoenixServer:
    """Return a server that follows a script, with a socket at "/socket"; run it with `run()` or `serve()`."""
    upgrades, joins, pushes = iter(script.upgrades), iter(script.joins), iter(script.pushes)

    def connect(_: Request) -> None:
        if (status := next(upgrades, None)) is not None:
            raise Refuse(status, [("retry-after", "1")] if status in (429, 503) else [])

    mount = Mount(channels={"*": lambda: _Scripted(joins, pushes)}, connect=connect)
    return PhoenixServer({"/socket": mount}, close_timeout=1.0)


@define(eq=False)
class _Scripted(Channel):
    """A channel that follows the script."""

    _joins: Iterator[JoinFate]
    _pushes: Iterator[tuple[Act, ...]]

    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - the script decides
        match next(self._joins, "accept"):
            case "refuse":
                raise JoinRefused({"reason": "unauthorized"})
            case "crash":
                raise RuntimeError("the script says so")
            case "slow":
                await trio.sleep(1.5)
            case "crash_after":
                self.spawn(self._perform, Act("crash"), None)
        return {}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Stop | None:
        echo = {"event": event, "payload": payload} if type(payload) is not bytes else payload
        for act in next(self._pushes, (Act("reply", ("ok", echo)),)):
            if act.deed == "stop":
                return Stop("normal")
            await self._perform(act, ref)
        return None

    async def _perform(self, act: Act, ref: Any) -> None:  # noqa: C901 - a case for each deed
        match act.deed, act.value:
            case "reply", (status, response):
                await self.reply(ref, response, status)
            case "push", (event, payload):
                await self.push(event, payload)
            case "burst", int(count):
                for number in range(count):
                    await self.push("tick", {"n": number})
            case "broadcast", (event, payload):
                await self.broadcast(event, payload)
            case "raw", frame:
                await self.socket.send_raw(frame)
            case "sleep", seconds:
                await trio.sleep(seconds)
            case "ping", _:
                await self.socket.ping(b"scripted")
            case "close", code:
                self.socket.close(code)
            case "drop", _:
                self.socket.drop()
            case "crash", _:
                raise RuntimeError("the script says so")
            case deed, value:
                raise ValueError(f"the value of {deed!r} is not {value!r}: see Act for what it takes")
