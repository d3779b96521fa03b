"""Servers that follow a script: plain data that says what happens to upgrades, joins and pushes, and when.

A script is frozen data whose `repr` can be pasted into a test; Phoenix's behaviour around it is that of
`slipstream_trio.testing.server`. Strategies draw scripts (`slipstream_trio.testing.strategies.server_scripts`). It
needs the extra `testing`.
"""

from collections import deque
from typing import Any, Final, Literal, get_args

import attrs
import trio
from attrs import frozen

from .server import Accept, Channel, JoinRefused, Mount, PhoenixServer, Refuse, Reply, Request, Stop

__all__ = ["Act", "Deed", "JoinFate", "ServerScript", "perform", "scripted_server"]

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


SLOW: Final = 1.5
"""Seconds that a slow join takes."""


def scripted_server(script: ServerScript, path: str = "/socket") -> PhoenixServer:
    """Return a server that follows a script; run it with `run()` or `serve()`.

    Parameters:
        script: what it does.
        path: the path of its socket, to which clients connect as `path` and "/websocket".
    """
    course = _Course(script)
    mount = Mount(channels={"*": lambda: _Scripted(course)}, connect=course.connect)
    return PhoenixServer({path: mount}, close_timeout=1.0)


async def perform(channel: Channel, act: Act, ref: Any) -> Any:  # noqa: C901, PLR0912 - a case for each deed
    """Let a channel of one's own do what an act says; for use in `Channel.handle_in`.

    Parameters:
        channel: the channel.
        act: what it does.
        ref: the ref of the push that it does it for.

    Returns:
        What `handle_in` has to return at once, a `Stop`; None to go on.

    Raises:
        RuntimeError: the act is a crash.
    """
    match act.deed, act.value:
        case "reply", (status, response):
            await channel.reply(ref, response, status)
        case "push", (event, payload):
            await channel.push(event, payload)
        case "burst", int(count):
            for number in range(count):
                await channel.push("tick", {"n": number})
        case "broadcast", (event, payload):
            await channel.broadcast(event, payload)
        case "raw", frame:
            await channel.socket.send_raw(frame)
        case "sleep", seconds:
            await trio.sleep(seconds)
        case "ping", _:
            await channel.socket.ping(b"scripted")
        case "close", code:
            channel.socket.close(code)
        case "drop", _:
            channel.socket.drop()
        case "stop", _:
            return Stop("normal")
        case "crash", _:
            raise RuntimeError("the script says so")
        case deed, value:
            raise ValueError(f"the value of {deed!r} is not {value!r}: see Act for what it takes")
    return None


class _Course:
    """How far a script has come."""

    def __init__(self, script: ServerScript) -> None:
        self._upgrades = deque(script.upgrades)
        self._joins = deque(script.joins)
        self._pushes = deque(script.pushes)

    def connect(self, _: Request) -> Accept | None:
        status = self._upgrades.popleft() if self._upgrades else None
        if status is not None:
            raise Refuse(status, [("retry-after", "1")] if status in (429, 503) else [])
        return None

    def next_join(self) -> str:
        return self._joins.popleft() if self._joins else "accept"

    def next_push(self, event: str, payload: Any) -> tuple[Act, ...]:
        echo = {"event": event, "payload": payload} if type(payload) is not bytes else payload
        return self._pushes.popleft() if self._pushes else (Act("reply", ("ok", echo)),)


class _Scripted(Channel):
    """A channel that does what comes next in the script."""

    def __init__(self, course: _Course) -> None:
        self._course = course

    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - the script says what becomes of it
        match self._course.next_join():
            case "refuse":
                raise JoinRefused({"reason": "unauthorized"})
            case "crash":
                raise RuntimeError("the script says so")
            case "slow":
                await trio.sleep(SLOW)
            case "crash_after":
                self.spawn(self._crash)
        return {}

    async def _crash(self) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("the script says so")

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Reply | Stop | None:
        for act in self._course.next_push(event, payload):
            outcome: Reply | Stop | None = await perform(self, act, ref)
            if outcome is not None:
                return outcome
        return None
