"""A simulated client: the process in which a program runs, with a clock, ids, telemetry and a disk of its own."""

# ruff: noqa: SLF001 - what oracles look at is shown to nobody
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from ... import Channel, Gap, SlipstreamError, SlowConsumer, Socket, connect
from ...ids import RandomIds
from ...telemetry import ClientPushStart, ClientPushStop, Record, Telemetry
from ...trace.files import Files
from ...trace.recorder import Part, Recording, Writer
from ...trace.redact import Redactor
from ...transport import OpenRequest, find_connector
from ..deterministic import EPOCH_NS, NS_PER_S

if TYPE_CHECKING:
    from .world import World


class Disk(Writer):
    """Takes the lines of a recording without a thread: `flush` writes them, or loses them where the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.full: bool = False
        super().__init__(Files(path, keep=1, fsync="never"), limit=1 << 18, flush_interval=0.0)

    def flush(self) -> None:
        """Write what waits."""
        parts, self._queue = self._queue, [Part()]
        self.broken: bool = False
        if self.full:
            self._lose(parts)
        else:
            for part in parts:
                self._write(part)

    def close(self, last: Callable[[int, int], bytes], timeout: float) -> bool:  # noqa: ARG002 - as of `Writer`
        """Write what waits, and the last line."""
        self.full = False
        self.flush()
        self._files.write(self._told() + last(self.written, self.dropped))
        self._files.close()
        return True


class SimulatedClient:
    """The process of a client; a program gets it, and may use nothing else of the world.

    Attributes:
        name: "client-2"; once it has crashed "client-2.2", and so on.
        random: the source of random numbers for the program.
        steps: the number of steps that the program should still take, a push or so each; it counts down.
        pace: the mean time between two steps, in seconds; time limits should be multiples of it.
        features: the features of the scenario; "slow_reader" is for the program to follow.
        url: of the servers' socket.
        options: for `connect` or `run_client`: transport and telemetry.
    """

    def __init__(self, world: "World", name: str, disk: Disk, steps: int) -> None:
        scenario = world.run.scenario
        self.name: str = name
        self.random: Random = Random(f"{scenario.seed}:{name}")  # noqa: S311 - to be reproduced
        self.steps: int = steps
        self.pace: float = world.pace
        self.features: tuple[str, ...] = scenario.features
        self.url: str = f"{'wss' if world.tls else 'ws'}://server/socket/websocket"
        ids = RandomIds(self.random.getrandbits(64))
        self._telemetry = Telemetry(ids=ids, time_ns=self._time_ns, monotonic_ns=self._monotonic_ns)
        connector = find_connector(scenario.transport, self._open)
        self.options: dict[str, Any] = {"transport": connector, "telemetry": self._telemetry}
        self._world = world
        self._tokens, self._followers = count(1), count(1)
        self._sockets: list[Socket] = []
        self._pushing = 0
        # Where nothing can happen on the network, bytes need not be carried over it.
        self._opener = world.network.opener(world.reach, name=name) if world.network.faults.rules else world.reach
        self.node: int = -1  # at which it was last
        # For the world:
        self.disk: Disk = disk
        self.scope: trio.CancelScope = trio.CancelScope()
        self.wall_offset: float = 0.0
        self.unreachable_until: float = 0.0

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Socket]:
        """Connect to the servers, for the time of a block: `slipstream_trio.connect` with `url` and `options`.

        Oracles learn what a socket keeps while its pushes end, and what is left in it at its end.
        """
        socket: Socket | None = None
        try:
            async with connect(self.url, **{**self.options, **options}) as socket:
                self._sockets.append(socket)
                yield socket
        finally:
            if socket is not None:
                self._sockets.remove(socket)
                self._world.run.left += [
                    f"{self.name}: {number} {what} left" for what, number in _left(socket) if number
                ]

    def log(self, what: str, *facts: Any) -> None:
        """Write down what happened, for the history and for oracles; exits, if the scenario says so."""
        self._world.note(self.name, what, *facts)
        self._world.may_end("quit")

    def token(self) -> str:
        """Return a token for the payload of a push, {"token": …}: oracles follow it to the server and back."""
        return f"{self.name}:{next(self._tokens)}"

    async def rest(self, paces: float) -> None:
        """Sleep for about so many times the pace."""
        await trio.sleep(self.random.expovariate(1.0) * paces * self.pace)

    @contextmanager
    def limit(self, what: str, seconds: float) -> Iterator[None]:
        """State that a block takes at most so many seconds, for the oracle `time_limits`."""
        began, stood = trio.current_time(), self._world.run.stood
        try:
            yield
        finally:
            took = trio.current_time() - began - (self._world.run.stood - stood)
            self.log("took", what, round(took, 6), seconds)

    def follower(self, channel: Channel, *, pause: float = 0.0, buffer: int = 1024) -> "Follower":
        """Return a reader of a channel's stream, of which the oracles learn each message and gap.

        Parameters:
            channel: the channel.
            pause: seconds that it sleeps after each message.
            buffer: the number of messages that may wait, as given to `connect`.
        """
        name = f"{self.name}/{channel.topic}/{next(self._followers)}"
        return Follower(self, name, channel, pause=pause, buffer=buffer)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep its telemetry for the oracles, and record it where its disk is a bad one; for the world alone."""
        run = self._world.run
        run.records[self.name] = []
        recording = Recording(self.disk, telemetry=self._telemetry, redactor=Redactor(None, "keep"), max_size=None)
        with ExitStack() as stack:
            if self._world.bad_disks:
                run.recordings[self.name] = self.disk.path
                self.disk.begin(recording.header())
                self.disk.flush()
                stack.callback(recording.close, 0.0)
                stack.enter_context(self._telemetry.listen(recording.handle))
            stack.enter_context(self._telemetry.listen(self._see))
            yield

    def _see(self, record: Record) -> None:
        """Keep a record, and note what is kept for pushes that go on, as each has its stop when it is kept no more."""
        self._world.run.records[self.name].append(record)
        self._pushing += (type(record) is ClientPushStart) - (type(record) is ClientPushStop)
        if type(record) is ClientPushStop:
            kept = sum(len(socket._pushes._pending) for socket in self._sockets)
            if kept > self._pushing:
                self.log("waiting", "pushes", kept, self._pushing)
        self._world.emitted(record)

    def _monotonic_ns(self) -> int:
        return round(self._world.clock.current_time() * NS_PER_S)

    def _time_ns(self) -> int:
        return EPOCH_NS + self._monotonic_ns() + round(self.wall_offset * NS_PER_S)

    async def _open(self, _: OpenRequest) -> trio.abc.Stream:
        await trio.sleep_until(self.unreachable_until)
        stream, tls = await self._opener(self), self._world.tls
        self._world.streams.append(stream)
        if tls is None:
            return stream
        encrypted = trio.SSLStream(stream, tls[1], server_hostname="server", https_compatible=True)
        try:
            await encrypted.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted


