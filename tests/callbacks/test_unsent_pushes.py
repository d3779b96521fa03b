"""Pushes that are never sent: from callbacks, and to topics that are not joined, they end in `handle_reply` too."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.lowlevel
from tests.callbacks.support import Told, a_world, running
from tests.client.support import URL, Scripted
from tests.scheduling import in_any_order, play
from trio.testing import MockClock

from slipstream_trio import ChannelClosed, ClientStopped, ConnectionLost, PushTimeout, Reply, run_client
from slipstream_trio.telemetry import ClientPushStop
from slipstream_trio.transport import OpenRequest


class Pushing(Told):
    """Pushes when it is told to, by a callback or another task, and keeps refs and replies."""

    def __init__(self, *topics: str, **on: Callable[..., Any]) -> None:
        super().__init__(*topics, **on)
        self.refs: list[str] = []
        self.replies: list[tuple[str, Reply]] = []

    async def start_push(self, by: str, topic: str, event: str = "echo", **options: Any) -> None:
        """Push by a callback, or right here."""
        if by == "callback":
            self.info((topic, event, options))
        else:
            await self._push(topic, event, options)

    async def _push(self, topic: str, event: str, options: Any) -> None:
        self.refs.append(await self.push(topic, event, **options))

    async def handle_info(self, message: Any) -> None:
        await self._push(*message)

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        assert ref in self.refs  # its caller has the ref before this is told
        self.replies.append((ref, reply))
        await super().handle_reply(ref, reply)


BY = pytest.mark.parametrize("by", ["callback", "task"])


@BY
async def test_a_push_to_a_topic_that_is_not_joined_ends_in_handle_reply(by: str, autojump_clock: MockClock) -> None:
    client = Pushing("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        for _ in range(2):
            await client.start_push(by, "room:2")
        await client.until(("reply", "echo", "ChannelClosed"), times=2)
        client.stop()
    assert [ref for ref, _ in client.replies] == client.refs
    assert len(set(client.refs)) == 2
    assert not any(ref.isdecimal() for ref in client.refs)  # as those of a connection are
    for _, reply in client.replies:
        assert isinstance(reply.error, ChannelClosed)
        assert (reply.topic, reply.event, reply.response) == ("room:2", "echo", None)
        assert (reply.error.topic, reply.error.reason) == ("room:2", "not_joined")


@BY
async def test_so_does_one_before_the_first_connection(by: str, autojump_clock: MockClock) -> None:
    client = Pushing()
    async with a_world() as world:
        world.upgrades.extend([OSError("nobody there")] * 3)
        async with running(world, client):
            await trio.sleep(1.5)
            await client.start_push(by, "room:1")
            await client.until(("reply", "echo", "ChannelClosed"))
            assert "connect" not in client.log
            client.stop()


@BY
async def test_so_does_one_to_a_topic_that_is_being_left(by: str, autojump_clock: MockClock) -> None:
    client = Pushing("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.connection.pause_reading()
        await client.leave("room:1")
        await client.start_push(by, "room:1")
        await client.until(("reply", "echo", "ChannelClosed"))
        world.connection.resume_reading()
        client.stop()
    [(_, reply)] = client.replies
    assert isinstance(reply.error, ChannelClosed)
    assert reply.error.reason == "left"


@BY
async def test_so_does_one_after_the_topic_was_left_and_closed(by: str, autojump_clock: MockClock) -> None:
    client = Pushing("room:1", "room:2")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:2", 2))
        await client.leave("room:1")
        await client.until(("leave", "room:1"))
        await client.start_push("task", "room:2", "stop")
        await client.until(("topic_close", "room:2", "closed"))
        for topic in ("room:1", "room:2"):
            await client.start_push(by, topic, "nothing")
        await client.until(("reply", "nothing", "ChannelClosed"), times=2)
        client.stop()


@BY
async def test_it_is_a_span_like_any_other(by: str, autojump_clock: MockClock) -> None:
    client = Pushing()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        await client.start_push(by, "room:1", payload={"n": 1})
        await client.until(("reply", "echo", "ChannelClosed"))
        client.stop()
    [stop] = [record for record in world.records if isinstance(record, ClientPushStop)]
    assert (stop.outcome, stop.ref, stop.start.topic, stop.start.params) == ("lost", None, "room:1", {"n": 1})


async def test_those_of_other_tasks_wait_while_replies_are_not_handled(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(60)

    client = Pushing(cast=hold_up)
    async with a_world() as world, running(world, client, buffer=3):
        await client.until("connect")
        client.cast("hold up")
        await trio.sleep(1)
        for _ in range(3):
            await client.start_push("task", "room:1")
        with pytest.raises(PushTimeout):
            await client.start_push("task", "room:1", timeout=2)
        await client.start_push("task", "room:1", timeout=None)
        assert trio.current_time() == 60
        await client.until(("reply", "echo", "ChannelClosed"), times=4)
        client.stop()


# While a channel is not there yet


Undo = Callable[[Any, Pushing], Awaitable[object]]


async def _nothing(*_: Any) -> None:
    await trio.sleep(7)


async def _leave(_: Any, client: Pushing) -> None:
    await client.leave("room:1")


async def _disconnect(_: Any, client: Pushing) -> None:
    await client.disconnect()


ENDS = pytest.mark.parametrize(
    ("how", "error"),
    [(_nothing, "PushTimeout"), (_leave, "ChannelClosed"), (_disconnect, "ConnectionLost")],
    ids=["timeout", "left", "disconnected"],
)
WHILE = pytest.mark.parametrize("while_", ["joining", "backing off", "reconnecting"])


async def _not_there_yet(world: Any, client: Pushing, while_: str) -> None:
    """Let the channel be joining, or to be joined again."""
    if while_ == "reconnecting":
        await client.until(("join", "room:1", 1))
        world.upgrades.extend([OSError("nobody there")] * 100)
        world.connection.drop()
    await trio.sleep(0.25)


@WHILE
@ENDS
async def test_a_push_of_a_callback_that_waits_ends_in_handle_reply(
    how: Undo, error: str, while_: str, autojump_clock: MockClock
) -> None:
    client = Pushing("room:1")
    async with a_world() as world:
        world.joins["room:1"].extend({"joining": ["hang"], "backing off": ["refuse"] * 9, "reconnecting": []}[while_])
        async with running(world, client) as run:
            await _not_there_yet(world, client, while_)
            await client.start_push("callback", "room:1", timeout=7)
            await trio.sleep(0.25)
            await how(world, client)
            await client.until(("reply", "echo", error))
            await trio.sleep(1)
            if not run.ended.is_set():
                client.stop()
        assert run.error is None
    [(ref, reply)] = client.replies
    assert client.refs == [ref]
    assert not ref.isdecimal()
    assert isinstance(reply.error, PushTimeout | ChannelClosed | ConnectionLost)


@WHILE
@ENDS
async def test_a_push_of_another_task_that_waits_raises_instead(
    how: Undo, error: str, while_: str, autojump_clock: MockClock
) -> None:
    raised: list[str] = []

    async def push() -> None:
        try:
            await client.start_push("task", "room:1", timeout=7)
        except (PushTimeout, ChannelClosed, ConnectionLost) as caught:
            raised.append(type(caught).__name__)

    client = Pushing("room:1")
    async with a_world() as world, trio.open_nursery() as nursery:
        world.joins["room:1"].extend({"joining": ["hang"], "backing off": ["refuse"] * 9, "reconnecting": []}[while_])
        async with running(world, client) as run:
            await _not_there_yet(world, client, while_)
            nursery.start_soon(push)
            await trio.sleep(0.25)
            await how(world, client)
            await trio.sleep(1)
            if not run.ended.is_set():
                client.stop()
    assert raised == [error]
    assert client.replies == []


async def test_a_push_that_waits_while_the_join_is_given_up_ends_in_handle_reply(autojump_clock: MockClock) -> None:
    client = Pushing()
    async with a_world() as world, running(world, client, rejoin=None):
        await client.until("connect")
        world.connection.pause_reading()
        world.joins["room:1"].append("refuse")
        await client.join("room:1")
        await client.start_push("callback", "room:1", timeout=None)
        await trio.sleep(1)
        world.connection.resume_reading()
        await client.until(("reply", "echo", "ChannelClosed"))
        client.stop()
    [(_, reply)] = client.replies
    assert isinstance(reply.error, ChannelClosed)
    assert reply.error.reason == "join_refused"


async def test_a_push_of_another_task_that_waits_for_replies_to_be_handled_learns_of_the_end(
    autojump_clock: MockClock,
) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(60)

    client = Pushing("room:1", cast=hold_up)
    async with (
        a_world() as world,
        running(world, client, buffer=1, reconnect=None) as run,
        trio.open_nursery() as nursery,
    ):
        await client.until(("join", "room:1", 1))
        client.cast("hold up")
        await trio.sleep(1)
        await client.start_push("task", "room:1")

        async def push() -> None:
            with pytest.raises(ConnectionLost):
                await client.push("room:1", "echo", timeout=None)
            client.note("raised")

        nursery.start_soon(push)
        await trio.sleep(1)
        world.connection.drop()
        await client.until("raised")
        assert trio.current_time() == 2
    assert isinstance(run.error, ConnectionLost)


async def test_a_push_of_a_callback_that_waits_for_a_connection_that_never_comes_ends_in_handle_reply(
    autojump_clock: MockClock,
) -> None:
    async def push(_: Any) -> None:
        await client.push("room:1", "echo", timeout=None)

    client = Told("room:1", cast=push)
    async with a_world() as world:
        async with running(world, client, reconnect=None) as run:
            await client.until(("join", "room:1", 1))
            world.connection.pause_reading()
            world.joins["room:1"].append("hang")
            await client.leave("room:1")
            world.connection.resume_reading()
            await client.until(("leave", "room:1"))
            await client.join("room:1")
            client.cast("push")
            await trio.sleep(1)
            world.connection.drop()
    assert isinstance(run.error, ConnectionLost)
    assert client.log[-3:] == [
        ("disconnect", "ConnectionLost", "lost", 1006),
        ("reply", "echo", "ConnectionLost"),
        ("terminate", "ConnectionLost"),
    ]


async def test_a_callback_pushes_after_the_end_without_raising(autojump_clock: MockClock) -> None:
    async def push(_: Exception) -> None:
        await client.push("room:1", "echo")

    client = Told("room:1", disconnect=push)
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        await client.disconnect()
    assert run.error is None
    assert client.log[2:-1] == [
        ("disconnect", "ConnectionLost", "disconnected"),
        ("reply", "echo", "ConnectionLost"),
    ]


async def test_each_ref_is_told_of_once_whatever_happens(autojump_clock: MockClock) -> None:
    async def push(_: Any) -> None:
        for event in ("echo", "ignore", "tick, reply, tock"):
            for topic in ("room:1", "room:2"):
                client.refs.append(await client.push(topic, event, timeout=0.3))

    async def task() -> None:
        for number in range(40):
            await trio.sleep(0.05)
            with suppress(PushTimeout, ConnectionLost, ChannelClosed):
                client.refs.append(await client.push(f"room:{number % 4}", "echo", timeout=0.3))

    client = Pushing("room:1", cast=push, connect=push)
    async with a_world() as world:
        async with running(world, client, push_timeout=0.3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task)
                for number in range(8):
                    await trio.sleep(0.25)
                    client.cast("push")
                    if number % 2:
                        for connection in world.server.connections:
                            connection.drop()
            await trio.sleep(20)
            client.stop()
    told = [ref for ref, _ in client.replies]
    assert len(told) == len(client.refs)
    unsent = [ref for ref in told if not ref.isdecimal()]
    assert len(unsent) == len(set(unsent)) > 0


async def test_the_late_end_of_a_push_is_not_that_of_one_on_the_next_connection(autojump_clock: MockClock) -> None:
    free = trio.Event()
    client = Pushing("room:1", message=lambda *_: free.wait())
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.start_push("task", "room:1", "silence")
        await client.start_push("task", "room:1", "burst", payload={"n": 1})
        await client.until(("message", "tick", 0))  # which takes long, and is called before the ends of both
        world.connection.drop()
        await trio.sleep(10)
        assert len(world.payloads) == 2  # it has rejoined
        await client.start_push("task", "room:1", payload="new")
        free.set()
        await client.until(("reply", "echo", "new"))
        client.stop()
    ends = dict(client.replies)
    assert len(ends) == len(client.replies) == 3
    assert isinstance(ends[client.refs[0]].error, ConnectionLost)
    assert ends[client.refs[2]].response == "new"


@in_any_order
def test_a_push_made_while_the_client_begins_has_its_time(order: object) -> None:
    play(_push_while_it_begins)


async def _push_while_it_begins() -> None:
    async def never(_: OpenRequest) -> None:
        await trio.sleep_forever()

    async def push() -> None:
        while True:
            try:
                await client.join("room:1")
                break
            except ClientStopped:  # it does not run yet
                await trio.lowlevel.checkpoint()
        with pytest.raises(PushTimeout):
            await client.push("room:1", "echo", timeout=1)
        client.stop()

    client = Told()
    options: dict[str, Any] = {"transport": Scripted(opening=never), "connect_timeout": None}
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_client, client, URL, **options))
            nursery.start_soon(push)
