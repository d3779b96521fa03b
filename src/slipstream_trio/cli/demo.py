"""The demo: some of everything that happens on a connection, at a server of its own, or a visit to the user's."""

import gc
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any, Final

import trio

from .. import Channel, ChannelClosed, JoinError, PushError, PushTimeout, SlipstreamError, Socket
from ..telemetry import Record
from ..trace.selection import Glance
from ..trace.text import duration
from ..trace.view import describe
from .connecting import Run
from .development import PATH, make_server
from .output import Output
from .screen import Screen
from .status import OK, CommandFailed
from .tally import Tally

__all__ = ["run_demo"]

PACE: Final = 0.12
"""Seconds between some of the steps, for human eyes."""

GIVE_UP: Final = 0.1
LONGEST: Final = 30.0
SECONDS: Final = 2.0
PUSH_TIMEOUT: Final = 5.0
"""Seconds, too."""


def run_demo(options: Namespace) -> int:
    """Run the demo, and show the trace, however it ends; returns the status."""
    run = Run(options, every=True)
    demo = Demo(run, Screen(Output.of(sys.stdout, plain=options.plain, live=True), run.secrets))
    tally = Tally(run.secrets)
    # Two handlers, so that a failure of the one that shows is seen by the one that counts.
    run.telemetry.attach("tally", (), tally.feed, prefix=True)
    run.telemetry.attach("history", (), run.guarded(demo.show), prefix=True)
    gc.freeze()  # otherwise a collection may scan all imports, for milliseconds within a span
    try:
        run.start(demo.tour if options.url is None else partial(demo.visit, options))
    finally:
        gc.unfreeze()
        tally.finish()
        if not run.output_failed and tally.records:
            demo.screen.report(tally)
    if tally.problems:
        raise CommandFailed(f"the trace is not sound: {len(tally.problems)} problems, as listed above")
    return OK


