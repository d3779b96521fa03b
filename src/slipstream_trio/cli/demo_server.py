"""The demo's application: a chat room, and a room that refuses joins."""

from functools import partial
from hashlib import sha256
from typing import Any, Final

import trio

from ..testing.server import Channel, JoinRefused, Mount, Outcome, PhoenixServer, Reply

__all__ = ["PATH", "Room", "make_server"]

PATH: Final = "/socket"


class Room(Channel):
    """A room of the chat; `pace` is in seconds between two ticks of a count-down."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._held: Any = None

    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - the name that `Channel.join` gives it
        """Let everyone in, except into the secret room."""
        if self.topic == "room:secret":
            raise JoinRefused({"reason": "unauthorized"})
        return {"welcome": f"to {self.topic}"}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        """Handle the events of the demo."""
        match event:
            case "new_msg":
                return await self._say(payload)
            case "count_down":
                self.spawn(self._count_down, payload["from"])
                return Reply()
            case "upload":
                return Reply({"bytes": len(payload), "sha256": sha256(payload).hexdigest()})
            case "hold":
                self._held = ref
                return None
            case "release":
                await self.reply(self._held, {"late": True})
                return Reply()
            case "crash":
                raise RuntimeError("the demo asked for this")
        return Reply({"reason": f"no such event: {event}"}, status="error")

    async def _say(self, payload: Any) -> Reply:
        if not payload.get("body"):
            return Reply({"reason": "the body is empty"}, status="error")
        await self.broadcast("new_msg", payload)
        return Reply({"heard": len(payload["body"])})

    async def _count_down(self, start: int) -> None:
        for number in range(start, 0, -1):
            await trio.sleep(self._pace)
            await self.push("tick", {"number": number})


def make_server(pace: float) -> PhoenixServer:
    """Return the demo's server; its socket is at `PATH`."""
    return PhoenixServer({PATH: Mount(channels={"room:*": partial(Room, pace)})})
