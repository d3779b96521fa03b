"""Topics that are joined as the need arises are joined again after a reconnect, and it is said what may be missing.

    python examples/rejoin_after_reconnect.py [URL]

Without a URL it talks to a server of its own, which closes the connection once.
"""

import sys
from typing import Any

import trio

from slipstream_trio import Backoff, Channel, Client, Gap, Socket, run_client


class Follower(Client):
    """Follows the topics that others name."""

    def __init__(self) -> None:
        self.latest: dict[str, int] = {}

    async def handle_cast(self, message: Any) -> None:
        """Follow another topic. It is joined now, or with the next connection, and after each loss again."""
        await self.join(message, lambda: {"since": self.latest.get(message, 0)})

    async def handle_connect(self, socket: Socket) -> None:
        """Nothing has to be done here to join again."""
        print(f"connected, generation {socket.generation}")

    async def handle_disconnect(self, reason: Exception) -> None:
        """Nor here to connect again."""
        print(f"disconnected: {reason}")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        """Take in what the server says has happened since we were here last: the payload is asked for at each join."""
        self.latest[channel.topic] = response["latest"]
        print(f"joined {channel.topic}: {response}")

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        """Say so, after the join that ends it."""
        print(f"{channel.topic} {gap.reason}: something may have been missed")


async def main(url: str, client: Follower, **options: Any) -> None:
    """Follow two topics."""
    client.cast("room:1")
    client.cast("room:2")
    await run_client(client, url, **options)


async def demo() -> None:
    """Run it all with a server in this process."""
    from slipstream_trio.testing import server

    joins = 0

    class Room(server.Channel):
        async def join(self, payload: Any) -> Any:
            nonlocal joins
            joins += 1
            return {"since": payload["since"], "latest": payload["since"] + 10}

        async def after_join(self) -> None:
            if joins == 2:
                self.socket.close(1012)  # as when the server is restarted

    class Demo(Follower):
        gaps = 0

        async def handle_gap(self, channel: Channel, gap: Gap) -> None:
            await super().handle_gap(channel, gap)
            self.gaps += 1
            if self.gaps == 2:
                self.stop()

    phoenix = server.PhoenixServer({"/socket": server.Mount(channels={"room:*": Room})})
    async with phoenix.serve() as listening:
        await main(listening.url("/socket/websocket"), Demo(), reconnect=Backoff((0.001,)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1], Follower())
    else:
        trio.run(demo)
