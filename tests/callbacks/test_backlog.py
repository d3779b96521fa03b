"""What waits for a callback that never returns is bounded, whatever happens meanwhile."""

import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from slipstream_trio.client.inbox import Entry, Lane
from slipstream_trio.client.membership import Membership
from slipstream_trio.client.runner import Runner
from slipstream_trio.client.session import Session
from tests.callbacks.support import Told, a_world, running
from tests.client.support import PHOENIX, URL, Scripted
from tests.drawing import FACTOR, examples
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Channel,
    ChannelClosed,
    Client,
    ConnectError,
    Gap,
    Message,
    PushTimeout,
    Reply,
    Socket,
    run_client,
)
from slipstream_trio.client.configuration import configure
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.transport import OpenRequest

AT_ONCE = Backoff((0.01,), jitter=0)


class Hanging(Client):
    """Joins two topics, and then hangs in a callback until it is released; writes down what it is told after that."""

    def __init__(self) -> None:
        self.hangs = trio.Event()
        self.release = trio.Event()
        self.log: list[Any] = []

    async def handle_connect(self, socket: Socket) -> None:
        self.log.append("connect")
        if not self.hangs.is_set():
            await self.join("a")
            await self.join("b")

    async def handle_disconnect(self, reason: Exception) -> None:
        self.log.append("disconnect")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        self.log.append(("join", channel.topic))

    async def handle_gap(self, channel: Channel, gap: Any) -> None:
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
    def waiting(self) -> Counter[str]:
        runner = self._Client__runner  # type: ignore[attr-defined]
        return Counter(entry.callback for entry in runner._inbox._entries.values())


@asynccontextmanager
async def hanging(connector: Scripted, **options: Any) -> AsyncIterator[Hanging]:
    """Run a client that hangs; when the block ends it is released, handles what waits, and is stopped."""
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
        await client.disconnect()


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
async def test_reconnects_while_a_callback_hangs_keep_the_memory_flat(autojump_clock: MockClock) -> None:
    few, many = (500, 5000) if FACTOR > 1 else (50, 250)
    connector = Scripted()
    held = {}
    async with hanging(connector) as client:
        for count in range(1, many + 1):
            if count <= 3:
                connector.peer.message("a", "tick", count)
            await reconnected(connector)
            if count in (few, many):
                held[count] = blocks()
                assert client.waiting == {
                    "handle_connect": 1,
                    "handle_disconnect": 1,
                    "handle_join": 4,
                    "handle_gap": 4,
                    "handle_message": 3,
                }
        assert held[many] - held[few] < (many - few) / 2 + 100  # Trio keeps a thousand old deadlines
    assert [entry[1] for entry in client.log if entry[0] == "tick"] == [1, 2, 3]
    told = client.log[client.log.index("disconnect") :]
    assert told[1] == "connect"
    assert {("join", "a"), ("join", "b"), ("gap", "a", "reconnected"), ("gap", "b", "reconnected")} <= set(told)


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
        assert client.waiting == {"handle_disconnect": 1}
        refusing = False
        await trio.sleep(1)
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
        assert client.waiting["handle_topic_close"] == 2
        assert client.waiting.total() <= 2 + (8 if how == "crash" else 0)
    assert [entry for entry in client.log if entry[0] == "topic_close"] != []


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
        assert client.waiting == {"handle_join": 1, "handle_message": 1, "handle_leave": 1}
        await client.join("c")
        await wait_all_tasks_blocked()
    assert client.log[:4] == [("join", "c"), ("tick", 0), ("leave", "c"), ("join", "c")]


async def test_pushes_of_others_wait_while_replies_are_not_handled(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with hanging(connector, buffer=10) as client:
        for _ in range(10):
            await client.push("a", "echo")
        with pytest.raises(PushTimeout) as raised:
            await client.push("a", "echo", timeout=3)
        assert raised.value.timeout == 3
        assert client.waiting == {"handle_reply": 10}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.push, "a", "echo")
            await wait_all_tasks_blocked()
            assert connector.peer.count("echo") == 10
            client.release.set()
        await wait_all_tasks_blocked()
    assert client.log.count(("reply", True)) == 11


