"""The faults of a world: those of its network, and those that hit from without, at random moments."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from ..faults import EachFrame, Faults, Ignore, Link, Refuse, Reset, Rule, SlowOpening, Stall, Truncate, Vanish

if TYPE_CHECKING:
    from .world import World

__all__ = ["ON_THE_NETWORK", "chaos", "faults_of"]

ON_THE_NETWORK: Final = frozenset(
    {
        "latency",
        "bandwidth",
        "stall",
        "reset",
        "truncate",
        "half_open",
        "refused",
        "reorder",
        "partition",
        "client_loss",
    }
)
"""The features that need a network."""


def faults_of(world: "World") -> Faults:
    """Return the faults of a world's network."""
    scenario, pace, random = world.run.scenario, world.pace, world.random
    features = scenario.features
    # A step makes about four frames in a direction, pushes, broadcasts and heartbeats together.
    often = min(1.0, max(1, scenario.faults) / (4.0 * scenario.clients * scenario.steps) / 4)
    frames: Mapping[str, tuple[Any, ...]] = {
        "stall": (Stall(3 * pace * random.random()), Stall(8 * pace, both=True)),
        "reset": (Reset(),),
        "truncate": (Truncate(),),
        "half_open": (Vanish(), Vanish(both=False)),
    }
    openings: Mapping[str, tuple[Rule, ...]] = {
        "refused": (Rule(Refuse(), chance=0.2), Rule(Ignore(), chance=0.05)),
        "reorder": (Rule(SlowOpening(0.1 * pace, jitter=2 * pace), chance=0.4),),
    }
    rules = [rule for name, its in openings.items() if name in features for rule in its]
    rules += [
        Rule(fault, EachFrame(often), toward)
        for name, its in frames.items()
        if name in features
        for fault in its
        for toward in ("client", "server")
    ]
    slow = random.random() * 0.2 * pace if "latency" in features else 0.0
    width = random.choice((1_000, 5_000, 50_000)) if "bandwidth" in features else None
    link = Link(latency=slow, jitter=slow, bandwidth=width)
    return Faults(scenario.seed, toward_client=link, toward_server=link, rules=rules)


async def chaos(world: "World") -> None:
    """Let faults happen that hit from without, until cancelled."""
    scenario, random = world.run.scenario, world.random
    possible = [name for name in _ACTS if name in scenario.features]
    while possible and scenario.faults:
        await trio.sleep(random.expovariate(1.0) * scenario.seconds / scenario.faults)
        name = random.choice(possible)
        await _ACTS[name](world)


async def _partition(world: "World") -> None:
    client = _someone(world)
    if client is not None:
        seconds = world.random.random() * 5 * world.pace
        world.fault("partition", client.name, round(seconds, 6))
        client.unreachable_until = max(client.unreachable_until, trio.current_time() + seconds)
        world.network.inject(Stall(seconds, both=True), name=client.name)


async def _node_crash(world: "World", *, forget: bool = False) -> None:
    node = world.random.choice(world.nodes)
    if node.up:
        node.down_for = world.random.random() * 2 * world.pace
        world.fault("node_loss" if forget else "node_crash", world.nodes.index(node))
        node.crash(forget=forget)


async def _node_loss(world: "World") -> None:
    await _node_crash(world, forget=True)


async def _restart(world: "World") -> None:
    node = world.random.choice(world.nodes)
    if node.up:
        world.fault("restart", world.nodes.index(node))
        server, node.up, node.down_for = node.server, False, world.random.random() * world.pace
        await server.stop()
        node.crash()


async def _kick(world: "World") -> None:
    connections = [each for node in world.nodes if node.up for each in node.server.connections]
    if connections:
        world.fault("kick")
        world.random.choice(connections).close(1001)


async def _channel_crash(world: "World") -> None:
    connections = [each for node in world.nodes if node.up for each in node.server.connections if each.channels]
    if connections:
        topic, channel = world.random.choice(list(world.random.choice(connections).channels.items()))
        reason = world.random.choice(("killed", "killed", "killed", "normal"))
        world.fault("channel_crash", topic, reason)
        channel.stop(reason)


async def _client_crash(world: "World") -> None:
    client = _someone(world)
    if client is not None:
        world.fault("client_crash", client.name)
        client.scope.cancel()


async def _client_loss(world: "World") -> None:
    client = _someone(world)
    if client is not None:
        world.fault("client_loss", client.name)
        client.unreachable_until = float("inf")
        world.network.inject(Vanish(), name=client.name)
        client.scope.cancel()


async def _wall_jump(world: "World") -> None:
    client = _someone(world)
    if client is not None:
        seconds = world.random.choice((-86_400, -3_600, -1, 1, 3_600, 86_400))
        world.fault("wall_jump", client.name, seconds)
        client.wall_offset += seconds


async def _standstill(world: "World") -> None:
    seconds = world.random.random() * 4 * world.pace
    world.fault("standstill", round(seconds, 6))
    world.run.stood += seconds
    world.clock.jump(seconds)


async def _disk_full(world: "World") -> None:
    name = world.random.choice([*world.disks])
    world.disks[name].full = not world.disks[name].full
    world.fault("disk_full", name, world.disks[name].full)


def _someone(world: "World") -> Any:
    return world.random.choice([*world.clients.values()]) if world.clients else None


_ACTS: Final[Mapping[str, Callable[["World"], Awaitable[None]]]] = {
    "partition": _partition,
    "node_crash": _node_crash,
    "node_loss": _node_loss,
    "restart": _restart,
    "kick": _kick,
    "channel_crash": _channel_crash,
    "client_crash": _client_crash,
    "client_loss": _client_loss,
    "wall_jump": _wall_jump,
    "standstill": _standstill,
    "disk_full": _disk_full,
}
"""What a feature does when its moment has come."""
