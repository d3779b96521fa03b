"""The costs of messages, echoes and joins, counted where no clock and no other program can disturb it.

If a test here fails, a change has made the hot path longer. Find out what has been added (`python -m cProfile
benchmarks/in_process.py` shows it) and take it away; or, if it is worth its price, say so in the commit that raises the
limit. If a change has made it shorter, lower the limit, so that it stays so.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Self

import pytest
import trio
from benchmarks.in_process import BATCH, Memory, echoed, received
from tests.held import blocks_held
from trio.testing import wait_all_tasks_blocked

import slipstream_trio
from slipstream_trio import Channel, Socket, connect
from slipstream_trio.protocol import MsgspecCodec, StdlibCodec, V2Serializer
from slipstream_trio.telemetry import Telemetry

# Python calls of one operation, into this library and out of it (Trio's own are not counted, as they change with Trio),
# with the standard library's JSON on the oldest dependencies, which take the most, and with msgspec on the newest; and
# the steps of tasks that the scheduler runs for it.
LIMITS = {
    # operation                   json, msgspec, steps
    "a message": (10.8, 2.8, 0.02),
    "a message, watched": (25.6, 18.6, 0.02),
    "a message, 100 readers": (11.8, 3.8, 0.03),
    "a message, 100 readers, watched": (25.7, 18.7, 0.03),
    "an echo, 1 in flight": (92, 79, 5.1),
    "an echo, 1 in flight, watched": (135, 122, 5.1),
    "an echo, 64 in flight": (51.5, 42.5, 1.3),
    "an echo, 64 in flight, watched": (96, 88, 1.3),
    "a join": (295, 279, 7),
    "a join, watched": (312, 296, 7),
    "a leave": (190, 173, 3.1),
    "a leave, watched": (217, 202, 3.1),
}

# Blocks of memory that Python has allocated for each, without the user's own task.
BLOCKS = {"a message in the buffer": 7.3, "a joined channel": 14, "a push in flight": 10, "a leave in flight": 16}

TOLERANCE = 1.05
"""Versions of Python differ a little in what they call and allocate."""

CODECS = [StdlibCodec, *([MsgspecCodec] if find_spec("msgspec") else [])]
ROOMS = count()
PACKAGE = str(Path(slipstream_trio.__file__).parent)


class Costs(trio.abc.Instrument):
    """Counts, while it is entered."""

    def __init__(self) -> None:
        self.calls = self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            caller = frame.f_back
            self.calls += frame.f_code.co_filename.startswith(PACKAGE) or (
                caller is not None and caller.f_code.co_filename.startswith(PACKAGE)
            )

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)


def connected(memory: Memory, codec: Any = StdlibCodec, **options: Any) -> AbstractAsyncContextManager[Socket]:
    serializer = V2Serializer(codec())
    return connect("ws://memory/", transport=memory, serializer=serializer, heartbeat_interval=None, **options)


async def joined(socket: Socket, count: int) -> list[Channel]:
    channels = [socket.channel(f"room:{next(ROOMS)}") for _ in range(count)]
    for channel in channels:
        await channel.join()
    return channels


async def left(channels: Sequence[Channel]) -> None:
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(channel.leave)


def check(found: dict[str, tuple[float, float]]) -> None:
    over = {name: f"{cost:.4g}, limit {limit}" for name, (cost, limit) in found.items() if cost > limit * TOLERANCE}
    assert not over, f"{over}: see the head of this file"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("watched", ["", ", watched"])
async def test_an_operation_costs_no_more_calls_than_it_did(
    codec: Any, watched: str, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # by which consumers pass the scheduler
    telemetry = Telemetry()
    if watched:
        telemetry.attach("test", ("slipstream", "connection", "handle"), lambda record: None, prefix=True)
    memory = Memory()
    found = {}
    async with connected(memory, codec, telemetry=telemetry) as socket, socket.join("room:lobby") as channel:
        many = [socket.channel(f"many:{index}") for index in range(100)]
        for each in many:
            await each.join()
        operations: list[tuple[str, Callable[[int], Awaitable[object]], int]] = [
            ("a message", lambda count: received(memory, [channel], count), 5 * BATCH),
            ("a message, 100 readers", lambda count: received(memory, many, count), 100 * BATCH),
            ("an echo, 1 in flight", lambda count: echoed(channel, count, 1), 100),
            ("an echo, 64 in flight", lambda count: echoed(channel, count, 64), 320),
            ("a join", lambda count: joined(socket, count), 50),
            ("a leave", lambda count: left(many[:count]), 50),
        ]
        for name, operation, count in operations:
            with Costs() as costs:
                await operation(count)
            json, msgspec, steps = LIMITS[name + watched]
            found[f"calls of {name}"] = costs.calls / count, msgspec if codec is MsgspecCodec else json
            found[f"steps of {name}"] = costs.steps / count, steps
    check(found)


class Silent(Memory):
    """Answers joins only."""

    async def send(self, frames: Sequence[Any]) -> None:
        await super().send([frame for frame in frames if "phx_join" in frame])


async def test_messages_and_pushes_that_wait_hold_no_more_memory_than_they_did(autojump_clock: object) -> None:
    memory = Silent()
    held = {}
    async with connected(memory, leave_timeout=10) as socket, socket.join("room:lobby") as channel:

        async def messages(count: int) -> None:
            memory.offer([channel.topic], count // BATCH, 100)

        async def tasks(count: int) -> None:
            for _ in range(count):
                nursery.start_soon(trio.sleep_forever)

        async def pushes(count: int) -> None:
            for _ in range(count):
                nursery.start_soon(channel.push, "echo", {})

        channels: list[Channel] = []

        async def joins(count: int) -> None:
            channels.extend(await joined(socket, count))

        async def leaves(count: int) -> None:
            for _ in range(count):
                nursery.start_soon(channels.pop().leave)

        async def held_by(operation: Callable[[int], Awaitable[object]], count: int) -> float:
            before = blocks_held()
            await operation(count)
            await wait_all_tasks_blocked()
            return (blocks_held() - before) / count

        async with trio.open_nursery() as nursery:
            operations: list[tuple[str, Callable[[int], Awaitable[object]], int]] = [
                ("a message in the buffer", messages, 5 * BATCH),
                ("a joined channel", joins, 200),
                ("a task", tasks, 500),
                ("a push in flight, and its task", pushes, 500),
                ("a leave in flight, and its task", leaves, 200),
            ]
            for name, operation, count in operations:  # what Python or a plugin allocates once is no cost of theirs
                held[name] = median([await held_by(operation, count) for _ in range(3)])
            nursery.cancel_scope.cancel()
    task = held.pop("a task")
    for name in ("a push in flight", "a leave in flight"):
        held[name] = held.pop(f"{name}, and its task") - task
    check({name: (blocks, BLOCKS[name]) for name, blocks in held.items()})
