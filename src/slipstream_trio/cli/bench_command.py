r"""Puts a steady load on a Phoenix server, and measures how long its answers take.

It opens connections, joins topics on each, and pushes: a push is due whatever
became of those before, and its latency counts from when it was due, so that a
server that stalls cannot hide it. Prints a line a second, then latencies,
counts and errors. Ctrl-C ends it early. With `merge` in place of the URL it
adds up results of several machines.

examples:
  slipstream serve            and elsewhere:
  slipstream bench ws://localhost:4000/socket/websocket
  slipstream bench wss://example.org/socket/websocket --connections 2000 \
      --ramp 20 --topic room:lobby --topic 'user:{connection}' --event ping \
      --rate 5000 --duration 60 --processes 4 --json here.json
  slipstream bench merge here.json there.json --html both.html

exit status: as of `slipstream`; 1 where no push was answered, 3 where no
connection was ever open
"""

import json
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from .. import errors
from ..trace.text import printable
from .bench_result import Result, page, told
from .connecting import Run, add_connecting, at_signal, event, parse_json, seconds
from .output import BOLD, Output, add_force, output_file
from .status import OK, UNREACHABLE, CommandFailed, UsageError, count

NEEDS: Final = ("hdrh",)
COLUMNS: Final = ("time", "open", "due", "replies", "p50", "p99", "max", "errors", "reconnects", "gaps", "messages")
"""The columns, those first that a narrow terminal has room for."""

