"""Whatever happens, and however slowly callbacks handle it: what is told last is true, and every gap is told."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from tests.client.support import URL, Scripted
from tests.drawing import examples
from tests.peers import time_ns
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, Client, ConnectError, Gap, Message, PushTimeout, Reply, Socket, run_client
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.transport import OpenRequest

TOPIC = "a"
INSTANT = timedelta(milliseconds=1)
SOON = Backoff((0.01,), jitter=0)

STEPS = st.lists(
    st.sampled_from(
        ["close", "open", "join", "leave", "message", "push", "crash", "refuse", "call", "read", "read all"]
    ),
    max_size=60,
)


class Slow(Client):
    """Handles one callback for each permit, and writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.permits = trio.Semaphore(0)

    async def _tell(self, callback: str, what: Any = None) -> None:
        await self.permits.acquire()
        self.told.append((callback, what))

    async def handle_connect(self, socket: Socket) -> None:
        await self._tell("connect")

    async def handle_disconnect(self, reason: Exception) -> None:
        await self._tell("disconnect", str(reason))

    async def handle_join(self, channel: Channel, response: Any) -> None:
        await self._tell("join")

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        await self._tell("topic_close", str(reason))

    async def handle_leave(self, topic: str) -> None:
        await self._tell("leave")

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        await self._tell("gap", gap)

    async def handle_message(self, channel: Channel, message: Message) -> None:
        await self._tell("message", message.payload)

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        await self._tell("reply", ref)

    async def handle_call(self, message: Any, caller: Any) -> Any:
        await self._tell("call", message)


