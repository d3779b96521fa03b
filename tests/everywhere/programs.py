"""Programs that do all that the library can do."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio
from tests.everywhere.strike import Strike
from tests.everywhere.world import LARGE, URL, World

from slipstream_trio import (
    AlreadyJoined,
    Backoff,
    Channel,
    ChannelClosed,
    ConnectionLost,
    Gap,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
    Socket,
    connect,
)
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

__all__ = ["VISITED", "crowd", "loopback", "options", "payload", "visit"]

AT_ONCE = Backoff((0.5,), jitter=0)


async def payload() -> dict[str, Any]:
    """Return the payload of a join."""
    await trio.lowlevel.checkpoint()
    return {"user": "me"}


def options(world: World) -> dict[str, Any]:
    """Return the options of a client of a world."""
    return {
        "transport": world.connector,
        "telemetry": world.telemetry,
        "params": world.params,
        "auth_token": lambda: "token",
        "reconnect": AT_ONCE,
        "rejoin": AT_ONCE,
        "close_timeout": 1,
        "leave_timeout": 0.5,
        "heartbeat_interval": 5,
    }


@contextmanager
def _raises(world: World, kind: type[Exception], what: str) -> Iterator[None]:
    try:
        yield
    except kind:
        world.log.append(what)


# One task does one thing after the other.


async def visit(world: World, strike: Strike) -> None:
    """Do everything once, in one task."""
    async with connect(URL, **options(world)) as socket:
        world.sockets.append(socket)
        with strike.inner:
            await strike.within(_visit(world, socket))
        strike.leaving = not strike.inner.cancelled_caught
        if strike.inner.cancelled_caught and socket.status not in ("closing", "closed"):
            await _go_on(socket)


async def _go_on(socket: Socket) -> None:
    """Use the topics again that were joined for a block, or not joined, by what was cancelled somewhere."""
    for topic in ("room:a", "room:slow", "room:twice", "room:main", "room:read", "room:talk"):
        for _ in range(5):
            # What the server was told to do before may still come.
            with suppress(ConnectionLost, ChannelClosed):
                async with socket.join(topic) as channel:
                    assert await channel.push("echo", topic) == topic
                break
        else:
            raise AssertionError(f"{topic} is of no use any more")


async def _visit(world: World, socket: Socket) -> None:
    await socket.wait_connected()
    world.log.append(await anext(socket.status_changes()))
    await socket.ping()
    await _joins(world, socket)
    async with socket.join("room:a", payload) as channel:
        world.channels.append(channel)
        await _pushes(world, channel)
        await _messages(world, channel)
        await _crash(world, channel)
        await _losses(world, socket, channel)
    await _ends(world, socket)


async def _joins(world: World, socket: Socket) -> None:
    with _raises(world, JoinError, "refused"):
        async with socket.join("room:refused", "refuse"):
            pass
    slow = socket.channel("room:slow", "slow")
    world.channels.append(slow)
    with _raises(world, JoinTimeout, "join timed out"):
        await slow.join(timeout=0.5)
    async with socket.join("room:twice"):
        with _raises(world, AlreadyJoined, "already joined"):
            await socket.channel("room:twice").join()


async def _pushes(world: World, channel: Channel) -> None:
    world.log.append(await channel.push("echo", "answered"))
    with _raises(world, PushError, "error"):
        await channel.push("refuse", {"reason": "no"})
    with _raises(world, PushTimeout, "push timed out"):
        await channel.push("nothing", timeout=0.5)
    await channel.send("nothing")
    assert await channel.push("echo", b"\x00\x01") == b"\x00\x01"
    assert await channel.push("size", bytes(LARGE)) == {"size": LARGE}
    world.log.append("binary")


async def _messages(world: World, channel: Channel) -> None:
    async with channel.subscribe("tick") as ticks, channel.presence() as presence:
        await channel.push("burst", 2)
        world.log.append(f"tick {(await anext(ticks)).payload['n']}")
        async for message in channel:
            if message.event == "tick":
                break
        while "me" not in presence:
            await anext(presence)
        world.log.append("present")


async def _crash(world: World, channel: Channel) -> None:
    with _raises(world, ChannelClosed, "crashed"):
        await channel.push("crash")
    world.log.append(await channel.push("echo", "rejoined"))
    await _until_gap(world, channel, "rejoined")


async def _losses(world: World, socket: Socket, channel: Channel) -> None:
    with _raises(world, ConnectionLost, "lost"):
        await channel.push("drop")
    world.log.append(await channel.push("echo", "reconnected"))
    await _until_gap(world, channel, "reconnected")
    await channel.push("pause", 2)
    await channel.send("size", bytes(LARGE))  # half of it is written for two seconds
    world.log.append(await channel.push("echo", "read at last"))
    await channel.send("close", 1012)
    while socket.status == "connected":
        await trio.lowlevel.checkpoint()
    await socket.wait_connected()
    world.log.append(f"generation {socket.generation}")
    world.log.append(await channel.push("echo", "here again"))


async def _ends(world: World, socket: Socket) -> None:
    left, kept = socket.channel("room:b"), socket.channel("room:c")
    world.channels += [left, kept]
    await left.join()
    await left.leave()
    await left.join()
    left.leave_soon()
    await kept.join()
    await socket.disconnect()
    with _raises(world, ConnectionLost, "disconnected"):
        await kept.push("echo", 1)


async def _until_gap(world: World, channel: Channel, reason: str) -> None:
    async for item in channel.stream():
        if isinstance(item, Gap) and item.reason == reason:
            world.log.append(f"gap: {reason}")
            return


VISITED = [
    "connected",
    "refused",
    "join timed out",
    "already joined",
    "answered",
    "error",
    "push timed out",
    "binary",
    "tick 0",
    "present",
    "crashed",
    "rejoined",
    "gap: rejoined",
    "lost",
    "reconnected",
    "gap: reconnected",
    "read at last",
    "generation 3",
    "here again",
    "disconnected",
]


# Several tasks share a socket.


async def crowd(world: World, strike: Strike) -> None:
    """Let three tasks use one socket, while it is lost and comes back; leave with channels joined."""
    async with connect(URL, **options(world)) as socket:
        world.sockets.append(socket)
        with strike.inner:
            await strike.within(_crowd(world, socket, strike))
        strike.leaving = not strike.inner.cancelled_caught
        if strike.inner.cancelled_caught and socket.status not in ("closing", "closed"):
            await _go_on(socket)


async def _crowd(world: World, socket: Socket, strike: Strike) -> None:
    async with trio.open_nursery() as nursery:
        for other in (_read, _talk):
            nursery.start_soon(_beside, strike, other, world, socket)
        async with socket.join("room:main") as channel:
            world.channels.append(channel)
            await channel.push("size", bytes(LARGE))
            await trio.sleep(1)
            with _raises(world, ConnectionLost, "lost"):
                await channel.push("drop")
            await channel.push("echo", 1)
            await socket.channel("room:kept").join()
            await trio.sleep(2)
        nursery.cancel_scope.cancel()
    world.log.append("over")


async def _beside(strike: Strike, other: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    await strike.within(other(*arguments))


async def _read(world: World, socket: Socket) -> None:
    async with socket.join("room:read") as channel:
        world.channels.append(channel)
        await channel.send("burst", 3)
        async for _ in channel:
            await trio.sleep(0.1)


async def _talk(world: World, socket: Socket) -> None:
    async with socket.join("room:talk") as channel:
        world.channels.append(channel)
        while True:
            with _raises(world, ConnectionLost, "lost"):
                await channel.push("echo", 1)
                await trio.sleep(0.3)


# On a real socket.

HUGE = 6_000_000
"""Bytes of a push that does not fit into what the kernel buffers."""


async def loopback(world: World, strike: Strike) -> None:
    """Push more than the kernel takes at once, in real time, to a server that reads it only after a while."""
    async with world.server.serve() as listening:
        over_tcp = TrioWebSocketConnector(world.open_tcp)
        others = {**options(world), "transport": over_tcp, "reconnect": None, "close_timeout": 1}
        async with connect(listening.url("/socket/websocket"), **others) as socket:
            world.sockets.append(socket)
            with strike.inner:
                await strike.within(_loopback(world, socket))
            strike.leaving = True


async def _loopback(world: World, socket: Socket) -> None:
    await socket.ping()
    async with socket.join("room:a") as channel:
        world.channels.append(channel)
        await channel.push("echo", 1)
        await channel.push("size", bytes(LARGE))  # is written within close_timeout, on a busy machine too
        await channel.push("pause", 1.2)
        await channel.send("size", bytes(HUGE))
        await trio.sleep(0.1)
        await channel.push("echo", 2)
    world.log.append("over")
