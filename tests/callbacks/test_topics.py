"""Joining and leaving: asked for, and answered by callbacks."""

from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from trio.testing import MockClock, assert_checkpoints

from slipstream_trio import Channel, ClientStopped, ConnectionLost, JoinError, JoinTimeout, SerializationError, Socket
from slipstream_trio.telemetry import ClientLeaveStop


async def test_what_is_joined_already_is_left_as_it_is(autojump_clock: MockClock) -> None:
    client = Told("room:1", "room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        with assert_checkpoints():
            await client.join("room:1")
        await client.join("room:2")
        await client.until(("join", "room:2", 2))
        client.stop()
    assert world.payloads == [{"topic": "room:1"}, {}]


async def test_a_join_asked_for_before_there_is_a_connection_is_made_when_there_is(autojump_clock: MockClock) -> None:
    async def join(topic: str) -> None:
        await client.join(topic)

    client = Told(cast=join)
    client.cast("room:1")
    async with a_world() as world:
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            client.stop()
    assert client.log == [
        ("cast", "room:1"),
        ("disconnect", "ConnectError", "no connection: nobody there"),
        "connect",
        ("join", "room:1", 1),
        ("terminate", None),
    ]


async def test_a_refused_first_join_is_tried_again_by_the_back_off(autojump_clock: MockClock) -> None:
    async def refused(topic: str, reason: Exception) -> None:
        assert isinstance(reason, JoinError)
        assert reason.response == {"reason": "no"}
        times.append(trio.current_time())

    times: list[float] = []
    client = Told("room:1", topic_close=refused)
    async with a_world() as world:
        world.joins["room:1"].extend(["refuse"] * 3)
        async with running(world, client):
            await client.until(("join", "room:1", 4))
            assert trio.current_time() == 8
            client.stop()
    assert times == [0, 1, 3]
    assert client.log[1:4] == [("topic_close", "room:1", "JoinError")] * 3
    assert not [entry for entry in client.log if entry[0] == "gap"]


async def test_a_join_without_an_answer_is_tried_again(autojump_clock: MockClock) -> None:
    async def timed_out(_: str, reason: Exception) -> None:
        assert isinstance(reason, JoinTimeout)
        world.connection.drop()  # whose process hangs in that join

    client = Told("room:1", topic_close=timed_out)
    async with a_world() as world:
        world.joins["room:1"].append("hang")
        async with running(world, client, join_timeout=3):
            await client.until(("topic_close", "room:1", "JoinTimeout"))
            await client.until(("join", "room:1", 2))
            client.stop()


async def test_without_rejoin_a_refused_join_is_given_up(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world:
        world.joins["room:1"].append("refuse")
        async with running(world, client, rejoin=None):
            await client.until(("topic_close", "room:1", "JoinError"))
            await trio.sleep(100)
            assert len(world.payloads) == 1
            await client.join("room:1")
            await client.until(("join", "room:1", 2))
            client.stop()


async def test_a_join_that_is_under_way_when_the_connection_is_lost_is_made_with_the_next(
    autojump_clock: MockClock,
) -> None:
    client = Told("room:1")
    async with a_world() as world:
        world.joins["room:1"].append("hang")
        async with running(world, client):
            await client.until("connect")
            await trio.sleep(1)
            world.connection.drop()
            await client.until(("join", "room:1", 2))
            client.stop()
    assert client.log == [
        "connect",
        ("disconnect", "ConnectionLost", "lost", 1006),
        "connect",
        ("join", "room:1", 2),
        ("terminate", None),
    ]


async def test_a_function_gives_a_fresh_payload_for_each_rejoin(autojump_clock: MockClock) -> None:
    numbers = iter(range(10))

    async def payload() -> Any:
        return {"attempt": next(numbers)}

    async def connected(_: Socket) -> None:
        await client.join("room:1", payload)

    client = Told(connect=connected)
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.connection.close(1012)
        await client.until(("join", "room:1", 2))
        client.stop()
    assert world.payloads == [{"attempt": 0}, {"attempt": 1}]


async def test_a_payload_function_that_fails_is_told_and_asked_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 0

    def payload() -> Any:
        nonlocal attempts
        attempts += 1
        return {"attempt": attempts / (attempts - 1)}

    async def connected(_: Socket) -> None:
        await client.join("room:1", payload)

    client = Told(connect=connected)
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        client.stop()
    assert client.log[1] == ("topic_close", "room:1", "ZeroDivisionError")
    assert world.payloads == [{"attempt": 2}]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("payload", [{"a": {1, 2}}, b"binary"])
async def test_a_payload_that_cannot_be_sent_raises_at_once(payload: Any, autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        with pytest.raises(SerializationError):
            await client.join("room:1", payload)
        await client.join("room:1", {"a": 1})
        await client.until(("join", "room:1", 1))
        client.stop()


async def test_a_topic_is_left_and_can_be_joined_again(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.leave("room:1")
        await client.join("room:1")
        await client.until(("join", "room:1", 2))
        await client.leave("room:1")
        await client.until(("leave", "room:1"), times=2)
        client.stop()
    assert client.log[1:-1] == [
        ("join", "room:1", 1),
        ("leave", "room:1"),
        ("join", "room:1", 2),
        ("leave", "room:1"),
    ]


async def test_two_tasks_that_wait_to_join_the_same_topic_join_it_once(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.leave("room:1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.join, "room:1")
            nursery.start_soon(client.join, "room:1")
        await client.until(("join", "room:1", 2))
        await trio.sleep(100)
        assert len(world.payloads) == 2
        client.stop()


async def test_leaving_what_is_not_joined_does_nothing(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        with assert_checkpoints():
            await client.leave("room:1")
        await trio.sleep(10)
        assert client.log == ["connect"]
        client.stop()


@pytest.mark.parametrize("watched", [True, False])
async def test_leaving_ends_the_attempts_to_rejoin(watched: bool, autojump_clock: MockClock) -> None:
    async def leave(topic: str, _: Exception) -> None:
        await client.leave(topic)

    client = Told("room:1", topic_close=leave)
    async with a_world() as world:
        if not watched:
            world.telemetry.detach("world")
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            await client.push("room:1", "crash")
            await client.until(("leave", "room:1"))
            await trio.sleep(100)
            assert len(world.payloads) == 1
            client.stop()


async def test_a_leave_that_the_client_does_not_live_to_see_confirmed_is_a_whole_span(
    autojump_clock: MockClock,
) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client, leave_timeout=None, close_timeout=1) as run:
        await client.until(("join", "room:1", 1))
        world.connection.pause_reading()
        await client.leave("room:1")
        run.scope.cancel()
        await run.ended.wait()
        world.connection.drop()
    [stop] = [record for record in world.records if isinstance(record, ClientLeaveStop)]
    assert stop.outcome in ("cancelled", "ok", "lost")


async def test_leaving_without_telemetry_is_told_too(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world:
        world.telemetry.detach("world")
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            await client.leave("room:1")
            await client.until(("leave", "room:1"))
            client.stop()


async def test_a_leave_that_the_connection_does_not_outlive_is_complete(autojump_clock: MockClock) -> None:
    async def leave_and_lose(channel: Channel, _: Any) -> None:
        await client.leave(channel.topic)
        world.connection.drop()

    client = Told("room:1", join=leave_and_lose)
    client.topics = ()

    async def connected(_: Socket) -> None:
        if not world.payloads:
            await client.join("room:1")

    client.on["connect"] = connected
    async with a_world() as world, running(world, client):
        await client.until("connect", times=2)
        await trio.sleep(100)
        client.stop()
    assert client.log == [
        "connect",
        ("join", "room:1", 1),
        ("leave", "room:1"),
        ("disconnect", "ConnectionLost", "lost", 1006),
        "connect",
        ("terminate", None),
    ]


async def test_a_topic_that_the_server_closes_is_not_joined_again(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "stop")
        await client.until(("topic_close", "room:1", "closed"))
        await trio.sleep(100)
        assert len(world.payloads) == 1
        client.stop()


async def test_a_channel_of_a_client_is_not_for_iterating(autojump_clock: MockClock) -> None:
    async def joined(channel: Channel, _: Any) -> None:
        with pytest.raises(RuntimeError, match="handle_message"):
            aiter(channel)
        with pytest.raises(RuntimeError, match="handle_message"):
            channel.stream()
        async with channel.subscribe("tick") as ticks:
            await channel.push("burst", {"n": 1})
            client.note(await anext(ticks))

    client = Told("room:1", join=joined)
    async with a_world() as world, running(world, client):
        await client.until(("message", "tick", 0))
        client.stop()


async def test_channels_of_ones_own_stay_so(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        assert client.socket is not None
        async with client.socket.join("room:1") as channel:
            await channel.push("burst", {"n": 1})
            assert (await anext(aiter(channel))).payload == {"n": 0}
        client.stop()
    assert client.log == ["connect", ("terminate", None)]


async def test_the_socket_is_there_before_its_first_connection(autojump_clock: MockClock) -> None:
    async def look(_: Any) -> None:
        assert client.socket is not None
        assert client.socket.status == "connecting"
        with pytest.raises(RuntimeError, match="wait_connected"):
            _ = client.socket.connection_id
        client.note("looked")

    client = Told(info=look)
    client.info("look")
    async with a_world() as world, running(world, client, trace_parent=_slow_trace_parent):
        await client.until("looked")
        assert client.socket is not None
        await client.socket.wait_connected()
        assert client.socket.generation == 1
        client.stop()


async def _slow_trace_parent() -> None:
    await trio.sleep(1)


async def test_what_needs_a_running_client_says_so(autojump_clock: MockClock) -> None:
    client = Told()
    assert client.socket is None
    for operation in (
        lambda: client.join("room:1"),
        lambda: client.leave("room:1"),
        lambda: client.push("room:1", "x"),
        client.disconnect,
    ):
        with pytest.raises(ClientStopped, match="Told does not run"):
            await operation()


async def test_a_join_after_a_disconnect_raises(autojump_clock: MockClock) -> None:
    async def join(_: Exception) -> None:
        with pytest.raises(ConnectionLost, match="disconnected"):
            await client.join("room:1")
        client.note("raised")

    client = Told(disconnect=join)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        await client.disconnect()
    assert "raised" in client.log
