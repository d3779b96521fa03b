"""Callbacks are called one at a time, in the order in which things happened."""

from typing import Any

import trio
from tests.callbacks.support import Told, a_world, running
from trio.testing import MockClock

from slipstream_trio import Channel, ConnectionRejected, Message, Socket
from slipstream_trio.testing.server import Refuse


async def test_a_life_with_a_loss_in_it(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        await world.server.broadcast("room:1", "tick", {"n": 1})
        await client.until(("message", "tick", 1))
        world.connection.close(1012)
        await client.until(("gap", "room:1", "reconnected", 0))
        await world.server.broadcast("room:1", "tick", {"n": 2})
        await client.until(("message", "tick", 2))
        await client.disconnect()
    assert run.error is None
    assert client.log == [
        "connect",
        ("join", "room:1", 1),
        ("message", "tick", 1),
        ("disconnect", "ConnectionLost", "closed_by_server", 1012),
        "connect",
        ("join", "room:1", 2),
        ("gap", "room:1", "reconnected", 0),
        ("message", "tick", 2),
        ("disconnect", "ConnectionLost", "disconnected"),
        ("terminate", None),
    ]


async def test_failed_attempts_are_told_before_the_first_connection(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world:
        world.upgrades.extend([OSError("nobody there"), Refuse(503)])
        async with running(world, client):
            await client.until("connect")
            assert trio.current_time() == 3
            client.stop()
    assert client.log == [
        ("disconnect", "ConnectError", "no connection: nobody there"),
        ("disconnect", "ConnectionRejected", str(ConnectionRejected(503)), 503),
        "connect",
        ("terminate", None),
    ]


async def test_a_channel_that_crashes_is_joined_again(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "crash")
        await client.until(("gap", "room:1", "rejoined", 0))
        assert trio.current_time() == 1
        client.stop()
    assert client.log[2:] == [
        ("reply", "crash", "ChannelClosed"),
        ("topic_close", "room:1", "crashed"),
        ("join", "room:1", 2),
        ("gap", "room:1", "rejoined", 0),
        ("terminate", None),
    ]


async def test_a_reply_stands_between_the_messages_around_it(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "tick, reply, tock")
        await client.until(("message", "tock"))
        client.stop()
    assert client.log[2:] == [
        ("message", "tick"),
        ("reply", "tick, reply, tock", {}),
        ("message", "tock"),
        ("terminate", None),
    ]


async def test_pushes_in_flight_end_before_the_disconnect_is_told(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "ignore")
        await client.push("room:1", "drop")
        await client.until(("join", "room:1", 2))
        client.stop()
    assert client.log[2:6] == [
        ("reply", "ignore", "ConnectionLost"),
        ("reply", "drop", "ConnectionLost"),
        ("disconnect", "ConnectionLost", "lost", 1006),
        "connect",
    ]


async def test_only_one_callback_runs_at_a_time(autojump_clock: MockClock) -> None:
    inside = 0

    async def slowly(*_: Any) -> None:
        nonlocal inside
        assert inside == 0
        inside += 1
        await trio.sleep(1)
        inside -= 1

    client = Told("room:1", message=slowly, info=slowly, connect=slowly, join=slowly)
    async with a_world() as world, running(world, client):
        client.info("early")
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "burst", {"n": 3})
        client.info("late")
        await client.until(("reply", "burst", {"n": 3}))
        client.stop()
    assert client.log.index(("info", "late")) < client.log.index(("message", "tick", 0))


async def test_the_connection_is_served_while_a_callback_waits(autojump_clock: MockClock) -> None:
    async def hold_up(*_: Any) -> None:
        await trio.sleep(600)

    client = Told("room:1", info=hold_up)
    async with a_world() as world, running(world, client, heartbeat_interval=5, heartbeat_timeout=5):
        await client.until(("join", "room:1", 1))
        client.info("hold up")
        await trio.sleep(599)
        assert client.socket is not None
        assert client.socket.generation == 1
        assert await client.socket.ping() < 1
        await world.server.broadcast("room:1", "tick", {"n": 1})
        await client.until(("message", "tick", 1))
        assert trio.current_time() == 600
        client.stop()


async def test_a_callback_may_await_what_the_server_answers(autojump_clock: MockClock) -> None:
    async def ask(channel: Channel, _: Any) -> None:
        client.note(await channel.push("echo", {"n": 5}))

    client = Told("room:1", join=ask)
    async with a_world() as world, running(world, client):
        await client.until({"n": 5})
        client.stop()


async def test_callbacks_that_never_wait_let_other_tasks_run(autojump_clock: MockClock) -> None:
    count = 0

    async def again(_: Any) -> None:
        nonlocal count
        count += 1
        client.info("again")

    client = Told(info=again)
    async with a_world() as world, running(world, client):
        client.info("first")
        while count < 3000:
            await trio.lowlevel.checkpoint()
        client.stop()
    assert count >= 3000


async def test_a_callback_gets_the_same_socket_and_channel_each_time(autojump_clock: MockClock) -> None:
    sockets: set[Socket] = set()
    channels: set[Channel] = set()

    async def connected(socket: Socket) -> None:
        sockets.add(socket)

    async def joined(channel: Channel, _: Any) -> None:
        channels.add(channel)

    async def received(channel: Channel, _: Message) -> None:
        channels.add(channel)

    client = Told("room:1", connect=connected, join=joined, message=received)
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.connection.drop()
        await client.until(("gap", "room:1", "reconnected", 0))
        await world.server.broadcast("room:1", "tick", {"n": 2})
        await client.until(("message", "tick", 2))
        assert sockets == {client.socket}
        client.stop()
    assert len(channels) == 1
    assert client.socket is None
