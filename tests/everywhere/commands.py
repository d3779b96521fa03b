"""Programs that give one command after the other. Interrupted, they go on, and use again all that they have used."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
import trio.testing
from tests.everywhere.holding import held_by
from tests.everywhere.programs import options, payload
from tests.everywhere.strike import Strike
from tests.everywhere.world import URL, Play, World

from slipstream_trio import (
    Channel,
    ChannelClosed,
    Client,
    ConnectionLost,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
    Reply,
    Socket,
    connect,
    run_client,
)

__all__ = ["COMMANDS", "INSTRUCTIONS", "connecting", "disconnecting"]

# One task has a socket, and gives one command.


class Commander:
    """Gives commands on a socket.

    Attributes:
        before: what was held before a command that leaves nothing behind, and by what; None during others.
    """

    def __init__(self, world: World, socket: Socket) -> None:
        self.before: tuple[object, Counter[str]] | None = None
        self._world = world
        self._socket = socket
        self._channel = self._new_channel("room:a")

    async def prepare(self) -> None:
        """Join, and let everything come that comes then."""
        await self._channel.join()
        await trio.testing.wait_all_tasks_blocked()

    async def join(self) -> None:
        await self._channel.join()

    async def join_for_a_block(self) -> None:
        async with self._socket.join("room:b", payload) as channel:
            self._world.channels.append(channel)

    async def join_in_vain(self) -> None:
        for topic, wish in (("room:refused", "refuse"), ("room:slow", "slow")):
            with suppress(JoinError, JoinTimeout):
                await self._new_channel(topic, wish).join(timeout=0.1)

    async def join_while_leaving(self) -> None:
        await self._channel.join()
        self._channel.leave_soon()
        await self._channel.join()

    async def push(self) -> None:
        assert await self._channel.push("echo", 1) == 1

    async def push_in_vain(self) -> None:
        with suppress(PushError):
            await self._channel.push("refuse")
        with suppress(PushTimeout):
            await self._channel.push("nothing", timeout=0.1)

    async def push_while_crashing(self) -> None:
        with suppress(ChannelClosed):
            await self._channel.push("crash")
        assert await self._channel.push("echo", 2) == 2

    async def push_while_reconnecting(self) -> None:
        with suppress(ConnectionLost):
            await self._channel.push("drop")
        assert await self._channel.push("echo", 3) == 3

    async def send(self) -> None:
        await self._channel.send("nothing")

    async def read(self) -> None:
        await anext(self._channel.stream())
        await anext(self._socket.status_changes())

    async def subscribe(self) -> None:
        self._leaves_nothing(self._channel)
        async with self._channel.subscribe("tick", "tock", buffer=1):
            pass
        self.before = None

    async def follow_presence(self) -> None:
        self._leaves_nothing(self._channel)
        async with self._channel.presence() as presence:
            assert "me" in presence
        self.before = None

    async def ping(self) -> None:
        self._leaves_nothing(self._socket)
        await self._socket.wait_connected()
        await self._socket.ping()
        self.before = None

    async def leave(self) -> None:
        await self._channel.leave()

    async def leave_soon(self) -> None:
        self._channel.leave_soon()

    def _new_channel(self, topic: str, wish: str | None = None) -> Channel:
        channel = self._socket.channel(topic, wish)
        self._world.channels.append(channel)
        return channel

    def _leaves_nothing(self, by: object) -> None:
        self.before = by, held_by(by)


async def _command(name: str, world: World, strike: Strike) -> None:
    """Give a command on a socket; where it is interrupted, go on with the same socket."""
    strike.end()
    async with connect(URL, **options(world)) as socket:
        world.sockets.append(socket)
        commander = Commander(world, socket)
        if not name.startswith("join"):
            await commander.prepare()
        try:
            strike.begin()
            await strike.within(getattr(commander, name)())
            world.log.append(name)
            strike.end()
            await trio.lowlevel.checkpoint()  # for an interrupt that came last
        except KeyboardInterrupt:
            strike.end()
        with trio.fail_after(100):
            await trio.testing.wait_all_tasks_blocked()
            if commander.before is not None:
                by, before = commander.before
                assert held_by(by) == before
            await _go_on(world, socket)


NAMES = [name for name in vars(Commander) if not name.startswith("_") and name != "prepare"]

COMMANDS: dict[str, Play] = {name: partial(_command, name) for name in NAMES}
"""A program for each command."""


async def _go_on(world: World, socket: Socket) -> None:
    """See that what is joined can be used and left, and that every topic can be joined then."""
    topics = {channel.topic for channel in world.channels}
    await trio.sleep(2)  # what had crashed, or lost its connection, is joined again by then
    for channel in world.channels:
        if channel.status == "joined":
            await _use(channel)
            await channel.leave()
    for topic in sorted(topics):
        await _join_and_use(socket, topic)
    await trio.testing.wait_all_tasks_blocked()
    [connection] = world.server.connections
    assert (dict(socket.state.joins), dict(connection.channels)) == ({}, {})


async def _join_and_use(socket: Socket, topic: str) -> None:
    for _ in range(5):
        try:
            async with socket.join(topic) as channel:
                await _use(channel)
            return
        except ChannelClosed:
            pass  # what the server was told to do before may still come
    raise AssertionError(f"{topic} is of no use any more")


async def _use(channel: Channel) -> None:
    assert await channel.push("echo", channel.topic) == channel.topic
    await channel.push("burst", 5)  # more than what would wait in a subscription that was forgotten


# One task enters a block and leaves it.


async def connecting(world: World, strike: Strike) -> None:
    """Enter the block of `connect`, join, and leave it."""
    async with connect(URL, **options(world)) as socket:
        world.sockets.append(socket)
        world.channels.append(socket.channel("room:a"))
        await world.channels[0].join()
        strike.leaving = True
    world.log.append("connecting")


async def disconnecting(world: World, strike: Strike) -> None:
    """Disconnect with a channel joined and a push on its way, then leave the block."""
    async with connect(URL, **options(world)) as socket:
        world.sockets.append(socket)
        world.channels.append(socket.channel("room:a"))
        await world.channels[0].join()
        strike.leaving = True
        await socket.disconnect()
        try:
            await world.channels[0].push("echo")
        except ConnectionLost:
            world.log.append("disconnecting")


# One task has a client that runs in another one.


class Instructed(Client):
    """Lets others wait for what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self._grown = trio.lowlevel.ParkingLot()

    async def until(self, what: str, topic: str, times: int) -> None:
        """Wait until it was told of a topic so often."""
        while self.times(what, topic) < times:
            await self._grown.park()

    def times(self, what: str, topic: str) -> int:
        """Return how often it was told of a topic."""
        return self.told.count((what, topic))

    async def handle_connect(self, socket: Socket) -> None:
        self._tell("connect", "")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        self._tell("join", channel.topic)

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        self._tell("reply", reply.topic)

    async def handle_leave(self, topic: str) -> None:
        self._tell("leave", topic)

    async def handle_call(self, message: Any, caller: Any) -> Any:
        return message

    async def handle_info(self, message: Any) -> None:
        self._tell("info", message)

    async def handle_cast(self, message: Any) -> None:
        self._tell("cast", message)

    def _tell(self, what: str, topic: str) -> None:
        self.told.append((what, topic))
        self._grown.unpark_all()


