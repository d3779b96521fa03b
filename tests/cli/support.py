"""What the tests of the command stand on: a server in a thread of its own, and outputs to look at."""

import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import trio

from slipstream_trio.testing.server import (
    Accept,
    Channel,
    JoinRefused,
    Listening,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
    Stop,
)

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMAND = (sys.executable, "-c", "import sys; from slipstream_trio.cli import main; sys.exit(main())")


class Lab(Channel):
    async def join(self, payload: Any) -> Any:
        if self.topic == "lab:shut":
            raise JoinRefused({"reason": "shut", "you_said": payload})
        request = self.socket.request
        return {"params": dict(request.params), "token": request.auth_token, "payload": payload}

    async def after_join(self) -> None:
        if self.topic == "lab:brief":
            self.stop()

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "echo":
                return Reply(payload)
            case "fail":
                return Reply({"reason": "told to"}, status="error")
            case "close":
                return Stop()
            case "close_later":
                self.stop()
                return Reply()
            case "escape":
                await self.push("\x1b[31mred\x07", {"text": "\x1b[2J"})
                return Reply()
            case "malformed":
                await self.socket.send_raw("[")
                return Reply()
            case "drop":
                self.socket.drop()
            case "crash":
                raise RuntimeError("told to crash")
        return None


def refuse_some(request: Request) -> Accept | None:
    match request.params.get("token"):
        case "refused":
            raise Refuse
        case "limited":
            raise Refuse(429, [("retry-after", "1")], "not again, limited\nsecond line")
    return None


@contextmanager
def running(server: PhoenixServer) -> Iterator[tuple[Listening, trio.lowlevel.TrioToken]]:
    """Run a server in another thread, as `main` keeps this one to itself; gives the token of its run, too."""
    started: SimpleQueue[tuple[Listening, trio.lowlevel.TrioToken, trio.CancelScope]] = SimpleQueue()

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with server.serve() as listening:
                started.put((listening, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=[serve])
    thread.start()
    listening, token, scope = started.get(timeout=20)
    try:
        yield listening, token
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(timeout=20)


@contextmanager
def served() -> Iterator[Listening]:
    """Serve `Lab` on "lab:*"."""
    mount = Mount(channels={"lab:*": Lab}, connect=refuse_some, auth_token=True)
    with running(PhoenixServer({"/socket": mount})) as (listening, _):
        yield listening


class Terminal(io.StringIO):
    """An output that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
