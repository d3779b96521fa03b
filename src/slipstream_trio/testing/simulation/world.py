"""The world of a run: servers behind a balancer, a network, clients, and the faults that hit them."""

import hashlib
import math
import os
import signal
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import trio
from trio.testing import MockClock

from ...telemetry import HandleStart, HandleStop
from .. import faults as net
from ..server import Connection, Mount, PhoenixServer
from ..server.pipes import open_background
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


class World(trio.abc.Instrument):
    """Everything in a run, which it can interrupt; servers get it, and oracles see its `run`.

    Attributes:
        random: the source of random numbers for servers and faults.
        pace: the mean time between two steps of a client, in seconds.
        numbers: for servers, to tell their channels apart.
        counters: the number of the next broadcast on each topic: the servers' database.
        tls: the contexts of servers and clients; None: they do not speak TLS.
        clients: the clients that run now, by name.
        streams: the clients' ends of all their connections.
        bad_disks: whether clients record their telemetry, on disks that fail.
        lives: the scope of all of them, while they live.
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
        self.network: net.FaultyNetwork
        self.nodes: list[Node] = [
            Node(lambda: PhoenixServer(mounts(self), close_timeout=self.pace, keep_received=1))
            for _ in range(scenario.nodes)
        ]
        self.clients: dict[str, SimulatedClient] = {}
        self.bad_disks: bool = not {"disk_full", "disk_torn"}.isdisjoint(scenario.features)
        self.lives: trio.CancelScope | None = None
        self._steps = 0
        self._at = scenario.at or math.inf  # the step from which on it is interrupted
        self._directory = directory
        self._digest = hashlib.sha256()
        self.streams: list[Any] = []

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

    def emitted(self, record: Any) -> None:
        """Take in a record of a client, and the frames of it; exit, if that is what a handler is to do."""
        frames: object = record.frame if isinstance(record, HandleStart) else None
        if isinstance(record, HandleStop) and record.delivered is None:
            frames = record.transition.return_
        told = f"{record.name} {record.monotonic_time} {getattr(record, 'span_id', '')} {frames}\n"
        self._digest.update(told.encode(errors="surrogatepass"))
        self.may_end("exit")

    # The run

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Count the steps of Trio's while clients live; a signal may come at each."""
        self._steps += self.lives is not None
        self.may_end("interrupt", "terminate")

    def may_end(self, *interrupts: str) -> None:
        """Interrupt the run here, if that is one of the ways in which its scenario does so, and it is time."""
        interrupt = self.run.scenario.interrupt
        if self.lives is None or interrupt not in interrupts:
            return
        self.run.steps = self._steps
        if self._steps >= self._at:
            self._at = math.inf
            self.fault(f"{interrupt}")
            if interrupt in ("exit", "quit"):
                raise SystemExit("it exits here")
            signal.raise_signal(signal.SIGINT if interrupt == "interrupt" else signal.SIGTERM)

    async def play(self, program: "Program") -> None:
        """Let the clients run their programs to the end."""
        async with net.faulty_network(faults_of(self)) as self.network, open_background() as beside:
            beside.start_soon(chaos, self)
            if self.bad_disks:
                beside.start_soon(self._write_disks)
            for node in self.nodes:
                beside.start_soon(node.run)
            if self.run.scenario.interrupt == "terminate":
                await beside.start(self._cancel_at_sigterm)
            ours, root = {*trio.lowlevel.current_task().child_nurseries}, trio.lowlevel.current_root_task()
            before = {*_tasks_but_in(ours, root)}
            try:
                await self._play(program)
            finally:
                self.lives = None
                left = [f"a task is left: {task.name}" for task in {*_tasks_but_in(ours, root)} - before]
                left += ["a connection is left open" for stream in self.streams if not stream.closed]
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
                # A part of the last 4 KiB is cut off, as by a loss of power.
                size = disk.path.stat().st_size
                os.truncate(disk.path, size - int(min(size, 4096) * self.random.random()))
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


def _tasks_but_in(beside: set[trio.Nursery], task: Any) -> Iterator[trio.lowlevel.Task]:
    """Give a task, and all tasks below it but those in some nurseries."""
    yield task
    for nursery in set(task.child_nurseries) - beside:
        for child in nursery.child_tasks:
            yield from _tasks_but_in(beside, child)


