"""Runs a scenario of the JavaScript client against a server on loopback, and hears what it tells."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from slipstream_trio.testing.server import PhoenixServer

__all__ = ["Node", "missing", "playing", "told"]

HERE = Path(__file__).parent
PATIENCE = 60
"""Seconds that a scenario may take, on a machine that is busy."""


def missing() -> str | None:
    """Return what the tests here lack to run, None if that is nothing."""
    if shutil.which("node") is None:
        return "there is no node"
    if not all((HERE / "node_modules" / name).is_dir() for name in ("phoenix", "ws")):
        return "not installed: npm install --prefix tests/javascript --no-audit --no-fund --no-package-lock"
    return None


class Node:
    """A scenario that runs."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._read = b""

    async def hear(self) -> list[Any]:
        """Return the next thing that it tells: what, and a value."""
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            data = await self._process.stdout.receive_some()
            if not data:
                raise EOFError("the scenario ended without a word")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        told: list[Any] = json.loads(line)
        return told

    async def until(self, what: str) -> list[list[Any]]:
        """Return all that it tells up to this."""
        heard: list[list[Any]] = []
        while not heard or heard[-1][0] != what:
            heard.append(await self.hear())
        return heard

    async def go_on(self) -> None:
        """Let it go on, where it waits for that."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"go on\n")


@asynccontextmanager
async def playing(scenario: str, url: str, transport: str = "websocket") -> AsyncIterator[Node]:
    """Run a scenario for the time of a block, which ends when the scenario has come to its good end.

    Parameters:
        transport: "websocket" or "longpoll", both the official client's own.
    """
    process = await trio.lowlevel.open_process(
        ["node", str(HERE / "scenarios.mjs"), scenario, url, transport], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        with trio.fail_after(PATIENCE):
            yield Node(process)
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()


async def told(
    server: PhoenixServer, scenario: str, path: str = "/socket", *, transport: str = "websocket"
) -> dict[str, Any]:
    """Run a scenario to its end; returns what it told, the last value of each thing."""
    async with server.serve() as listening, playing(scenario, listening.url(path), transport) as node:
        heard = await node.until("done")
    return dict(heard)
