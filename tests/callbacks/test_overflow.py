"""Messages that come faster than callbacks handle them: bounded, and what is dropped is said."""

import gc
import sys
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.peers import World
from trio.testing import MockClock

from slipstream_trio import Channel, Client, SlowConsumer
from slipstream_trio.telemetry import BufferOverflowed, GapOpened


async def hold_up(*_: Any) -> None:
    await trio.sleep(60)


async def flood(world: World, topic: str, count: int) -> None:
    """Let messages come while a callback holds up the others."""
    for number in range(count):
        await world.server.broadcast(topic, "tick", {"n": number})
    await trio.sleep(1)


def blocks() -> int:
    """Return how many blocks of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()


def overflows(world: World, phase: str = "began") -> list[Any]:
    return [each for each in world.records if isinstance(each, BufferOverflowed) and each.phase == phase]


async def test_by_default_a_client_that_falls_behind_ends_where_messages_are_missing(
    autojump_clock: MockClock,
) -> None:
    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, buffer=3) as run:
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
    assert isinstance(run.error, SlowConsumer)
    assert (run.error.topic, run.error.dropped) == ("room:1", 2)
    assert client.log[3:] == [
        ("message", "tick", 0),
        ("message", "tick", 1),
        ("message", "tick", 2),
        ("terminate", "SlowConsumer"),
    ]
    [overflow] = overflows(world)
    assert (overflow.topic, overflow.policy, overflow.buffer, overflow.consumer) == ("room:1", "raise", 3, "client")


async def test_the_newest_are_dropped_and_it_is_said_in_their_place(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, buffer=3, overflow="drop_newest"):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
        await client.until(("gap", "room:1", "overflow", 2))
        await world.server.broadcast("room:1", "tick", {"n": 9})
        await client.until(("message", "tick", 9))
        client.stop()
    assert client.log[3:-1] == [
        ("message", "tick", 0),
        ("message", "tick", 1),
        ("message", "tick", 2),
        ("gap", "room:1", "overflow", 2),
        ("message", "tick", 9),
    ]
    assert "Told: 2 messages of 'room:1' were dropped" in caplog.text
    assert len(overflows(world)) == 1
    assert [record.dropped for record in overflows(world, "ended")] == [2]


async def test_the_oldest_are_dropped_and_it_is_said_in_their_place(autojump_clock: MockClock) -> None:
    client = Told("room:1", info=hold_up)
    channels: list[Channel] = []

    async def joined(channel: Channel, _: Any) -> None:
        channels.append(channel)

    client.on["join"] = joined
    async with a_world() as world, running(world, client, buffer=3, overflow="drop_oldest"):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
        assert channels[0].dropped == 2
        assert channels[0].last_gap is not None
        assert channels[0].last_gap.dropped == 2
        await client.until(("message", "tick", 4))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 4)
        await client.until(("message", "tick", 3), times=2)
        client.stop()
    assert client.log[3:-1] == [
        ("gap", "room:1", "overflow", 2),
        ("message", "tick", 2),
        ("message", "tick", 3),
        ("message", "tick", 4),
        ("info", "hold up"),
        ("gap", "room:1", "overflow", 1),
        ("message", "tick", 1),
        ("message", "tick", 2),
        ("message", "tick", 3),
    ]
    assert len(overflows(world)) == 2
    assert [(gap.reason, gap.dropped) for gap in world.records if isinstance(gap, GapOpened)] == [
        ("overflow", 2),
        ("overflow", 1),
    ]


async def test_gaps_with_messages_between_them_are_told_apart(autojump_clock: MockClock) -> None:
    async def slowly(*_: Any) -> None:
        await trio.sleep(10)

    client = Told("room:1", info=slowly, message=slowly)
    async with a_world() as world, running(world, client, buffer=2, overflow="drop_newest"):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 3)
        await client.until(("message", "tick", 0))
        await flood(world, "room:1", 3)
        await client.until(("message", "tick", 0), times=2)
        await client.until(("gap", "room:1", "overflow", 2))
        client.stop()
    assert client.log[3:-1] == [
        ("message", "tick", 0),
        ("message", "tick", 1),
        ("gap", "room:1", "overflow", 1),
        ("message", "tick", 0),
        ("gap", "room:1", "overflow", 2),
    ]
    assert len(overflows(world)) == 2


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_each_channel_has_its_own_bound_and_nothing_else_is_dropped(
    policy: Any, autojump_clock: MockClock
) -> None:
    client = Told("room:1", "room:2", info=hold_up)
    async with a_world() as world, running(world, client, buffer=3, overflow=policy):
        await client.until(("join", "room:2", 2))
        client.info("hold up")
        await trio.sleep(1)
        await world.server.broadcast("room:2", "tick", {"n": 100})
        await flood(world, "room:1", 50)
        await client.push("room:2", "echo", {"n": 5})
        await trio.sleep(1)
        await world.server.broadcast("room:2", "tick", {"n": 200})
        await client.until(("message", "tick", 200))
        client.stop()
    assert ("message", "tick", 100) in client.log
    assert ("reply", "echo", {"n": 5}) in client.log
    assert [entry for entry in client.log if entry[0] == "gap"] == [("gap", "room:1", "overflow", 47)]


@pytest.mark.once
async def test_what_waits_does_not_grow_with_what_is_dropped(autojump_clock: MockClock) -> None:
    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, buffer=3, overflow="drop_oldest"):
        world.telemetry.detach("world")
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 2000)
        held = blocks()
        await flood(world, "room:1", 2000)
        assert blocks() - held < 200
        await client.until(("message", "tick", 1999))
        client.stop()
    assert client.log[3:-1] == [
        ("gap", "room:1", "overflow", 3997),
        ("message", "tick", 1997),
        ("message", "tick", 1998),
        ("message", "tick", 1999),
    ]


@pytest.mark.once
async def test_a_burst_that_is_handled_at_once_drops_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipstream_trio.client.turn.CATCHING_UP", 60.0)  # also where the machine is busy

    class Quick(Client):
        count = 0

        async def handle_connect(self, socket: Any) -> None:
            await self.join("room:1")

        async def handle_join(self, channel: Channel, response: Any) -> None:
            await self.push("room:1", "burst", {"n": 5000})

        async def handle_message(self, channel: Channel, message: Any) -> None:
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            self.count += 1

        async def handle_reply(self, ref: str, reply: Any) -> None:
            self.stop()

    client = Quick()
    async with a_world() as world, running(world, client, buffer=800) as run:
        world.telemetry.detach("world")
    assert run.error is None
    assert client.count == 5000


async def test_losses_of_a_join_that_is_left_before_it_is_told_are_in_telemetry(autojump_clock: MockClock) -> None:
    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, buffer=2, overflow="drop_oldest"):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await client.leave("room:1")
        await trio.sleep(1)
        await client.join("room:1")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
        await client.leave("room:1")
        await trio.sleep(1)
        assert [record.dropped for record in world.records if isinstance(record, GapOpened)] == [3]
        await client.until(("leave", "room:1"))
        assert [entry for entry in client.log if entry[0] == "message"] == []
        client.stop()


async def test_messages_that_come_after_a_stop_are_nobodys(autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        await trio.sleep(1)

    client = Told("room:1", terminate=wait)
    async with a_world() as world, running(world, client, buffer=2):
        await client.until(("join", "room:1", 1))
        client.stop()
        await flood(world, "room:1", 5)
    assert client.log[2:] == [("terminate", None)]
    assert overflows(world) == []


@pytest.mark.parametrize("end", ["left", "crashed"])
async def test_an_overflow_ends_with_its_channel(end: str, autojump_clock: MockClock) -> None:
    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, buffer=2, overflow="drop_oldest", rejoin=None):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
        assert overflows(world, "ended") == []
        if end == "left":
            await client.leave("room:1")
        else:
            await client.push("room:1", "crash")
        await trio.sleep(1)
        assert [overflow.dropped for overflow in overflows(world, "ended")] == [3]
        client.stop()


async def test_an_overflow_lasts_until_half_of_what_waits_is_handled(autojump_clock: MockClock) -> None:
    async def slowly(*_: Any) -> None:
        await trio.sleep(10)

    client = Told("room:1", info=hold_up, message=slowly)
    async with a_world() as world, running(world, client, buffer=4, overflow="drop_oldest"):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 6)
        await client.until(("message", "tick", 2))
        assert overflows(world, "ended") == []
        await client.until(("message", "tick", 3))
        assert [overflow.dropped for overflow in overflows(world, "ended")] == [2]
        client.stop()


async def test_messages_that_come_after_a_stop_find_no_gap_of_before(autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        await trio.sleep(10)

    client = Told("room:1", info=hold_up, terminate=wait)
    async with a_world() as world, running(world, client, buffer=2, overflow="drop_oldest", close_timeout=20) as run:
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(1)
        await flood(world, "room:1", 5)
        client.stop()
        await flood(world, "room:1", 5)
    assert run.error is None
    assert client.log[2:] == [("info", "hold up"), ("terminate", None)]
    assert sum(overflow.dropped for overflow in overflows(world, "ended")) == 3
