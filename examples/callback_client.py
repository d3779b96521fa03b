"""A callback client, with calls and casts from other tasks.

    python examples/callback_client.py [URL]

Without a URL it talks to a server of its own.
"""

import sys
from typing import Any

import trio

from slipstream_trio import NO_REPLY, Caller, Channel, Client, Message, Reply, run_client


class RoomClient(Client):
    """Joins rooms when it is asked to, and pushes for others."""

    def __init__(self) -> None:
        self.joining: dict[str, Caller] = {}
        self.asking: dict[str, Caller] = {}

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        """Answer at once, or keep the caller for the callback that has the answer."""
        match message:
            case "ping":
                return "pong"
            case ("join", topic):
                self.joining[topic] = caller
                await self.join(topic)
                return NO_REPLY
            case ("ask", topic, question):
                self.asking[await self.push(topic, "ask", question)] = caller
                return NO_REPLY
        raise ValueError(f"what is {message!r}?")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        """Tell the one who asked for this join; after a rejoin there is none."""
        caller = self.joining.pop(channel.topic, None)
        if caller is not None:
            caller.reply(response)

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        """Pass on the server's answer, or why there is none."""
        caller = self.asking.pop(ref, None)
        if caller is None:
            return
        if reply.error is None:
            caller.reply(reply.response)
        else:
            caller.fail(reply.error)

    async def handle_cast(self, message: Any) -> None:
        """Say something to everybody in a room."""
        topic, body = message
        await self.push(topic, "shout", {"body": body})

    async def handle_message(self, channel: Channel, message: Message) -> None:
        """Print what is said in a room."""
        print(f"{channel.topic}: {message.payload['body']}")
        self.info("conclude")

    async def handle_info(self, message: Any) -> None:
        """End, as an example has to."""
        if message == "conclude":
            self.stop()


async def main(url: str) -> None:
    """Run the client, and use it from another task."""
    client = RoomClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_client, client, url)
        print("ping:", await client.call("ping"))
        print("join:", await client.call(("join", "room:lobby")))
        print("ask:", await client.call(("ask", "room:lobby", {"question": "6 * 7"})))
        client.cast(("room:lobby", "hello, everybody"))


async def demo() -> None:
    """Run it all with a server in this process."""
    from slipstream_trio.testing import server

    class Room(server.Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> server.Outcome:
            if event == "ask":
                return server.Reply({"answer": 42})
            await self.broadcast(event, payload)
            return server.Reply()

    phoenix = server.PhoenixServer({"/socket": server.Mount(channels={"room:*": Room})})
    async with phoenix.serve() as listening:
        await main(listening.url("/socket/websocket"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1])
    else:
        trio.run(demo)
