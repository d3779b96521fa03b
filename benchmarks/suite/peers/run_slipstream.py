"""This library, with a transport and a kind of telemetry: `run_slipstream.py TRANSPORT off|no-op|recorder|spans`."""

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from work import Command, hold_in_trio, measured, payload_of, repeated, run_in_trio, work

from slipstream_trio import Channel, Socket, connect, trace
from slipstream_trio.telemetry import Telemetry

TRANSPORT, WATCHED = sys.argv[1:]
WINDOW = 200
"""Over how many joins the cost of one is taken."""


TELEMETRY = Telemetry()


def attach(telemetry: Telemetry, stack: ExitStack) -> None:
    """Attach what the second argument says."""
    if WATCHED == "no-op":
        telemetry.attach("nothing", ("slipstream", "connection", "handle"), lambda _: None, prefix=True)
    elif WATCHED == "recorder":
        folder = stack.enter_context(TemporaryDirectory())
        stack.enter_context(trace.record(Path(folder) / "trace.jsonl", telemetry=telemetry))
    elif WATCHED == "spans":
        from opentelemetry.sdk.trace import TracerProvider

        from slipstream_trio.integrations.opentelemetry import IdGenerator, attach_spans

        provider = TracerProvider(id_generator=IdGenerator(), shutdown_on_exit=False)
        stack.enter_context(attach_spans(tracer_provider=provider, telemetry=telemetry))


def connected(command: Command) -> AbstractAsyncContextManager[Socket]:
    """Connect, with that telemetry."""
    return connect(command["url"], transport=TRANSPORT, telemetry=TELEMETRY, leave_timeout=60)


@asynccontextmanager
async def joined_once(command: Command) -> AsyncIterator[Channel]:
    """Connect, and join a channel."""
    async with connected(command) as socket, socket.join("room:0") as channel:
        yield channel


async def at_once(operations: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Run tasks, and wait for all of them."""
    async with trio.open_nursery() as nursery:
        for operation in operations:
            nursery.start_soon(operation)


async def joined(socket: Socket, count: int) -> list[Channel]:
    """Join so many channels."""
    channels = [socket.channel(f"room:{index}") for index in range(count)]
    await at_once([channel.join for channel in channels])
    return channels


async def read(channels: Sequence[Channel], count: int) -> None:
    """Take so many messages, from one channel after the other."""
    iterators = [aiter(channel) for channel in channels]
    if len(iterators) == 1:
        async for _ in channels[0]:
            count -= 1
            if not count:
                return
    for iterator in cycle(iterators):
        if not count:
            return
        await anext(iterator)
        count -= 1


async def channels(command: Command) -> None:
    """Join many channels at once, and receive on them, with a consumer each or with one for all."""
    topics = command["topics"]
    count = max(1, command["count"] // topics) * topics
    async with connected(command) as socket:
        with measured(count=topics):
            channels = await joined(socket, topics)
        groups = [[channel] for channel in channels] if command.get("each") else [channels]
        with measured(count=count):
            await channels[0].send("burst", {"count": count, "size": command["size"]})
            await at_once([partial(read, group, count // len(groups)) for group in groups])


async def burst(command: Command) -> None:
    """Receive on one channel."""
    async with joined_once(command) as channel:
        with measured(count=command["count"]):
            await channel.send("burst", {"count": command["count"], "size": command["size"]})
            await read([channel], command["count"])


async def echo(command: Command) -> None:
    """Push and wait for the replies: `at_once` in flight on each of so many `sockets`."""
    tasks, sockets = command["at_once"], command.get("sockets", 1)
    each = max(1, command["count"] // tasks // sockets)
    payload = payload_of(command["size"])

    channels: list[Channel] = []

    async def hold(*, task_status: trio.TaskStatus[None]) -> None:
        async with joined_once(command) as channel:
            channels.append(channel)
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for opened in range(0, sockets, 50):
            await at_once([partial(nursery.start, hold)] * min(50, sockets - opened))
        pushes = [repeated(partial(channel.push, "echo", payload), each) for channel in channels]
        with measured(count=each * tasks * sockets):
            await at_once(pushes * tasks)
        nursery.cancel_scope.cancel()


async def joins(command: Command) -> None:
    """Join one channel after the other, and leave all; 100 of them as well."""

    async def timed(operations: Sequence[Callable[[], Awaitable[Any]]]) -> float:
        start = time.process_time()
        await at_once(operations)
        return time.process_time() - start

    async with connected(command) as socket:
        few = await timed([channel.leave for channel in await joined(socket, 100)])
        moments = []
        channels = [socket.channel(f"room:{index}") for index in range(command["count"])]
        with measured(count=command["count"]):
            for channel in channels:
                await channel.join()
                moments.append(time.process_time())
        early = (moments[100 + WINDOW] - moments[100]) / WINDOW
        late = (moments[-1] - moments[-1 - WINDOW]) / WINDOW
        with measured(early=early, late=late, few=few, count=command["count"]):
            await at_once([channel.leave for channel in channels])


with ExitStack() as attached:
    attach(TELEMETRY, attached)
    everything = (burst, channels, echo, joins)
    runners = {function.__name__: run_in_trio(function) for function in everything}
    work({**runners, "hold": run_in_trio(partial(hold_in_trio, joined_once))})
