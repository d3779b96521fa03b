r"""Joins topics, and prints their messages until Ctrl-C.

They are readable at a terminal, one JSON object a line in pipes. A lost
connection is replaced, and topics are joined again; this, and the gaps where
messages may be missing, is told on the standard error.

examples:
  slipstream listen ws://localhost:4000/socket/websocket room:lobby
  slipstream listen wss://example.org/socket/websocket room:1 room:2 \
      --event 'new_*' --count 10 | jq .payload
"""

import sys
from argparse import ArgumentParser, Namespace
from fnmatch import fnmatchcase
from functools import partial

import trio

from .connecting import Run, add_connecting, parse_json
from .feed import Item, feed
from .status import OK, CommandFailed, count


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="of the socket; with Phoenix it ends in /websocket")
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="to join")
    parser.add_argument("--event", action="append", metavar="GLOB", help="these events only: 'new_*'; can be repeated")
    parser.add_argument("--count", type=count, metavar="N", help="end after so many messages")
    parser.add_argument("--join-payload", type=parse_json, metavar="JSON", help="the payload of the joins")
    parser.add_argument("--json", action="store_true", help="an object a line, at a terminal too")
    add_connecting(parser)


def run(options: Namespace) -> int:
    run = Run(options)
    return run.start(partial(_listen, run, options))


async def _listen(run: Run, options: Namespace) -> int:
    as_lines = options.json or not sys.stdout.isatty()
    remark = run.printer(sys.stderr, as_lines=False)
    show = run.printer(sys.stdout, as_lines=as_lines, overflow=remark)
    topics, left, over = set(options.topics), options.count, trio.Event()

    def came(item: Item) -> None:
        nonlocal left
        if item["type"] != "message":
            remark(item)
            if item.get("reason") == "closed":
                topics.discard(item["topic"])
        elif left != 0 and any(fnmatchcase(item["event"], glob) for glob in options.event or ["*"]):
            show(item)
            left = None if left is None else left - 1
        if left == 0 or not topics:
            over.set()

    feed(run.telemetry, came)
    async with run.connect(buffer=1) as socket:
        channels = [socket.channel(topic, options.join_payload) for topic in options.topics]
        for channel in channels:
            await channel.join()
        await over.wait()
    if left != 0:
        raise CommandFailed("the server closed the channels")
    return OK
