"""What waits for a callback that never returns is bounded, whatever happens meanwhile."""

import gc
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.client.support import PHOENIX, URL, Scripted
from tests.drawing import FACTOR
from tests.peers import time_ns
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Channel,
    Client,
    ConnectError,
    Gap,
    Message,
    PushTimeout,
    Reply,
    Socket,
    run_client,
)
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.transport import OpenRequest

AT_ONCE = Backoff((0.01,), jitter=0)


class Hanging(Client):
    """Joins two topics, and then hangs in a callback until it is released; writes down what it is told after that."""

    def __init__(self) -> None:
        self.hangs = trio.Event()
        self.release = trio.Event()
        self.log: list[Any] = []
        self.gaps: list[tuple[str, Gap]] = []

    async def handle_connect(self, socket: Socket) -> None:
        self.log.append("connect")
        if not self.hangs.is_set():
            await self.join("a")
            await self.join("b")

    async def handle_disconnect(self, reason: Exception) -> None:
        self.log.append("disconnect")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        self.log.append(("join", channel.topic))

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        self.gaps.append((channel.topic, gap))
        self.log.append(("gap", channel.topic, gap.reason))

    async def handle_message(self, channel: Channel, message: Message) -> None:
        self.log.append((message.event, message.payload))

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        self.log.append(("reply", reply.ok))

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        self.log.append(("topic_close", topic))

    async def handle_leave(self, topic: str) -> None:
        self.log.append(("leave", topic))

    async def handle_info(self, message: Any) -> None:
        self.hangs.set()
        await self.release.wait()
        self.log.clear()

    @property
    def told(self) -> Counter[str]:
        """How often each callback was called since it was released; messages by their event."""
        return Counter(entry if isinstance(entry, str) else entry[0] for entry in self.log)


@asynccontextmanager
async def hanging(connector: Scripted, **options: Any) -> AsyncIterator[Hanging]:
    """Run a client that hangs; when the block ends it is released, and handles everything that waits."""
    client = Hanging()
    given = {"transport": connector, "telemetry": Telemetry(), "reconnect": AT_ONCE, "rejoin": AT_ONCE, **options}

    async def run() -> None:
        await run_client(client, URL, **given)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        client.info("hang")
        await client.hangs.wait()
        yield client
        client.release.set()
        await wait_all_tasks_blocked()
        told = list(client.log)
        await client.disconnect()
    client.log = told


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def reconnected(connector: Scripted) -> None:
    """End the connection, and wait for the next, forgetting the old one."""
    peer = connector.peer
    peer.end(1012)
    while connector.peers[-1] is peer:  # noqa: ASYNC110 - polled
        await trio.sleep(0.01)
    await wait_all_tasks_blocked()
    connector.peers[:-1] = []
    connector.requests.clear()


@pytest.mark.once
async def test_reconnects_while_a_callback_hangs_keep_the_memory_flat(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "slipstream_trio")  # pytest would keep the warnings of lost connections
    few, many = 500, 5000 if FACTOR > 1 else 2000
    connector = Scripted()
    held = {}
    async with hanging(connector) as client:
        for count in range(1, many + 1):
            if count <= 3:
                connector.peer.message("a", "tick", count)
            await reconnected(connector)
            if count in (few, many):
                held[count] = blocks()
        assert held[many] - held[few] < (many - few) / 2 + 100  # Trio keeps a thousand old deadlines
    assert client.told == {"connect": 1, "disconnect": 1, "join": 4, "gap": 4, "tick": 3}
    assert [entry[1] for entry in client.log if entry[0] == "tick"] == [1, 2, 3]
    told = client.log[client.log.index("disconnect") :]
    assert told[1] == "connect"
    assert {("join", "a"), ("join", "b"), ("gap", "a", "reconnected"), ("gap", "b", "reconnected")} <= set(told)