async def test_a_callback_may_push_more_than_that(autojump_clock: MockClock) -> None:
    """It would wait for itself."""

    async def push(channel: Channel, _: Any) -> None:
        for number in range(30):
            await client.push(channel.topic, "echo", {"n": number})

    client = Told("room", join=push)
    async with a_world() as world, running(world, client, buffer=10):
        await client.until(("reply", "echo", {"n": 29}))
        client.stop()


# Whatever happens, and whenever it is read


TOPIC = "a"
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def steps() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["open", "close", "join", "message", "gap", "crash", "leave", "read"]), max_size=60)


@given(steps())
@examples(100)
def test_what_is_told_last_is_true_and_every_gap_is_told(drawn: list[str]) -> None:
    trio.run(tell, drawn)


async def tell(drawn: list[str]) -> None:
    session = Session(configure(URL, {"buffer": 100}))
    runner = Runner(Told())
    runner._inbox.limit = 100
    lane = None
    done: list[tuple[str, Any]] = []
    told: list[Entry] = []
    for number, step in enumerate(drawn):
        at = NOW + timedelta(seconds=number)
        if lane is None and step in ("join", "message", "gap", "crash", "leave"):
            lane = Lane(runner._inbox, Membership(session, TOPIC, {}, lambda *_: None))
            lane.joined(number)
            done.append(("handle_join", number))
        match step:
            case "open":
                runner.opened()
                done.append(("handle_connect", None))
            case "close":
                runner.closed(ConnectError(str(number)))
                done.append(("handle_disconnect", str(number)))
            case "read":
                with trio.move_on_after(0):
                    entry = await runner._inbox.get()
                    assert entry is not None
                    told.append(entry)
            case _ if lane is not None:
                lane = _on_lane(lane, step, number, at, done)
        assert len(runner._inbox._entries) <= 2 + 3 * (2 + 2 + 1 + 1) + drawn.count("message")
    runner._inbox.finish()
    while (entry := await runner._inbox.get()) is not None:
        told.append(entry)
    _check(done, told)


def _on_lane(lane: Lane, step: str, number: int, at: datetime, done: list[tuple[str, Any]]) -> Lane | None:
    match step:
        case "join":
            lane.joined(number)
            done.append(("handle_join", number))
        case "message":
            lane.message(Message(None, None, TOPIC, "tick", number))
            done.append(("handle_message", number))
        case "gap":
            lane.gap(Gap("reconnected", at, at))
            done.append(("handle_gap", at))
        case "crash":
            lane.closed(ChannelClosed(TOPIC, str(number)))
            done.append(("handle_topic_close", str(number)))
        case "leave":
            lane.left()
            done.append(("handle_leave", None))
            return None
    return lane


def _check(done: list[tuple[str, Any]], told: list[Entry]) -> None:
    for kinds in ({"handle_connect", "handle_disconnect"}, {"handle_join", "handle_topic_close", "handle_leave"}):
        happened = [entry for entry in done if entry[0] in kinds]
        heard = [entry for entry in told if entry.callback in kinds]
        assert bool(happened) == bool(heard)
        if happened:
            assert heard[-1].callback == happened[-1][0]
        if happened and happened[-1][0] in ("handle_disconnect", "handle_topic_close"):
            assert happened[-1][1] in str(heard[-1].arguments[-1])
    left = sum(kind == "handle_leave" for kind, _ in done)
    gaps = [entry.arguments[1] for entry in told if entry.callback == "handle_gap"]
    messages = [entry.arguments[1].payload for entry in told if entry.callback == "handle_message"]
    assert messages == sorted(messages)
    if left < 2:  # then nothing of a topic is left out altogether
        for at in [when for kind, when in done if kind == "handle_gap"]:
            assert any(gap.since <= at <= gap.until for gap in gaps)
        assert messages == [number for kind, number in done if kind == "handle_message"]
    heard_join = False
    for entry in told:
        heard_join = entry.callback == "handle_join" or (heard_join and entry.callback != "handle_leave")
        assert heard_join or entry.callback not in ("handle_message", "handle_gap", "handle_topic_close")
