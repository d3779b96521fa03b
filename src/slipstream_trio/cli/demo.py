"""The demo: a scripted console, and the history of its connection, at a server of its own or at the user's."""

import gc
import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any, Final

import trio

from .. import Backoff, Channel, JoinError
from ..telemetry import Record
from ..trace.selection import Glance
from ..trace.view import describe
from .connecting import Run
from .console import from_words, opened
from .development import PATH, make_server
from .feed import Item, words_of
from .output import Output
from .screen import Screen
from .status import OK, CommandFailed
from .tally import Tally

__all__ = ["run_demo"]

PACE: Final = 0.12
"""Seconds between the steps, for human eyes."""

PUSH_TIMEOUT: Final = 1.0
LONGEST: Final = 30.0
SECONDS: Final = 2.0
"""Seconds, too."""

TOUR: Final = (
    ("Join a topic", "join room:lobby", "joined"),
    ("Push, and get a reply", 'push room:lobby new_msg {"body": "hello"}', "ok"),
    ("Get an error", 'push room:lobby new_msg {"body": ""}', "error"),
    ("Be pushed to by the server", 'push room:lobby ticks {"count": 3, "every": 0.1}', "ok"),
    ("Push bytes", "push room:lobby upload 0x000102030405060708090a0b0c0d0e0f", "ok"),
    ("Wait in vain for a reply", "push room:lobby hold", "PushTimeout"),
    ("Get it late", "push room:lobby release", "ok"),
    ("Be refused", "join room:secret", "refused"),
    ("Crash the channel", "push room:lobby crash", "ChannelClosed"),
    ("Push, as soon as it is joined again", 'push room:lobby new_msg {"body": "again"}', "ok"),
    *(("Ping", "ping", "pong"),) * 3,
    ("Leave the topic", "leave room:lobby", "left"),
)
"""Steps: their titles, what to type for them at the prompt of `slipstream connect`, and what they come to."""

Step = tuple[str, str, Item, Collection[str]]
"""A title, a text, a request, and what it may come to; nothing: anything."""


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
        tally.violations += tally.verifier.finish()
        if run.failure is None and tally.verifier.records:
            demo.screen.report(tally)
    if problems := tally.problems:
        raise CommandFailed(f"the trace is not sound: {len(problems)} problems, as listed above")
    return OK


class Demo:
    """Shows its steps, and the records of its connection, on a screen."""

    def __init__(self, run: Run, screen: Screen) -> None:
        self.screen: Screen = screen
        self.began: int | None = None
        self._run = run

    def show(self, record: Record) -> None:
        """Show a record, if it has a line."""
        line = describe(record, self._run.secrets)
        if line is not None:
            self.began = line.monotonic_time if self.began is None else self.began
            self.screen.line(Glance(0, line.monotonic_time - self.began, line, record))

    async def tour(self) -> None:
        """Start the server, and show some of everything; raises `CommandFailed` where a step had another outcome."""
        steps = ((title, text, from_words(text, {}, None), (expected,)) for title, text, expected in TOUR)
        with trio.move_on_after(LONGEST) as scope:
            async with make_server().serve() as listening:
                self._run.url = listening.url(PATH)
                await self._follow(steps, PACE, rejoin=Backoff((0.1,)))
        if scope.cancelled_caught:
            raise CommandFailed(f"the demo did not finish within {LONGEST:g} s")

    async def visit(self, options: Namespace) -> None:
        """Connect, join, push, ping, listen, leave; raises `CommandFailed` if the server closes the channel."""
        seconds = SECONDS if options.seconds is None else options.seconds
        await self._follow(_visit(options), 0.0, seconds, reconnect=None, rejoin=None, overflow="drop_oldest")

    async def _follow(self, steps: Iterable[Step], pace: float, seconds: float = 0.0, **more: Any) -> None:
        """Connect, follow steps, and listen."""
        screen, run = self.screen, self._run
        run.url, shown = run.url or "", (run.url or "").partition("?")[0]
        connecting = run.connect(push_timeout=PUSH_TIMEOUT, **more)  # before any output: this refuses an invalid URL
        screen.begin("demo", shown)
        screen.step("Connect", f"slipstream connect {shown}")
        async with opened(run, connecting, lambda _: None) as console:
            for title, text, request, expected in steps:
                await trio.sleep(pace)
                screen.step(title, text)
                answer = await console.do(request)
                screen.note("  ".join([answer["type"], *words_of(answer, run.secrets)]))
                if expected and not {answer["type"], answer.get("status"), answer.get("error")} & {*expected}:
                    raise CommandFailed(_unexpected(answer, expected))
            if seconds:
                screen.step(f"Listen for {seconds:g} s")
                with trio.move_on_after(seconds):
                    await _listen(*console.channels.values())
            screen.step("Leave and close")


def _visit(options: Namespace) -> Iterator[Step]:
    topic, event = options.topic, options.event
    if topic is not None:
        request = {"command": "join", "topic": topic, "payload": options.join_payload}
        yield "Join the topic", f"join {topic}", request, ("joined",)
    if event is not None:
        request = {"command": "push", "topic": topic, "event": event, "payload": options.payload}
        yield "Push", f"push {topic} {event}", request, ("reply", "PushTimeout")
    yield from (("Ping", "ping", {"command": "ping"}, ("pong",)),) * 3


def _unexpected(answer: Item, expected: Collection[str]) -> str:
    if answer["type"] == "refused":
        return str(JoinError(answer["topic"], answer["response"]))
    return str(answer.get("text") or f"{' or '.join(expected)} was expected, and {answer['type']} came")


async def _listen(*channels: Channel) -> None:
    for channel in channels:
        async for _ in channel:
            pass  # its records are shown
        raise CommandFailed(f"the server closed the channel {channel.topic!r}")
    await trio.sleep_forever()
