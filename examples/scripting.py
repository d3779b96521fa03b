"""A script from top to bottom: connect, join, push, read, leave.

    python examples/scripting.py [URL]

Without a URL it talks to a server of its own.
"""

import sys
from typing import Any

import trio

from slipstream_trio import PushError, connect


async def main(url: str) -> None:
    """Do one thing after the other."""
    async with connect(url) as socket:
        async with socket.join("rooms:lobby", {"fizz": "buzz"}) as channel:
            print("joined:", channel.join_response)

            await channel.send("quicksand", {"a": "b"})  # the server does not reply to this one
            print("reply:", await channel.push("ping"))
            try:
                await channel.push("nonsense")
            except PushError as error:
                print("refused:", error.response)

            await channel.send("push to me")
            with trio.fail_after(5):
                async for message in channel:
                    print("message:", message.event, message.payload)
                    break
        print("left:", channel.status)
        print(f"round trip: {await socket.ping() * 1000:.1f} ms")
    print("disconnected:", socket.status)


async def demo() -> None:
    """Run it all with a server in this process."""
    from slipstream_trio.testing import server

    class Lobby(server.Channel):
        async def join(self, payload: Any) -> Any:
            return {"you said": payload}

        async def handle_in(self, event: str, payload: Any, ref: Any) -> server.Outcome:
            match event:
                case "quicksand":
                    return None
                case "ping":
                    return server.Reply({"pong": "pong"})
                case "push to me":
                    await self.push("foo", {"this is": "a push"})
                    return None
            return server.Reply({"reason": f"no such event: {event}"}, status="error")

    phoenix = server.PhoenixServer({"/socket": server.Mount(channels={"rooms:lobby": Lobby})})
    async with phoenix.serve() as listening:
        await main(listening.url("/socket/websocket"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        trio.run(demo)
