"""The library's own programs: clients visit rooms, push, read, lose connections, leave and come again.

`VISITS` is of those who read their channels; in `ALL` others look aside (presences, subscriptions, pings, topics that
are not joined), or have callbacks.
"""

import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any, Final

import trio
import trustme
from tests.simulation.guarantees import GUARANTEES

from slipstream_trio import Backoff, Channel, Client, Reply as Answer, SlipstreamError, Socket, run_client
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

__all__ = ["ALL", "VISITS", "Room", "contexts", "lives", "rooms", "visits"]

_ROOMS: Final = 2
_LARGE: Final = 100  # as many times as large as others, where messages are large
_BYTES: Final = 2**18


def rooms(world: World) -> Mapping[str, Mount]:
    """Return the socket of a server that has rooms, which `visits` can visit."""

    def connect(_: Request) -> Accept | None:
        # Long-polling tells every refusal as one for good.
        if world.run.scenario.transport != "longpoll" and world.chance("rate_limit", 0.15):
            raise Refuse(429, [("retry-after", str(round(world.pace)))])
        return None

    mount = Mount(
        channels={"room:*": lambda: Room(world)},
        connect=connect,
        timeout=15 * world.pace,
        poll_window=min(max(10.0, world.pace), 25.0),  # a client gives a poll up after 30 s
    )
    return {"/socket": mount}


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
        self._shown = payload.get("shown")
        return {"next": self.world.counters[self.topic]}

    async def after_join(self) -> None:
        """Show who is there, if the client wants that."""
        if self._shown is not None:
            self.presence.track(self._shown, {})
            await self.push("presence_state", self.presence.list())

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


def _size(client: SimulatedClient) -> int:
    """Return how large messages are: less so in whole days, which would take three times as long to simulate."""
    return 1 if "large_messages" not in client.features else _LARGE if client.pace < 60 else _LARGE // 4


def _options(client: SimulatedClient) -> dict[str, Any]:
    pace = client.pace
    slow, unread = "slow_reader" in client.features, "unread" in client.features
    return {
        "reconnect": Backoff((0.02 * pace, 0.1 * pace, 0.5 * pace), reset_after=pace),
        "rejoin": Backoff((0.02 * pace, 0.2 * pace), reset_after=pace),
        "heartbeat_interval": 3 * pace,
        # Where a server does not read, a push can time out in the queue before the line counts as lost.
        "heartbeat_timeout": (6 if unread else 3) * pace,
        "connect_timeout": 2 * pace,
        "join_timeout": 3 * pace,
        "push_timeout": (2 if unread else 4) * pace,
        "leave_timeout": pace,
        "close_timeout": pace,
        "buffer": 3 if slow else 256,
        "buffer_bytes": _BYTES * _size(client) // _LARGE if "large_messages" in client.features else 2**26,
        "overflow": client.random.choice(("raise", "drop_oldest", "drop_newest")) if slow else "raise",
    }


async def visits(client: SimulatedClient) -> None:
    """Connect, visit rooms, and leave, until all steps are taken."""
    options = _options(client)
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
    text = "x" * client.random.choice((1, 900)) * _size(client)
    payload = {"token": client.token(), "count": client.random.randint(1, 5), "text": text}
    try:
        if event == "silence":
            await channel.send(event, payload)
            return
        with client.limit("push", 4 * client.pace):
            await channel.push(event, payload)
    except SlipstreamError as error:
        client.log("told", type(error).__name__)


