"""A laboratory of incidents: a desk on which much goes well, and one thing goes wrong, in virtual time, recorded."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from slipstream_trio import SlipstreamError, Socket, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.server import (
    Accept,
    Channel,
    Connection,
    JoinRefused,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
)
from slipstream_trio.trace import diagnose, read, record
from slipstream_trio.transport import Connector, find_connector

URL = "ws://lab/socket/websocket"
EPOCH = 1_700_000_000_000_000_000


class Laboratory:
    """A server, the trouble it makes, and a telemetry on the virtual clock.

    Attributes:
        joins: how long joins take, by topic; or an exception that refuses them.
        events: what is done for an event on a room, beside an answer at once.
        evicts: whether a user's new connection ends the one before.
        skipped: how many prices were left out.
        repeats: how often a price is pushed.
        refusal: what upgrades are refused with, None: they are not.
        down: whether nobody listens.
        failure: what attempts to connect fail with, None: they do not.
        slept: for how many nanoseconds the machine slept, which the wall clock alone tells.
    """

    def __init__(self, clock: MockClock, path: Path, **mount: Any) -> None:
        self.clock = clock
        self.path = path
        self.slept = 0
        self.telemetry = Telemetry(time_ns=lambda: EPOCH + self._now() + self.slept, monotonic_ns=self._now)
        self.joins: dict[str, float | Exception] = {}
        self.events: dict[str, Callable[[Channel, Any], Awaitable[Outcome]]] = {}
        self.refusal: Refuse | None = None
        self.down = False
        self.failure: Exception | None = None
        self.evicts = False
        self.skipped = 0
        self.repeats = 1
        channels = {"prices:*": lambda: Prices(self), "room:*": lambda: Room(self)}
        self.servers = [
            PhoenixServer({"/socket": Mount(channels=channels, connect=self._let_in, **mount)}) for _ in range(2)
        ]
        self.server = self.servers[0]
        self.connector: Connector = find_connector("auto", self._open)

    def _now(self) -> int:
        return round(self.clock.current_time() * 1e9)

    async def _open(self, _: Any) -> Any:
        if self.down:
            raise ConnectionRefusedError(111, "Connection refused")
        if self.failure is not None:
            raise self.failure
        return await self.server.open_stream()

    def _let_in(self, request: Request) -> Accept:
        if self.refusal is not None:
            raise self.refusal
        user = request.params.get("user")
        if self.evicts and user is not None:
            self.server.disconnect(user)
        return Accept(id=user)

    @property
    def connection(self) -> Connection:
        """The latest connection."""
        return self.server.connections[-1]

    async def kill(self, down: float) -> None:
        """Kill the server, and have another after a while."""
        self.down = True
        await self.server.kill()
        await trio.sleep(down)
        self.server = self.servers[1]
        self.down = False

    @asynccontextmanager
    async def desk(self, **options: Any) -> AsyncIterator[tuple[Socket, trio.Nursery]]:
        """Work at a desk: prices come, rooms are talked in, documents are searched for, some searches are given up."""
        given = {"heartbeat_interval": 5, "transport": self.connector, "telemetry": self.telemetry, **options}
        async with connect(given.pop("url", URL), **given) as socket, trio.open_nursery() as nursery:
            nursery.start_soon(self._prices, socket)
            nursery.start_soon(self._rooms, socket)
            nursery.start_soon(self._guest, socket)
            yield socket, nursery
            nursery.cancel_scope.cancel()

    async def _prices(self, socket: Socket) -> None:
        async with socket.join("prices:eur") as prices:
            async for _ in prices:
                pass

    async def _rooms(self, socket: Socket) -> None:
        async with socket.join("room:1", {"user": "mira"}) as one, socket.join("room:2") as two:
            for number in range(10_000):
                await trio.sleep(0.3)
                room = one if number % 3 else two
                said = {"text": f"word {number} of {socket.socket_id}"}
                with suppress(SlipstreamError), trio.move_on_after(0.01 if number % 7 == 0 else 30):
                    await room.push("search" if number % 2 else "msg", said, timeout=20)

    async def _guest(self, socket: Socket) -> None:
        for number in range(10_000):
            await trio.sleep(2.1)
            try:
                if number % 3 == 1:
                    async with socket.join("lounge:3"):
                        pass
                else:
                    async with socket.join(f"room:{30 + number}") as room:
                        await room.push("history", {"limit": number})
            except SlipstreamError:
                pass


class Prices(Channel):
    """Pushes a price eight times a second, each with a number; what was due while it stood still it sends at once."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab

    async def join(self, payload: Any) -> Any:
        return await _join(self._lab, self.topic)

    async def after_join(self) -> None:
        self.spawn(self._tick)

    async def _tick(self) -> None:
        number = int(trio.current_time() * 8)
        while True:
            await trio.sleep(0.125)
            while number < trio.current_time() * 8 - 1.01:
                number += 1
                for _ in range(self._lab.repeats):
                    await self.push("tick", {"ask": 1.08, "n": number + self._lab.skipped})


class Room(Channel):
    """Answers within 20 ms, unless the laboratory has another plan."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab

    async def join(self, payload: Any) -> Any:
        return await _join(self._lab, self.topic)

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        if event in self._lab.events:
            return await self._lab.events[event](self, payload)
        await trio.sleep(0.02)
        if event == "msg":
            await self.broadcast("msg", payload)
        return Reply({"done": True})


async def _join(lab: Laboratory, topic: str) -> Any:
    plan = lab.joins.get(topic, lab.joins.get(topic.partition(":")[0], 0.004))
    if isinstance(plan, Exception):
        raise plan
    await trio.sleep(plan)
    return {"members": 3}


def refused(reason: str) -> JoinRefused:
    """Return what refuses a join."""
    return JoinRefused({"reason": reason})


def recorded(
    path: Path, incident: Callable[[Laboratory], Awaitable[None]], mount: dict[str, Any] | None = None, **options: Any
) -> Path:
    """Let an incident happen, and return its recording, made with these options."""
    clock = MockClock(autojump_threshold=0)

    async def main() -> None:
        lab = Laboratory(clock, path, **mount or {})
        async with lab.servers[0].run(), lab.servers[1].run():
            with record(path, telemetry=lab.telemetry, **options):
                await incident(lab)

    trio.run(main, clock=clock)
    return path


def causes(path: Path, incident: Callable[[Laboratory], Awaitable[None]], **mount: Any) -> set[str]:
    """Return what is found in the recording of an incident."""
    return {finding.cause for finding in diagnose(read(recorded(path, incident, mount)))}


def linked(lab: Laboratory, **options: Any) -> AbstractAsyncContextManager[Socket]:
    """Connect a client of its own in a laboratory."""
    return connect(URL, transport=lab.connector, telemetry=lab.telemetry, **options)
