"""What the tests of recovery stand on: a server in memory that refuses, hangs and crashes as a test says."""

import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing
from tests.properties.scripts import unbalanced

from slipstream_trio import Backoff, Channel, Gap, Message, Socket, connect
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.server import (
    Accept,
    Channel as ServerChannel,
    Connection,
    JoinRefused,
    MemoryStream,
    Mount,
    NoReply,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
    Stop,
)
from slipstream_trio.trace import verify
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"

RECONNECT = Backoff((1, 2, 4), jitter=0, reset_after=10)
REJOIN = Backoff((1, 2, 5), jitter=0, reset_after=10)


class World:
    """A server, and everything that is known of what happens to it.

    Attributes:
        upgrades: what the next upgrades get: a `Refuse`, an exception of the stream, "hang", or None to be let in.
        joins: by topic, what the next joins get: "refuse", "hang", "crash", "stop", or None to be let in.
        requests: the upgrades that came, with their times.
        asked: the joins that came: time, topic, payload.
        pushed: the events that came, each with its payload.
        streams: all streams that were opened.
        records: the telemetry.
        shared_traces: trace_ids that more than one connection may have.
    """

    def __init__(self, **mount: Any) -> None:
        self.upgrades: deque[Refuse | Exception | str | None] = deque()
        self.joins: defaultdict[str, deque[str | None]] = defaultdict(deque)
        self.attempts: list[float] = []
        self.requests: list[tuple[float, Request]] = []
        self.asked: list[tuple[float, str, Any]] = []
        self.pushed: list[tuple[str, Any]] = []
        self.streams: list[MemoryStream] = []
        self.records: list[Record] = []
        self.shared_traces: set[str] = set()
        self.telemetry = Telemetry(time_ns=_now, monotonic_ns=_now)
        self.telemetry.attach("world", (), self.records.append, prefix=True)
        self.server = PhoenixServer(
            {"/socket": Mount(channels={"*": lambda: Room(self)}, connect=self._connect, **mount)}, close_timeout=1
        )
        self.connector = TrioWebSocketConnector(self._open)

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Socket]:
        given: dict[str, Any] = {"transport": self.connector, "telemetry": self.telemetry}
        return connect(URL, **{**given, "reconnect": RECONNECT, "rejoin": REJOIN, **options})

    @property
    def connection(self) -> Connection:
        """The latest connection."""
        return self.server.connections[-1]

    def records_of(self, *name: str) -> list[Record]:
        """Return the records of one event."""
        return [record for record in self.records if record.name == ("slipstream", *name)]

    def told(self, event: str, *keys: str) -> list[Any]:
        """Return this metadata of the records of a client event."""
        found = [record.metadata for record in self.records_of("client", event)]
        return [tuple(metadata[key] for key in keys) if len(keys) > 1 else metadata[keys[0]] for metadata in found]

    def attempts_at(self) -> list[float]:
        """Return the times of the attempts to connect, in milliseconds of accuracy."""
        return [round(at, 3) for at in self.attempts]

    async def _open(self, _: OpenRequest) -> trio.abc.Stream:
        self.attempts.append(trio.current_time())
        if self.upgrades and isinstance(self.upgrades[0], Exception) and not isinstance(self.upgrades[0], Refuse):
            raise self.upgrades.popleft()  # type: ignore[misc]
        stream = await self.server.open_stream()
        self.streams.append(stream)
        return stream

    async def _connect(self, request: Request) -> Accept | None:
        self.requests.append((trio.current_time(), request))
        answer = self.upgrades.popleft() if self.upgrades else None
        if isinstance(answer, Refuse):
            raise answer
        if answer == "hang":
            await trio.sleep_forever()
        return None


