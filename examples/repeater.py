"""A repeater: whatever is broadcast on a topic of one server is pushed to a topic of another.

    python examples/repeater.py [SOURCE_URL TARGET_URL]

Without URLs it talks to two servers of its own.
"""

import sys
from typing import Any

import trio

from slipstream_trio import Channel, Client, Gap, Message, Socket, connect, run_client

TOPIC = "rooms:lobby"


class Repeater(Client):
    """Repeats the messages of one topic, unchanged and in order.

    Parameters:
        target: the channel that gets them.
    """

    def __init__(self, target: Channel) -> None:
        self.target = target

    async def handle_connect(self, socket: Socket) -> None:
        """Join. Once joined, it is joined again after a loss, so that this matters the first time only."""
        await self.join(TOPIC)

    async def handle_message(self, channel: Channel, message: Message) -> None:
        """Push it; while the target is away this waits, and the messages wait here."""
        await self.target.send(message.event, message.payload)

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        """Let the other side know that it may have missed something."""
        await self.target.send("gap", {"reason": gap.reason, "dropped": gap.dropped})


async def main(source: str, target: str) -> None:
    """Repeat until cancelled."""
    async with connect(target) as socket, socket.join(TOPIC) as channel:
        # A target that stays away for longer than 1,024 messages loses the oldest of them, and is told so.
        await run_client(Repeater(channel), source, overflow="drop_oldest")


async def demo() -> None:
    """Run it all with two servers in this process."""
    from slipstream_trio.testing import server

    class Source(server.Channel):
        async def after_join(self) -> None:
            for number in range(3):
                await self.broadcast("new_msg", {"number": number})
            await self.broadcast("last")

    class Target(server.Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> server.Outcome:
            print(f"repeated: {event} {payload}")
            if event == "last":
                everything.cancel()
            return None

    source = server.PhoenixServer({"/socket": server.Mount(channels={TOPIC: Source})})
    target = server.PhoenixServer({"/socket": server.Mount(channels={TOPIC: Target})})
    with trio.CancelScope() as everything:
        async with source.serve() as here, target.serve() as there:
            await main(here.url("/socket/websocket"), there.url("/socket/websocket"))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        trio.run(main, sys.argv[1], sys.argv[2])
    else:
        trio.run(demo)
