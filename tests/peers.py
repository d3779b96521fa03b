"""A Phoenix server in memory that refuses, hangs and crashes as a test says, and what is known of its clients."""

from collections import defaultdict, deque
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from slipstream_trio import Backoff, Client, Socket, connect, run_client
from slipstream_trio.telemetry import Record, SpanException, Telemetry
from slipstream_trio.testing.server import (
    Accept,
    Channel,
    Connection,
    JoinRefused,
    MemoryStream,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
    Stop,
)
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"

RECONNECT = Backoff((1, 2, 4), jitter=0, reset_after=10)
REJOIN = Backoff((1, 2, 5), jitter=0, reset_after=10)
EPOCH = 1_700_000_000


def time_ns() -> int:
    """Return the time of Trio's clock in nanoseconds, some years after 1970, in place of the system's."""
    return EPOCH * 10**9 + round(trio.current_time() * 1e9)


class World:
    """A server, and everything that is known of what happens to it.

    Attributes:
        upgrades: what the next upgrades get: a `Refuse`, an exception of the stream, "hang", or None to be let in.
        joins: by topic, what the next joins get: "refuse", "hang", "crash", "die", seconds to wait; None: let in.
        requests: the upgrades that came, with their times.
        asked: the joins that came: time, topic, payload.
        pushed: the events that came, each with its payload.
        streams: all streams that were opened.
        records: the telemetry.
    """

    def __init__(self, **mount: Any) -> None:
        self.upgrades: deque[Refuse | Exception | str | None] = deque()
        self.joins: defaultdict[str, deque[str | float | None]] = defaultdict(deque)
        self.attempts: list[float] = []
        self.requests: list[tuple[float, Request]] = []
        self.asked: list[tuple[float, str, Any]] = []
        self.pushed: list[tuple[str, Any]] = []
        self.streams: list[MemoryStream] = []
        self.records: list[Record] = []
        self.telemetry = Telemetry(time_ns=time_ns, monotonic_ns=time_ns)
        self.telemetry.attach("world", (), self.records.append, prefix=True)
        self.server = PhoenixServer(
            {"/socket": Mount(channels={"*": lambda: Room(self)}, connect=self._connect, **mount)}, close_timeout=1
        )
        self.connector = TrioWebSocketConnector(self._open)

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Socket]:
        return connect(URL, **self._options(options))

    async def run_client(self, client: Client, **options: Any) -> None:
        await run_client(client, URL, **self._options(options))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        own = {"transport": self.connector, "telemetry": self.telemetry, "reconnect": RECONNECT, "rejoin": REJOIN}
        return {**own, **given}

    @property
    def payloads(self) -> list[Any]:
        """The payloads of the joins that came."""
        return [payload for _, _, payload in self.asked]

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


class Room(Channel):
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
            case float(seconds):
                await trio.sleep(seconds)
            case "crash":
                raise RuntimeError("told to")
            case "die":
                self.spawn(self._die)
        return {"number": len(self.world.asked), "payload": payload}

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
                for number in range(payload["n"]):
                    await self.push("tick", {"n": number})
                return Reply(payload)
            case "tick, reply, tock":
                await self.push("tick")
                await self.reply(ref)
                await self.push("tock")
            case "refuse":
                return Reply(payload, "error")
            case "slow":
                await trio.sleep(payload["seconds"])
                return Reply()
            case "crash":
                raise RuntimeError("told to")
            case "stop":
                return Stop("normal")
            case "close":
                self.socket.close(payload["code"])
            case "drop":
                self.socket.drop()
            case "track":
                self.presence.track(payload, {})
                return Reply()
        return None

    async def _later(self, ref: Any, seconds: float) -> None:
        await trio.sleep(seconds)
        await self.reply(ref, {})


def unbalanced(records: list[Record]) -> list[str]:
    """Return the client spans that did not start and end exactly once."""
    open_spans: dict[str, str] = {}
    wrong = []
    for record in records:
        kind = record.name[-1]
        if record.name[:2] != ("slipstream", "client") or kind not in ("start", "stop", "exception"):
            continue
        span_id = record.metadata["span_id"]
        if kind == "start":
            open_spans[span_id] = " ".join(record.name)
        elif open_spans.pop(span_id, None) is None:
            wrong.append(f"{' '.join(record.name)} {span_id} has no start")
        by_user = record.name[2] == "connect"  # a function among the options raised
        if isinstance(record, SpanException) and record.kind != "SerializationError" and not by_user:
            wrong.append(f"{' '.join(record.name)}: {record.kind}: {record.reason}")
    return wrong + [f"{name} {span_id} has no end" for span_id, name in open_spans.items()]
