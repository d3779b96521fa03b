"""What the tests of recovery stand on: a server in memory that refuses, hangs and crashes as a test says."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from tests.peers import World, unbalanced

from slipstream_trio import Channel, Gap, Message, Socket
from slipstream_trio.trace import verify


@asynccontextmanager
async def world(**mount: Any) -> AsyncIterator[World]:
    """Run a world; at its end nothing of its clients may be left, and their traces keep all invariants."""
    made = World(**mount)
    before = tasks()
    async with made.server.run():
        within = tasks()
        yield made
        await settle()
        with contextlib.suppress(trio.TooSlowError):  # the server's own take a while, at most a handshake's 60 s
            await until(lambda: tasks() == within, 100)
        assert tasks() == within
        assert all(stream.closed for stream in made.streams)
    assert tasks() == before
    assert verify(made.records) == []
    assert unbalanced(made.records) == []


def tasks() -> Counter[str]:
    """Return the names of all tasks below the main one."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: Counter[str] = Counter()
    waiting = [root]
    while waiting:
        task = waiting.pop()
        found[task.name] += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def settle() -> None:
    """Let everything happen that can happen now."""
    await trio.testing.wait_all_tasks_blocked()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is the case; looks often at first, and seldom where it takes minutes."""
    pause = 0.01
    with trio.fail_after(seconds):
        while not condition():  # it may be anything
            await trio.sleep(pause)
            pause = min(pause * 1.05, 1)


async def connected_again(world: World, socket: Socket, generation: int) -> None:
    """Wait until the socket has had so many connections, and the latest is open."""
    await until(lambda: socket.generation == generation and socket.status == "connected")
    await settle()


class Reading:
    """What a task has read from a stream so far, and how it ended."""

    def __init__(self) -> None:
        self.items: list[Message | Gap] = []
        self.ended: BaseException | None = None
        self.done = trio.Event()

    @property
    def shape(self) -> list[Any]:
        """The items, for comparison: gaps by reason and number of losses, messages by event and payload."""
        return [
            (item.reason, item.dropped) if isinstance(item, Gap) else (item.event, item.payload) for item in self.items
        ]

    async def read(self, stream: Any) -> None:
        try:
            async for item in stream:
                self.items.append(item)
            self.ended = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.ended = error
        self.done.set()


def reading(nursery: trio.Nursery, stream: Any) -> Reading:
    """Read a stream in a task."""
    made = Reading()
    nursery.start_soon(made.read, stream)
    return made


class Outcomes:
    """What became of operations in tasks."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.by: dict[Any, Any] = {}
        self.at: dict[Any, float] = {}

    def start(self, key: Any, operation: Any, *arguments: Any, **options: Any) -> None:
        async def run() -> None:
            try:
                self.by[key] = await operation(*arguments, **options)
            except Exception as error:  # noqa: BLE001 - for the test to look at
                self.by[key] = error
            self.at[key] = round(trio.current_time(), 2)

        self.nursery.start_soon(run)


def status_of(of: Channel | Socket) -> str:
    """Return the status of now, of which a type checker assumes nothing."""
    return of.status
