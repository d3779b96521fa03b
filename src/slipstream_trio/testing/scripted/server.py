"""The server that follows a script: Phoenix's behaviour around it is that of `slipstream_trio.testing.server`."""

from collections import deque
from typing import Any, Final

import trio

from ..server import Accept, Channel, JoinRefused, Mount, PhoenixServer, Refuse, Reply, Request, Stop
from .script import Act, ServerScript

__all__ = ["perform", "scripted_server"]

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
