"""The faults of a world: those of its network, and those that hit from without, at random moments."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from ..faults import EachFrame, Faults, Ignore, Link, Refuse, Reset, Rule, SlowOpening, Stall, Truncate, Vanish
from ..server import Connection

if TYPE_CHECKING:
    from .world import World


def faults_of(world: "World") -> Faults:
    """Return the faults of a world's network; without rules, it need carry nothing."""
    scenario, pace, random = world.run.scenario, world.pace, world.random
    features = scenario.features
    # A step makes about four frames in a direction: pushes, broadcasts and heartbeats together.
    often = min(1.0, scenario.faults / (16.0 * scenario.clients * scenario.steps))
    frames: Mapping[str, tuple[Any, ...]] = {
        "stall": (Stall(3 * pace * random.random()), Stall(8 * pace, both=True)),
        "reset": (Reset(),),
        "truncate": (Truncate(),),
        "half_open": (Vanish(), Vanish(both=False)),
    }
    rules: Mapping[str, tuple[Rule, ...]] = {
        "refused": (Rule(Refuse(), chance=0.2), Rule(Ignore(), chance=0.05)),
        "reorder": (Rule(SlowOpening(0.1 * pace, jitter=2 * pace), chance=0.4),),
        # Without a rule, bytes would not be carried over the network.
        **dict.fromkeys(("latency", "bandwidth", "partition", "client_loss"), (Rule(Reset(), EachFrame(0.0)),)),
        **{
            name: tuple(Rule(fault, EachFrame(often), toward) for fault in its for toward in ("client", "server"))
            for name, its in frames.items()
        },
    }
    slow = random.random() * min(0.2 * pace, 1.0) if "latency" in features else 0.0
    # Where steps are minutes apart, a link that is slower still delays nobody more, but takes its time to simulate.
    # And large messages have to come through at all.
    widest = max(1.0, pace / 30) * (100 if "large_messages" in features else 1)
    width = random.choice((1_000, 5_000, 50_000)) * widest if "bandwidth" in features else None
    link = Link(latency=slow, jitter=slow, bandwidth=width)
    chosen = [rule for name in features for rule in rules.get(name, ())]
    return Faults(scenario.seed, toward_client=link, toward_server=link, rules=chosen)


async def chaos(world: "World") -> None:
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


def _hit_client(world: "World", name: str) -> None:
    random, network = world.random, world.network
    client = random.choice([*world.clients.values()])
    seconds = random.random() * 5 * world.pace
    world.fault(name, client.name)
    match name:
        case "partition":
            client.unreachable_until = max(client.unreachable_until, trio.current_time() + seconds)
            network.inject(Stall(seconds, both=True), name=client.name)
        case "client_crash":
            client.scope.cancel()
        case "client_loss":
            client.unreachable_until = float("inf")
            network.inject(Vanish(), name=client.name)
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


async def _hit_server(world: "World", name: str, lasting: trio.Nursery) -> None:
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
