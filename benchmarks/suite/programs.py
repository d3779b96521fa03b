"""The programs that are measured: what they need is installed here, each is a process on a core of its own."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, final

__all__ = ["HERE", "PEERS", "PROGRAMS", "PYTHON_PEERS", "Program", "Server", "cpu_to_run", "install"]

HERE: Final = Path(__file__).parent
PEERS: Final = HERE / ".peers"
"""Virtualenvs and node_modules, ignored by Git."""

PYTHON_PEERS: Final = {"realtime-py": "realtime", "phoenix_channels": "phoenix_channels_python_client"}
JAVASCRIPT_PEERS: Final = ("phoenix@1.8.16", "ws@8.23.0")
CORES: Final = sorted(os.sched_getaffinity(0))
TICK: Final = os.sysconf("SC_CLK_TCK")

SLIPSTREAM: Final = [sys.executable, "run_slipstream.py"]
BARE: Final = [sys.executable, "run_bare.py"]
PROGRAMS: Final[dict[str, list[str]]] = {
    "slipstream, default transport": [*SLIPSTREAM, "trio_websocket", "off"],
    "slipstream, fast transport": [*SLIPSTREAM, "websockets", "off"],
    "one no-op handler on handle": [*SLIPSTREAM, "auto", "no-op"],
    "recorder": [*SLIPSTREAM, "auto", "recorder"],
    "OpenTelemetry spans": [*SLIPSTREAM, "auto", "spans"],
    "phoenix.js": ["node", "--expose-gc", "run_phoenix.mjs"],
    **{
        name: [str(PEERS / package / "bin" / "python"), "run_asyncio.py", name]
        for name, package in PYTHON_PEERS.items()
    },
    "bare trio-websocket": [*BARE, "trio-websocket"],
    "bare websockets, asyncio": [*BARE, "websockets"],
    "bare websockets, Sans-I/O over Trio": [*BARE, "sans-io"],
}


def install() -> None:
    """Install the peers, each Python client in a virtualenv with the newest that it allows."""
    PEERS.mkdir(exist_ok=True)
    for package in PYTHON_PEERS.values():
        if not (PEERS / package / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS / package], check=True)  # noqa: S603
            pip = [PEERS / package / "bin" / "python", "-m", "pip", "install", "--quiet", package]
            subprocess.run(pip, check=True)  # noqa: S603
            (PEERS / package / "installed").touch()
    if not (PEERS / "node_modules").exists():
        npm = ("npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--no-package-lock", *JAVASCRIPT_PEERS)
        subprocess.run(npm, cwd=PEERS, check=True)  # noqa: S603


def start(command: list[str], core: int) -> "subprocess.Popen[str]":
    """Start a process on a core."""
    return subprocess.Popen(  # noqa: S603
        ["taskset", "-c", str(core), *command],  # noqa: S607
        cwd=HERE / "peers",
        env={**os.environ, "SUITE_PEERS": str(PEERS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def cpu_of(process: int) -> float:
    """Return the seconds of CPU that a process has used, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@final
class Server:
    """The server, on the first core."""

    def __init__(self) -> None:
        self._process = start([sys.executable, "../server.py"], CORES[0])
        assert self._process.stdout is not None
        self.url = f"ws://127.0.0.1:{int(self._process.stdout.readline())}/socket/websocket"

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        return cpu_of(self._process.pid)

    def stop(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


@final
class Program:
    """A program on the last core, which lives until it is stopped."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self._server = server
        self._process = start(PROGRAMS[name], CORES[-1])

    def do(self, command: dict[str, Any], answers: int = 1) -> list[dict[str, Any]]:
        """Have a command done; returns what was measured, with the part of the time that the server was busy."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        busy, begun = self._server.cpu, time.perf_counter()
        self._process.stdin.write(json.dumps({**command, "url": self._server.url}) + "\n")
        self._process.stdin.flush()
        lines = [self._process.stdout.readline() for _ in range(answers)]
        if not all(lines):
            raise RuntimeError(f"{self.name} has ended, at {command}")
        share = (self._server.cpu - busy) / (time.perf_counter() - begun)
        return [{**json.loads(line), "server": share} for line in lines]

    def stop(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()


def cpu_to_run(interpreter: str, code: str) -> float:
    """Return the seconds of CPU that a Python takes from its start to its end."""
    command = ["taskset", "-c", str(CORES[-1]), interpreter, "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