def faults_of(world: World) -> net.Faults:
    """Return the faults of a world's network; without rules, it need carry nothing."""
    scenario, pace, random = world.run.scenario, world.pace, world.random
    features = scenario.features
    # A step makes about four frames in a direction: pushes, broadcasts and heartbeats together.
    often = net.EachFrame(min(1.0, scenario.faults / (16.0 * scenario.clients * scenario.steps)))

    never = net.Rule(net.Reset(), net.EachFrame(0.0))  # without a rule, bytes would not be carried over the network

    def both_ways(*faults: net.Fault) -> tuple[net.Rule, ...]:
        return tuple(net.Rule(fault, often, toward) for fault in faults for toward in ("client", "server"))

    rules = {
        "stall": both_ways(net.Stall(3 * pace * random.random()), net.Stall(8 * pace, both=True)),
        "reset": both_ways(net.Reset()),
        "truncate": both_ways(net.Truncate()),
        "half_open": both_ways(net.Vanish(), net.Vanish(both=False)),
        "refused": (net.Rule(net.Refuse(), chance=0.2), net.Rule(net.Ignore(), chance=0.05)),
        "reorder": (net.Rule(net.SlowOpening(0.1 * pace, jitter=2 * pace), chance=0.4),),
        **dict.fromkeys(("latency", "bandwidth", "partition", "client_loss"), (never,)),
    }
    slow = random.random() * min(0.2 * pace, 1.0) if "latency" in features else 0.0
    # Where steps are minutes apart, a link that is slower still delays nobody more, but takes its time to simulate.
    # And large messages have to come through at all.
    widest = max(1.0, pace / 30) * (100 if "large_messages" in features else 1)
    width = random.choice((1_000, 5_000, 50_000)) * widest if "bandwidth" in features else None
    link = net.Link(latency=slow, jitter=slow, bandwidth=width)
    chosen = [rule for name in features for rule in rules.get(name, ())]
    return net.Faults(scenario.seed, toward_client=link, toward_server=link, rules=chosen)


async def chaos(world: World) -> None:
    """Let faults happen that hit from without; twice as many as asked for, where the run takes longer."""
    scenario, random = world.run.scenario, world.random
    possible = [name for name in (*_TO_CLIENTS, *_TO_SERVERS, "standstill") if name in scenario.features]
    async with trio.open_nursery() as lasting:
        for _ in range(2 * scenario.faults if possible else 0):
            await trio.sleep(random.expovariate(1.0) * scenario.seconds / scenario.faults)
            name = random.choice(possible)
            if name == "standstill":
                seconds = random.random() * 4 * world.pace
                world.fault(name, seconds)
                world.run.stood += seconds
                world.clock.jump(seconds)
            elif name in _TO_CLIENTS and world.clients:
                _hit_client(world, name)
            elif name in _TO_SERVERS:
                await _hit_server(world, name, lasting)


_TO_CLIENTS: Final = ("partition", "client_crash", "client_loss", "wall_jump", "disk_full")


def _hit_client(world: World, name: str) -> None:
    random, network = world.random, world.network
    client = random.choice([*world.clients.values()])
    seconds = random.random() * 5 * world.pace
    world.fault(name, client.name)
    match name:
        case "partition":
            client.unreachable_until = max(client.unreachable_until, trio.current_time() + seconds)
            network.inject(net.Stall(seconds, both=True), name=client.name)
        case "client_crash":
            client.scope.cancel()
        case "client_loss":
            client.unreachable_until = float("inf")
            network.inject(net.Vanish(), name=client.name)
            client.scope.cancel()
        case "wall_jump":
            client.wall_offset += random.choice((-86_400, -3_600, -1, 1, 3_600, 86_400))
        case _:
            client.disk.full = not client.disk.full


async def _read_nothing(connection: Connection, seconds: float) -> None:
    connection.pause_reading()
    await trio.sleep(seconds)
    connection.resume_reading()


_TO_SERVERS: Final = ("node_crash", "node_loss", "restart", "kick", "channel_crash", "unread")


async def _hit_server(world: World, name: str, lasting: trio.Nursery) -> None:
    random = world.random
    node = random.choice(world.nodes)
    connections = node.server.connections
    if not node.up or (name in ("kick", "channel_crash", "unread") and not connections):
        return
    node.down_for = random.random() * 2 * world.pace
    world.fault(name, world.nodes.index(node))
    match name:
        case "restart":
            node.up = False
            await node.server.stop()
            node.crash()
        case "kick":
            random.choice(connections).close(1001)
        case "unread":
            lasting.start_soon(_read_nothing, random.choice(connections), random.random() * 6 * world.pace)
        case "channel_crash":
            for channel in random.choice(connections).channels.values():
                channel.stop(random.choice(("killed", "killed", "killed", "normal")))
        case _:
            node.crash(forget=name == "node_loss")


Program = Callable[[SimulatedClient], Awaitable[None]]
"""What a client does."""

Mounts = Callable[[World], Mapping[str, Mount]]
"""Returns the sockets of a server."""
