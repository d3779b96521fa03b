"""A simulated client: the process in which a program runs, with a clock, ids, telemetry and a disk of its own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import trio

from ... import Channel, Gap, SlipstreamError, SlowConsumer, Socket, connect
from ...ids import RandomIds
from ...telemetry import Record, Telemetry
from ...trace.record import Recording
from ...trace.redact import Redactor
from ...transport import OpenRequest, find_connector
from ..deterministic import EPOCH_NS
from .disk import Disk

if TYPE_CHECKING:
    from .world import World

__all__ = ["Follower", "SimulatedClient"]

_NS: Final = 1_000_000_000


class SimulatedClient:
    """The process of a client; a program gets it, and may use nothing else of the world.

    Attributes:
        name: "client-2"; once it has crashed "client-2.2", and so on.
        random: the source of random numbers for the program.
        steps: the number of steps that the program should take, a push or so each.
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
        self.options: dict[str, Any] = {
            "transport": find_connector(world.transport, self._open),
            "telemetry": Telemetry(
                ids=RandomIds(self.random.getrandbits(64)), time_ns=self._time_ns, monotonic_ns=self._monotonic_ns
            ),
        }
        self._world = world
        self._tokens = count(1)
        # Where nothing can happen on the network, bytes need not be carried over it.
        self._opener = world.network.opener(world.reach, name=name) if world.carries else world.reach
        self._disk = disk
        self._followers = count(1)
        self.scope = trio.CancelScope()
        self.sockets: WeakSet[Socket] = WeakSet()
        self.wall_offset: float = 0.0
        self.unreachable_until: float = 0.0

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record its telemetry, on its disk and for the oracles; for the world alone."""
        bus: Telemetry = self.options["telemetry"]
        records: list[Record] = self._world.run.records.setdefault(self.name, [])
        recording = Recording(self._disk, telemetry=bus, redactor=Redactor(None, "keep"), max_size=None, wanted=None)
        self._disk.begin(recording.header())

        def see(record: Record) -> None:
            records.append(record)
            recording.handle(record)
            self._world.emitted()

        with bus.listen(see):
            try:
                yield
            finally:
                recording.close(0.0)

    # For programs

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Socket]:
        """Connect to the servers, for the time of a block: `slipstream_trio.connect` with `url` and `options`."""
        async with connect(self.url, **{**self.options, **options}) as socket:
            self.sockets.add(socket)
            yield socket

    def log(self, what: str, *facts: Any) -> None:
        """Write down what happened, for the history and for oracles; facts are compared by their `repr`."""
        self._world.note(self.name, what, *facts)

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

    # Its clock and its network

    def _monotonic_ns(self) -> int:
        return round(self._world.clock.current_time() * _NS)

    def _time_ns(self) -> int:
        return EPOCH_NS + self._monotonic_ns() + round(self.wall_offset * _NS)

    async def _open(self, request: OpenRequest) -> trio.abc.Stream:
        await trio.sleep_until(self.unreachable_until)
        stream = await self._opener(request)
        return await self._world.secured(stream)


class Follower:
    """Reads a channel's stream to its end, and notes what comes.

    Attributes:
        expected: the number of the next broadcast, once one is known.
        announced: whether a gap, or a `SlowConsumer`, was the last that came.
    """

    def __init__(self, client: SimulatedClient, name: str, channel: Channel, *, pause: float, buffer: int) -> None:
        self.expected: int | None = None
        self.announced: bool = False
        self._client = client
        self._name = name
        self._channel = channel
        self._pause = pause
        self._most = 2 * buffer + 1  # a gap before and after each message
        self._moved = trio.lowlevel.ParkingLot()

    def start_at(self, number: int) -> None:
        """State that the channel is joined, and that the next broadcast is to have this number."""
        self._client.log("joined", self._name, number)
        if self.expected is None:
            self.expected = number

    async def reach(self, number: int) -> None:
        """Wait until all broadcasts before a number have come, or were announced to be missing."""
        while not self.announced and (self.expected or 0) < number:
            await self._moved.park()
        self._client.log("reached", self._name, number)

    async def run(self) -> None:
        """Read to the end of the stream."""
        stream, log = self._channel.stream(), self._client.log
        try:
            while True:
                try:
                    item = await anext(stream)
                except SlowConsumer as error:
                    log("slow", self._name, error.dropped)
                    self.announced = True
                    self._moved.unpark_all()
                    continue
                waiting = len(stream._buffer)  # noqa: SLF001 - streams have no length for users
                log("waiting", self._name, waiting, self._most)
                if isinstance(item, Gap):
                    log("gap", self._name, item.reason, item.dropped)
                    self.announced = True
                else:
                    self._take(item.event, item.payload)
                self._moved.unpark_all()
                await trio.sleep(self._pause)
        except (StopAsyncIteration, SlipstreamError) as error:
            log("end", self._name, type(error).__name__)

    def _take(self, event: str, payload: Any) -> None:
        series, number = payload.get("series"), payload.get("n")
        self._client.log("got", self._name, event, series, number)
        if series == "all":
            self.expected, self.announced = number + 1, False
