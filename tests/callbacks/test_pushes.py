"""Pushes whose end comes to `handle_reply`."""

from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from trio.testing import MockClock

from slipstream_trio import (
    Channel,
    ChannelClosed,
    ConfigurationError,
    Message,
    PushError,
    PushTimeout,
    Reply,
    SerializationError,
)
from slipstream_trio.protocol import Frame, PushMessage, V2Serializer
from slipstream_trio.telemetry import ClientPushStop


class Pushing(Told):
    """Keeps the replies."""

    def __init__(self) -> None:
        super().__init__("room:1")
        self.replies: dict[str, Reply] = {}

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        assert ref not in self.replies
        self.replies[ref] = reply
        await super().handle_reply(ref, reply)


async def test_each_push_ends_once_by_its_ref(autojump_clock: MockClock) -> None:
    client = Pushing()
    async with a_world() as world, running(world, client, push_timeout=2):
        await client.until(("join", "room:1", 1))
        ok = await client.push("room:1", "echo", {"n": 1})
        binary = await client.push("room:1", "echo", b"\x00\xff")
        refused = await client.push("room:1", "refuse", {"n": 2})
        silent = await client.push("room:1", "ignore")
        closed = await client.push("room:1", "ignore", timeout=None)
        await trio.sleep(3)
        await client.push("room:1", "stop")
        await client.until(("topic_close", "room:1", "closed"))
        client.stop()
    replies = client.replies
    assert replies[ok] == Reply("room:1", "echo", {"n": 1})
    assert replies[ok].ok
    assert replies[binary].response == b"\x00\xff"
    assert isinstance(replies[refused].error, PushError)
    assert replies[refused].response == {"n": 2}
    assert isinstance(replies[silent].error, PushTimeout)
    assert not replies[silent].ok
    assert isinstance(replies[closed].error, ChannelClosed)
    assert len(replies) == 6


async def test_a_push_is_encoded_once(autojump_clock: MockClock) -> None:
    class Noting(V2Serializer):
        def encode(self, message: Message) -> Frame:
            encoded.append(message.event)
            return super().encode(message)

    encoded: list[str] = []
    client = Told("room:1")
    async with a_world() as world, running(world, client, serializer=Noting()):
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "echo", {"n": 1})
        client.stop()
    assert encoded.count("echo") == 1


async def test_a_late_reply_changes_nothing(autojump_clock: MockClock) -> None:
    client = Pushing()
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.connection.pause_reading()
        await client.push("room:1", "echo", timeout=1)
        await trio.sleep(2)
        world.connection.resume_reading()
        await trio.sleep(2)
        client.stop()
    assert client.log[2:] == [("reply", "echo", "PushTimeout"), ("terminate", None)]
    assert len([record for record in world.records if record.name[-1] == "reply_orphaned"]) == 1


async def test_a_push_waits_for_the_join(autojump_clock: MockClock) -> None:
    async def connected(_: Any) -> None:
        await client.push("room:1", "echo", {"n": 1})

    client = Told("room:1", connect=connected)
    async with a_world() as world:
        world.joins["room:1"].append("refuse")
        async with running(world, client):
            await client.until(("reply", "echo", {"n": 1}))
            assert trio.current_time() == 1
            client.stop()


async def test_nothing_comes_of_a_push_that_was_cancelled_while_it_waited_for_the_join(
    autojump_clock: MockClock,
) -> None:
    client = Told("room:1")
    async with a_world() as world:
        world.joins["room:1"].append(20.0)
        async with running(world, client, join_timeout=30):
            await client.until("connect")
            with trio.move_on_after(1) as scope:
                await client.push("room:1", "echo", timeout=5)
            assert scope.cancelled_caught
            await trio.sleep(10)  # beyond its time limit
            await client.until(("join", "room:1", 1))
            client.stop()
    assert client.log == ["connect", ("join", "room:1", 1), ("terminate", None)]
    assert world.pushed == []


@pytest.mark.parametrize("topic", ["room:1", "room:not joined"])
async def test_what_cannot_be_pushed_raises_at_once_wherever_it_goes(topic: str, autojump_clock: MockClock) -> None:
    async def push(_: Any) -> None:
        with pytest.raises(SerializationError) as raised:
            await client.push(topic, "echo", {1, 2})
        assert raised.traceback[-1].name == "push", "its way through the library helps no user"
        with pytest.raises(SerializationError):
            await client.push(topic, 5)  # type: ignore[arg-type]
        for no_topic in (5, ["room:1"]):
            with pytest.raises(SerializationError):
                await client.push(no_topic, "echo")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="phx_leave"):
            await client.push(topic, "phx_leave")
        with pytest.raises(ConfigurationError, match="timeout"):
            await client.push(topic, "echo", timeout=-1)
        client.note("raised")

    client = Told("room:1", info=push)
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await push(None)
        client.info("push")
        await client.until("raised", times=2)
        client.stop()
    assert client.log[2:] == ["raised", ("info", "push"), "raised", ("terminate", None)]


async def test_the_traceback_of_a_handler_that_exits_leads_to_it(autojump_clock: MockClock) -> None:
    def leave(record: Any) -> None:
        if isinstance(record.raw_message, PushMessage):
            raise SystemExit

    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.telemetry.attach("leave", ("slipstream", "connection", "handle", "start"), leave)
        with pytest.raises(SystemExit) as raised:
            await client.push("room:1", "echo")
        assert raised.traceback[-1].name == "leave"
        client.stop()


async def test_a_push_is_a_span_from_the_asking_to_the_reply(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        ref = await client.push("room:1", "echo", {"n": 1})
        await client.push("room:1", "ignore", timeout=1)
        await client.until(("reply", "ignore", "PushTimeout"))
        client.stop()
    stops = [record for record in world.records if isinstance(record, ClientPushStop)]
    assert [(stop.outcome, stop.status, stop.response) for stop in stops] == [
        ("ok", "ok", {"n": 1}),
        ("timeout", None, None),
    ]
    assert stops[0].ref == ref
    assert stops[0].start.params == {"n": 1}


async def test_nothing_is_built_for_a_push_that_nobody_observes(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world:
        world.telemetry.detach("world")
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            await client.push("room:1", "echo", {"n": 1})
            with pytest.raises(SerializationError):
                await client.push("room:1", "echo", {1, 2})
            await client.until(("reply", "echo", {"n": 1}))
            client.stop()
    assert world.records == []


async def test_pushes_that_are_refused_leave_the_room_for_replies_as_it_is(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client, buffer=2):
        await client.until(("join", "room:1", 1))
        for _ in range(5):
            with pytest.raises(SerializationError):
                await client.push("room:1", "event", {1})
        await client.push("room:1", "echo", 1, timeout=1)
        await client.until(("reply", "echo", 1))
        client.stop()


async def test_a_callback_that_pushes_on_and_on_lets_others_run(autojump_clock: MockClock) -> None:
    passes, ran = 0, list[int]()

    async def push(channel: Channel, _: Any) -> None:
        before = passes
        for _ in range(50):
            await client.push(channel.topic, "echo")
        ran.append(passes - before)

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    client = Told("room:1", join=push)
    async with a_world() as world, running(world, client), trio.open_nursery() as nursery:
        nursery.start_soon(count)
        while not ran:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
        client.stop()
    assert ran[0] >= 49
