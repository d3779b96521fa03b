"""An application that starts whether or not its client is configured, and its server there.

    python examples/graceful_startup.py [URL]

Without a URL it starts three times: unconfigured, configured badly, and before a server of its own.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import trio

from slipstream_trio import Backoff, Client, ConfigurationError, Socket, run_client

logger = logging.getLogger(__name__)


class Background(Client):
    """A client that an application can do without for a while."""

    async def handle_connect(self, socket: Socket) -> None:
        """The server is there."""
        print("client: connected")

    async def handle_disconnect(self, reason: Exception) -> None:
        """The server is not there (yet); it is tried again."""
        print(f"client: {reason}")


async def run_gracefully(client: Client, settings: Mapping[str, Any]) -> None:
    """Run a client if it is configured, and let the application go on without it otherwise."""
    if "url" not in settings:
        print("client: not configured, not started")
        return
    try:
        await run_client(client, **settings)
    except ConfigurationError as error:
        print(f"client: configured badly, not started: {error}")
    except Exception:
        # Whatever happens to it must not end the application. Another one might want to end.
        logger.exception("the client has ended")


async def application(client: Client, settings: Mapping[str, Any]) -> None:
    """Start everything; this waits for nobody."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_gracefully, client, settings)
        print("application: started")


async def demo() -> None:
    """Start three times, the last time before the server."""
    from slipstream_trio.testing import server

    phoenix = server.PhoenixServer({"/socket": server.Mount()})
    async with phoenix.serve() as listening:
        url = listening.url("/socket/websocket")

    class Demo(Background):
        async def handle_disconnect(self, reason: Exception) -> None:
            print("client: no server yet")
            down.set()

        async def handle_connect(self, socket: Socket) -> None:
            await super().handle_connect(socket)
            self.stop()
            up.set()

    down, up = trio.Event(), trio.Event()
    await application(Demo(), {})
    await application(Demo(), {"url": "localhost:4000"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application, Demo(), {"url": url, "reconnect": Backoff((0.001,))})
        await down.wait()
        async with phoenix.serve(listening.host, listening.port):
            await up.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(application, Background(), {"url": sys.argv[1]})
    else:
        trio.run(demo)