async def test_of_the_joins_that_wait_the_first_stands_before_its_messages(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with hanging(connector) as client:
        await client.join("c")
        await wait_all_tasks_blocked()
        for count in range(4):
            connector.peer.message("c", "tick", count)
            await reconnected(connector)
    told = [entry for entry in client.log if entry[0] in ("join", "tick") and entry != ("join", "a")]
    assert [entry for entry in told if entry != ("join", "b")] == [
        ("join", "c"),
        ("tick", 0),
        ("tick", 1),
        ("tick", 2),
        ("tick", 3),
        ("join", "c"),
    ]


async def test_gaps_that_wait_are_told_as_two_that_cover_them_all(autojump_clock: MockClock) -> None:
    losses: list[datetime] = []
    connector = Scripted()
    async with hanging(connector, telemetry=Telemetry(time_ns=time_ns)) as client:
        for _ in range(5):
            await trio.sleep(10)
            losses.append(datetime.fromtimestamp(time_ns() / 1e9, UTC))
            await reconnected(connector)
    gaps = [gap for topic, gap in client.gaps if topic == "a"]
    assert len(gaps) == 2
    assert all(any(gap.since <= when <= gap.until for gap in gaps) for when in losses)
    assert gaps[0].until < losses[-1]


async def test_attempts_that_fail_while_a_callback_hangs_are_told_as_one(autojump_clock: MockClock) -> None:
    refusing = False

    async def opening(_: OpenRequest) -> None:
        await trio.lowlevel.checkpoint()
        if refusing:
            raise ConnectError(f"refused at {trio.current_time():.2f}")

    connector = Scripted(opening=opening)
    async with hanging(connector) as client:
        refusing = True
        connector.peer.end(1006)
        await trio.sleep(5)
        assert len(connector.requests) > 400
        refusing = False
        await trio.sleep(1)
    assert client.told["disconnect"] == 1
    assert client.log[:2] == ["disconnect", "connect"]


@pytest.mark.parametrize("how", ["crash", "refuse"])
async def test_topics_that_crash_or_are_refused_while_a_callback_hangs_are_told_as_one(
    how: str, autojump_clock: MockClock
) -> None:
    connector = Scripted(PHOENIX if how == "crash" else PHOENIX - {"phx_join"})
    async with hanging(connector) as client:
        for count in range(1, 101):
            join = await connector.peer.wait_sent("phx_join", count)
            if how == "crash":
                await wait_all_tasks_blocked()
                connector.peer.end_channel(join.topic, "phx_error")
            else:
                connector.peer.reply(join, {"reason": "no"}, "error")
        await trio.sleep(1)
    assert client.told["topic_close"] == 2
    assert client.told.total() <= 2 + (8 if how == "crash" else 0)


async def test_topics_that_others_join_and_leave_while_a_callback_hangs_are_told_once(
    autojump_clock: MockClock,
) -> None:
    connector = Scripted()
    async with hanging(connector) as client:
        for count in range(100):
            await client.join("c")
            await wait_all_tasks_blocked()
            connector.peer.message("c", "tick", count)
            await client.leave("c")
            await wait_all_tasks_blocked()
        await client.join("c")
        await wait_all_tasks_blocked()
    assert client.log == [("join", "c"), ("tick", 0), ("leave", "c"), ("join", "c")]


async def test_messages_that_come_together_are_told_in_order(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with hanging(connector) as client:
        for number in range(20):
            connector.peer.message("a", "tick", number)
        await wait_all_tasks_blocked()
    assert client.log == [("tick", number) for number in range(20)]


async def test_pushes_of_others_wait_while_replies_are_not_handled(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with hanging(connector, buffer=10) as client:
        for _ in range(10):
            await client.push("a", "echo")
        with pytest.raises(PushTimeout) as raised:
            await client.push("a", "echo", timeout=3)
        assert (raised.value.timeout, raised.value.sent, raised.value.waited) == (3, False, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.push, "a", "echo")
            await wait_all_tasks_blocked()
            assert connector.peer.count("echo") == 10
            client.release.set()
        await wait_all_tasks_blocked()
    assert client.log.count(("reply", True)) == 11


async def test_the_time_that_a_push_waits_so_is_part_of_its_timeout(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with hanging(connector, buffer=10) as client, trio.open_nursery() as nursery:
        for _ in range(10):
            await client.push("a", "echo")
        nursery.start_soon(partial(client.push, "a", "mute", timeout=10))
        await trio.sleep(4)
        client.release.set()
        await trio.sleep(5.9)
        assert connector.peer.count("mute") == 1
        assert ("reply", False) not in client.log
        await trio.sleep(0.2)
        assert ("reply", False) in client.log


async def test_a_callback_may_push_more_than_that(autojump_clock: MockClock) -> None:
    """It would wait for itself."""

    async def push(channel: Channel, _: Any) -> None:
        for number in range(30):
            await client.push(channel.topic, "echo", {"n": number})

    client = Told("room", join=push)
    async with a_world() as world, running(world, client, buffer=10):
        await client.until(("reply", "echo", {"n": 29}))
        client.stop()
