"""A client that writes down what it is told, beside a server in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from tests.peers import World, unbalanced

from slipstream_trio import Caller, Channel, Client, Gap, Message, Reply, Socket
from slipstream_trio.trace import verify


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    """Run a world, and look at its telemetry in the end."""
    world = World()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with world.server.run():
        yield world
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert verify(world.records) == []
    assert [problem for problem in unbalanced(world.records) if problem.endswith(("has no start", "has no end"))] == []


class Told(Client):
    """Writes down each callback, and calls what a test has put in its place.

    Attributes:
        log: the callbacks, each with what tells it from others of its kind.
        on: what to do in a callback, by name; None: nothing.
    """

    def __init__(self, *topics: str, **on: Callable[..., Any]) -> None:
        self.topics = topics
        self.log: list[Any] = []
        self.on = on
        self._grown = trio.lowlevel.ParkingLot()

    async def until(self, entry: Any, *, times: int = 1, timeout: float = 1000) -> None:
        """Wait until the log has this so often."""
        with trio.fail_after(timeout):
            while self.log.count(entry) < times:
                await self._grown.park()

    def note(self, entry: Any) -> None:
        """Write something down."""
        self.log.append(entry)
        self._grown.unpark_all()

    async def _tell(self, name: str, *what: Any, arguments: tuple[Any, ...]) -> Any:
        self.note((name, *what) if what else name)
        return await self.on[name](*arguments) if name in self.on else None

    async def handle_connect(self, socket: Socket) -> None:
        for topic in self.topics:
            await self.join(topic, {"topic": topic})
        await self._tell("connect", arguments=(socket,))

    async def handle_disconnect(self, reason: Exception) -> None:
        facts = (getattr(reason, name, None) for name in ("reason", "code", "status"))
        await self._tell("disconnect", type(reason).__name__, *(fact for fact in facts if fact), arguments=(reason,))

    async def handle_join(self, channel: Channel, response: Any) -> None:
        await self._tell("join", channel.topic, response["number"], arguments=(channel, response))

    async def handle_message(self, channel: Channel, message: Message) -> None:
        what = (message.payload["n"],) if message.payload else ()
        await self._tell("message", message.event, *what, arguments=(channel, message))

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        told = reply.response if reply.ok else type(reply.error).__name__
        await self._tell("reply", reply.event, told, arguments=(ref, reply))

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        told = getattr(reason, "reason", None) or type(reason).__name__
        await self._tell("topic_close", topic, told, arguments=(topic, reason))

    async def handle_leave(self, topic: str) -> None:
        await self._tell("leave", topic, arguments=(topic,))

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        await super().handle_gap(channel, gap)
        await self._tell("gap", channel.topic, gap.reason, gap.dropped, arguments=(channel, gap))

    async def handle_info(self, message: Any) -> None:
        await self._tell("info", message, arguments=(message,))

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        return await self._tell("call", message, arguments=(message, caller))

    async def handle_cast(self, message: Any) -> None:
        await self._tell("cast", message, arguments=(message,))

    async def terminate(self, reason: BaseException | None) -> None:
        told = None if reason is None else type(reason).__name__
        await self._tell("terminate", told, arguments=(reason,))


class Running:
    """A client that runs beside the test.

    Attributes:
        error: what left `run_client`.
        ended: set when it has.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.ended = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self, run: Callable[[], Any]) -> None:
        try:
            with self.scope:
                await run()
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.ended.set()


@asynccontextmanager
async def running(world: World, client: Client, **options: Any) -> AsyncIterator[Running]:
    """Run a client beside the block, and wait for its end."""
    async with trio.open_nursery() as nursery:
        beside = Running()
        nursery.start_soon(beside.run, partial(world.run_client, client, **options))
        yield beside
        with trio.fail_after(1000):
            await beside.ended.wait()
