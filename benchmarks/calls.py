"""Count the Python calls of a message and of an echo, with nothing attached: what does not depend on the machine.

    python benchmarks/calls.py

The server runs in a thread of its own, which is not counted; Trio's and trio-websocket's calls are.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from docs.example_server import ExampleServer

from slipstream_trio import Channel, connect

MESSAGES = 5_000
ECHOES = 1_000


class Calls:
    """Counts the calls of Python functions in this thread."""

    def __init__(self) -> None:
        self.count = 0

    def profile(self, _frame: FrameType, event: str, _argument: Any) -> None:
        """Take note of an event, as `sys.setprofile` tells it."""
        self.count += event == "call"


async def counted(operation: Callable[[], Awaitable[object]]) -> int:
    """Return how many calls an operation makes in this thread."""
    calls = Calls()
    sys.setprofile(calls.profile)
    try:
        await operation()
    finally:
        sys.setprofile(None)
    return calls.count


async def main(url: str) -> None:
    """Count, and print."""
    async with connect(url, buffer=MESSAGES, heartbeat_interval=None) as socket, socket.join("room:1") as channel:

        async def burst() -> None:
            await channel.send("ticks", {"count": MESSAGES})
            iterator = aiter(channel)
            for _ in range(MESSAGES):
                await anext(iterator)

        async def echo() -> None:
            await echoes(channel)

        await channel.push("upload", b"")
        sys.stdout.write(f"{await counted(burst) / MESSAGES:8.1f} calls a message in a burst of {MESSAGES}\n")
        sys.stdout.write(f"{await counted(echo) / ECHOES:8.1f} calls an echo, one in flight\n")


async def echoes(channel: Channel) -> None:
    """Push, and wait for the reply, one after the other."""
    for _ in range(ECHOES):
        await channel.push("upload", b"x")


if __name__ == "__main__":
    server = ExampleServer()
    trio.run(main, server.url)
    server.stop()
