"""Both ends of a stream through a bad network, for tests of what happens in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from slipstream_trio.testing.faults import Faults, FaultyNetwork, Rule, faulty_network
from slipstream_trio.testing.server import MemoryStream, memory_pipe

__all__ = ["Ends", "ends", "read", "silent"]


class Ends:
    """The client's end of a stream through a network, and the server's."""

    def __init__(self, network: FaultyNetwork) -> None:
        self.network = network
        self.client: Any = None
        self.server: Any = None

    async def open(self, name: str = "") -> None:
        async def open_stream() -> MemoryStream:
            self.server, theirs = memory_pipe()
            await trio.lowlevel.checkpoint()
            return theirs

        self.client = await self.network.opener(open_stream, name=name)()


@asynccontextmanager
async def ends(*rules: Rule, **faults: Any) -> AsyncIterator[Ends]:
    async with faulty_network(Faults(rules=rules, **faults)) as network:
        made = Ends(network)
        await made.open()
        yield made


async def read(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some()
        if not more:
            break
        data += more
    return data


async def silent(stream: trio.abc.ReceiveStream, seconds: float = 1000) -> bool:
    """Whether nothing comes for so long, not even an end."""
    with trio.move_on_after(seconds) as scope:
        await stream.receive_some()
    return scope.cancelled_caught