def _left(socket: Socket) -> Iterator[tuple[str, int]]:
    """Give what may not be left in a socket that has ended, which it shows to nobody."""
    pushes, joins = socket._pushes, socket._joins
    yield "pushes are", len(pushes._pending) + sum(map(len, pushes._by_channel.values()))
    yield "pushes in line are", sum(map(len, pushes._lines.values()))
    yield "pushes given up are", len(pushes._given_up)
    yield "joins are", sum(not each.over for each in (*joins._users, *joins._library, *joins._granted))
    yield "joined channels are", len(socket._channels)
    yield "pings are", len(socket._pings)
    yield "deadlines are", len(socket._timer._heap) + (socket._timer.next < math.inf)
    yield "frames are", 0 if socket._connection is None else len(socket._connection.writer._frames)


class Follower:
    """Reads a channel's stream to its end, and notes what comes."""

    def __init__(self, client: SimulatedClient, name: str, channel: Channel, *, pause: float, buffer: int) -> None:
        self._client = client
        self._name = name
        self._channel = channel
        self._pause = pause
        self._most = 2 * buffer + 1  # a gap before and after each message
        self._next: int | None = None
        self._announced = self._ended = False
        self._moved = trio.lowlevel.ParkingLot()

    def start_at(self, number: int) -> None:
        """State that the channel is joined, and that the next broadcast is to have this number."""
        self._client.log("joined", self._name, number)
        self._next = number if self._next is None else self._next

    async def reach(self, number: int) -> None:
        """Wait until all broadcasts before a number have come, were announced to be missing, or come no more."""
        while not self._ended and not self._announced and (self._next or 0) < number:
            await self._moved.park()
        if not self._ended:
            self._client.log("reached", self._name, number)

    async def run(self) -> None:
        """Read to the end of the stream."""
        stream, log = self._channel.stream(), self._client.log
        while True:
            try:
                item = await anext(stream)
            except SlowConsumer as error:
                self._announce("slow", error.dropped)
                continue
            except (StopAsyncIteration, SlipstreamError) as error:
                log("end", self._name, type(error).__name__)
                self._ended = True
                self._moved.unpark_all()
                return
            log("waiting", self._name, len(stream._buffer), self._most)
            if heavy := sum(buffer.heavy for buffer in self._channel._socket._buffers()):
                log("waiting", f"{self._name}: bytes", heavy, self._channel._socket._configuration.buffer_bytes)
            if isinstance(item, Gap):
                self._announce("gap", item.reason, item.dropped)
            else:
                series, number = item.payload.get("series"), item.payload.get("n")
                log("got", self._name, item.event, series, number)
                if series == "all":
                    self._next, self._announced = number + 1, False
                self._moved.unpark_all()
            await trio.sleep(self._pause)

    def _announce(self, what: str, *facts: Any) -> None:
        self._client.log(what, self._name, *facts)
        self._announced = True
        self._moved.unpark_all()
