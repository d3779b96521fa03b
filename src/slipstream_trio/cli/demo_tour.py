"""The demo with its own server: some of everything that happens on a connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import trio

from .. import Channel, ChannelClosed, JoinError, PushError, SlipstreamError, Socket, connect
from ..telemetry import Telemetry
from ..testing.server import PhoenixServer
from ..trace.text import duration
from .demo_server import PATH, make_server
from .screen import Screen
from .status import CommandFailed

__all__ = ["Tour"]

PACE: Final = 0.12
"""Seconds between some of the steps, for human eyes."""

GIVE_UP: Final = 0.1
LONGEST: Final = 30.0
"""Seconds, too."""


class Tour:
    """The embedded server, and a client that shows its steps on the screen."""

    def __init__(self, screen: Screen, telemetry: Telemetry) -> None:
        self._screen = screen
        self._telemetry = telemetry

    async def run(self) -> None:
        """Start the server, and take the tour; raises `CommandFailed` where a step had another outcome."""
        with trio.move_on_after(LONGEST) as scope:
            server = make_server(PACE)
            async with server.serve() as listening:
                url = listening.url(f"{PATH}/websocket")
                self._screen.begin("demo", url)
                await self._connect(url, server)
        if scope.cancelled_caught:
            raise CommandFailed(f"the demo did not finish within {LONGEST:g} s")

    async def _connect(self, url: str, server: PhoenixServer) -> None:
        screen = self._screen
        screen.step("Connect", "async with connect(url) as socket:")
        # A crashed channel is joined by hand here, to show each step on its own.
        async with connect(url, telemetry=self._telemetry, rejoin=None) as socket:
            screen.step("Join a topic", 'async with socket.join("room:lobby") as channel:')
            async with socket.join("room:lobby") as channel:
                screen.note(f"channel.join_response is {channel.join_response}")
                await self._talk(channel, server)
                await self._give_up(channel)
                await self._crash(channel)
                await self._knock(socket)
                await self._ping(socket)
                screen.step("Leave the topic, at the end of its block")
            screen.step("Close the connection, at the end of its block")

    async def _talk(self, channel: Channel, server: PhoenixServer) -> None:
        screen = self._screen
        async with channel.subscribe("new_msg", "tick", "news") as messages:
            screen.step("Push, and get a reply", 'await channel.push("new_msg", {"body": "hello"})')
            reply = await channel.push("new_msg", {"body": "hello"})
            screen.note(f"the reply is {reply}")
            check((await anext(messages)).payload == {"body": "hello"}, "the room's broadcast of the message")

            screen.step("Get an error", 'await channel.push("new_msg", {"body": ""})')
            with self._expected(PushError):
                await channel.push("new_msg", {"body": ""})

            screen.step("Be pushed to by the server", "async for message in channel:")
            await channel.push("count_down", {"from": 3})
            ticks = [(await anext(messages)).payload["number"] for _ in range(3)]
            check(ticks == [3, 2, 1], "three ticks")

            screen.step("Hear a broadcast", 'await server.broadcast("room:lobby", "news", …)')
            await server.broadcast("room:lobby", "news", {"headline": "structured concurrency works"})
            check((await anext(messages)).event == "news", "the broadcast")

        screen.step("Push bytes", 'await channel.push("upload", bytes(4096))')
        reply = await channel.push("upload", bytes(4096))
        check(reply["sha256"] == sha256(bytes(4096)).hexdigest(), "the right checksum of what was uploaded")

    async def _give_up(self, channel: Channel) -> None:
        self._screen.step("Give up a push", 'with move_on_after(0.1): await channel.push("hold")')
        with trio.move_on_after(GIVE_UP) as scope:
            await channel.push("hold")
        check(scope.cancelled_caught, "the push to be given up")
        await channel.push("release")

    async def _crash(self, channel: Channel) -> None:
        self._screen.step("Crash, and join again", 'await channel.push("crash")')
        with self._expected(ChannelClosed):
            await channel.push("crash")
        self._screen.note(f"channel.status is {channel.status!r}; await channel.join()")
        await channel.join()

    async def _knock(self, socket: Socket) -> None:
        self._screen.step("Be refused", 'async with socket.join("room:secret"):')
        with self._expected(JoinError):
            async with socket.join("room:secret"):
                pass

    async def _ping(self, socket: Socket) -> None:
        self._screen.step("Ping", "seconds = await socket.ping()")
        round_trips = []
        for _ in range(3):
            await trio.sleep(PACE)
            round_trips.append(duration(await socket.ping() * 1e9))
        self._screen.note(f"there and back in {', '.join(round_trips)}")

    @contextmanager
    def _expected(self, kind: type[SlipstreamError]) -> Iterator[None]:
        """Show the expected exception, or fail."""
        try:
            yield
        except kind as error:
            self._screen.note(f"{kind.__name__}: {error}")
        else:
            raise CommandFailed(f"{kind.__name__} was expected, and was not raised")


def check(fine: Any, what: str) -> None:
    """Fail unless the server did as expected."""
    if not fine:
        raise CommandFailed(f"the demo expected {what}, and got something else")
