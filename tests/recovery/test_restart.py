"""A server that is restarted, over real sockets and in real time: killed, and stopped as Phoenix stops."""

import itertools
import signal
import socket as sockets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.peers import unbalanced
from tests.recovery.support import reading

from slipstream_trio import Backoff, Channel, ConnectionLost, Gap, connect
from slipstream_trio.telemetry import ClientConnectStop, ReconnectScheduled, Record, Telemetry
from slipstream_trio.trace import verify

pytestmark = pytest.mark.once

STEP = 0.1
"""Seconds between two attempts."""

PUSHERS = 4


@asynccontextmanager
async def serving(port: int, log: Path) -> AsyncIterator[trio.Process]:
    """Run the server in a process of its own; it listens when the block begins."""
    command = [sys.executable, str(Path(__file__).with_name("restarting.py")), str(port), str(log)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(30):
            assert await process.stdout.receive_some(100) == b"listening\n"
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


def free_port() -> int:
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def until_joined(channel: Channel) -> float:
    """Wait until the channel is joined; returns how long that took."""
    began = trio.current_time()
    with trio.fail_after(10):
        while channel.status != "joined":  # noqa: ASYNC110 - polled
            await trio.sleep(0.001)
    return trio.current_time() - began


class Pushing:
    """Tasks that push numbers, each once, and what became of them."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.answered: Counter[int] = Counter()
        self.lost: dict[int, ConnectionLost] = {}
        self.stopped = False

    async def run(self, channel: Channel) -> None:
        while not self.stopped:
            number = next(self.numbers)
            try:
                self.answered[await channel.push("note", number, timeout=30)] += 1
            except ConnectionLost as error:
                self.lost[number] = error

    async def answers(self, more: int) -> None:
        """Wait for so many more answers."""
        target = self.answered.total() + more
        with trio.fail_after(30):
            while self.answered.total() < target:  # noqa: ASYNC110 - polled
                await trio.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not stopped by signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"], ids=["killed", "stopped"])
async def test_a_restart_in_real_time(name: str, tmp_path: Path, record_property: Any) -> None:
    port, log, how = free_port(), tmp_path / "log", signal.Signals[name]
    records: list[Record] = []
    telemetry = Telemetry()
    telemetry.attach("records", (), records.append, prefix=True)
    pushing = Pushing()
    async with AsyncExitStack() as processes, trio.open_nursery() as nursery:
        process = await processes.enter_async_context(serving(port, log))
        url = f"ws://127.0.0.1:{port}/socket/websocket"
        async with connect(url, telemetry=telemetry, reconnect=Backoff((STEP,), jitter=0)) as socket:
            async with socket.join("room:1") as channel:
                stream = reading(nursery, channel.stream())
                for _ in range(PUSHERS):
                    nursery.start_soon(pushing.run, channel)
                await pushing.answers(20)
                process.send_signal(how)
                await process.wait()
                assert process.returncode == (0 if name == "SIGTERM" else -how)
                await processes.enter_async_context(serving(port, log))
                returned = telemetry.monotonic_ns()
                took = await until_joined(channel)
                await pushing.answers(20)
                pushing.stopped = True
                await trio.sleep(0.05)
        await stream.done.wait()
    record_property("rejoined_after", took)
    sys.stdout.write(f"{how.name}: rejoined {took * 1000:.0f} ms after the return, {len(pushing.lost)} pushes lost\n")

    # What was answered was answered once, what was not raised; nothing was sent twice.
    seen = Counter(int(line) for line in log.read_text().split())
    total = next(pushing.numbers)
    assert set(seen.values()) == {1}
    assert set(pushing.answered.values()) == {1}
    assert set(pushing.answered) <= set(seen)
    assert set(pushing.answered) | set(pushing.lost) == set(range(total))
    assert not set(pushing.answered) & set(pushing.lost)
    assert 0 < len(pushing.lost) <= PUSHERS
    for number, error in pushing.lost.items():
        assert error.sent or number not in seen
        assert error.code in ((1012,) if name == "SIGTERM" else (1006,))

    assert [item.reason for item in stream.items if isinstance(item, Gap)] == ["reconnected"]
    assert isinstance(stream.ended, StopAsyncIteration)
    # Within a step of the back-off: the first attempt after the return succeeds, and no delay is longer.
    after = [
        record for record in records if isinstance(record, ClientConnectStop) and record.start.monotonic_time > returned
    ]
    assert [record.outcome for record in after] in (["ok"], [])  # none, if the last one before came just in time
    assert {record.delay for record in records if isinstance(record, ReconnectScheduled)} == {STEP}
    assert verify(records) == []
    assert unbalanced(records) == []