class World:
    """A client, its server, and what happened to it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.client = Slow()
        self.done: list[tuple[str, Any]] = []
        self.lost: list[datetime] = []  # times at which messages were missed, of which no gap has told yet
        self._nursery = nursery
        self._connector = Scripted(opening=self._opening)
        self._reachable = True
        self._failed = False
        self._opened = trio.lowlevel.ParkingLot()
        self._held = False
        self._count = 0

    async def run(self) -> None:
        """Run the client."""
        options: dict[str, Any] = {"reconnect": SOON, "rejoin": SOON, "buffer": 100, "connect_timeout": None}
        await run_client(self.client, URL, transport=self._connector, telemetry=Telemetry(time_ns=time_ns), **options)

    async def _opening(self, _: OpenRequest) -> None:
        await trio.lowlevel.checkpoint()
        if not self._reachable and not self._failed:
            self._failed = True  # the next attempt hangs
            self.done.append(("disconnect", f"attempt {self._count}"))
            raise ConnectError(f"attempt {self._count}")
        while not self._reachable:
            await self._opened.park()
        self.done.append(("connect", None))
        if self._held:
            self._joined()

    def _joined(self) -> None:
        self.done.append(("join", None))
        self.done += [("gap", when) for when in self.lost]
        self.lost.clear()

    async def step(self, step: str) -> None:
        """Let something happen."""
        self._count += 1
        client = self.client
        if step == "read":
            client.permits.release()
        elif step == "read all":
            while client.permits.value == 0:
                client.permits.release()
                await wait_all_tasks_blocked()
            await client.permits.acquire()
        elif step == "push":
            with suppress(PushTimeout):
                self.done.append(("reply", await client.push(TOPIC, "echo", timeout=0.5)))
        elif step == "call":
            self.done.append(("call", self._count))
            self._nursery.start_soon(partial(client.call, self._count, timeout=None))
        else:
            await getattr(self, f"_{step}")()
        await trio.sleep(1)

    async def _close(self) -> None:
        if self._reachable:
            self._reachable = self._failed = False
            self.done.append(("disconnect", "1012"))
            self._connector.peer.end(1012)
            await wait_all_tasks_blocked()
            self._missed()

    def _missed(self) -> None:
        if self._held:
            self.lost.append(datetime.fromtimestamp(time_ns() / 1e9, UTC))

    async def _open(self) -> None:
        self._reachable = True
        self._opened.unpark_all()

    async def _join(self) -> None:
        if not self._held:
            self._held = True
            if self._reachable:
                self._joined()
            await self.client.join(TOPIC)

    async def _leave(self) -> None:
        if self._held:
            self._held = False
            self.lost.clear()
            self.done.append(("leave", None))
        await self.client.leave(TOPIC)

    async def _message(self) -> None:
        if self._reachable and self._held:
            self.done.append(("message", self._count))
            self._connector.peer.message(TOPIC, "tick", self._count)

    async def _crash(self) -> None:
        if self._reachable and self._held:
            self.done.append(("topic_close", "crashed"))
            self._connector.peer.end_channel(TOPIC, "phx_error")
            await wait_all_tasks_blocked()
            self._missed()
            self._joined()

    async def _refuse(self) -> None:
        """Crash, and be refused once."""
        if self._reachable and self._held:
            peer = self._connector.peer
            self.done.append(("topic_close", "crashed"))
            peer.answers.discard("phx_join")
            joins = peer.count("phx_join")
            peer.end_channel(TOPIC, "phx_error")
            join = await peer.wait_sent("phx_join", joins + 1)
            self._missed()
            self.done.append(("topic_close", "refused"))
            peer.reply(join, {"reason": "refused"}, "error")
            peer.answers.add("phx_join")
            self._joined()


@given(STEPS)
@examples(100)
def test_what_is_told_last_is_true_and_every_gap_is_told(steps: list[str]) -> None:
    trio.run(tell, steps, clock=MockClock(autojump_threshold=0))


async def tell(steps: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        nursery.start_soon(world.run)
        await trio.sleep(1)
        for step in steps:
            await world.step(step)
        read = len(world.client.told)
        await world.step("read all")
        kinds = [kind for kind, _ in world.done]
        # One each of connect and disconnect; of a topic's time two joins, two gaps, a close and a leave, and it has two
        # times at most: up to the leave that waits, and what came last.
        unbounded = sum(kinds.count(kind) for kind in ("message", "reply", "call"))
        assert len(world.client.told) - read <= 2 + 3 * 6 + unbounded
        check(world.done, list(world.client.told))
        world.client.stop()


def check(done: list[tuple[str, Any]], told: list[tuple[str, Any]]) -> None:
    """Compare what a client was told with what happened."""
    for kinds in ({"connect", "disconnect"}, {"join", "topic_close", "leave"}):
        happened = [entry for entry in done if entry[0] in kinds]
        heard = [entry for entry in told if entry[0] in kinds]
        assert bool(happened) == bool(heard)
        if happened:
            assert heard[-1][0] == happened[-1][0]
        if happened and happened[-1][1] is not None:
            assert happened[-1][1] in heard[-1][1]
    for kind in ("reply", "call"):  # each of them, once; calls in their order
        assert sorted(what for it, what in told if it == kind) == sorted(what for it, what in done if it == kind)
    calls = [what for kind, what in told if kind == "call"]
    assert calls == sorted(calls)
    assert not calls or told.index(("connect", None)) < told.index(("call", calls[0]))
    gaps = [what for kind, what in told if kind == "gap"]
    messages = [what for kind, what in told if kind == "message"]
    assert messages == sorted(messages)
    if sum(kind == "leave" for kind, _ in done) < 2:  # then nothing of a topic is left out altogether
        assert messages == [what for kind, what in done if kind == "message"]
        for when in [what for kind, what in done if kind == "gap"]:
            assert any(gap.since - INSTANT <= when <= gap.until + INSTANT for gap in gaps)
    is_joined = False
    for kind, _ in told:
        is_joined = kind == "join" or (is_joined and kind != "leave")
        assert is_joined or kind not in ("message", "gap", "topic_close")


async def test_a_client_is_told_of_the_refusal_of_a_rejoin_that_was_late(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, bool | None]] = []

    class Mine(Client):
        async def handle_connect(self, socket: Socket) -> None:
            await self.join(TOPIC)

        async def handle_topic_close(self, topic: str, reason: Exception) -> None:
            told.append((type(reason).__name__, getattr(reason, "sent", None)))

    client, connector = Mine(), Scripted()
    options: dict[str, Any] = {"reconnect": SOON, "rejoin": Backoff((50,), jitter=0), "heartbeat_interval": None}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=connector, join_timeout=5, **options))
        await wait_all_tasks_blocked()
        connector.answers -= {"phx_join"}
        connector.peer.end()
        await trio.sleep(6)
        assert told == [("JoinTimeout", True)]
        assert f"the server has not answered the join of '{TOPIC}' within 5 s" in caplog.text
        connector.peer.reply(await connector.peer.wait_sent("phx_join"), {"reason": "no"}, "error")
        await wait_all_tasks_blocked()
        assert told == [("JoinTimeout", True), ("JoinError", None)]
        client.stop()


async def test_before_its_first_connection_a_client_has_a_socket_without_headers(autojump_clock: MockClock) -> None:
    told: list[Any] = []

    class Mine(Client):
        async def handle_info(self, message: Any) -> None:
            assert self.socket is not None
            told.append((message, self.socket.response_headers))

        async def handle_connect(self, socket: Socket) -> None:
            self.info("connected")

    async def opening(_: OpenRequest) -> None:
        client.info("opening")
        await trio.sleep(1)

    client = Mine()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=Scripted(opening=opening)))
        await trio.sleep(2)
        client.stop()
    assert told == [("opening", ()), ("connected", (("server", "scripted"),))]
