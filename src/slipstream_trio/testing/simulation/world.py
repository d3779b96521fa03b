"""The world of a run: servers behind a balancer, a network, clients, and what goes wrong among them."""

import hashlib
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import trio
from trio.testing import MockClock

from ...telemetry import HandleStart, HandleStop
from ..faults import FaultyNetwork, faulty_network
from ..server import MemoryStream, Mount, PhoenixServer
from .chaos import chaos, faults_of
from .client import Disk, SimulatedClient
from .scenario import Note, Run

_PATIENCE: Final = 5.0  # within so many times the time of a scenario, and a hundred paces, all programs have to end
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Node:
    """A server behind the balancer; it can go down, and comes back after `down_for` seconds."""

    def __init__(self, make: Callable[[], PhoenixServer]) -> None:
        self.server: PhoenixServer = make()
        self.up: bool = False
        self.down_for: float = 0.0
        self._make = make
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Run the server, again and again."""
        while True:
            with trio.CancelScope() as self._scope:
                async with self.server.run():
                    self.up = True
                    await trio.sleep_forever()
            self.up = False
            await trio.sleep(self.down_for)

    def crash(self, *, forget: bool = False) -> None:
        """Cancel it; with `forget` it comes back without its state."""
        self.up = False
        if forget:
            self.server = self._make()
        self._scope.cancel()


class World:
    """Everything in a run; servers get it, and oracles see its `run`.

    Attributes:
        random: the source of random numbers for servers and faults.
        pace: the mean time between two steps of a client, in seconds.
        numbers: for servers, to tell their channels apart.
        counters: the number of the next broadcast on each topic: the servers' database.
        tls: the contexts of servers and clients; None: they do not speak TLS.
        clients: the clients that run now, by name.
        bad_disks: whether clients record their telemetry, on disks that fail.
        lives: the scope of all of them, while they live.
        interrupts: interrupts the run, if it is to be.
    """

    def __init__(self, run: Run, clock: MockClock, mounts: "Mounts", directory: Path, tls: Contexts | None) -> None:
        scenario = run.scenario
        self.run: Run = run
        self.clock: MockClock = clock
        self.random: Random = Random(f"{scenario.seed}:world")  # noqa: S311 - to be reproduced
        self.pace: float = scenario.seconds / scenario.steps
        self.numbers: Iterator[int] = count(1)
        self.counters: Counter[str] = Counter()
        self.tls: Contexts | None = tls
        self.network: FaultyNetwork
        self.nodes: list[Node] = [
            Node(lambda: PhoenixServer(mounts(self), close_timeout=self.pace, keep_received=1))
            for _ in range(scenario.nodes)
        ]
        self.clients: dict[str, SimulatedClient] = {}
        self.bad_disks: bool = not {"disk_full", "disk_torn"}.isdisjoint(scenario.features)
        self.lives: trio.CancelScope | None = None
        self.interrupts: Interrupt = Interrupt(self)
        self._directory = directory
        self._digest = hashlib.sha256()
        self._streams: list[MemoryStream] = []

    # For servers

    def note(self, who: str, what: str, *facts: Any) -> None:
        """Write down what happened."""
        note = Note(trio.current_time(), who, what, facts)
        self.run.notes.append(note)
        self._digest.update(f"{note}\n".encode())

    def chance(self, feature: str, probability: float) -> bool:
        """Tell whether a fault happens now: with a probability, where the scenario has the feature; it is noted."""
        happens = feature in self.run.scenario.features and self.random.random() < probability
        if happens:
            self.fault(feature)
        return happens

    def fault(self, name: str, *facts: Any) -> None:
        """Note a fault."""
        self.run.faults[name] += 1
        self.note("world", name, *facts)

    async def broadcast(self, topic: str, event: str) -> None:
        """Broadcast the next number of a topic from all servers: {"series": "all", "n": …}."""
        number = self.counters[topic]
        self.counters[topic] += 1
        self.note("servers", "broadcast", topic, number)
        for node in self.nodes:
            if node.up:
                node.server.pubsub.broadcast(topic, event, {"series": "all", "n": number})
        await trio.lowlevel.checkpoint()

    # For clients

    async def reach(self, client: SimulatedClient) -> trio.abc.Stream:
        """Open a stream to one of the servers that are up, for long-polling to the same: the balancer."""
        up = [number for number, node in enumerate(self.nodes) if node.up]
        if not up:
            raise ConnectionRefusedError("no server is up")
        sticks = self.run.scenario.transport == "longpoll" and client.node in up
        number = client.node = client.node if sticks else self.random.choice(up)
        self.note("balancer", "connection", number)
        return await self.nodes[number].server.open_stream(self.tls[0] if self.tls else None)

    async def secured(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """Return a client's end of a stream, with TLS where the world has it."""
        assert isinstance(stream, MemoryStream)
        self._streams.append(stream)
        if self.tls is None:
            return stream
        encrypted = trio.SSLStream(stream, self.tls[1], server_hostname="server", https_compatible=True)
        try:
            await encrypted.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted

    def emitted(self, record: Any) -> None:
        """Take in a record of a client, and the frames of it; exit, if that is what a handler is to do."""
        frames: object = record.frame if isinstance(record, HandleStart) else None
        if isinstance(record, HandleStop) and record.delivered is None:
            frames = record.transition.return_
        told = f"{record.name} {record.monotonic_time} {getattr(record, 'span_id', '')} {frames}\n"
        self._digest.update(told.encode(errors="surrogatepass"))
        self.interrupts.may_exit("exit")

    # The run

    async def play(self, program: "Program") -> None:
        """Let the clients run their programs to the end."""
        async with faulty_network(faults_of(self)) as self.network, self._servers():
            beside, root = {*trio.lowlevel.current_task().child_nurseries}, trio.lowlevel.current_root_task()
            before = {*_tasks_but_in(beside, root)}
            try:
                await self._play(program)
            finally:
                self.lives = None
                left = [f"a task is left: {task.name}" for task in {*_tasks_but_in(beside, root)} - before]
                left += ["a connection is left open" for stream in self._streams if not stream.closed]
                self.run.left += sorted(left)
                self.run.faults += Counter({f"network: {name}": n for name, n in self.network.log.counts.items()})
                for entry in self.network.log.entries:
                    self._digest.update(str(entry).encode())
                    self.run.notes.append(Note(entry.time, "network", type(entry.fault).__name__, (str(entry),)))
                self.run.notes.sort(key=lambda note: note.at)
                self.run.digest = self._digest.hexdigest()[:32]
                self.run.seconds = trio.current_time()

    async def _play(self, program: "Program") -> None:
        scenario = self.run.scenario
        with trio.move_on_after(_PATIENCE * (scenario.seconds + 100 * self.pace)) as patience:
            async with trio.open_nursery() as nursery:
                for number in range(1, scenario.clients + 1):
                    nursery.start_soon(self._live, program, f"client-{number}")
                self.lives = nursery.cancel_scope
        if patience.cancelled_caught:
            self.run.left += [f"{name} did not come to its end" for name in self.clients]

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as beside:
            beside.start_soon(chaos, self)
            if self.bad_disks:
                beside.start_soon(self._write_disks)
            for node in self.nodes:
                beside.start_soon(node.run)
            if self.run.scenario.interrupt == "terminate":
                await beside.start(self._cancel_at_sigterm)
            yield
            beside.cancel_scope.cancel()

    async def _live(self, program: "Program", first_name: str) -> None:
        name, lives, steps = first_name, 1, self.run.scenario.steps
        while True:
            disk = Disk(self._directory / f"{name}.jsonl")
            client = self.clients[name] = SimulatedClient(self, name, disk, steps)
            with client.recorded(), client.scope:
                try:
                    await program(client)
                except Exception as error:  # noqa: BLE001 - whatever a program raises is for the report
                    self.run.left.append(f"{name}: the program raised {error!r}")
            del self.clients[name]
            if self.chance("disk_torn", 0.5):
                disk.tear(self.random.random())
            if not client.scope.cancelled_caught:
                return
            lives, steps = lives + 1, client.steps
            name = f"{first_name}.{lives}"
            await trio.sleep(self.random.random() * self.pace)

    async def _write_disks(self) -> None:
        while True:
            await trio.sleep(self.pace / 2)
            for client in self.clients.values():
                client.disk.flush()

    async def _cancel_at_sigterm(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if self.lives is not None:
                    self.lives.cancel()


class Interrupt(trio.abc.Instrument):
    """Interrupts a run at the step of Trio's that its scenario says, or where it may exit next."""

    def __init__(self, world: World) -> None:
        self._steps = 0
        self._exits = False
        self._world = world

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Count the steps while clients live, and act at the one."""
        world, scenario = self._world, self._world.run.scenario
        if world.lives is None:
            return
        self._steps += 1
        if scenario.interrupt in ("exit", "quit"):
            self._exits = self._exits or self._steps == scenario.at
            return
        world.run.steps = self._steps
        if self._steps == scenario.at:
            world.fault(f"{scenario.interrupt}")
            signal.raise_signal(signal.SIGINT if scenario.interrupt == "interrupt" else signal.SIGTERM)

    def may_exit(self, interrupt: str) -> None:
        """Exit in the function that calls this, if the scenario has this interrupt and it is time."""
        world = self._world
        if world.lives is not None and interrupt == world.run.scenario.interrupt:
            world.run.steps = self._steps
            if self._exits:
                self._exits = False
                world.fault(interrupt)
                raise SystemExit("it exits here")


def _tasks_but_in(beside: set[trio.Nursery], task: Any) -> Iterator[trio.lowlevel.Task]:
    """Give a task, and all tasks below it but those in some nurseries."""
    yield task
    for nursery in set(task.child_nurseries) - beside:
        for child in nursery.child_tasks:
            yield from _tasks_but_in(beside, child)


Program = Callable[[SimulatedClient], Awaitable[None]]
"""What a client does."""

Mounts = Callable[[World], Mapping[str, Mount]]
"""Returns the sockets of a server."""
