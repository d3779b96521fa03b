"""The Python clients that run on asyncio: `run_asyncio.py realtime-py|phoenix_channels`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from work import Command, hold_in_asyncio, measured, payload_of, repeated, run_in_asyncio, work


class Realtime:
    """realtime-py, which speaks version 1 of the protocol, and Supabase's broadcasts."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.received: Callable[[], None] = lambda: None
        channel.on_broadcast("tick", lambda _: self.received())

    @classmethod
    @asynccontextmanager
    async def connected(cls, command: Command) -> AsyncIterator["Realtime"]:
        """Connect and join; the client adds `/websocket` itself."""
        from realtime import AsyncRealtimeClient

        client = AsyncRealtimeClient(command["url"].removesuffix("/websocket"), "key", timeout=60)
        await client.connect()
        channel = client.channel("0")
        made = cls(channel)
        await channel.subscribe()
        yield made
        await client.close()

    async def send(self, event: str, payload: dict[str, Any]) -> None:
        """Push, without waiting."""
        await self._channel.push(event, payload)

    async def push(self, event: str, payload: dict[str, Any]) -> None:
        """Push, and wait for the reply."""
        from realtime.types import RealtimeAcknowledgementStatus as Status

        replied = asyncio.get_running_loop().create_future()
        (await self._channel.push(event, payload)).receive(Status.Ok, replied.set_result)
        await replied


class PhoenixChannels:
    """phoenix_channels_python_client: pushes are made of its parts, as it has none that waits for a reply."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._replies: dict[str, asyncio.Future[None]] = {}
        self.received: Callable[[], None] = lambda: None

    @classmethod
    @asynccontextmanager
    async def connected(cls, command: Command) -> AsyncIterator["PhoenixChannels"]:
        """Connect and join, with a queue that drops nothing."""
        from phoenix_channels_python_client import PHXChannelsClient

        async with PHXChannelsClient(command["url"], "key", max_topic_queue_size=10**7) as client:
            made = cls(client)
            await client.subscribe_to_topic("room:0", made._handle)
            yield made

    async def _handle(self, message: Any) -> None:
        if message.event == "tick":
            self.received()
        elif message.ref in self._replies:
            self._replies.pop(message.ref).set_result(None)

    async def send(self, event: str, payload: dict[str, Any]) -> str:
        """Push, without waiting."""
        from phoenix_channels_python_client.utils import make_message

        join_ref = self._client.get_current_subscriptions()["room:0"].join_ref
        ref: str = self._client._generate_ref()  # noqa: SLF001 - see above
        message = make_message(event, "room:0", ref, payload, join_ref)
        await self._client.get_protocol_handler().send_message(self._client.connection, message)
        return ref

    async def push(self, event: str, payload: dict[str, Any]) -> None:
        """Push, and wait for the reply."""
        replied = asyncio.get_running_loop().create_future()
        self._replies[await self.send(event, payload)] = replied
        await replied


Peer = {"realtime-py": Realtime, "phoenix_channels": PhoenixChannels}[sys.argv[1]]


async def burst(command: Command) -> None:
    """Receive."""
    async with Peer.connected(command) as peer:
        left = command["count"]
        done = asyncio.Event()

        def received() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        peer.received = received
        with measured(count=command["count"]):
            await peer.send("burst", {"count": command["count"], "size": command["size"]})
            await done.wait()


async def echo(command: Command) -> None:
    """Push and wait for the replies, so many in flight."""
    each = max(1, command["count"] // command["at_once"])
    payload = payload_of(command["size"])
    async with Peer.connected(command) as peer:
        with measured(count=each * command["at_once"]):
            one = repeated(lambda: peer.push("echo", payload), each)
            await asyncio.gather(*(one() for _ in range(command["at_once"])))


runners = {function.__name__: run_in_asyncio(function) for function in (burst, echo)}
work({**runners, "hold": run_in_asyncio(partial(hold_in_asyncio, Peer.connected))})