async def _join(client: Instructed) -> None:
    await client.join("room:b", payload)


async def _push(client: Instructed) -> None:
    await client.push("room:a", "echo", 1)
    await client.until("reply", "room:a", 1)


async def _ask(client: Instructed) -> None:
    assert await client.call("question") == "question"
    client.cast("order")
    client.info("news")


async def _leave(client: Instructed) -> None:
    await client.leave("room:a")
    await client.join("room:a")  # waits for that
    await client.leave("room:a")
    await client.until("leave", "room:a", 1)


async def _instruct(instruct: Callable[[Instructed], Awaitable[None]], world: World, strike: Strike) -> None:
    """Instruct a client from another task than its own; where that is interrupted, go on with the same client."""
    strike.end()
    client = Instructed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, world, client, strike)
        with trio.fail_after(100):
            await client.until("connect", "", 1)
            await client.join("room:a")
            await client.until("join", "room:a", 1)
            try:
                strike.begin()
                await strike.within(_coroutine(instruct, client))
                world.log.append(f"instruct {instruct.__name__.strip('_')}")
                strike.end()
                await trio.lowlevel.checkpoint()  # for an interrupt that came last
            except KeyboardInterrupt:
                strike.end()
            await _instruct_again(client)
        client.stop()


async def _run(world: World, client: Client, strike: Strike) -> None:
    strike.spare()
    await run_client(client, URL, **options(world))


async def _coroutine(instruct: Callable[[Instructed], Awaitable[None]], client: Instructed) -> None:
    await instruct(client)


INSTRUCTIONS: dict[str, Play] = {
    f"instruct {given.__name__.strip('_')}": partial(_instruct, given) for given in (_join, _push, _ask, _leave)
}
"""A program for each thing that a client can be told to do."""


async def _instruct_again(client: Instructed) -> None:
    """See that every topic can be asked for, used and left."""
    for topic in ("room:a", "room:b"):
        await client.join(topic)  # may be joined already, or about to be
        await trio.testing.wait_all_tasks_blocked()
        replies, leaves = client.times("reply", topic), client.times("leave", topic)
        await client.push(topic, "echo", topic)
        await client.until("reply", topic, replies + 1)
        await client.leave(topic)
        await client.until("leave", topic, leaves + 1)
    assert await client.call("again") == "again"
    client.cast("again")
    await client.until("cast", "again", 1)
