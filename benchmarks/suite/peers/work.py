"""The part that all Python peers share: commands on standard input, a line of JSON for what each took."""

import asyncio
import cProfile
import gc
import json
import os
import pstats
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

Command = dict[str, Any]

PACKAGES = ("slipstream_trio", "trio_websocket", "wsproto", "h11", "trio", "outcome")

FRAME = 50
"""About how many bytes of a push are not its payload's padding."""


def resident() -> int:
    """Return how many bytes this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def profiled() -> Iterator[None]:
    """Profile a block where `--profile` asks for that: what took longest, and the time of the garbage collector."""
    if "SUITE_PROFILE" not in os.environ:
        yield
        return
    profile, collecting = cProfile.Profile(), [0.0]

    def collected(phase: str, _: object) -> None:
        collecting[0] += time.process_time() * (1 if phase == "stop" else -1)

    gc.callbacks.append(collected)
    with profile:
        yield
    gc.callbacks.remove(collected)
    stats = pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    packages: Counter[str] = Counter()
    for (file, _, _), (_, _, took, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        place = file.rpartition("site-packages/")[2].rpartition("/src/")[2]
        packages[next((name for name in PACKAGES if name in place), "Python")] += took
    total = sum(packages.values())
    lines = [f"{took / total:6.1%} {name}" for name, took in packages.most_common()]
    lines.append(f"{collecting[0]:.3f} s in the garbage collector: in the times of the functions that it interrupted")
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def measured(**more: Any) -> Iterator[None]:
    """Measure a block, and print its wall time, its CPU, that of all threads, user and system, and its memory."""
    memory, wall, cpu = resident(), time.perf_counter(), time.process_time()
    with profiled():
        yield
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": resident() - memory}
    print(json.dumps({**took, **more}), flush=True)  # noqa: T201


def payload_of(size: int) -> dict[str, str]:
    """Return a payload for a push of about that many bytes."""
    return {"pad": "x" * (size - FRAME)}


def text_of(ref: int, event: str, payload: object) -> str:
    """Return a message, for those who have the transport alone."""
    return f'["1","{ref}","room:0","{event}",{json.dumps(payload)}]'


def repeated(operation: Callable[[], Awaitable[object]], count: int) -> Callable[[], Awaitable[None]]:
    """Return what awaits an operation so often."""

    async def repeat() -> None:
        for _ in range(count):
            await operation()

    return repeat


Connect = Callable[[Command], AbstractAsyncContextManager[Any]]


async def hold_in_trio(connected: Connect, command: Command) -> None:
    """Open connections, so many at once, and hold them until this process is ended; each has a task, as Trio asks."""
    import trio

    limit = trio.Semaphore(command["at_once"])

    async def one(*, task_status: "trio.TaskStatus[None]") -> None:
        async with connected(command):
            task_status.started()
            await trio.sleep_forever()

    async def open_many(holder: trio.Nursery, count: int) -> None:
        async def open_one() -> None:
            async with limit:
                await holder.start(one)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(open_one)

    async with trio.open_nursery() as holder:
        await open_many(holder, 2 * command["at_once"])  # whatever the first connections need is there then
        with measured(count=command["count"]):
            await open_many(holder, command["count"])
        await trio.sleep_forever()


async def hold_in_asyncio(connected: Connect, command: Command) -> None:
    """Open connections, so many at once, and hold them until this process is ended."""
    limit = asyncio.Semaphore(command["at_once"])
    held = []

    async def open_one() -> None:
        async with limit:
            context = connected(command)
            await context.__aenter__()
            held.append(context)

    async def open_many(count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(open_one())

    await open_many(2 * command["at_once"])
    with measured(count=command["count"]):
        await open_many(command["count"])
    await asyncio.Event().wait()


def run_in_trio(function: Callable[[Command], Awaitable[None]]) -> Callable[[Command], object]:
    """Return what runs a command in Trio."""
    import trio

    return partial(trio.run, function)


def run_in_asyncio(function: Callable[[Command], Any]) -> Callable[[Command], object]:
    """Return what runs a command in asyncio."""
    return lambda command: asyncio.run(function(command))


def work(runners: dict[str, Callable[[Command], object]]) -> None:
    """Do what lines on standard input say, until they end."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for line in sys.stdin:
        command = json.loads(line)
        runners[command["do"]](command)
