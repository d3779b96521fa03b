"""A socket that is reconnected over and over: for a test of moderate length, and for the benchmark's whole one."""

import gc
import sys
import time
import tracemalloc
from typing import Any

import trio
from attrs import define, field

from slipstream_trio import Backoff, Stream, connect
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.server import Channel as ServerChannel, MemoryStream, Mount, PhoenixServer, Reply
from slipstream_trio.trace import Verifier
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector


@define
class Figures:
    """What came of it.

    Attributes:
        rejoined: for each connection after the first, how many channels were joined again on the server.
        id_bytes: connection_id and trace_id of every connection, one after the other: what is to be flat is the memory.
        violations: of a trace's invariants.
        held: memory blocks, and objects of the library's, after each mark.
        traced: bytes after each mark, if that was asked for.
        left: tasks, streams and buffered messages that are left at the end.
        seconds: the wall time.
    """

    rejoined: list[int] = field(factory=list)
    id_bytes: bytearray = field(factory=bytearray)
    violations: list[str] = field(factory=list)
    held: dict[int, tuple[int, int]] = field(factory=dict)
    traced: dict[int, int] = field(factory=dict)
    left: dict[str, int] = field(factory=dict)
    records: int = 0
    gaps: int = 0
    seconds: float = 0.0

    @property
    def ids(self) -> list[tuple[str, str]]:
        """The pairs of connection_id and trace_id, in order."""
        pairs = [bytes(self.id_bytes[at : at + 24]).hex() for at in range(0, len(self.id_bytes), 24)]
        return [(pair[:16], pair[16:]) for pair in pairs]


class Room(ServerChannel):
    """Answers with what it gets."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Reply:
        return Reply(payload)


async def endure(reconnects: int, channels: int, marks: tuple[int, ...], *, traced: bool = False) -> Figures:
    """Reconnect so often, with so many channels; under a MockClock.

    Parameters:
        marks: after so many reconnects the memory is looked at.
        traced: whether by tracemalloc too, which takes thrice the time.
    """
    figures = Figures()
    telemetry = Telemetry()
    verifiers: dict[str | None, Verifier] = {}
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})}, keep_received=1, close_timeout=0.1)
    streams: list[MemoryStream] = []

    def look_at(record: Record) -> None:
        figures.records += 1
        origin = record.origin
        if record.name == ("slipstream", "connection", "connect", "start"):
            figures.id_bytes += bytes.fromhex(f"{origin.connection_id}{origin.trace_id}")
            verifiers[origin.connection_id] = Verifier()
        if record.name[1] == "connection":
            # One for each connection, so that what is known of those that have ended is not held.
            figures.violations += map(str, verifiers[origin.connection_id].feed(record))
        if record.name == ("slipstream", "connection", "connect", "stop"):
            figures.violations += map(str, verifiers.pop(origin.connection_id).finish())
        figures.gaps += record.name == ("slipstream", "client", "gap")

    async def open_stream(_: OpenRequest) -> trio.abc.Stream:
        stream = await server.open_stream()
        streams[:] = [old for old in streams if not old.closed] + [stream]
        return stream

    began = time.perf_counter()
    telemetry.attach("look at", (), look_at, prefix=True)
    if traced:
        tracemalloc.start(1)
    async with server.run():
        before = trio.lowlevel.current_statistics().tasks_living
        options: dict[str, Any] = {"reconnect": Backoff((0.1,)), "telemetry": telemetry}
        async with connect(
            "ws://s/socket/websocket", transport=TrioWebSocketConnector(open_stream), **options
        ) as socket:
            joined = [socket.channel(f"room:{number}") for number in range(channels)]
            for channel in joined:
                await channel.join()
            for count in range(1, reconnects + 1):
                server.connections[0].drop()
                await _joined_again(server, socket, channels, count + 1)
                figures.rejoined.append(sum(channel.status == "joined" for channel in joined))
                for channel in joined:  # as a user would, who reads the gaps
                    await anext(channel.stream())
                if count in marks:
                    figures.held[count] = _held()
                    figures.traced[count] = tracemalloc.get_traced_memory()[0]
            figures.left["buffered"] = sum([await _waiting_in(channel.stream()) for channel in joined])
            for channel in joined:
                await channel.leave()
        while server.connections:
            await server.connections[0].wait_closed()
        await trio.sleep(1)
        figures.left["tasks"] = trio.lowlevel.current_statistics().tasks_living - before
        figures.left["streams"] = sum(not stream.closed for stream in streams)
    tracemalloc.stop()
    figures.violations += [f"connection {connection_id} has no end" for connection_id in verifiers]
    figures.seconds = time.perf_counter() - began
    return figures


async def _joined_again(server: PhoenixServer, socket: Any, channels: int, generation: int) -> None:
    with trio.fail_after(60):
        await trio.sleep(0.1)
        while not (socket.generation == generation and socket.status == "connected"):  # noqa: ASYNC110 - polled
            await trio.sleep(0.01)
        while not server.connections or len(server.connections[-1].channels) < channels:  # noqa: ASYNC110 - likewise
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked()


async def _waiting_in(stream: Stream) -> int:
    """Read what waits in a stream, and return how much it was."""
    count = 0
    with trio.move_on_after(0.001):
        while True:
            await anext(stream)
            count += 1
    return count


def _held() -> tuple[int, int]:
    gc.collect()
    parts = tuple(f"slipstream_trio.{part}" for part in ("client", "protocol", "telemetry", "transport"))
    objects = sum(str(type(thing).__module__).startswith(parts) for thing in gc.get_objects())
    return sys.getallocatedblocks(), objects
