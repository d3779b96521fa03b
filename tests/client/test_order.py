"""Pushes and sends that wait leave in the order of their calls."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import ChannelClosed, ConnectionLost, PushTimeout, Socket, connect
from slipstream_trio.protocol import PushMessage
from slipstream_trio.telemetry import HandleStart, Record, Telemetry
from slipstream_trio.testing.kit import Answer, FakeConnection, FakeServer

ANSWERS: Final[frozenset[Answer]] = frozenset({"connect", "leave", "heartbeat", "push"})


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[FakeServer, FakeConnection, Socket]]:
    """Connect to a server that answers everything but joins."""
    async with FakeServer(answers=ANSWERS) as server:
        async with connect(server.url, transport=server.connector(), **options) as socket:
            yield server, await server.accept(), socket


def pushed(connection: FakeConnection) -> list[int]:
    return [message.payload["n"] for message in connection.messages if message.event == "n"]


@pytest.mark.parametrize("operation", ["push", "send"])
@pytest.mark.parametrize("reconnecting", [True, False])
async def test_calls_that_waited_for_a_join_leave_in_their_order(
    operation: str, reconnecting: bool, autojump_clock: MockClock
) -> None:
    async with connected(push_timeout=100) as (server, first, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        connection, join = first, await first.expect_join()
        if reconnecting:
            await join.reply_ok()
            await trio.sleep(0.1)
            await first.drop()
            connection = await server.accept()
            join = await connection.expect_join()
        for number in range(20):
            nursery.start_soon(getattr(channel, operation), "n", {"n": number})
            await wait_all_tasks_blocked()
        await join.reply_ok()
        await trio.sleep(1)
        assert pushed(connection) == list(range(20))


CALLER: Final[ContextVar[int]] = ContextVar("caller")


async def test_a_push_that_waited_is_handled_in_the_context_of_its_call(autojump_clock: MockClock) -> None:
    telemetry, seen = Telemetry(), list[tuple[int, int]]()

    def see(record: Record) -> None:
        if isinstance(record, HandleStart) and isinstance(record.raw_message, PushMessage):
            seen.append((record.raw_message.payload["n"], CALLER.get()))

    telemetry.attach("see", HandleStart.name, see)
    async with connected(telemetry=telemetry) as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        join = await connection.expect_join()

        async def push(number: int) -> None:
            CALLER.set(number)
            await channel.push("n", {"n": number})

        for number in range(100):
            nursery.start_soon(push, number)
        await wait_all_tasks_blocked()
        await join.reply_ok()
        await wait_all_tasks_blocked()
    assert sorted(seen) == [(number, number) for number in range(100)]


async def test_a_handler_that_exits_in_a_push_that_waited_ends_its_call_alone(autojump_clock: MockClock) -> None:
    telemetry = Telemetry()

    def leave(record: Record) -> None:
        if isinstance(record, HandleStart) and getattr(record.raw_message, "event", "") == "exit":
            raise SystemExit(3)

    telemetry.attach("leave", HandleStart.name, leave)
    async with connected(telemetry=telemetry) as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        join = await connection.expect_join()
        exits = list[object]()

        async def push() -> None:
            with pytest.raises(SystemExit) as raised:
                await channel.push("exit", {})
            exits.append(raised.value.code)

        nursery.start_soon(push)
        await wait_all_tasks_blocked()
        nursery.start_soon(channel.push, "n", {"n": 1})
        await wait_all_tasks_blocked()
        await join.reply_ok()
        await wait_all_tasks_blocked()
        assert exits == [3]
        assert pushed(connection) == [1]


async def test_a_call_made_later_does_not_overtake_those_that_wait(autojump_clock: MockClock) -> None:
    async with connected(push_timeout=100) as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        join = await connection.expect_join()
        for number in range(5):
            nursery.start_soon(channel.push, "n", {"n": number})
            await wait_all_tasks_blocked()

        async def push_once_joined() -> None:
            while channel.status != "joined":
                await trio.lowlevel.checkpoint()
            for number in range(5, 8):
                await channel.send("n", {"n": number})

        nursery.start_soon(push_once_joined)
        await join.reply_ok()
        await trio.sleep(1)
        assert pushed(connection) == list(range(8))


async def test_room_in_the_queue_is_given_in_the_order_of_the_calls(autojump_clock: MockClock) -> None:
    async with connected(push_timeout=None) as (_, connection, socket), trio.open_nursery() as nursery:
        channels = [socket.channel(f"room:{number}") for number in range(3)]
        for channel in channels:
            nursery.start_soon(channel.join)
            await (await connection.expect_join(channel.topic)).reply_ok()
        await trio.sleep(0.1)
        partition = connection.partition()
        number = 0
        # The first fills the pipe, the others the queue of 1 MiB; those that follow wait for room.
        for size in [2**20] * 3 + [10] * 60:
            nursery.start_soon(channels[number % 3].send, "n", {"n": number, "x": "x" * size})
            await wait_all_tasks_blocked()
            number += 1
        del partition
        connection.heal()
        await trio.sleep(1)
        assert pushed(connection) == list(range(number))


async def test_a_waiting_call_that_is_cancelled_or_times_out_holds_up_nobody(autojump_clock: MockClock) -> None:
    async with connected(push_timeout=100) as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        join = await connection.expect_join()

        async def impatient(number: int) -> None:
            with pytest.raises(PushTimeout):
                await channel.push("n", {"n": number}, timeout=1)

        async def cancelled(number: int) -> None:
            with trio.move_on_after(1):
                await channel.push("n", {"n": number})

        for number, operation in enumerate([impatient, cancelled, None, impatient, None, cancelled, None]):
            if operation is None:
                nursery.start_soon(channel.push, "n", {"n": number})
            else:
                nursery.start_soon(operation, number)
            await wait_all_tasks_blocked()
        await trio.sleep(5)
        await join.reply_ok()
        await trio.sleep(1)
        assert pushed(connection) == [2, 4, 6]


async def test_a_leave_goes_behind_what_is_queued_and_ends_what_waits_for_room(autojump_clock: MockClock) -> None:
    async with connected(push_timeout=None) as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        await (await connection.expect_join()).reply_ok()
        await trio.sleep(0.1)
        connection.partition()
        ended: list[str] = []

        async def send(number: int, size: int) -> None:
            try:
                await channel.send("n", {"n": number, "x": "x" * size})
            except ChannelClosed as error:
                ended.append(error.reason)

        for number in range(6):
            nursery.start_soon(send, number, 2**20)
            await wait_all_tasks_blocked()
        channel.leave_soon()
        await wait_all_tasks_blocked()
        connection.heal()
        await connection.expect_leave()
        waited = len(ended)
        assert waited > 0
        assert ended == ["left"] * waited
        assert pushed(connection) == list(range(6 - waited))


async def test_calls_that_wait_when_the_connection_ends_for_good_are_told_so(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, trio.open_nursery() as nursery:
        ended: list[bool] = []

        async def push() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await channel.push("n", {})
            ended.append(caught.value.sent)

        with pytest.raises(ConnectionLost):
            async with connect(server.url, transport=server.connector(), reconnect=None) as socket:
                connection = await server.accept()
                channel = socket.channel("room:1")
                nursery.start_soon(join_or_lose, channel)
                await connection.expect_join()
                for _ in range(3):
                    nursery.start_soon(push)
                await wait_all_tasks_blocked()
                await connection.drop()
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert ended == [False] * 3


async def join_or_lose(channel: object) -> None:
    with pytest.raises(ConnectionLost):
        await channel.join()  # type: ignore[attr-defined]


async def test_a_call_whose_join_was_left_is_not_made_at_the_next_one(autojump_clock: MockClock) -> None:
    async with connected() as (_, connection, socket), trio.open_nursery() as nursery:
        channel = socket.channel("room:1")

        async def fails(operation: Callable[..., Awaitable[object]], *arguments: Any) -> None:
            with pytest.raises(ChannelClosed):
                await operation(*arguments)

        nursery.start_soon(fails, channel.join)
        await connection.expect_join()
        nursery.start_soon(fails, channel.push, "n", {"n": 1})
        await wait_all_tasks_blocked()
        await channel.leave()
        nursery.start_soon(channel.join)
        await (await connection.expect_join()).reply_ok()
        await channel.push("n", {"n": 2})
        assert pushed(connection) == [2]
