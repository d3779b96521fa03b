"""CPU of the client alone, without a network: from whole frames to the user's code, and from a push to its reply.

    python benchmarks/in_process.py

A transport in memory hands over frames in batches, as the lane of a real one does. With nothing attached, with one
handler of `handle` that does nothing, and with a recording, whose thread is counted too. Prints medians of interleaved
rounds, in microseconds of CPU, and what each adds to nothing attached. Compare ratios, not figures: machines differ.
"""

import argparse
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from slipstream_trio import Channel, connect
from slipstream_trio.protocol import Frame
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.trace import record
from slipstream_trio.transport import OpenRequest, Transport, TransportEnded

BATCH = 160
"""Frames of 100 bytes that a read of 16 KiB brings."""


class Memory(Transport):
    """A server in memory: it answers joins and pushes, and has batches of messages ready."""

    name = "memory"

    def __init__(self) -> None:
        self.batches = 0
        self._batch: list[Frame] = []
        self._answers: list[Frame] = []
        self._ended: TransportEnded | None = None
        self._waiting = trio.Event()

    @asynccontextmanager
    async def open(self, _request: OpenRequest, _wake: Callable[[], None]) -> AsyncIterator[Transport]:
        """Be the connector, too."""
        yield self

    def offer(self, topics: Sequence[str], batches: int, size: int) -> None:
        """Have batches of messages ready, which go round the topics."""
        pad = "x" * max(0, size - 40)
        self._batch = [f'[null,null,"{topics[i % len(topics)]}","tick",{{"pad":"{pad}"}}]' for i in range(BATCH)]
        self.batches = batches
        self._waiting.set()

    async def receive(self) -> Sequence[Frame]:
        """Return what is ready."""
        while True:
            if self._answers:
                await trio.lowlevel.checkpoint()
                answers, self._answers = self._answers, []
                return answers
            if self._ended is not None:
                raise self._ended
            if self.batches:
                await trio.lowlevel.checkpoint()
                self.batches -= 1
                return self._batch
            self._waiting = trio.Event()
            await self._waiting.wait()

    async def send(self, frames: Sequence[Frame]) -> None:
        """Answer all of them."""
        for frame in frames:
            assert isinstance(frame, str)
            join_ref, ref, topic, event, _ = frame.split(",", 4)
            self._answers.append(f'{join_ref},{ref},{topic},"phx_reply",{{"status":"ok","response":{{}}}}]')
            if event == '"phx_leave"':
                self._answers.append(f'{join_ref},{join_ref[1:]},{topic},"phx_close",{{}}]')
        self._waiting.set()
        await trio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str) -> None:
        """Do without a closing handshake."""
        self._ended = TransportEnded(code, reason, ended_by="client")
        self._waiting.set()
        await trio.lowlevel.checkpoint()


async def received(memory: Memory, channels: Sequence[Channel], count: int) -> None:
    """Receive messages on all of the channels by a task each."""

    async def read(channel: Channel, left: int) -> None:
        async for _ in channel:
            left -= 1
            if not left:
                return

    batches = count // BATCH
    memory.offer([channel.topic for channel in channels], batches, 100)
    async with trio.open_nursery() as nursery:
        for index, channel in enumerate(channels):
            nursery.start_soon(read, channel, batches * len(range(index, BATCH, len(channels))))


async def echoed(channel: Channel, count: int, at_once: int) -> None:
    """Push, and await the replies, so many at once."""

    async def push() -> None:
        for _ in range(count // at_once):
            await channel.push("echo", {"x": 1})

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(push)


async def measured(operation: Callable[[], Awaitable[object]], count: int) -> float:
    """Return the microseconds of CPU of each of `count`."""
    start = time.process_time()
    await operation()
    return (time.process_time() - start) / count * 1e6


def attached(kind: str, telemetry: Telemetry, directory: Path) -> AbstractContextManager[object]:
    """Return what listens for the time of a measure."""
    if kind == "nothing attached":
        return nullcontext()
    if kind == "one handler":
        return telemetry.listen(lambda _: None, ("slipstream", "connection", "handle"))
    return record(directory / "recording.jsonl", telemetry=telemetry, queue=2**30, keep=0)


async def main(rounds: int) -> None:
    """Measure, and print."""
    figures: dict[tuple[str, str], list[float]] = {}
    kinds = ("nothing attached", "one handler", "a recording")
    with TemporaryDirectory() as directory:
        for _, kind in product(range(rounds), kinds):
            telemetry, memory = Telemetry(), Memory()
            options: dict[str, Any] = {"transport": memory, "telemetry": telemetry, "heartbeat_interval": None}
            with attached(kind, telemetry, Path(directory)):
                async with connect("ws://memory/socket", **options) as socket, socket.join("room:1") as channel:
                    for what, count, operation in (
                        ("a message", 96_000, partial(received, memory, [channel], 96_000)),
                        ("an echo, 1 in flight", 4_000, partial(echoed, channel, 4_000, 1)),
                        ("an echo, 64 in flight", 16_000, partial(echoed, channel, 16_000, 64)),
                    ):
                        figures.setdefault((what, kind), []).append(await measured(operation, count))
    for (what, kind), each in figures.items():
        more = statistics.median(each) - statistics.median(figures[what, kinds[0]])
        sys.stdout.write(f"{what + ', ' + kind:45} {statistics.median(each):8.2f} us {more:+8.2f}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    trio.run(main, parser.parse_args().rounds)