async def _looks_aside(client: SimulatedClient) -> None:
    """Connect, and follow presences, subscriptions, and a topic that is not joined."""
    options = _options(client)
    while client.steps > 0:
        try:
            async with client.connect(retry_first=True, **options) as socket, AsyncExitStack() as stack:
                channel = socket.channel("room:aside", {"shown": client.name})
                presence = await stack.enter_async_context(channel.presence())
                numbers = await stack.enter_async_context(channel.subscribe("number"))
                await stack.enter_async_context(socket.listen("nowhere:*"))
                with client.limit("join", 9 * client.pace):
                    await channel.join(timeout=9 * client.pace)
                with trio.move_on_after(client.pace):
                    await anext(presence)
                    client.log("here", presence.synced, *presence)
                await _step(client, channel)
                with trio.move_on_after(6 * client.pace):
                    await socket.ping()
                client.steps -= 1
                await channel.push("shout", {"token": client.token()})
                with trio.move_on_after(client.pace):
                    client.log("number", (await anext(numbers)).payload["n"])
                with client.limit("leave", client.pace):
                    await channel.leave()
        except SlipstreamError as error:
            client.log("told", type(error).__name__)
            client.steps -= 1
            await client.rest(0.5)


class _Visitor(Client):
    """Does in callbacks what `visits` does."""

    def __init__(self, client: SimulatedClient) -> None:
        self._client = client
        self._unanswered: set[str] = set()

    async def handle_connect(self, socket: Socket) -> None:
        self._client.log("connected")
        await self.join("room:aside", {"shown": self._client.name})

    async def handle_disconnect(self, reason: Exception) -> None:
        self._client.log("told", type(reason).__name__)
        self._take_step()

    async def handle_join(self, channel: Channel, response: Any) -> None:
        self._client.log("in", channel.topic, response["next"])
        self._channel = channel
        for event in ("echo", "tick", "shout"):
            await self._client.rest(1)
            payload = {"token": self._client.token(), "count": 2, "text": "x"}
            self._unanswered.add(await self.push(channel.topic, event, payload))

    async def handle_reply(self, ref: str, reply: Answer) -> None:
        self._client.log("answered", type(reply.error).__name__)
        self._unanswered.remove(ref)
        self._take_step()
        if not self._unanswered and self._channel.status == "closed":
            await self.join("room:aside")  # the server had closed it
        elif not self._unanswered:
            await self.leave("room:aside")

    async def handle_leave(self, topic: str) -> None:
        self._client.log("left")
        await self.join(topic)

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        self._client.log("told", type(reason).__name__)
        self._take_step()

    async def handle_call(self, message: Any, caller: Any) -> Any:
        self._client.log("called")
        return message

    def _take_step(self) -> None:
        self._client.steps -= 1
        if self._client.steps <= 0:
            self.stop()


async def _calls_back(client: SimulatedClient) -> None:
    """Run a client by callbacks, and call it from another task."""
    options = {**client.options, **_options(client)}
    while client.steps > 0:
        visitor = _Visitor(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_call, client, visitor)
            try:
                await run_client(visitor, client.url, **options)
            except SlipstreamError as error:
                client.log("told", type(error).__name__)
            nursery.cancel_scope.cancel()


async def _call(client: SimulatedClient, visitor: _Visitor) -> None:
    while True:
        await client.rest(2)
        try:
            with client.limit("call", client.pace):
                client.log("returned", await visitor.call("hello", timeout=client.pace))
        except SlipstreamError as error:
            client.log("told", type(error).__name__)


async def lives(client: SimulatedClient) -> None:
    """Read channels, look aside, or have callbacks, as is drawn."""
    await client.random.choice((visits, visits, _looks_aside, _calls_back))(client)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return TLS contexts; keys of RSA have one size."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("server", key_type=trustme.KeyType.RSA).configure_cert(server)
    authority.configure_trust(client)
    return server, client


VISITS = Simulation(program=visits, mounts=rooms, oracles=GUARANTEES)
"""The clients that read channels: the corpus is of them."""

# A day of long-polling takes ten times as long.
_TRANSPORTS: Final = ("trio_websocket", *(name for name in ("websockets",) if find_spec(name)))
ALL = Simulation(
    program=lives, mounts=rooms, oracles=GUARANTEES, transports=(*_TRANSPORTS * 10, "longpoll"), tls=contexts
)
"""The library's own swarm."""