class Demo:
    """A client that shows its steps, and the records of its connection, on a screen."""

    def __init__(self, run: Run, screen: Screen) -> None:
        self.screen: Screen = screen
        self._run = run
        self._began: int | None = None

    def show(self, record: Record) -> None:
        """Show a record, if it has a line."""
        line = describe(record, self._run.secrets)
        if line is not None:
            self._began = line.monotonic_time if self._began is None else self._began
            self.screen.line(Glance(0, line.monotonic_time - self._began, line, record))

    # At the user's server

    async def visit(self, options: Namespace) -> None:
        """Connect, join, push, ping, listen, leave; raises `CommandFailed` if the server closes the channel."""
        screen, topic = self.screen, options.topic
        # Before any output: this refuses an invalid URL.
        connecting = self._run.connect(reconnect=None, rejoin=None, overflow="drop_oldest")
        self._begin(options.url.partition("?")[0])
        async with connecting as socket, AsyncExitStack() as stack:
            listening: Callable[[], Awaitable[object]] = trio.sleep_forever
            if topic is not None:
                screen.step("Join the topic", f"async with socket.join({topic!r}) as channel:")
                channel = await stack.enter_async_context(socket.join(topic, options.join_payload))
                listening = partial(_listen, channel)
                if options.event is not None:
                    screen.step("Push", f"await channel.push({options.event!r}, …)")
                    with self._noted(PushError, PushTimeout):
                        await channel.push(options.event, options.payload, timeout=PUSH_TIMEOUT)
            await self._ping(socket)
            seconds = SECONDS if options.seconds is None else options.seconds
            screen.step(f"Listen for {seconds:g} s", "async for message in channel:")
            with trio.move_on_after(seconds):
                await listening()
            self._end()

    def _begin(self, url: str) -> None:
        self.screen.begin("demo", url)
        self.screen.step("Connect", "async with connect(url) as socket:")

    def _end(self) -> None:
        self.screen.step("Leave the topic and close the connection, at the ends of their blocks")

    async def _ping(self, socket: Socket, pace: float = 0.0) -> None:
        self.screen.step("Ping", "seconds = await socket.ping()")
        round_trips = []
        for _ in range(3):
            await trio.sleep(pace)
            round_trips.append(duration(await socket.ping() * 1e9))
        self.screen.note(f"there and back in {', '.join(round_trips)}")

    @contextmanager
    def _noted(self, *kinds: type[SlipstreamError]) -> Iterator[list[SlipstreamError]]:
        """Show an exception of these kinds; gives a list of it."""
        noted: list[SlipstreamError] = []
        try:
            yield noted
        except kinds as error:
            self.screen.note(f"{type(error).__name__}: {error}")
            noted.append(error)

    # At its own server

    async def tour(self) -> None:
        """Start the server, and show some of everything; raises `CommandFailed` where a step had another outcome."""
        with trio.move_on_after(LONGEST) as scope:
            server = make_server()
            async with server.serve() as listening:
                self._run.url = listening.url(PATH)
                self._begin(self._run.url)
                # A crashed channel is joined by hand here, to show each step on its own.
                async with self._run.connect(rejoin=None) as socket:
                    self.screen.step("Join a topic", 'async with socket.join("room:lobby") as channel:')
                    async with socket.join("room:lobby") as channel:
                        self.screen.note(f"channel.join_response is {channel.join_response}")
                        await self._talk(channel)
                        self.screen.step("Hear a broadcast", 'await server.broadcast("room:lobby", "news", …)')
                        await server.broadcast("room:lobby", "news", {"headline": "structured concurrency works"})
                        await self._trouble(socket, channel)
                        await self._ping(socket, PACE)
                        self._end()
        if scope.cancelled_caught:
            raise CommandFailed(f"the demo did not finish within {LONGEST:g} s")

    async def _talk(self, channel: Channel) -> None:
        screen, messages = self.screen, aiter(channel)
        screen.step("Push, and get a reply", 'await channel.push("new_msg", {"body": "hello"})')
        screen.note(f"the reply is {await channel.push('new_msg', {'body': 'hello'})}")
        check((await anext(messages)).payload == {"body": "hello"}, "the room's broadcast of the message")

        screen.step("Get an error", 'await channel.push("new_msg", {"body": ""})')
        await self._expect(PushError, channel.push, "new_msg", {"body": ""})

        screen.step("Be pushed to by the server", "async for message in channel:")
        await channel.push("ticks", {"count": 3, "every": PACE})
        ticks = [(await anext(messages)).payload["number"] for _ in range(3)]
        check(ticks == [0, 1, 2], "three ticks")

        screen.step("Push bytes", 'await channel.push("upload", bytes(4096))')
        check(await channel.push("upload", bytes(4096)) == {"bytes": 4096}, "the size of what was uploaded")

    async def _trouble(self, socket: Socket, channel: Channel) -> None:
        screen = self.screen
        screen.step("Give up a push", 'with move_on_after(0.1): await channel.push("hold")')
        with trio.move_on_after(GIVE_UP) as scope:
            await channel.push("hold")
        check(scope.cancelled_caught, "the push to be given up")
        await channel.push("release")

        screen.step("Crash, and join again", 'await channel.push("crash")')
        await self._expect(ChannelClosed, channel.push, "crash")
        screen.note(f"channel.status is {channel.status!r}; await channel.join()")
        await channel.join()

        screen.step("Be refused", 'await socket.channel("room:secret").join()')
        await self._expect(JoinError, socket.channel("room:secret").join)

    async def _expect(self, kind: type[SlipstreamError], function: Any, *args: Any) -> None:
        """Show the expected exception, or fail."""
        with self._noted(kind) as noted:
            await function(*args)
        if not noted:
            raise CommandFailed(f"{kind.__name__} was expected, and was not raised")


def check(fine: Any, what: str) -> None:
    """Fail unless the server did as expected."""
    if not fine:
        raise CommandFailed(f"the demo expected {what}, and got something else")


async def _listen(channel: Channel) -> None:
    async for _ in channel:
        pass  # its records are shown
    raise CommandFailed(f"the server closed the channel {channel.topic!r}")
