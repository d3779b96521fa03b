"""The development server: what `slipstream serve` serves, and what the demo and the docs talk to."""

from typing import Any, Final

import trio

from ..testing.server import Channel, JoinRefused, Mount, Outcome, PhoenixServer, Reply, Stop

PATH: Final = "/socket/websocket"  # of the socket, for clients
ABOUT: Final = """\
  room:*       a chat room. Its events: new_msg {"body": …} is broadcast, and an
               empty body refused; ticks {"count": 3, "every": 0.5}; upload, of
               bytes; silence, without a reply; hold, whose reply waits for
               release; close ends the channel, drop the connection; any other
               event crashes the channel
  room:secret  refuses joins
  lounge:*     shows who is there: join with {"name": …}; mood {…} changes it
  echo:*       replies with what it was pushed"""
"""Its channels, for people."""


class Echo(Channel):
    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:  # noqa: ARG002 - names of `Channel`
        return Reply(payload)


class Room(Channel):
    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - the name that `Channel.join` gives it
        if self.topic == "room:secret":
            raise JoinRefused({"reason": "unauthorized"})
        return {"users": 1 + sum(self.topic in other.channels for other in self.socket.server.connections)}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:  # noqa: C901 - a case for each event
        match event:
            case "new_msg" if payload.get("body"):
                await self.broadcast("new_msg", payload)
                return Reply({"id": 1})
            case "new_msg":
                return Reply({"reason": "empty"}, status="error")
            case "ticks":
                for number in range(payload["count"]):
                    await trio.sleep(payload.get("every", 0))
                    await self.push("tick", {"number": number})
                return Reply()
            case "upload":
                return Reply({"bytes": len(payload)})
            case "silence":
                pass
            case "hold":
                self._held = ref
            case "release":
                await self.reply(self._held, {"late": True})
                return Reply()
            case "close":
                return Stop()
            case "drop":
                self.socket.drop()
            case _:
                raise ValueError(f"no clause for {event!r}")
        return None


class Lounge(Channel):
    async def join(self, payload: Any) -> Any:
        self.name: str = payload.get("name", "guest")

    async def after_join(self) -> None:
        self.presence.track(self.name, {"mood": "fine"})
        await self.push("presence_state", self.presence.list())

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:  # noqa: ARG002 - names of `Channel`
        if event == "mood":
            self.presence.update(self.name, payload)
        return Reply()


def make_server() -> PhoenixServer:
    """Return the server; its socket is at `PATH`."""
    channels = {"room:*": Room, "lounge:*": Lounge, "echo:*": Echo}
    return PhoenixServer({PATH.removesuffix("/websocket"): Mount(channels=channels, auth_token=True)})
