"""How a client ends by an exception, or by a cancellation."""

from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.peers import World
from trio.testing import MockClock

from slipstream_trio import (
    Channel,
    ConnectionLost,
    SlipstreamError,
)


def terminations(client: Told) -> list[Any]:
    return [entry[1] for entry in client.log if entry[0] == "terminate"]


# By an exception


@pytest.mark.parametrize("callback", ["connect", "join", "message", "reply", "info", "cast", "call", "gap"])
async def test_an_exception_of_a_callback_leaves_run_client_unchanged(callback: str, autojump_clock: MockClock) -> None:
    error = KeyError("a bug")

    async def fail(*_: Any) -> None:
        raise error

    client = Told("room:1", **{callback: fail})
    async with a_world() as world, running(world, client) as run, trio.open_nursery() as nursery:
        nursery.start_soon(_provoke, world, client, run.ended)
    assert run.error is error
    assert terminations(client) == ["KeyError"]
    assert error.__context__ is None


async def _provoke(world: World, client: Told, ended: trio.Event) -> None:
    """Let every callback be called."""
    client.info("x")
    client.cast("x")
    try:
        await client.call("x")
        await client.until(("join", "room:1", 1), timeout=5)
        await client.push("room:1", "burst", {"n": 1})
        await trio.sleep(1)
        for connection in world.server.connections:
            connection.drop()
    except (SlipstreamError, trio.TooSlowError):
        pass
    with trio.fail_after(50):
        await ended.wait()


async def test_what_terminate_raises_after_an_exception_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise KeyError("first")

    async def fail_again(_: Any) -> None:
        raise ValueError("second")

    client = Told(connect=fail, terminate=fail_again)
    async with a_world() as world, running(world, client) as run:
        pass
    assert isinstance(run.error, KeyError)
    assert "ValueError: second" in caplog.text


async def test_what_terminate_raises_otherwise_leaves_run_client(autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise ValueError("only")

    client = Told(terminate=fail)
    client.stop()
    async with a_world() as world, running(world, client) as run:
        pass
    assert isinstance(run.error, ValueError)
    assert terminations(client) == [None]


async def test_the_error_of_an_awaited_push_ends_the_client_while_it_reconnects(autojump_clock: MockClock) -> None:
    async def wait_for_a_reply(channel: Channel, _: Any) -> None:
        await channel.push("drop")

    client = Told("room:1", join=wait_for_a_reply)
    async with a_world() as world, running(world, client) as run:
        pass
    assert isinstance(run.error, ConnectionLost)
    assert run.error.sent
    assert terminations(client) == ["ConnectionLost"]


async def test_a_group_of_exceptions_stays_as_the_callback_raised_it(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("the user's", [KeyError("one"), ValueError("two")])

    async def fail(_: Any) -> None:
        raise group

    client = Told(connect=fail)
    async with a_world() as world, running(world, client) as run:
        pass
    assert run.error is group


# By a cancellation


async def test_a_cancellation_terminates_first(autojump_clock: MockClock) -> None:
    async def take_time(_: Any) -> None:
        await trio.sleep(1)
        client.note("terminated")

    client = Told("room:1", terminate=take_time)
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        run.scope.cancel()
    assert run.error is None
    assert run.scope.cancelled_caught
    assert client.log[-2:] == [("terminate", "Cancelled"), "terminated"]
    assert trio.current_time() == 1


async def test_a_cancellation_reaches_the_callback_that_runs(autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            client.note("cancelled")

    client = Told(connect=wait)
    async with a_world() as world, running(world, client) as run:
        await client.until("connect")
        run.scope.cancel()
    assert client.log == ["connect", "cancelled", ("terminate", "Cancelled")]


async def test_terminate_has_no_more_than_close_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(_: Any) -> None:
        await trio.sleep_forever()

    client = Told(terminate=hang)
    async with a_world() as world, running(world, client, close_timeout=3) as run:
        await client.until("connect")
        run.scope.cancel()
    assert trio.current_time() == 3
    assert "Told.terminate took longer than close_timeout" in caplog.text


async def test_what_terminate_raises_wins_over_a_cancellation(autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise ValueError("cannot clean up")

    client = Told(terminate=fail)
    async with a_world() as world, running(world, client) as run:
        await client.until("connect")
        run.scope.cancel()
    assert isinstance(run.error, ValueError)


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_cancellation_at_any_checkpoint_leaves_nothing_behind(turns: int, autojump_clock: MockClock) -> None:
    async def ask(channel: Channel, _: Any) -> None:
        await client.push(channel.topic, "echo", {"n": 1})

    client = Told("room:1", join=ask)
    async with a_world() as world, running(world, client) as run:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        run.scope.cancel()
    assert run.error is None
    assert terminations(client) in (["Cancelled"], [])
    if client.log:
        assert client.log[-1] == ("terminate", "Cancelled")
