"""`slipstream demo`: its options."""

from argparse import ArgumentParser, Namespace
from typing import Final

from .connecting import add_connecting, json_value, seconds
from .status import UsageError

__all__ = ["DESCRIPTION", "EPILOG", "NEEDS", "add_arguments", "run"]

DESCRIPTION: Final = """\
Connects over a real socket, joins, pushes, listens, pings and leaves, and shows
the event history as it happens. Without --url it talks to a server that it
starts itself, and a channel crash, a refused join and a push that is given up
are part of it. It ends with the trace: ids, spans, latencies, and the
check of the invariants. Exit status 0 means that everything ran and they hold."""

EPILOG: Final = """\
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
  slipstream demo --url wss://example.org/socket/websocket --topic room:1 \\
      --param user=ada --event new_msg --payload '{"body": "hi"}' --seconds 30"""

NEEDS: Final = ("wsproto",)

NEEDS_URL: Final = ("topic", "param", "header", "auth_token", "join_payload", "event", "payload", "seconds")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--plain", action="store_true", help="whole lines without colour, on a terminal too")
    parser.add_argument("--url", metavar="URL", help="a server of yours; with Phoenix it ends in /websocket")
    add_connecting(parser)
    group = parser.add_argument_group("with --url")
    group.add_argument("--topic", help="a topic to join")
    group.add_argument("--join-payload", type=json_value, metavar="JSON", help="the join's payload, never shown")
    group.add_argument("--event", help="an event to push; an error reply, or a missing one, does not fail the demo")
    group.add_argument("--payload", type=json_value, metavar="JSON", help="its payload; by default {}")
    group.add_argument("--seconds", type=seconds, metavar="N", help="how long to listen for messages; by default 2")


def run(options: Namespace) -> int:
    """Run the demo; the trace is shown, however it ends."""
    from .demo import run_demo

    given = [name for name in NEEDS_URL if getattr(options, name) not in (None, [])]
    needs = ("url", NEEDS_URL), ("topic", ("join_payload", "event")), ("event", ("payload",))
    for needed, names in needs:
        wrong = [name for name in given if name in names]
        if wrong and getattr(options, needed) is None:
            raise UsageError(f"--{wrong[0].replace('_', '-')} goes with --{needed}")
    return run_demo(options)