class Room(ServerChannel):
    """Does what the world, and the events that it gets, say."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def join(self, payload: Any) -> Any:
        self.world.asked.append((trio.current_time(), self.topic, payload))
        answers = self.world.joins[self.topic]
        match answers.popleft() if answers else None:
            case "refuse":
                raise JoinRefused({"reason": "no"})
            case "hang":
                await trio.sleep_forever()
            case "slow":
                await trio.sleep(1)
            case "crash":
                raise RuntimeError("told to")
            case "die":
                self.spawn(self._die)
        return {"payload": payload}

    async def _die(self) -> None:
        raise RuntimeError("told to")

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        self.world.pushed.append((event, payload))
        match event:
            case "echo":
                return Reply(payload)
            case "late":
                self.spawn(self._later, ref, payload)
            case "burst":
                for number in range(payload):
                    await self.push("tick", {"n": number})
                return Reply()
            case "crash":
                raise RuntimeError("told to")
            case "stop":
                return Stop("normal")
            case "close":
                self.socket.close(payload)
            case "drop":
                self.socket.drop()
            case "track":
                self.presence.track(payload, {})
                return Reply()
        return NoReply()

    async def _later(self, ref: Any, seconds: float) -> None:
        await trio.sleep(seconds)
        await self.reply(ref, {})


@asynccontextmanager
async def world(**mount: Any) -> AsyncIterator[World]:
    """Run a world; at its end nothing of its clients may be left, and their traces keep all invariants."""
    made = World(**mount)
    before = tasks()
    async with made.server.run():
        within = tasks()
        yield made
        await settle()
        with contextlib.suppress(trio.TooSlowError):  # the server's own take a while, at most a handshake's 60 s
            await until(lambda: tasks() == within, 100)
        assert tasks() == within
        assert all(stream._closed for stream in made.streams)
    assert tasks() == before
    assert verify(made.records, shared_traces=made.shared_traces) == []
    assert unbalanced(made.records) == []


def tasks() -> Counter[str]:
    """Return the names of all tasks below the main one."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: Counter[str] = Counter()
    waiting = [root]
    while waiting:
        task = waiting.pop()
        found[task.name] += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def _now() -> int:
    """The virtual time in nanoseconds, some years after 1970."""
    return int((1_700_000_000 + trio.current_time()) * 1e9)


async def settle() -> None:
    """Let everything happen that can happen now."""
    await trio.testing.wait_all_tasks_blocked()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is the case; looks often at first, and seldom where it takes minutes."""
    pause = 0.01
    with trio.fail_after(seconds):
        while not condition():  # it may be anything
            await trio.sleep(pause)
            pause = min(pause * 1.05, 1)


async def connected_again(world: World, socket: Socket, generation: int) -> None:
    """Wait until the socket has had so many connections, and the latest is open."""
    await until(lambda: socket.generation == generation and socket.status == "connected")
    await settle()


class Reading:
    """What a task has read from a stream so far, and how it ended."""

    def __init__(self) -> None:
        self.items: list[Message | Gap] = []
        self.ended: BaseException | None = None
        self.done = trio.Event()

    @property
    def shape(self) -> list[Any]:
        """The items, for comparison: gaps by reason and number of losses, messages by event and payload."""
        return [
            (item.reason, item.dropped) if isinstance(item, Gap) else (item.event, item.payload) for item in self.items
        ]

    async def read(self, stream: Any) -> None:
        try:
            async for item in stream:
                self.items.append(item)
            self.ended = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.ended = error
        self.done.set()


def reading(nursery: trio.Nursery, stream: Any) -> Reading:
    """Read a stream in a task."""
    made = Reading()
    nursery.start_soon(made.read, stream)
    return made


class Outcomes:
    """What became of operations in tasks."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.by: dict[Any, Any] = {}
        self.at: dict[Any, float] = {}

    def start(self, key: Any, operation: Any, *arguments: Any, **options: Any) -> None:
        async def run() -> None:
            try:
                self.by[key] = await operation(*arguments, **options)
            except Exception as error:  # noqa: BLE001 - for the test to look at
                self.by[key] = error
            self.at[key] = round(trio.current_time(), 2)

        self.nursery.start_soon(run)


def status_of(of: Channel | Socket) -> str:
    """Return the status of now, of which a type checker assumes nothing."""
    return of.status
