"""Tokens that expire: each attempt to connect asks for a fresh one.

    python examples/token_refresh.py [URL]

Without a URL it talks to a server of its own, whose tokens can be used once.
"""

import sys
from itertools import count
from typing import Any

import trio

from slipstream_trio import Backoff, Client, ConnectionRejected, Disconnect, Socket, run_client
from slipstream_trio.protocol import worth_retrying


class Tokens:
    """Where tokens come from: in your application an HTTP request, perhaps."""

    def __init__(self) -> None:
        self.numbers = count(1)

    async def fresh(self) -> str:
        """Return a token that has not been used."""
        await trio.lowlevel.checkpoint()
        return f"token-{next(self.numbers)}"


def should_reconnect(disconnect: Disconnect) -> bool:
    """A 403 is final as a rule; here it may say that the token has expired on the way, and the next is fresh."""
    return disconnect.status == 403 or worth_retrying(disconnect)


class Refreshing(Client):
    """Tells how its connections go."""

    async def handle_connect(self, socket: Socket) -> None:
        """The server has taken the token."""
        print(f"connected, generation {socket.generation}")

    async def handle_disconnect(self, reason: Exception) -> None:
        """The server has not, or no longer."""
        if isinstance(reason, ConnectionRejected):
            print(f"refused with {reason.status}: the next attempt has another token")
        else:
            print(f"disconnected: {reason}")


async def main(url: str, client: Client, **options: Any) -> None:
    """Connect, and connect again."""
    tokens = Tokens()
    # Phoenix 1.8 reads auth_token from a header, where no log shows it. For older servers, `params` takes a function,
    # too: params=lambda: {"token": …}
    await run_client(client, url, auth_token=tokens.fresh, should_reconnect=should_reconnect, **options)


async def demo() -> None:
    """Run it all with a server in this process."""
    from slipstream_trio.testing import server

    seen = []

    def check(request: server.Request) -> server.Accept:
        print(f"the server is shown {request.auth_token}")
        seen.append(request.auth_token)
        if request.auth_token == "token-2":  # noqa: S105 - made up
            raise server.Refuse(403)
        return server.Accept(id="user:1")

    class Demo(Refreshing):
        async def handle_connect(self, socket: Socket) -> None:
            await super().handle_connect(socket)
            if len(seen) == 1:
                phoenix.disconnect("user:1")  # as when its token expires
            else:
                self.stop()

    phoenix = server.PhoenixServer({"/socket": server.Mount(connect=check, auth_token=True)})
    async with phoenix.serve() as listening:
        await main(listening.url("/socket/websocket"), Demo(), reconnect=Backoff((0.001,)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, sys.argv[1], Refreshing())
    else:
        trio.run(demo)
