"""What the tests of the kit stand on: a fake server whose clients' traces are verified."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from slipstream_trio import Socket, connect
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.kit import FakeChannel, FakeServer
from slipstream_trio.trace import verify


class Watched:
    """A fake server, a nursery for clients, and the records of all that connect by `connect`."""

    def __init__(self, server: FakeServer, nursery: trio.Nursery) -> None:
        self.server = server
        self.nursery = nursery
        self.telemetry = Telemetry()
        self.records: list[Record] = []
        self.telemetry.attach("watched", (), self.records.append, prefix=True)

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Socket]:
        given: dict[str, Any] = {"transport": self.server.connector(), "telemetry": self.telemetry, "reconnect": None}
        return connect(self.server.url, **{**given, **options})

    def named(self, *name: str) -> list[Any]:
        """Return the records whose names end like this."""
        return [record for record in self.records if record.name[-len(name) :] == name]


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[Watched]:
    """Run a fake server; at the end no task is left, and the traces of all clients keep the invariants."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with FakeServer(**options) as server, trio.open_nursery() as nursery:
        on = Watched(server, nursery)
        yield on
    assert verify(on.records) == []
    assert trio.lowlevel.current_statistics().tasks_living == before


@asynccontextmanager
async def parties(topic: str = "room:1", *, connecting: Any = None, **options: Any) -> AsyncIterator[Any]:
    """Give both ends of a joined channel: (on, client's channel, server's channel)."""
    async with watched(**options) as on, on.connect(**(connecting or {})) as socket:
        connection = await on.server.accept()
        joined: list[FakeChannel] = []

        async def let_in() -> None:
            joined.append(await (await connection.expect_join(topic)).reply_ok())

        on.nursery.start_soon(let_in)
        async with socket.join(topic) as channel:
            yield on, channel, joined[0]
