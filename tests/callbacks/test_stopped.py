"""Callers that get no answer are told why: the exception that ended the client is the cause of theirs."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.peers import World
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    NO_REPLY,
    Caller,
    ClientStopped,
    ConnectionLost,
    ConnectionRejected,
    SlowConsumer,
    Socket,
)
from slipstream_trio.testing.server import Refuse


async def never(_: Any, __: Caller) -> Any:
    return NO_REPLY


async def ended_calls(
    world: World, client: Told, end: Callable[..., Any], **options: Any
) -> tuple[list[ClientStopped], BaseException | None]:
    """Run a client, have two tasks call it, and let it end; returns what they are raised, and what it raised."""
    raised: list[ClientStopped] = []

    async def call() -> None:
        with pytest.raises(ClientStopped) as caught:
            await client.call("?", timeout=None)
        raised.append(caught.value)

    async with trio.open_nursery() as nursery:
        async with running(world, client, **options) as run:
            await wait_all_tasks_blocked()
            for _ in range(2):
                nursery.start_soon(call)
            await trio.sleep(1)
            await end(run)
    assert len(raised) == 2
    assert raised[0] is not raised[1]
    return raised, run.error


async def test_an_exception_of_a_callback_is_the_cause(autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise KeyError("a bug")

    async def end(_: Any) -> None:
        client.cast("fail")

    client = Told(cast=fail, call=never)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end)
    assert isinstance(error, KeyError)
    for stopped in raised:
        assert stopped.__cause__ is error
        assert str(stopped) == "Told has ended, as it failed with KeyError: 'a bug'"


async def test_so_is_that_of_the_call_itself(autojump_clock: MockClock) -> None:
    async def fail(_: Any, __: Caller) -> Any:
        raise ValueError

    client = Told(call=fail)
    async with a_world() as world, running(world, client) as run:
        with pytest.raises(ClientStopped, match=r"^Told has ended, as it failed with ValueError$") as caught:
            await client.call("?")
    assert caught.value.__cause__ is run.error


async def test_so_is_that_of_the_first_handle_connect(autojump_clock: MockClock) -> None:
    async def fail(_: Socket) -> None:
        raise ValueError("no")

    client = Told(connect=fail)
    async with a_world() as world, running(world, client) as run:
        with pytest.raises(ClientStopped) as caught:
            await client.call("?")
    assert caught.value.__cause__ is run.error
    assert isinstance(run.error, ValueError)


async def test_a_connection_that_is_lost_for_good_is_the_cause(autojump_clock: MockClock) -> None:
    async def end(_: Any) -> None:
        world.connection.close(4001)

    client = Told(call=never)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end, reconnect=None)
    assert isinstance(error, ConnectionLost)
    for stopped in raised:
        assert stopped.__cause__ is error
        assert str(stopped) == f"Told has ended, as it failed with ConnectionLost: {error}"
        assert "4001" in str(stopped)


async def test_so_is_the_refusal_that_ends_the_attempts(autojump_clock: MockClock) -> None:
    async def end(_: Any) -> None:
        world.upgrades.append(Refuse(403))
        world.connection.drop()

    client = Told(call=never)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end)
    assert isinstance(error, ConnectionRejected)
    assert [stopped.__cause__ for stopped in raised] == [error] * 2


async def test_so_are_messages_that_were_dropped(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(10)

    async def end(_: Any) -> None:
        client.cast("hold up")
        await trio.sleep(1)
        for number in range(5):
            await world.server.broadcast("room:1", "tick", {"n": number})

    client = Told("room:1", cast=hold_up, call=never)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end, buffer=2)
    assert isinstance(error, SlowConsumer)
    assert [stopped.__cause__ for stopped in raised] == [error] * 2


@pytest.mark.parametrize("nested", [False, True])
async def test_a_cancellation_is_the_cause(nested: bool, autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        if not nested:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    async def end(run: Any) -> None:
        client.cast("wait")
        await trio.sleep(1)
        run.scope.cancel()

    client = Told(cast=wait, call=never)
    async with a_world() as world:
        raised, _ = await ended_calls(world, client, end)
    for stopped in raised:
        assert isinstance(stopped.__cause__, trio.Cancelled | BaseExceptionGroup)
        assert str(stopped) == "Told has ended, as it was cancelled"


@pytest.mark.parametrize("how", ["stop", "disconnect"])
async def test_a_client_that_was_asked_to_end_has_no_cause(how: str, autojump_clock: MockClock) -> None:
    async def end(_: Any) -> None:
        if how == "stop":
            client.stop()
        else:
            await client.disconnect()

    client = Told(call=never)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end)
    assert error is None
    for stopped in raised:
        assert stopped.__cause__ is None
        assert "Told does not run" in str(stopped)


@pytest.mark.parametrize("before", ["a stop", "a cancellation"])
async def test_what_terminate_raises_is_the_cause_where_it_ends_the_client(
    before: str, autojump_clock: MockClock
) -> None:
    async def fail(_: Any) -> None:
        raise ValueError("cannot clean up")

    async def end(run: Any) -> None:
        if before == "a stop":
            client.stop()
        else:
            run.scope.cancel()

    client = Told(call=never, terminate=fail)
    async with a_world() as world:
        raised, error = await ended_calls(world, client, end)
    assert isinstance(error, ValueError)
    assert [stopped.__cause__ for stopped in raised] == [error] * 2


async def test_those_who_come_later_are_told_too(autojump_clock: MockClock) -> None:
    async def fail(_: Socket) -> None:
        raise ValueError("no")

    client = Told(connect=fail)
    async with a_world() as world, running(world, client) as run:
        await run.ended.wait()
    for ask in (client.cast, client.info):
        with pytest.raises(ClientStopped, match="ValueError: no") as caught:
            ask("?")
        assert caught.value.__cause__ is run.error
    for operation in (lambda: client.call("?"), lambda: client.push("room:1", "x"), lambda: client.join("room:1")):
        with pytest.raises(ClientStopped, match="ValueError: no"):
            await operation()


async def test_an_answer_that_was_given_before_counts(autojump_clock: MockClock) -> None:
    async def answer_and_fail(_: Any, caller: Caller) -> Any:
        caller.reply(42)
        raise ValueError("too late")

    client = Told(call=answer_and_fail)
    async with a_world() as world, running(world, client) as run:
        assert await client.call("?") == 42
    assert isinstance(run.error, ValueError)