LEAST: Final = 9  # cells of a column
HEAD_EVERY: Final = 20
SHARED: Final = ("connections", "ramp", "join_payload", "event", "payload", "rate", "duration", "timeout")
"""Options that the plan of each process has as they are."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="of the socket; with Phoenix it ends in /websocket; or: merge")
    parser.add_argument("files", nargs="*", metavar="FILE", help="results of --json, to merge")
    load = parser.add_argument_group("load")
    number: dict[str, Any] = {"type": count, "metavar": "N"}
    lasting: dict[str, Any] = {"type": seconds, "metavar": "SECONDS"}
    load.add_argument("--connections", **number, default=10, help="in all; by default 10")
    load.add_argument("--ramp", **lasting, default=0.0, help="open them over this time; by default at once")
    topic = "to join, on each; {connection} is its number; can be repeated; by default echo:{connection}"
    load.add_argument("--topic", action="append", metavar="TOPIC", help=topic)
    load.add_argument("--join-payload", type=parse_json, metavar="JSON", help="the payload of the joins")
    load.add_argument("--event", type=event, default="echo", help="to push, on the topics in turn; by default echo")
    load.add_argument("--payload", type=parse_json, default={}, metavar="JSON", help="of the pushes; by default {}")
    rate = "pushes a second in all; by default 100; 0: none"
    load.add_argument("--rate", type=partial(count, least=0), default=100, metavar="N", help=rate)
    load.add_argument("--duration", **lasting, default=10.0, help="of the pushes, after the ramp; by default 10")
    load.add_argument("--timeout", **lasting, default=10.0, help="of a push; by default 10")
    load.add_argument("--processes", **number, default=1, help="that share the load; by default 1")
    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="PATH", help="write them as JSON, which `merge` reads")
    results.add_argument("--html", metavar="PATH", help="write a page with a plot")
    add_force(parser)
    add_connecting(parser, recorded=False)  # which would slow down what is measured


def run(options: Namespace) -> int:
    output = Output.of(sys.stdout, live=True)
    forms: dict[str, Callable[[Result], str]] = {"json": Result.to_json, "html": page}
    with ExitStack() as files:  # opened before anything is measured
        opened = {
            name: files.enter_context(output_file(path, force=options.force))
            for name in forms
            if (path := getattr(options, name)) is not None
        }
        result = _result(options, output)
        for line in result.summary():
            output.say(line)
        for name, file in opened.items():
            file.write(forms[name](result))
    # Pushes fail more often than connects and joins, for want of a channel.
    causes = sorted(result.errors, key=lambda kind: (kind.startswith("push: "), -result.errors[kind]))
    why = "".join(f" ({cause})" for cause in causes[:1])
    if not result.latencies["connect"].total_count:
        raise CommandFailed(f"no connection was ever open{why}", UNREACHABLE)
    if result.counts["due"] and not result.latencies["push"].total_count:
        raise CommandFailed(f"no push was answered{why}")
    return OK


def _result(options: Namespace, output: Output) -> Result:
    result = Result()
    if options.url != "merge":
        if options.files:
            raise UsageError("too many arguments: FILE is for merge")
        run = Run(options)
        return run.start(partial(_load, run, options, output, result))
    if not options.files:
        raise UsageError("merge needs files: results of --json")
    for path in options.files:
        try:
            result.add(Path(path).read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except Exception as error:
            raise UsageError(f"{path}: not a result of `slipstream bench --json`") from error
    return result


async def _load(run: Run, options: Namespace, output: Output, result: Result) -> Result:
    """Let processes make the load, and show what they tell; returns the result."""
    # This refuses a port where nothing listens; the processes connect.
    with suppress(errors.ConnectionRejected):  # which may pass: the load goes on trying
        async with run.connect(reconnect=None):
            pass
    # Every so many of the connections and of the pushes are those of a process.
    plan: dict[str, Any] = {name: getattr(options, name) for name in SHARED}
    plan["connect"] = {**run.asked, "push_timeout": options.timeout}
    plan["topics"] = options.topic or ["echo:{connection}"]
    plan["processes"] = min(options.processes, options.connections)
    table, stop = _Table(output, result), trio.Event()
    about = {"url": (run.url or "").partition("?")[0], "began": datetime.now(UTC).isoformat(timespec="seconds")}
    asked = {name: getattr(options, name) for name in ("connections", "ramp", "rate", "duration", "processes", "event")}
    result.plans.append({**about, **asked, "topics": plan["topics"]})
    statuses: set[int] = set()

    def tell(part: bytes) -> None:
        result.add(part)
        table.show()

    async def work(number: int) -> None:
        if status := await _process({**plan, "process": number}, stop, run.guarded(tell)):
            statuses.add(status)
            stop.set()

    trio.lowlevel.spawn_system_task(at_signal, signal.SIGINT, stop.set)
    async with trio.open_nursery() as processes:
        for number in range(plan["processes"]):
            processes.start_soon(work, number)
    table.show(last=True)
    errors_told, result.errors = result.errors, Counter()
    for kind, times in errors_told.items():  # what the server said is among them
        result.errors[printable(run.secrets.hide(kind))] += times
    if statuses:
        raise CommandFailed("a process of the load test failed: see above")
    return result


async def _process(plan: dict[str, Any], stop: trio.Event, tell: Callable[[bytes], object]) -> int:
    """Run a process by a plan, or until `stop`; returns its exit status."""
    command = [sys.executable, "-m", f"{__package__}.bench_load"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        )
        await process.stdin.send_all(f"{json.dumps(plan)}\n".encode())

        async def close_at_stop() -> None:
            await stop.wait()
            await process.stdin.aclose()

        nursery.start_soon(close_at_stop)
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                tell(line)
        status: int = await process.wait()
        nursery.cancel_scope.cancel()
    return status


class _Table:
    """A table with a line a second."""

    def __init__(self, output: Output, result: Result) -> None:
        self._output = output
        self._result = result
        self._shown: list[int] = []

    def show(self, *, last: bool = False) -> None:
        """Show the seconds that are over, of which all processes have told; those before the latest."""
        for at in sorted(self._result.seconds)[: None if last else -2]:
            if self._shown and at <= self._shown[-1]:
                continue
            if len(self._shown) % HEAD_EVERY == 0:
                self._output.print(_row(dict(zip(COLUMNS, COLUMNS, strict=True)), self._output.width), BOLD)
            self._shown.append(at)
            second = self._result.seconds[at]
            its = {"time": time.strftime("%H:%M:%S", time.localtime(at)), "open": second.open}
            self._output.print(_row({**second.counts, **its, **told(second.latencies)}, self._output.width))


def _row(its: Mapping[str, object], width: int | None) -> str:
    """Return a line of the columns that the terminal has room for."""
    row = ""
    for name in COLUMNS:
        cells = max(len(name) + 1, LEAST)
        if width is None or len(row) + cells < width:
            row += f"{its.get(name, 0):>{cells}}"
    return row
