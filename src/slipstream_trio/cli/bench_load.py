"""A process of a load test: it connects, joins and pushes by its plan, and tells each second what happened.

The plan comes as a line of JSON on the standard input, and the load ends early when that is closed. What happens goes
to the standard output, a line of JSON a second. It is an open loop, as the command's help says.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from .. import Channel, Socket, connect
from ..errors import JoinError, PushError, SlipstreamError
from ..errors.base import leaves
from ..telemetry import GapOpened, ReconnectScheduled, Telemetry
from ..trace.text import brief
from .bench_result import Result, Second

IN_FLIGHT: Final = 10_000  # the most pushes that are unanswered: what is due beyond waits, and its latency counts on
MOST_KINDS: Final = 50  # the most kinds of errors with what the server said: it may say another thing each time


class Load:
    """The load of one process, by a plan of `bench_command`; `tell` gets each second the result of it, as JSON."""

    def __init__(self, plan: dict[str, Any], tell: Callable[[str], object]) -> None:
        self._plan = plan
        self._tell = tell
        self._telemetry = Telemetry()
        self._telemetry.attach("bench gaps", GapOpened, lambda _: self._count("gaps"))
        self._telemetry.attach("bench reconnects", ReconnectScheduled, self._reconnects)
        self._channels: list[Channel] = []
        self._sockets: list[Socket] = []
        self._begins = trio.current_time()
        self._unix = time.time() - self._begins
        self._free = trio.Semaphore(IN_FLIGHT)
        self._kinds: set[str] = set()
        self._numbers = range(plan["process"], plan["connections"], plan["processes"])  # of its connections
        self._joined = {number: trio.Event() for number in self._numbers}  # or has failed to
        self.pushing: trio.CancelScope = trio.CancelScope()  # until it shall push no more; `run` ends after the answers
        self._begin_second()

    def _begin_second(self) -> None:
        self._result, self._second = Result(), Second()
        self._at = math.floor(self._unix + trio.current_time())
        self._result.seconds[self._at] = self._second

    async def run(self) -> None:
        plan = self._plan
        async with trio.open_nursery() as clients:
            for number in self._numbers:
                clients.start_soon(self._client, number)
            async with trio.open_nursery() as reporting:
                reporting.start_soon(self._report)
                async with trio.open_nursery() as pushes:
                    with self.pushing:
                        await self._push_all(pushes.start_soon)
                    pushes.cancel_scope.deadline = trio.current_time() + plan["timeout"]
                reporting.cancel_scope.cancel()
            self._say()
            clients.cancel_scope.cancel()

    async def _client(self, number: int) -> None:
        plan, topic = self._plan, ""
        due = self._begins + plan["ramp"] * number / plan["connections"]
        await trio.sleep_until(due)
        try:
            options = {**plan["connect"], "retry_first": True, "overflow": "drop_oldest", "telemetry": self._telemetry}
            async with connect(**options) as socket, trio.open_nursery() as nursery:
                self._timed("connect", due)
                self._sockets.append(socket)
                for topic in plan["topics"]:
                    channel = socket.channel(topic.replace("{connection}", str(number)), plan["join_payload"])
                    began = trio.current_time()
                    await channel.join()
                    self._timed("join", began)
                    self._channels.append(channel)
                    nursery.start_soon(self._read, channel)
                self._joined[number].set()
        except* (SlipstreamError, OSError) as group:
            for error in leaves(group):
                why = JoinError(topic, error.response) if isinstance(error, JoinError) else error
                self._failed(f"client: {type(error).__name__}", str(why))
            self._joined[number].set()

    async def _read(self, channel: Channel) -> None:
        async for _ in channel:
            self._count("messages")

    async def _push_all(self, start_soon: Callable[..., None]) -> None:
        """Begin each push when it is due, on the channels in turn, once all have joined or had the time for it."""
        plan, channels = self._plan, self._channels
        with trio.move_on_at(self._begins + plan["ramp"] + plan["timeout"]):
            for joined in self._joined.values():
                await joined.wait()
        begin = trio.current_time()
        pushes = range(plan["process"], round(plan["rate"] * plan["duration"]), plan["processes"])
        for turn, number in enumerate(pushes):
            due = begin + number / plan["rate"]
            await trio.sleep_until(due)
            self._count("due")
            if channels:
                await self._free.acquire()
                start_soon(self._push, channels[turn % len(channels)], due)
            else:
                self._failed("push: no channel is joined")
        await trio.sleep_until(begin + plan["duration"])

    async def _push(self, channel: Channel, due: float) -> None:
        try:
            await channel.push(self._plan["event"], self._plan["payload"])
            self._timed("push", due)
            self._count("replies")
        except SlipstreamError as error:
            said = brief(error.response) if isinstance(error, PushError) else ""
            self._failed(f"push: {type(error).__name__}", said)
            if said:
                self._timed("push", due)
        finally:
            self._free.release()

    # What is told

    def _count(self, name: str) -> None:
        self._second.counts[name] += 1

    def _timed(self, name: str, since: float) -> None:
        taken = max(round((trio.current_time() - since) * 1e6), 1)
        self._result.latencies[name].record_value(taken)
        if name == "push":
            self._second.latencies.record_value(taken)

    def _reconnects(self, scheduled: ReconnectScheduled) -> None:
        self._count("reconnects")
        self._failed("connection", scheduled.reason)

    def _failed(self, kind: str, why: str = "") -> None:
        if (full := f"{kind}: {why[:200]}") in self._kinds or (why and len(self._kinds) < MOST_KINDS):
            self._kinds.add(full)
            kind = full
        self._result.errors[kind] += 1
        self._count("errors")

    async def _report(self) -> None:
        while True:
            await trio.sleep_until(self._at + 1 - self._unix)
            self._say()

    def _say(self) -> None:
        self._second.open = sum(socket.status == "connected" for socket in self._sockets)
        self._tell(self._result.to_json(indent=None))
        self._begin_second()


async def _run() -> None:
    plan = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
    load = Load(plan, partial(print, flush=True))

    async def until_closed() -> None:
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        load.pushing.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_closed)
        await load.run()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the command closes the standard input
    trio.run(_run)
    os._exit(0)  # a thread may still wait at the standard input
