"""A program with a client by callbacks, which does all that such a client can do."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from tests.everywhere.programs import options, payload
from tests.everywhere.strike import Strike
from tests.everywhere.world import URL, World

from slipstream_trio import (
    Caller,
    CallTimeout,
    Channel,
    Client,
    ClientStopped,
    ConnectionLost,
    Message,
    Reply,
    Socket,
    run_client,
)

__all__ = ["call_back"]


class Talker(Client):
    """Does in its callbacks what a client can do.

    Parameters:
        strike: struck in the callbacks.
    """

    def __init__(self, world: World, strike: Strike) -> None:
        self._world = world
        self._strike = strike
        self._joins = 0

    async def handle_connect(self, socket: Socket) -> None:
        await self._strike.within(self._connected(socket))

    async def handle_disconnect(self, reason: Exception) -> None:
        await self._strike.within(self._note(f"disconnect {type(reason).__name__}"))

    async def handle_join(self, channel: Channel, response: Any) -> None:
        await self._strike.within(self._joined(channel))

    async def handle_message(self, channel: Channel, message: Message) -> None:
        await self._strike.within(self._note(message.event))

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        await self._strike.within(self._replied(reply))

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        await self._strike.within(self._note(f"close {topic} {type(reason).__name__}"))

    async def handle_leave(self, topic: str) -> None:
        await self._strike.within(self._left(topic))

    async def handle_info(self, message: Any) -> None:
        await self._strike.within(self._note(f"info {message}"))

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        await self._strike.within(self._note(f"call {message}"))
        return message

    async def handle_cast(self, message: Any) -> None:
        await self._strike.within(self._note(f"cast {message}"))

    async def terminate(self, reason: BaseException | None) -> None:
        await self._strike.within(self._note("terminate"))
        self._strike.leaving = True

    async def _note(self, what: str) -> None:
        self._world.log.append(what)
        await trio.lowlevel.checkpoint()

    async def _connected(self, socket: Socket) -> None:
        self._world.sockets += [socket] if socket not in self._world.sockets else []
        await self._note("connect")
        try:
            await self.join("room:a", payload)
            await self.join("room:refused", "refuse")
        except ConnectionLost as lost:  # what interrupted the payload's function ends the connection
            if not (self._strike.struck and lost.reason == "closed_by_client"):
                raise

    async def _joined(self, channel: Channel) -> None:
        self._joins += 1
        await self._note(f"join {self._joins}")
        if self._joins == 1:
            self._world.channels.append(channel)
            await self.push(channel.topic, "echo", "first")
            await self.push(channel.topic, "refuse", timeout=1)
            await self.push(channel.topic, "nothing", timeout=1)
            await self.push(channel.topic, "burst", 1)
        elif self._joins == 2:
            await self.push(channel.topic, "drop")
        elif self._joins == 3:
            await self.leave(channel.topic)

    async def _replied(self, reply: Reply) -> None:
        await self._note(f"reply {reply.event} {type(reply.error).__name__}")
        if reply.event == "nothing":
            await self.leave("room:refused")
            await self.push("room:a", "crash")

    async def _left(self, topic: str) -> None:
        await self._note(f"leave {topic}")
        if topic == "room:a":
            await self.disconnect()


async def call_back(world: World, strike: Strike) -> None:
    """Run a client, and let others call it, cast and tell."""
    client = Talker(world, strike)
    for ask in (_call, _cast):
        world.beside.start_soon(_ask, world, client, ask)
    await run_client(client, URL, **options(world))


async def _ask(world: World, client: Talker, ask: Callable[[Talker, int], Awaitable[object]]) -> None:
    for number in range(20):
        try:
            await ask(client, number)
        except (ClientStopped, CallTimeout) as error:
            world.log.append(type(error).__name__)
        await trio.sleep(0.2)


async def _call(client: Talker, number: int) -> None:
    assert await client.call(number, timeout=1) == number


async def _cast(client: Talker, number: int) -> None:
    client.cast(number)
    client.info(number)
