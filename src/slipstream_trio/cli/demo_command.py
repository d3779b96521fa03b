r"""Shows the event history of a connection as it happens.

It connects over a real socket, joins, pushes, listens, pings and leaves.
Without --url it talks to a server that it starts itself, and a channel crash, a
refused join and a push that is given up are part of it. It ends with the trace:
ids, spans, latencies, and the check of the invariants. Exit status 0 means that
everything ran and they hold.

reading a line:
  0.0041 3f2a → push  room:lobby  new_msg  31 µs
  since the start, the connection, → to the server, ← from it, · on this side,
  what it is, the topic, the event, and how long the handling took. A line of
  `client` is the whole operation, from the call to its outcome.

examples:
  slipstream demo
  slipstream demo --plain > history.txt
  slipstream demo --record demo.jsonl && slipstream trace replay demo.jsonl
  slipstream demo --url ws://localhost:4000/socket/websocket
  slipstream demo --url wss://example.org/socket/websocket --topic room:1 \
      --param user=ada --event new_msg --payload '{"body": "hi"}' --seconds 30
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, Final

import trio

from .. import Backoff, JoinError
from ..protocol import TransportOpened
from ..telemetry import ConnectStop, HandleStop, Record
from ..trace import MEANINGS, Verifier, Violation
from ..trace.read import WallClock
from ..trace.selection import Glance
from ..trace.stats import Statistics
from ..trace.text import many, printable
from ..trace.view import describe, given_of
from .connecting import Run, add_connecting, event, parse_json, seconds
from .console import from_words, opened
from .feed import Item, words_of
from .output import BAD, BOLD, FAINT, GOOD, ONCE, Output
from .status import OK, CommandFailed, UsageError
from .tables import print_tables
from .timeline import Timeline

NEEDS: Final = ("wsproto",)

NEEDS_URL: Final = ("topic", "param", "header", "auth_token", "join_payload", "event", "payload", "seconds")
SECTIONS: Final = ("connects", "joins", "leaves", "pushes", "heartbeats", "handling", "drops", "overflows", "errors")

PACE: Final = 0.12  # seconds between the steps, for human eyes
PUSH_TIMEOUT: Final = 1.0
SECONDS: Final = 2.0  # so long it listens at the user's server

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

Step = tuple[str, str, Item, Collection[str]]  # a title, a text, a request, and what it may come to


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plain", action="store_true", help="whole lines without colour, on a terminal too")
    parser.add_argument("--url", metavar="URL", help="a server of yours; with Phoenix it ends in /websocket")
    add_connecting(parser)
    group = parser.add_argument_group("with --url")
    group.add_argument("--topic", help="a topic to join")
    group.add_argument("--join-payload", type=parse_json, metavar="JSON", help="the join's payload, never shown")
    pushed = "an event to push; an error reply, or a missing one, does not fail the demo"
    group.add_argument("--event", type=event, help=pushed)
    group.add_argument("--payload", type=parse_json, metavar="JSON", help="its payload; by default {}")
    group.add_argument("--seconds", type=seconds, metavar="N", help="how long to listen for messages; by default 2")


def run(options: Namespace) -> int:
    """Run the demo; the trace is shown, however it ends, if the server answered."""
    needs = ("url", NEEDS_URL), ("topic", ("join_payload", "event")), ("event", ("payload",))
    for needed, names in needs:
        wrong = [name for name in names if getattr(options, name) not in (None, [])]
        if wrong and getattr(options, needed) is None:
            raise UsageError(f"--{wrong[0].replace('_', '-')} goes with --{needed}")
    run = Run(options, every=True)
    demo = Demo(run, Output.of(sys.stdout, plain=options.plain, live=True))
    run.telemetry.attach("demo", (), run.guarded(demo.take), prefix=True)
    try:
        run.start(demo.tour if options.url is None else partial(demo.visit, options))
    finally:
        if run.failure is None and demo.reached:
            demo.report()
    if demo.violations:
        raise CommandFailed(f"the trace is not sound: {many(len(demo.violations), 'problem')}, as listed above")
    return OK


class Demo:
    """Shows its steps and the records of its connection, which it counts, checks and forgets, and then a report."""

    def __init__(self, run: Run, output: Output) -> None:
        self._run = run
        self._output = output
        self._timeline = Timeline(output, secrets=run.secrets)
        self._statistics = Statistics()
        self._verifier = Verifier()
        self._clock = WallClock()
        self._spans = 0
        self._ended: list[ConnectStop] = []
        self._held: list[Glance] = []
        self._began: int | None = None
        self.violations: list[Violation] = []
        self.reached: bool = False  # the server has answered; before, nothing is shown

    def take(self, record: Record) -> None:
        """Check and count a record, and show it, if it has a line, and what was held until the server answered."""
        self.violations += self._verifier.feed(record)
        self._spans += record.name[-1] in ("stop", "exception")
        if isinstance(record, ConnectStop):
            self._ended.append(record)
        if (line := describe(record, self._run.secrets)) is not None:
            now = record.measurements["monotonic_time"]
            self._began = now if self._began is None else self._began
            glance = Glance(self._clock.at(record) - (line.took or 0), now - self._began, line, record)
            self._statistics.feed(glance)
            self._held.append(glance)
        given = given_of(record) if isinstance(record, HandleStop) and not self.reached else None
        if isinstance(given, TransportOpened) or getattr(given, "status", None) is not None:
            self.reached = True
            shown = (self._run.url or "").partition("?")[0]
            self._say("# demo", BOLD)
            self._say(f"# {shown}", FAINT)
            self._timeline.head()
            self._step(f"Connect: slipstream connect {shown}")
        while self.reached and self._held:
            self._timeline.line(self._held.pop(0))

    async def tour(self) -> None:
        """Start the server, and show some of everything; raises `CommandFailed` where a step had another outcome."""
        from .development import PATH, make_server

        steps = ((title, text, from_words(text, {}, None), (expected,)) for title, text, expected in TOUR)
        async with make_server().serve() as listening:
            self._run.url = listening.url(PATH)
            await self._follow(steps, PACE, rejoin=Backoff((0.1,)))

    async def visit(self, options: Namespace) -> None:
        """Connect, join, push, ping, listen, leave; raises `CommandFailed` if the server closes the channel."""
        lasting = SECONDS if options.seconds is None else options.seconds
        topic, event, steps = options.topic, options.event, list[Step]()
        if topic is not None:
            request = {"command": "join", "topic": topic, "payload": options.join_payload}
            steps.append(("Join the topic", f"join {topic}", request, ("joined",)))
        if event is not None:
            request = {"command": "push", "topic": topic, "event": event, "payload": options.payload}
            steps.append(("Push", f"push {topic} {event}", request, ("reply", "PushTimeout")))
        steps += [("Ping", "ping", {"command": "ping"}, ("pong",))] * 3
        await self._follow(steps, 0.0, lasting, reconnect=None, rejoin=None, overflow="drop_oldest")

    async def _follow(self, steps: Iterable[Step], pace: float, lasting: float = 0.0, **more: Any) -> None:
        """Connect, follow steps, and listen."""
        async with opened(self._run, lambda _: None, push_timeout=PUSH_TIMEOUT, **more) as console:
            for title, text, request, expected in steps:
                await trio.sleep(pace)
                self._step(f"{title}: {text}")
                answer = await console.do(request)
                self._say(f"# - {'  '.join([answer['type'], *words_of(answer, self._run.secrets)])}", ONCE)
                if not {answer["type"], answer.get("status"), answer.get("error")} & {*expected}:
                    if answer["type"] == "refused":
                        raise CommandFailed(str(JoinError(answer["topic"], answer["response"])))
                    other = f"{' or '.join(expected)} was expected, and {answer['type']} came"
                    raise CommandFailed(str(answer.get("text") or other))
            if lasting:
                self._step(f"Listen for {lasting:g} s")
                with trio.move_on_after(lasting):
                    for channel in list(console.channels.values()):
                        async for _ in channel:
                            pass  # its records are shown
                        raise CommandFailed(f"the server closed the channel {channel.topic!r}")
                    await trio.sleep_forever()
            self._step("Leave and close")

    def _step(self, text: str) -> None:
        if self._output.width is not None:
            self._output.print()
        self._say(f"# {text}", BOLD)

    def report(self) -> None:
        self.violations += self._verifier.finish()
        self._say("# The trace", BOLD)
        for stop in self._ended:
            origin, why = stop.origin, stop.termination_reason
            self._say(f"socket {origin.socket_id}")
            self._say(f"connection {origin.connection_id} generation {origin.generation} ended {why}")
            self._say(f"trace {origin.trace_id}")
        print_tables(self._output, self._statistics, sections=SECTIONS)
        self._output.print()
        self._say("# times of the client and of pings include the drawing of these lines", FAINT)
        for number, meaning in MEANINGS.items():
            broken = any(violation.invariant == number for violation in self.violations)
            self._say(f"invariant {number} {'BROKEN' if broken else 'holds '} {meaning}", BAD if broken else GOOD)
        for violation in self.violations:
            self._say(f"problem: {violation}", BAD)
        counts = {"record": self._verifier.records, "span": self._spans, "violation": len(self.violations)}
        self._say(", ".join(many(count, one) for one, count in counts.items()), BOLD)

    def _say(self, text: str, *codes: int) -> None:
        self._output.say(printable(self._run.secrets.hide(text)), *codes)
