"""Calls made before the first `handle_connect` wait for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.client.support import URL, Scripted
from tests.peers import World
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Caller,
    CallTimeout,
    ClientStopped,
    ConnectError,
    JoinTimeout,
    Socket,
    run_client,
)
from slipstream_trio.transport import OpenRequest


async def same(message: Any, _: Caller) -> Any:
    return message


def names(client: Told) -> list[str]:
    """Return the names of the callbacks that were called."""
    return [entry if isinstance(entry, str) else entry[0] for entry in client.log]


class Asking:
    """Tasks that call a client, and what became of their calls."""

    def __init__(self, nursery: trio.Nursery, client: Told) -> None:
        self.ends: dict[Any, Any] = {}
        self._nursery = nursery
        self._client = client

    async def call(self, message: Any, **options: Any) -> None:
        """Call in a task, which is waiting when this returns."""

        async def call() -> None:
            try:
                self.ends[message] = await self._client.call(message, **options)
            except (CallTimeout, ClientStopped) as error:
                self.ends[message] = error

        self._nursery.start_soon(call)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def asking(client: Told) -> AsyncIterator[tuple[World, Asking]]:
    """Have a world, and tasks that call."""
    async with a_world() as world, trio.open_nursery() as nursery:
        yield world, Asking(nursery, client)


@pytest.mark.parametrize("when", ["before the run", "while connecting", "both"])
async def test_calls_wait_for_the_first_connection_in_their_order(when: str, autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        world.upgrades.append(OSError("nobody there"))
        if when != "while connecting":
            for number in range(3):
                await ask.call(number)
        async with running(world, client):
            await trio.sleep(0.5)
            if when != "before the run":
                for number in range(3, 6):
                    await ask.call(number)
            assert ask.ends == {}
            await trio.sleep(1)
            client.stop()
    numbers = [entry[1] for entry in client.log if entry[0] == "call"]
    assert numbers == sorted(ask.ends)
    assert ask.ends == {number: number for number in numbers}
    assert len(numbers) == (6 if when == "both" else 3)
    assert client.log.index("connect") < client.log.index(("call", numbers[0]))


async def test_they_are_handled_right_after_handle_connect(autojump_clock: MockClock) -> None:
    async def connected(_: Socket) -> None:
        client.cast("cast while connecting")
        await ask.call("later")

    client = Told("room:1", connect=connected, call=same)
    async with asking(client) as (world, ask):
        await ask.call("early")
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            client.stop()
    assert client.log[:-1] == [
        "connect",
        ("call", "early"),
        ("cast", "cast while connecting"),
        ("call", "later"),
        ("join", "room:1", 1),
    ]


async def test_a_call_waits_until_handle_connect_has_returned(autojump_clock: MockClock) -> None:
    async def take_time(_: Socket) -> None:
        await trio.sleep(3)
        client.note("ready")

    client = Told(connect=take_time, call=same)
    async with asking(client) as (world, ask):
        async with running(world, client):
            assert await client.call("?") == "?"
            assert trio.current_time() == 3
            client.stop()
    assert ask.ends == {}
    assert client.log == ["connect", "ready", ("call", "?"), ("terminate", None)]


async def test_casts_and_infos_do_not_wait(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client):
            await trio.sleep(0.5)
            await ask.call("?")
            client.cast(1)
            client.info(2)
            await client.until(("call", "?"))
            client.stop()
    assert names(client) == ["disconnect", "cast", "info", "connect", "call", "terminate"]


async def test_a_call_times_out_while_it_waits_and_is_not_handled_after_that(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        world.upgrades.extend([OSError("nobody there")] * 4)  # for 11 s
        async with running(world, client):
            await ask.call("patient", timeout=None)
            with pytest.raises(CallTimeout):
                await client.call("by default")
            assert trio.current_time() == 5
            with pytest.raises(CallTimeout):
                await client.call("shortly", timeout=2)
            with trio.move_on_after(1):
                await client.call("cancelled", timeout=None)
            await client.until(("call", "patient"))
            client.stop()
    assert [entry for entry in client.log if entry[0] == "call"] == [("call", "patient")]


async def test_a_connection_that_ends_before_it_is_told_does_not_count(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(0.5)
        world.upgrades.extend([OSError("nobody there")] * 2)
        world.connection.drop()
        await trio.sleep(0.5)

    client = Told(info=hold_up, call=same)
    client.info("hold up")
    async with asking(client) as (world, ask):
        async with running(world, client):
            await ask.call("?", timeout=None)
            await client.until(("call", "?"))
            client.stop()
    assert names(client) == ["info", "disconnect", "disconnect", "disconnect", "connect", "call", "terminate"]


async def test_later_calls_need_no_connection(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, _), running(world, client):
        await client.until("connect")
        world.upgrades.extend([OSError("nobody there")] * 4)
        world.connection.drop()
        await trio.sleep(2)
        before = trio.current_time()
        assert await client.call("?") == "?"
        assert trio.current_time() == before
        client.stop()


# A client that ends before


async def test_a_client_that_never_gets_a_connection_says_why(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        await ask.call("before", timeout=None)
        world.upgrades.extend([OSError("nobody there")] * 3)
        async with running(world, client, reconnect=Backoff((1,), limit=2)) as run:
            await trio.sleep(0.5)
            await ask.call("while", timeout=None)
    assert isinstance(run.error, ConnectError)
    assert set(ask.ends) == {"before", "while"}
    for end in ask.ends.values():
        assert isinstance(end, ClientStopped)
        assert end.__cause__ is run.error
        assert "nobody there" in str(end)


async def test_a_client_that_is_stopped_while_it_connects_ends_its_calls(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        await ask.call("before", timeout=None)
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client):
            await trio.sleep(0.5)
            await ask.call("while", timeout=None)
            client.stop()
    assert [type(end) for end in ask.ends.values()] == [ClientStopped] * 2
    assert "connect" not in client.log


async def test_a_client_that_is_disconnected_while_it_connects_ends_its_calls(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client):
            await trio.sleep(0.5)
            await ask.call("?", timeout=None)
            await client.disconnect()
    assert [type(end) for end in ask.ends.values()] == [ClientStopped]


async def test_a_client_that_is_stopped_before_it_runs_ends_its_calls_at_once(autojump_clock: MockClock) -> None:
    client = Told(call=same)
    async with asking(client) as (world, ask):
        await ask.call("before", timeout=None)
        client.stop()
        await wait_all_tasks_blocked()
        assert [type(end) for end in ask.ends.values()] == [ClientStopped]
        with pytest.raises(ClientStopped):
            await client.call("after")
        await world.run_client(client)
    assert client.log == [("terminate", None)]


async def test_each_run_has_its_first_connection(autojump_clock: MockClock) -> None:
    async def connected(_: Socket) -> None:
        if client.log.count("connect") == 1:
            client.stop()

    client = Told(connect=connected, call=same)
    async with asking(client) as (world, ask):
        await world.run_client(client)
        with pytest.raises(ClientStopped):
            await client.call("between")
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client):
            await trio.sleep(0.5)
            await ask.call("?")
            assert ask.ends == {}
            await client.until(("call", "?"))
            client.stop()
    assert ask.ends == {"?": "?"}
    assert client.log.index(("call", "?")) > len(client.log) - 3
    assert client.log.count("connect") == 2


async def test_a_limit_that_is_set_as_the_client_begins_holds(autojump_clock: MockClock) -> None:
    async def never(_: OpenRequest) -> None:
        await trio.sleep_forever()

    for _ in range(20):  # by then the task that joins has run before the one that connects
        client = Told()
        async with trio.open_nursery() as nursery:
            connector = Scripted(opening=never)
            nursery.start_soon(partial(run_client, client, URL, transport=connector, connect_timeout=None))
            while client.socket is None:
                await trio.lowlevel.checkpoint()
            began = trio.current_time()
            with trio.fail_after(20), pytest.raises(JoinTimeout):
                await client.socket.channel("room").join(timeout=1)
            assert trio.current_time() - began == pytest.approx(1)
            nursery.cancel_scope.cancel()
