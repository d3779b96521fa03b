"""A server in memory, and a client that writes down what it is told."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from tests.peers import unbalanced

from slipstream_trio import Backoff, Caller, Channel, Client, Gap, Message, Reply, Socket, run_client
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.server import (
    Accept,
    Channel as ServerChannel,
    Connection,
    JoinRefused,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply as ServerReply,
    Request,
    Stop,
)
from slipstream_trio.trace import verify
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"

RECONNECT = Backoff((1, 2, 4), jitter=0, reset_after=10)
REJOIN = Backoff((1, 2, 5), jitter=0, reset_after=10)


def time_ns() -> int:
    """Return the time of Trio's clock, for a telemetry bus in place of the system's."""
    return round(trio.current_time() * 1e9)


class World:
    """A server, and the telemetry of its clients.

    Attributes:
        upgrades: what the next attempts to connect get; None, or nothing more: they are let in.
        refusals: what the next joins get: "refuse", "hang"; None, or nothing more: they are let in.
        joins: the payloads of the joins that came.
    """

    def __init__(self) -> None:
        self.upgrades: deque[Refuse | OSError | None] = deque()
        self.refusals: deque[str | None] = deque()
        self.joins: list[Any] = []
        self.records: list[Record] = []
        self.telemetry = Telemetry()
        self.telemetry.attach("world", (), self.records.append, prefix=True)
        self.server = PhoenixServer(
            {"/socket": Mount(channels={"*": lambda: Room(self)}, connect=self._connect)}, close_timeout=1
        )
        self.connector = TrioWebSocketConnector(self._open)

    async def run_client(self, client: Client, **options: Any) -> None:
        given = {"transport": self.connector, "telemetry": self.telemetry, "reconnect": RECONNECT, "rejoin": REJOIN}
        await run_client(client, URL, **{**given, **options})

    @property
    def connection(self) -> Connection:
        """The latest connection."""
        return self.server.connections[-1]

    async def _open(self, _: OpenRequest) -> trio.abc.Stream:
        if self.upgrades and isinstance(answer := self.upgrades[0], OSError):
            self.upgrades.popleft()
            raise answer
        return await self.server.open_stream()

    def _connect(self, _: Request) -> Accept | None:
        answer = self.upgrades.popleft() if self.upgrades else None
        if isinstance(answer, Refuse):
            raise answer
        return None


class Room(ServerChannel):
    """Does what an event says."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def join(self, payload: Any) -> Any:
        self._world.joins.append(payload)
        match self._world.refusals.popleft() if self._world.refusals else None:
            case "refuse":
                raise JoinRefused({"reason": "no"})
            case "hang":
                await trio.sleep_forever()
        return {"number": len(self._world.joins)}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "echo":
                return ServerReply(payload)
            case "refuse":
                return ServerReply(payload, "error")
            case "burst":
                for number in range(payload["n"]):
                    await self.push("tick", {"n": number})
                return ServerReply(payload)
            case "tick, reply, tock":
                await self.push("tick")
                await self.reply(ref)
                await self.push("tock")
            case "crash":
                raise RuntimeError("told to")
            case "stop":
                return Stop("normal")
            case "close":
                self.socket.close(payload["code"])
            case "drop":
                self.socket.drop()
        return None


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    """Run a world, and look at its telemetry in the end."""
    world = World()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with world.server.run():
        yield world
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert verify(world.records) == []
    assert [problem for problem in unbalanced(world.records) if problem.endswith(("has no start", "has no end"))] == []


class Told(Client):
    """Writes down each callback, and calls what a test has put in its place.

    Attributes:
        log: the callbacks, each with what tells it from others of its kind.
        on: what to do in a callback, by name; None: nothing.
    """

    def __init__(self, *topics: str, **on: Callable[..., Any]) -> None:
        self.topics = topics
        self.log: list[Any] = []
        self.on = on
        self._grown = trio.lowlevel.ParkingLot()

    async def until(self, entry: Any, *, times: int = 1, timeout: float = 1000) -> None:
        """Wait until the log has this so often."""
        with trio.fail_after(timeout):
            while self.log.count(entry) < times:
                await self._grown.park()

    def note(self, entry: Any) -> None:
        """Write something down."""
        self.log.append(entry)
        self._grown.unpark_all()

    async def _tell(self, name: str, *what: Any, arguments: tuple[Any, ...]) -> Any:
        self.note((name, *what) if what else name)
        return await self.on[name](*arguments) if name in self.on else None

    async def handle_connect(self, socket: Socket) -> None:
        for topic in self.topics:
            await self.join(topic, {"topic": topic})
        await self._tell("connect", arguments=(socket,))

    async def handle_disconnect(self, reason: Exception) -> None:
        facts = (getattr(reason, name, None) for name in ("reason", "code", "status"))
        await self._tell("disconnect", type(reason).__name__, *(fact for fact in facts if fact), arguments=(reason,))

    async def handle_join(self, channel: Channel, response: Any) -> None:
        await self._tell("join", channel.topic, response["number"], arguments=(channel, response))

    async def handle_message(self, channel: Channel, message: Message) -> None:
        what = (message.payload["n"],) if message.payload else ()
        await self._tell("message", message.event, *what, arguments=(channel, message))

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        told = reply.response if reply.ok else type(reply.error).__name__
        await self._tell("reply", reply.event, told, arguments=(ref, reply))

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        told = getattr(reason, "reason", None) or type(reason).__name__
        await self._tell("topic_close", topic, told, arguments=(topic, reason))

    async def handle_leave(self, topic: str) -> None:
        await self._tell("leave", topic, arguments=(topic,))

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        await super().handle_gap(channel, gap)
        await self._tell("gap", channel.topic, gap.reason, gap.dropped, arguments=(channel, gap))

    async def handle_info(self, message: Any) -> None:
        await self._tell("info", message, arguments=(message,))

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        return await self._tell("call", message, arguments=(message, caller))

    async def handle_cast(self, message: Any) -> None:
        await self._tell("cast", message, arguments=(message,))

    async def terminate(self, reason: BaseException | None) -> None:
        told = None if reason is None else type(reason).__name__
        await self._tell("terminate", told, arguments=(reason,))


class Running:
    """A client that runs beside the test.

    Attributes:
        error: what left `run_client`.
        ended: set when it has.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.ended = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self, run: Callable[[], Any]) -> None:
        try:
            with self.scope:
                await run()
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.ended.set()


@asynccontextmanager
async def running(world: World, client: Client, **options: Any) -> AsyncIterator[Running]:
    """Run a client beside the block, and wait for its end."""
    async with trio.open_nursery() as nursery:
        beside = Running()
        nursery.start_soon(beside.run, partial(world.run_client, client, **options))
        yield beside
        with trio.fail_after(1000):
            await beside.ended.wait()
