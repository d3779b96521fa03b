"""Connects to a Phoenix socket, as wscat does to a WebSocket.

At a terminal it has a prompt, with history and completion; `help` there lists
its commands. A lost connection is replaced, and topics are joined again.
Elsewhere, or with --json, it reads a request a line, and prints an object a
line; at the end of its input it leaves when all answers are there, with status
1 if a request failed.

examples:
  slipstream connect ws://localhost:4000/socket/websocket
  > join room:lobby {"name": "Ada"}
  > push new_msg {"body": "hello"}
  > push upload @photo.jpg

  slipstream connect wss://example.org/socket/websocket --param user=ada <<'END'
  {"command": "join", "topic": "room:1"}
  {"command": "push", "topic": "room:1", "event": "new_msg", "payload": {}}
  END
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from functools import partial
from importlib.util import find_spec
from typing import Final

import trio

from .connecting import Run, add_connecting
from .console import RequestError, from_json, opened
from .status import FAILED, OK, UsageError

PIPELINED: Final = ("push", "send", "ping")  # they neither wait for answers to others, nor let others wait for theirs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="of the socket; with Phoenix it ends in /websocket")
    parser.add_argument("--json", action="store_true", help="lines of JSON, at a terminal too")
    add_connecting(parser)


def run(options: Namespace) -> int:
    run = Run(options)
    if options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return run.start(partial(_lines, run))
    if find_spec("prompt_toolkit") is None:
        raise UsageError("the prompt needs the extra `cli`: pip install 'slipstream-trio[cli]'; --json does without")
    from .prompt import converse

    return run.start(partial(converse, run))


async def _lines(run: Run) -> int:
    """Take requests from lines of JSON, and answer them."""
    show = run.printer(sys.stdout, as_lines=True)
    async with opened(run, show, buffer=1) as console, trio.open_nursery() as answers:
        number = 0
        async for text in _stdin():
            await show.has_room()  # or else answers might not fit
            number += 1
            try:
                request = from_json(text) if text.strip() else None
            except RequestError as error:
                console.misread(error, number)
                continue
            if request is not None and request["command"] in PIPELINED:
                await answers.start(console.do, request, number)
            elif request is not None:
                await console.idle()
                await console.do(request, number)
    return FAILED if console.failed else OK


async def _stdin() -> AsyncIterator[bytes]:
    """Give the lines of the standard input, without Python's buffer: a thread that waits there would keep its lock."""
    rest = b""
    while chunk := await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 65536, abandon_on_cancel=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
