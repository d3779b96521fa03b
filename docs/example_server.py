"""The server that the examples of the README and of the docs talk to, in a thread of its own.

server = ExampleServer()
server.url   # ws://127.0.0.1:…/socket/websocket
server.stop()
"""

import threading
from queue import SimpleQueue
from typing import Any

import trio

from slipstream_trio.testing.server import (
    Channel,
    JoinRefused,
    Listening,
    Mount,
    Outcome,
    PhoenixServer,
    Reply,
    Stop,
)


class Room(Channel):
    """What `room:*` is in the examples."""

    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - the name that `Channel.join` gives it
        if self.topic == "room:secret":
            raise JoinRefused({"reason": "unauthorized"})
        return {"users": 1}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:  # noqa: ARG002 - likewise
        match event:
            case "new_msg" if payload["body"]:
                await self.broadcast("new_msg", payload)
                return Reply({"id": 1})
            case "new_msg":
                return Reply({"reason": "empty"}, status="error")
            case "ticks":
                for number in range(payload["count"]):
                    await self.push("tick", {"number": number})
                return Reply()
            case "upload":
                return Reply({"bytes": len(payload)})
            case "silence":
                return None
            case "close":
                return Stop()
            case "drop":
                self.socket.drop()
                return None
        raise ValueError(f"no clause for {event!r}")


class Lounge(Channel):
    """What `lounge:*` is: it shows who is there."""

    async def join(self, payload: Any) -> Any:
        self.name = payload["name"]

    async def after_join(self) -> None:
        self.presence.track(self.name, {"mood": "fine"})
        await self.push("presence_state", self.presence.list())

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:  # noqa: ARG002 - as above
        if event == "mood":
            self.presence.update(self.name, payload)
        return Reply()


class ExampleServer:
    """Serves from its making until `stop`."""

    def __init__(self) -> None:
        self._started: SimpleQueue[Listening] = SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=[self._serve], daemon=True)
        self._thread.start()
        self.url = self._started.get(timeout=20).url("/socket/websocket")

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            channels = {"room:*": Room, "lounge:*": Lounge}
            async with PhoenixServer({"/socket": Mount(channels=channels)}).serve() as listening:
                self._started.put(listening)
                await trio.sleep_forever()

    def stop(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(timeout=20)
