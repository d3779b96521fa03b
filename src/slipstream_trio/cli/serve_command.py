"""Serves Phoenix channels to try a client against, until Ctrl-C.

It prints its URL and its channels.

examples:
  slipstream serve
  slipstream serve --port 4001
then, in another terminal:
  slipstream connect ws://localhost:4000/socket/websocket
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Final

import trio

from .connecting import Run
from .status import CommandFailed, count

NEEDS: Final = ("wsproto",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(url=None, param=[], header=[], auth_token=None)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; by default %(default)s")
    port = partial(count, least=0, most=65_535)  # the resolver takes a larger port modulo 65,536
    parser.add_argument("--port", type=port, default=4000, metavar="N", help="by default %(default)s; 0: a free one")


def run(options: Namespace) -> int:
    from .development import ABOUT, PATH, make_server

    async def serve() -> int:
        try:
            async with make_server().serve(options.host, options.port) as listening:
                print(f"{listening.url(PATH)}\n\nchannels:\n{ABOUT}\n\nCtrl-C ends it.", flush=True)
                await trio.sleep_forever()
        except OSError as error:
            where, why = f"{options.host} port {options.port}", error.strerror or error
            raise CommandFailed(f"cannot listen on {where}: {why}; choose another --port or --host") from error

    return Run(options).start(serve)
