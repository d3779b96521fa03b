r"""Joins a topic, pushes, and prints the response of the reply, as JSON.

The exit status is 0 for a reply that is ok, 1 for another one and for a refused
join, 3 without a connection, 4 without an answer in time.

examples:
  slipstream push ws://localhost:4000/socket/websocket room:lobby \
      new_msg '{"body": "hello"}'
  date | jq -R '{body: .}' | slipstream push "$URL" room:lobby new_msg -
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Any

from .. import PushError
from .connecting import Run, add_connecting, event, parse_json, seconds
from .status import OK, CommandFailed, UsageError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="of the socket; with Phoenix it ends in /websocket")
    parser.add_argument("topic", metavar="TOPIC", help="to join")
    parser.add_argument("event", type=event, metavar="EVENT", help="to push")
    parser.add_argument("payload", nargs="?", default="{}", metavar="JSON", help="by default {}; -: standard input")
    parser.add_argument("--join-payload", type=parse_json, metavar="JSON", help="the payload of the join")
    limit = "seconds for each answer; 10 by default"
    parser.add_argument("--timeout", type=partial(seconds, above=True), default=10.0, metavar="N", help=limit)
    add_connecting(parser)


def run(options: Namespace) -> int:
    try:
        payload = parse_json(sys.stdin.buffer.read() if options.payload == "-" else options.payload)
    except ValueError as error:
        raise UsageError(f"the payload: {error}") from None
    run = Run(options)
    return run.start(partial(_push, run, options, payload))


async def _push(run: Run, options: Namespace, payload: Any) -> int:
    limit, refused = options.timeout, None
    connecting = run.connect(reconnect=None, rejoin=None, connect_timeout=limit, join_timeout=limit)
    async with connecting as socket, socket.join(options.topic, options.join_payload) as channel:
        try:
            response = await channel.push(options.event, payload, timeout=limit)
        except PushError as error:
            response, refused = error.response, error.status
    print(json.dumps({"hex": response.hex()} if isinstance(response, bytes) else response))
    if refused is not None:
        raise CommandFailed(f"the reply's status is {refused!r}")
    return OK
