"""A server that writes down every byte it gets, and what must be true when a client of it is gone."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio
from attrs import define, field
from tests.everywhere.strike import Strike
from tests.peers import unbalanced
from wsproto.connection import Connection as Framing, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from slipstream_trio import Channel, Socket
from slipstream_trio.ids import RandomIds
from slipstream_trio.protocol import (
    PushMessage,
    ReplyReceived,
    SendFrame,
    TransportClosed,
    TransportFailed,
    TransportOpened,
)
from slipstream_trio.telemetry import (
    BufferOverflowed,
    ClientPushStart,
    ClientPushStop,
    HandleStart,
    HandleStop,
    Record,
    ReplyOrphaned,
    SpanException,
    Telemetry,
)
from slipstream_trio.testing.server import (
    Accept,
    Channel as ServerChannel,
    JoinRefused,
    Mount,
    Outcome,
    PhoenixServer,
    Reply,
    Request,
)
from slipstream_trio.trace import verify
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

__all__ = ["LARGE", "URL", "Play", "World", "play_out", "wrong_with"]

URL = "ws://server/socket/websocket"

LARGE = 300_000
"""Bytes of a push that does not fit into what a connection in memory buffers."""

NUMBER = "connection"
"""The parameter that tells the connections of a world apart."""


class ToldTo(Exception):
    """A channel crashes because it was told to."""


class Room(ServerChannel):
    """Does what an event says."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def join(self, payload: Any) -> Any:
        match payload:
            case "refuse":
                raise JoinRefused({"reason": "no"})
            case "slow":
                await trio.sleep(3)
        return {"payload": payload}

    async def after_join(self) -> None:
        self.presence.track("me", {})
        await self.push("presence_state", self.presence.list())

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "echo":
                return Reply(payload)
            case "size":
                return Reply({"size": len(payload)})
            case "refuse":
                return Reply(payload, "error")
            case "burst":
                for number in range(payload):
                    await self.push("tick", {"n": number})
                return Reply()
            case "crash":
                raise ToldTo
            case "drop":
                self._excuse()
                self.socket.drop()
            case "close":
                self._excuse()
                self.socket.close(payload)
            case "pause":
                self._excuse()
                self.socket.pause_reading()
                self.spawn(self._resume_after, payload)
                return Reply()
        return None

    def _excuse(self) -> None:
        self._world.wires[self.socket.request.params[NUMBER]].excused = True

    async def _resume_after(self, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            self.socket.resume_reading()


@define(eq=False)
class Wire:
    """What a client has written.

    Attributes:
        data: the bytes of all writes that were completed.
        cut: whether a write was cut off, of which nobody knows how much has arrived.
        torn: whether there was another write after that.
        excused: whether it may end without a close frame: the server had cut it, or did not read.
    """

    data: bytearray = field(factory=bytearray)
    cut: bool = False
    torn: bool = False
    excused: bool = False


class Taped(trio.abc.Stream):
    """A client's end of a stream, of which everything that is written is written down."""

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        wire = self._wire
        wire.torn |= wire.cut
        wire.cut = True
        await self._stream.send_all(data)
        wire.data += data
        wire.cut = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@define(eq=False)
class World:
    """A server, its clients, and what is known about them.

    Attributes:
        log: what the program did, for a run that is not struck.
        sockets: sockets that the program had.
        channels: channels that it had.
        wires: what was written on each connection, by its number.
        left: tasks that were still there when it was over.
        beside: the nursery of the server, and of what else runs beside the program.
    """

    log: list[str] = field(factory=list)
    sockets: list[Socket] = field(factory=list)
    channels: list[Channel] = field(factory=list)
    records: list[Record] = field(factory=list)
    wires: dict[str, Wire] = field(factory=dict)
    left: list[str] = field(factory=list)
    telemetry: Telemetry = field(factory=lambda: Telemetry(ids=RandomIds(seed=1)))
    server: PhoenixServer = field(init=False)
    connector: TrioWebSocketConnector = field(init=False)
    beside: trio.Nursery = field(init=False)
    _attempts: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        mount = Mount(channels={"room:*": lambda: Room(self)}, connect=_let_in, auth_token=True)
        self.server = PhoenixServer({"/socket": mount}, close_timeout=1)
        self.connector = TrioWebSocketConnector(self._open)
        self.telemetry.attach("world", (), self.records.append, prefix=True)

    async def params(self) -> dict[str, str]:
        """Return the parameters of the next connection."""
        await trio.lowlevel.checkpoint()
        self._attempts += 1
        return {"user": "me", NUMBER: str(self._attempts)}

    async def open_tcp(self, request: OpenRequest) -> trio.abc.Stream:
        """Open a connection on a real socket."""
        url = urlsplit(request.url)
        assert url.hostname is not None
        assert url.port is not None
        return self._taped(request, await trio.open_tcp_stream(url.hostname, url.port))

    async def _open(self, request: OpenRequest) -> trio.abc.Stream:
        return self._taped(request, await self.server.open_stream())

    def _taped(self, request: OpenRequest, stream: trio.abc.Stream) -> Taped:
        [number] = parse_qs(urlsplit(request.url).query)[NUMBER]
        self.wires[number] = Wire()
        return Taped(stream, self.wires[number])


def _let_in(request: Request) -> Accept:
    assert request.auth_token in ("token", None)
    return Accept()


Play = Callable[[World, Strike], Awaitable[None]]
"""A program with a client, which is struck."""


async def play_out(world: World, play: Play, strike: Strike) -> None:
    """Run a program beside the server, and look whether any task is left of it."""
    async with _served(world):
        before = _tasks_but_in(world.beside)
        strike.beside = world.beside
        with strike.outer:
            strike.begin()
            try:
                await play(world, strike)
            finally:
                strike.end()
                world.left += [task.name for task in _tasks_but_in(world.beside) - before]
                with trio.move_on_after(100, shield=True):
                    await _until_empty(world.server)
        await trio.lowlevel.checkpoint()  # for an interrupt that came last


@asynccontextmanager
async def _served(world: World) -> AsyncIterator[None]:
    """Run the server in a task of its own, so that its tasks can be told from those of a client."""
    failure: BaseException | None = None
    async with trio.open_nursery() as world.beside:
        await world.beside.start(_serve, world.server)
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised again below, outside of the nursery's group
            failure = error
        world.beside.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(server: PhoenixServer, task_status: trio.TaskStatus[None]) -> None:
    async with server.run():
        task_status.started()
        await trio.sleep_forever()


async def _until_empty(server: PhoenixServer) -> None:
    while server.connections:
        await server.connections[0].wait_closed()
        await trio.lowlevel.checkpoint()


def _tasks_but_in(beside: trio.Nursery) -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, waiting = set(), [root]
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            if nursery is not beside:
                waiting += nursery.child_tasks
    return found


# What must be true then


def wrong_with(world: World, *, cut: bool) -> list[str]:
    """Return what is wrong with the world after a client.

    Parameters:
        cut: whether its last connection may have been cut.
    """
    wrong = [f"a task is left: {name}" for name in world.left]
    wrong += [str(violation) for violation in verify(world.records)]
    wrong += [problem for problem in unbalanced(world.records) if not _told(problem)]
    wrong += [f"the server: {error!r}" for error in world.server.errors if not isinstance(error, ToldTo)]
    wrong += [f"the socket is {one.status}, its state {one.state}" for one in world.sockets if not _has_ended(one)]
    wrong += [f"it is {one!r}" for one in world.channels if one.status not in ("closed", "errored")]
    wrong += [f"nobody was told of the reply to {push}" for push in _lost_replies(world.records)]
    wrong += [f"nobody reads a subscription to {topic!r}" for topic in _unread(world.records)]
    if world.server.connections:
        wrong.append("a connection is left")
    opened = _used(world.records)
    for number, wire in enumerate(world.wires.values(), 1):
        wire.excused |= cut and number == len(world.wires)
        wrong += [f"connection {number}: {problem}" for problem in _wrong_on_wire(wire, opened=number <= opened)]
    return wrong


def _has_ended(socket: Socket) -> bool:
    return socket.status == "closed" and socket.state.status == "closed"


def _lost_replies(records: list[Record]) -> set[tuple[str | None, str | None]]:
    """Return which pushes of "echo" had replies that were neither given to anybody nor reported: connection and ref.

    A reply that a push was given is lost if an exception is thrown into the push in its place. Only a strike does that;
    the push's span then ends by the exception, without a ref, so as many are excused as there are of these.
    """
    pushed: set[tuple[str | None, str | None]] = set()
    replied: set[tuple[str | None, str | None]] = set()
    told: set[tuple[str | None, str | None]] = set()
    thrown_into = 0
    for record in records:
        connection = record.origin.connection_id
        if isinstance(record, HandleStop):
            given, done = record.start.raw_message, record.transition
            if isinstance(given, PushMessage) and given.event == "echo":
                pushed |= {(connection, effect.ref) for effect in done.return_ if isinstance(effect, SendFrame)}
            replied |= {(connection, event.ref) for event in done.built_events if isinstance(event, ReplyReceived)}
        elif isinstance(record, ReplyOrphaned | ClientPushStop):
            told.add((connection, record.ref))
        elif isinstance(record, SpanException) and isinstance(record.start, ClientPushStart):
            thrown_into += 1
    lost = (pushed & replied) - told
    return lost if len(lost) > thrown_into else set()


def _unread(records: list[Record]) -> list[str]:
    """Return the topics of subscriptions that have overflowed, which all should have ended by then."""
    overflows = [each for each in records if isinstance(each, BufferOverflowed) and each.phase == "began"]
    return [overflow.topic for overflow in overflows if overflow.consumer == "subscription"]


def _told(problem: str) -> bool:
    """Tell whether a span has ended by an exception that was meant."""
    return any(f": {kind}: " in problem for kind in ("Thrown", "KeyboardInterrupt"))


def _used(records: list[Record]) -> int:
    """Return how many connections had something to do; one whose opening is cut off may be opened, and just end."""
    return len(
        {
            record.metadata["connection_id"]
            for record in records
            if isinstance(record, HandleStart)
            and not isinstance(record.raw_message, TransportOpened | TransportClosed | TransportFailed)
        }
    )


def _wrong_on_wire(wire: Wire, *, opened: bool) -> list[str]:
    """Check that there are whole frames, then at most a part of one, and that the end is clean, or excused."""
    head, separator, data = bytes(wire.data).partition(b"\r\n\r\n")
    if not separator:
        return [f"opened by half a request: {head!r}"] if opened else []
    framing = Framing(ConnectionType.SERVER)
    framing.receive_data(data)
    wrong: list[str] = ["something follows on a write that was cut off"] if wire.torn else []
    text: list[str] = []
    last_ref, closed = 0, None
    for event in framing.events():
        if closed is not None:
            wrong.append(f"after the close frame: {event}")
        if isinstance(event, TextMessage):
            text.append(event.data)
            if event.message_finished:
                ref = int(json.loads("".join(text))[1])
                wrong += [] if ref > last_ref else [f"ref {ref} after {last_ref}"]
                last_ref = ref
                text.clear()
        elif isinstance(event, CloseConnection):
            closed = int(event.code)
    if closed not in (None, 1000, 1012):  # wsproto tells of garbage by other codes
        wrong.append(f"closed with {closed}")
    if closed is None and opened and not wire.excused:
        wrong.append("no close frame")
    return wrong
