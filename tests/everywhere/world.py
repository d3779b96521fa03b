"""A server that writes down every byte it gets, and what must be true when a client of it is gone."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

import trio
from attrs import define, field
from tests.everywhere.strike import Strike
from tests.properties.scripts import unbalanced
from wsproto.connection import Connection as Framing, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from slipstream_trio import Channel, Socket
from slipstream_trio.ids import RandomIds
from slipstream_trio.protocol import TransportClosed, TransportFailed, TransportOpened
from slipstream_trio.telemetry import HandleStart, Record, Telemetry
from slipstream_trio.testing.server import (
    Accept,
    Channel as ServerChannel,
    JoinRefused,
    MemoryStream,
    Mount,
    Outcome,
    PhoenixServer,
    Reply,
    Request,
)
from slipstream_trio.trace import verify
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

__all__ = ["URL", "Play", "World", "play_out"]

URL = "ws://server/socket/websocket"

LARGE = 300_000
"""Bytes of a push that does not fit into what a connection in memory buffers."""


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
        self._world.wires[self.socket._stream].excused = True

    async def _resume_after(self, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            self.socket.resume_reading()


@define(eq=False)
class Wire:
    """What came from a client.

    Attributes:
        data: all the bytes.
        excused: whether it may end without a close frame: the server had cut it, or did not read.
    """

    data: bytearray = field(factory=bytearray)
    excused: bool = False


class Kept(bytearray):
    """What waits in a pipe to be read; all that comes is written down."""

    wire: Wire

    def __iadd__(self, data: Any) -> Self:  # type: ignore[misc] # bytearray has it so
        self.wire.data += data
        super().__iadd__(data)
        return self


def _write_down(stream: trio.abc.Stream, wire: Wire) -> None:
    """Write down what comes from a client; on a real socket only what is read."""
    if isinstance(stream, MemoryStream):
        pipe = stream._incoming
        kept = Kept(pipe.data)
        kept.wire = wire
        wire.data += pipe.data
        pipe.data = kept
        return
    receive = stream.receive_some

    async def receive_some(max_bytes: int | None = None) -> bytes | bytearray:
        data = await receive(max_bytes)
        wire.data += data
        return data

    setattr(stream, "receive_some", receive_some)  # noqa: B010 - mypy knows it is a method


@define(eq=False)
class World:
    """A server, its clients, and what is known about them.

    Attributes:
        log: what the program did, for a run that is not struck.
        sockets: sockets that the program had.
        channels: channels that it had.
        left: tasks that were still there when it was over.
    """

    log: list[str] = field(factory=list)
    sockets: list[Socket] = field(factory=list)
    channels: list[Channel] = field(factory=list)
    records: list[Record] = field(factory=list)
    wires: dict[trio.abc.Stream, Wire] = field(factory=dict)
    left: list[str] = field(factory=list)
    telemetry: Telemetry = field(factory=lambda: Telemetry(ids=RandomIds(seed=1)))
    server: PhoenixServer = field(init=False)
    connector: TrioWebSocketConnector = field(init=False)

    def __attrs_post_init__(self) -> None:
        mount = Mount(channels={"room:*": lambda: Room(self)}, connect=_let_in, auth_token=True)
        self.server = PhoenixServer({"/socket": mount}, close_timeout=1)
        self.connector = TrioWebSocketConnector(lambda _: self.server.open_stream())
        self.telemetry.attach("world", (), self.records.append, prefix=True)
        setattr(self.server, "_handle", partial(self._tap, self.server._handle))  # noqa: B010 - mypy knows it is a method

    async def _tap(self, handle: Callable[[Any], Awaitable[None]], stream: trio.abc.Stream) -> None:
        self.wires[stream] = Wire()
        _write_down(stream, self.wires[stream])
        await handle(stream)


def _let_in(request: Request) -> Accept:
    assert request.auth_token in ("token", None)
    return Accept()


Play = Callable[[World, Strike], Awaitable[None]]
"""A program with a client, which is struck."""


async def play_out(world: World, play: Play, strike: Strike) -> None:
    """Run a program beside the server, and look whether any task is left of it."""
    async with world.server.run():
        before = _tasks_but_of(world.server)
        strike.server = world.server._nursery
        with strike.outer:
            strike.begin()
            try:
                await play(world, strike)
            finally:
                strike.end()
                world.left += [task.name for task in _tasks_but_of(world.server) - before]
                with trio.move_on_after(100, shield=True):
                    await world.server._wait_empty()
        await trio.lowlevel.checkpoint()  # for an interrupt that came last


def _tasks_but_of(server: PhoenixServer) -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, waiting = set(), [root]
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            if nursery is not server._nursery:
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
    for socket in world.sockets:
        wrong += _waiting_on_socket(socket)
    for channel in world.channels:
        wrong += _waiting_on_channel(channel)
    if world.server.connections:
        wrong.append("a connection is left")
    opened = _used(world.records)
    for number, wire in enumerate(world.wires.values(), 1):
        wire.excused |= cut and number == len(world.wires)
        wrong += [f"connection {number}: {problem}" for problem in _wrong_on_wire(wire, opened=number <= opened)]
    return wrong


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


def _waiting_on_socket(socket: Socket) -> list[str]:
    session = socket._session
    connection = session.connection
    wrong = []
    if socket.status != "closed" or session.memberships or session._pings:
        wrong.append(f"the socket is {socket.status}, with {session.memberships}, {session._pings}")
    if connection is not None:
        outbox = connection.outbox
        if len(connection.pushes) or outbox._users or outbox._writer or outbox._drained:
            wrong.append(f"somebody waits in {connection.pushes._pending}, {vars(outbox)}")
        if connection.state.status != "closed":
            wrong.append(f"the connection's state is {connection.state.status}")
    return wrong


def _waiting_on_channel(channel: Channel) -> list[str]:
    inside = channel._membership
    held: dict[str, Any] = {
        "joining": inside.joining,
        "recovery": inside.recovery,
        "changed": len(inside._changed),
        "subscribed": inside.streams._subscribed,
        "presence": inside._presence_listeners,
    }
    wrong = [f"{channel}: {name}: {value}" for name, value in held.items() if value]
    return wrong + ([] if channel.status in ("closed", "errored") else [f"it is {channel}"])


def _wrong_on_wire(wire: Wire, *, opened: bool) -> list[str]:
    """Check that there are whole frames, then at most a part of one, and that the end is clean, or excused."""
    head, separator, data = bytes(wire.data).partition(b"\r\n\r\n")
    if not separator:
        return [f"opened by half a request: {head!r}"] if opened else []
    framing = Framing(ConnectionType.SERVER)
    framing.receive_data(data)
    wrong: list[str] = []
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
