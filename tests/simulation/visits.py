"""The library's own program: clients visit rooms, push, read, lose connections, leave and come again."""

from collections.abc import Mapping
from typing import Any, Final

import trio
from tests.simulation.guarantees import GUARANTEES

from slipstream_trio import Backoff, Channel, SlipstreamError, Socket
from slipstream_trio.testing.server import (
    Accept,
    Channel as ServerChannel,
    JoinRefused,
    Mount,
    Outcome,
    Refuse,
    Reply,
    Request,
)
from slipstream_trio.testing.simulation import SimulatedClient, Simulation, World

__all__ = ["ALL", "Room", "rooms", "visits"]

_ROOMS: Final = 2
_BYTES: Final = 2**18


def rooms(world: World) -> Mapping[str, Mount]:
    """Return the socket of a server that has rooms, which `visits` can visit."""

    def connect(_: Request) -> Accept | None:
        if world.chance("rate_limit", 0.15):
            raise Refuse(429, [("retry-after", str(round(world.pace)))])
        return None

    return {"/socket": Mount(channels={"room:*": lambda: Room(world)}, connect=connect, timeout=15 * world.pace)}


class Room(ServerChannel):
    """A channel whose broadcasts and pushes are numbered, so that oracles know what is missing.

    Parameters:
        world: the world.
    """

    def __init__(self, world: World) -> None:
        self.world: World = world
        self.series: str = f"join {next(world.numbers)}"
        self.pushed: int = 0

    async def join(self, payload: Any) -> Any:
        """Let the client in, sooner or later, or refuse; the response has the number of the next broadcast."""
        if self.world.chance("slow_join", 0.3):
            await trio.sleep(self.world.random.random() * 6 * self.world.pace)
        if self.world.chance("rate_limit", 0.1):
            raise JoinRefused({"reason": "rate limited"})
        return {"next": self.world.counters[self.topic]}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        """Do what the event says, after a note of the push's token."""
        self.world.note("servers", "performed", payload["token"], self.series)
        match event:
            case "mark":
                return Reply({**payload, "next": self.world.counters[self.topic]})
            case "tick":
                large = "large_messages" in self.world.run.scenario.features
                for _ in range(payload["count"]):
                    text = {"text": payload["text"]} if large else {}
                    await self.push("tick", {"series": self.series, "n": self.pushed, **text})
                    self.pushed += 1
            case "shout":
                await self.world.broadcast(self.topic, "number")
            case "silence":
                return None
        return Reply(payload)


async def visits(client: SimulatedClient) -> None:
    """Connect, visit rooms, and leave, until all steps are taken."""
    pace = client.pace
    slow = "slow_reader" in client.features
    options: dict[str, Any] = {
        "reconnect": Backoff((0.02 * pace, 0.1 * pace, 0.5 * pace), reset_after=pace),
        "rejoin": Backoff((0.02 * pace, 0.2 * pace), reset_after=pace),
        "heartbeat_interval": 3 * pace,
        "connect_timeout": 2 * pace,
        "join_timeout": 3 * pace,
        "push_timeout": 4 * pace,
        "leave_timeout": pace,
        "close_timeout": pace,
        "buffer": 3 if slow else 256,
        "buffer_bytes": _BYTES if "large_messages" in client.features else 2**26,
        "overflow": client.random.choice(("raise", "drop_oldest", "drop_newest")) if slow else "raise",
    }
    while client.steps > 0:
        try:
            first = client.random.random() < 0.5
            async with client.connect(retry_first=first, **options) as socket, trio.open_nursery() as nursery:
                for number in range(client.random.randint(1, _ROOMS)):
                    nursery.start_soon(_visit, client, socket, f"room:{number}")
        except SlipstreamError as error:
            client.log("told", type(error).__name__)
            client.steps -= 1
            await client.rest(0.5)


async def _visit(client: SimulatedClient, socket: Socket, topic: str) -> None:
    pause = 2 * client.pace if "slow_reader" in client.features else 0.0
    channel = socket.channel(topic)
    follower = client.follower(channel, pause=pause, buffer=3 if pause else 256)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        try:
            with client.limit("join", 9 * client.pace):
                response = await channel.join(timeout=9 * client.pace)
            follower.start_at(response["next"])
            for _ in range(client.random.randint(1, 4)):
                await _step(client, channel)
            response = await channel.push("mark", {"token": client.token()})
            if not pause:
                with client.limit("catching up", 0.0):
                    await follower.reach(response["next"])
        except SlipstreamError as error:
            client.log("told", type(error).__name__)
            client.steps -= 1
        with client.limit("leave", client.pace):
            await channel.leave()
        await client.rest(0.2)


async def _step(client: SimulatedClient, channel: Channel) -> None:
    """Rest, and push a few things at once."""
    together = client.random.randint(1, 6)
    await client.rest(1.5 * together)  # one and a half rooms are visited at a time, on average
    async with trio.open_nursery() as nursery:
        for _ in range(min(client.steps, together)):
            client.steps -= 1
            nursery.start_soon(_push, client, channel)


async def _push(client: SimulatedClient, channel: Channel) -> None:
    event = client.random.choice(("echo", "echo", "tick", "shout", "silence"))
    text = "x" * client.random.choice((1, 900)) * (100 if "large_messages" in client.features else 1)
    payload = {"token": client.token(), "count": client.random.randint(1, 5), "text": text}
    try:
        if event == "silence":
            await channel.send(event, payload)
            return
        with client.limit("push", 4 * client.pace):
            await channel.push(event, payload)
    except SlipstreamError as error:
        client.log("told", type(error).__name__)


ALL = Simulation(program=visits, mounts=rooms, oracles=GUARANTEES)
"""The library's own swarm."""
