"""`slipstream demo`: its options, and how it ends."""

import json
import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ..errors import ConfigurationError, ConnectionRejected, SlipstreamError
from ..trace.text import Secrets, printable, strings_in
from .demo_visit import Plan
from .status import CommandFailed, UsageError, pair

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
  slipstream demo --url ws://localhost:4000/socket/websocket --topic room:lobby
  slipstream demo --url wss://example.org/socket/websocket --topic room:1 \\
      --param user=ada --token "$TOKEN" \\
      --event new_msg --payload '{"body": "hi"}' --seconds 30"""

NEEDS: Final = ("wsproto",)

NEEDS_URL: Final = ("topic", "param", "token", "join_payload", "event", "payload", "seconds")
SECONDS: Final = 2.0

OPTIONS: Final = {"params": "param", "auth_token": "token"}
"""The options of `connect` with another name here."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--plain", action="store_true", help="whole lines without colour, on a terminal too")
    parser.add_argument(
        "--record", metavar="PATH", help="record all of it, for `slipstream trace`; gzip if it ends in .gz"
    )
    parser.add_argument("--url", metavar="URL", help="a server of yours; with Phoenix it ends in /websocket")
    group = parser.add_argument_group("with --url")
    group.add_argument("--topic", help="the topic to join (needed)")
    group.add_argument(
        "--param",
        action="append",
        type=pair,
        metavar="NAME=VALUE",
        help="a connect parameter, never shown; can be repeated",
    )
    group.add_argument("--token", help="an auth token, sent as a subprotocol (Phoenix 1.8), never shown")
    group.add_argument("--join-payload", type=_json, metavar="JSON", help="the join's payload, never shown")
    group.add_argument("--event", help="an event to push; an error reply, or a missing one, does not fail the demo")
    group.add_argument("--payload", type=_json, metavar="JSON", help="its payload; by default {}")
    group.add_argument(
        "--seconds", type=_seconds, metavar="N", help=f"how long to listen for messages; by default {SECONDS:g}"
    )


def run(options: Namespace) -> int:
    """Run the demo; the trace is shown, however it ends."""
    from .demo import run_demo

    plan = make_plan(options)
    try:
        return run_demo(plan, _secrets(plan), plain=options.plain, path=options.record)
    except ConfigurationError as error:
        raise UsageError(f"--{OPTIONS.get(error.option, error.option)}: {error.problem}") from error
    except BrokenPipeError:
        raise  # the output was closed, not the connection
    except (SlipstreamError, OSError) as error:
        raise CommandFailed(explain(error, _secrets(plan))) from error


def explain(error: Exception, secrets: Secrets) -> str:
    """Return an error's text, in one line and without secrets."""
    if isinstance(error, ConnectionRejected):
        # Its text has the start of the body only, so secrets are masked before that is cut off.
        return printable(str(ConnectionRejected(error.status, error.headers, secrets.hide(error.body))))
    return printable(secrets.hide(str(error)))


def make_plan(options: Namespace) -> Plan | None:
    """Return the plan for `--url`, None without it; raises `UsageError` where options contradict each other."""
    if options.url is None:
        given = [name for name in NEEDS_URL if getattr(options, name) is not None]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} goes with --url")
        return None
    if not options.topic:
        raise UsageError("--url needs --topic")
    if options.payload is not None and options.event is None:
        raise UsageError("--payload goes with --event")
    return Plan(
        url=options.url,
        topic=options.topic,
        params=dict(options.param or ()),
        token=options.token,
        join_payload=options.join_payload,
        event=options.event,
        payload=options.payload,
        seconds=SECONDS if options.seconds is None else options.seconds,
    )


def _secrets(plan: Plan | None) -> Secrets:
    if plan is None:
        return Secrets()
    query = [value for _, value in parse_qsl(urlsplit(plan.url).query)]
    token = [] if plan.token is None else [plan.token]
    return Secrets.of([*plan.params.values(), *query, *token, *strings_in(plan.join_payload)])


# Errors for argparse, which do not repeat the typed text, as it may be a secret.


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ArgumentTypeError(f"invalid JSON{where}") from None


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ArgumentTypeError("a number of seconds, 0 or more")
    return seconds
