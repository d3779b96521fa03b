"""Pushes and joins of a client leave in the order of the calls, whichever tasks make them."""

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told
from tests.client.support import URL, Scripted
from tests.scheduling import in_any_order, play
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, Client, ConnectionLost, Reply, Socket, run_client
from slipstream_trio.testing.kit import Answer, FakeConnection, FakeServer

ALL: tuple[Answer, ...] = ("connect", "join", "leave", "heartbeat", "push")
SOON = Backoff((1,), jitter=0)


class Joining(Told):
    """Takes any answer to a join."""

    async def handle_join(self, channel: Channel, response: Any) -> None:
        pass


class Callers:
    """Tasks that push through one client, and the order in which they did."""

    def __init__(self, client: Client) -> None:
        self.calls: dict[str, list[int]] = {}
        self.count = 0
        self._client = client

    async def push(self, topic: str, **options: Any) -> None:
        """Push the number of this call."""
        self.count += 1
        number = self.count
        self.calls.setdefault(topic, []).append(number)
        await self._client.push(topic, "n", {"n": number}, **options)


def arrived(connection: FakeConnection, topic: str) -> list[int]:
    """Return the numbers that were pushed on a topic, as they came."""
    return [message.payload["n"] for message in connection.messages if message[2:4] == (topic, "n")]


async def start(nursery: trio.Nursery, server: FakeServer, client: Client, **options: Any) -> FakeConnection:
    """Run a client, and return its first connection."""

    async def run() -> None:
        given = {"transport": server.connector(), "reconnect": SOON, "rejoin": SOON, **options}
        await run_client(client, server.url, **given)

    nursery.start_soon(run)
    return await server.accept()


async def test_pushes_of_several_tasks_made_at_once_leave_in_order(autojump_clock: MockClock) -> None:
    client = Joining("room:1", "room:2")
    callers = Callers(client)
    async with FakeServer(answers={"connect", "join", "leave", "heartbeat"}) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client)
        await connection.expect_join("room:1")
        await trio.sleep(1)
        async with trio.open_nursery() as pushing:
            for number in range(60):
                pushing.start_soon(callers.push, f"room:{1 + number % 2}")
        await trio.sleep(1)
        for topic in ("room:1", "room:2"):
            assert arrived(connection, topic) == callers.calls[topic]
        assert len(callers.calls["room:1"]) == 30
        client.stop()


@pytest.mark.parametrize("while_", ["joining", "reconnecting"])
async def test_pushes_that_wait_for_their_channel_leave_in_order(while_: str, autojump_clock: MockClock) -> None:
    async def connected(_: Any) -> None:
        for topic in ("room:1", "room:2"):
            await client.join(topic)

    client = Joining(connect=connected)
    callers = Callers(client)
    client.on["info"] = callers.push
    async with FakeServer() as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client, push_timeout=100, join_timeout=100)
        joins = [await connection.expect_join(topic) for topic in ("room:1", "room:2")]
        if while_ == "reconnecting":
            for join in joins:
                await join.reply_ok()
            nursery.start_soon(partial(server.restart, down=20, code=None))
            await trio.sleep(1)
        for second in range(10):
            for topic in ("room:1", "room:2"):
                nursery.start_soon(callers.push, topic)
                nursery.start_soon(callers.push, topic)
                if second == 5:
                    client.info(topic)  # its callback waits with the others, at its place
            await trio.sleep(1)
        if while_ == "reconnecting":
            connection = await server.accept(within=100)
            joins = [await connection.expect_join(topic) for topic in ("room:2", "room:1")]
        for join in joins:
            await join.reply_ok()
            nursery.start_soon(callers.push, join.topic)
        await trio.sleep(1)
        for topic in ("room:1", "room:2"):
            assert arrived(connection, topic) == callers.calls[topic]
            assert len(callers.calls[topic]) == 22
        client.stop()


async def test_pushes_that_wait_for_room_leave_in_order(autojump_clock: MockClock) -> None:
    client = Joining("room:1", "room:2")
    callers = Callers(client)
    async with FakeServer(answers=ALL) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client)
        await connection.expect_join("room:2")
        await trio.sleep(1)
        async with trio.open_nursery() as pushing:
            for number in range(900):  # more than the queue of frames holds
                pushing.start_soon(callers.push, f"room:{1 + number % 2}")
        await trio.sleep(1)
        for topic in ("room:1", "room:2"):
            assert arrived(connection, topic) == callers.calls[topic]
        client.stop()


async def test_pushes_that_wait_while_replies_are_not_handled_leave_in_order(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(60)
        await callers.push("room:1")  # does not wait for itself

    async def replied(*_: Any) -> None:
        if callers.count < 60:
            nursery.start_soon(callers.push, "room:1")  # at the moment at which there is room

    client = Joining("room:1", cast=hold_up, reply=replied)
    callers = Callers(client)
    async with FakeServer(answers=ALL) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client, buffer=3, push_timeout=None)
        await connection.expect_join("room:1")
        await trio.sleep(1)
        client.cast("hold up")
        await trio.sleep(1)
        for _ in range(20):
            nursery.start_soon(callers.push, "room:1")
            nursery.start_soon(callers.push, "room:1")
            await wait_all_tasks_blocked()
        assert arrived(connection, "room:1") == [1, 2, 3]
        await trio.sleep(100)
        others = [number for number in arrived(connection, "room:1") if number != 41]
        assert others == [number for number in range(1, callers.count + 1) if number != 41]
        assert arrived(connection, "room:1")[3] == 41
        client.stop()


async def test_a_push_given_up_while_it_waits_holds_up_no_other(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(60)

    async def give_up() -> None:
        with trio.move_on_after(5):
            await client.push("room:1", "n", {"n": -1})

    client = Joining("room:1", cast=hold_up)
    callers = Callers(client)
    async with FakeServer(answers=ALL) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client, buffer=1, push_timeout=None)
        await connection.expect_join("room:1")
        await trio.sleep(1)
        client.cast("hold up")
        await trio.sleep(1)
        push = partial(callers.push, "room:1")
        for task in (push, give_up, push, give_up, push):
            nursery.start_soon(task)
            await wait_all_tasks_blocked()
        await trio.sleep(100)
        assert arrived(connection, "room:1") == [1, 2, 3]
        client.stop()


async def test_payloads_of_pushes_that_wait_are_those_of_the_calls(autojump_clock: MockClock) -> None:
    async def hold_up(_: Any) -> None:
        await trio.sleep(60)

    client = Joining("room:1", cast=hold_up)
    async with FakeServer(answers=ALL) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client, buffer=1, push_timeout=None)
        await connection.expect_join("room:1")
        await trio.sleep(1)
        client.cast("hold up")
        await trio.sleep(1)
        payload = {"n": 0}
        for number in range(3):
            payload["n"] = number
            nursery.start_soon(client.push, "room:1", "n", payload)
            await wait_all_tasks_blocked()
        payload["n"] = 100
        await trio.sleep(100)
        assert arrived(connection, "room:1") == [0, 1, 2]
        client.stop()


async def test_joins_that_wait_for_a_connection_are_made_in_order_and_before_their_pushes(
    autojump_clock: MockClock,
) -> None:
    async def join_and_push(number: int) -> None:
        await client.join(f"room:{number}", {"n": number})
        await callers.push(f"room:{number}")
        await callers.push(f"room:{number}")

    client = Joining()
    callers = Callers(client)
    async with FakeServer(answers={"connect", "join", "leave", "heartbeat"}) as server, trio.open_nursery() as nursery:
        connection = await start(nursery, server, client, push_timeout=100, join_timeout=5)
        await client.join("room:0")
        await connection.expect_join("room:0")
        await trio.sleep(1)
        nursery.start_soon(partial(server.restart, down=60, code=None))
        await trio.sleep(1)
        for number in (5, 2, 9, 1):
            nursery.start_soon(join_and_push, number)
            await trio.sleep(1)
        connection = await server.accept(within=100)
        await trio.sleep(1)
        joins = [message.topic for message in connection.messages if message.event == "phx_join"]
        assert joins == ["room:5", "room:2", "room:9", "room:1", "room:0"]  # what the library joins again comes last
        for number in (5, 2, 9, 1):
            topic = f"room:{number}"
            assert [message[3] for message in connection.messages if message.topic == topic] == ["phx_join", "n", "n"]
            assert arrived(connection, topic) == callers.calls[topic]
        client.stop()


@in_any_order
def test_a_task_has_its_ref_before_the_loss_of_the_connection_ends_its_push(order: object) -> None:
    play(_push_and_lose)


async def _push_and_lose() -> None:
    known, told = set[str](), set[str]()

    class Mine(Client):
        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room")

        async def handle_reply(self, ref: str, reply: Reply) -> None:
            assert ref in known
            told.add(ref)

    client, connector = Mine(), Scripted({"phx_join"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=connector, heartbeat_interval=None))
        await wait_all_tasks_blocked()
        connector.peer.end()
        await trio.lowlevel.checkpoint()
        with suppress(ConnectionLost):  # where it is lost first
            known.add(await client.push("room", "event", timeout=5))
        await trio.sleep(10)
        assert told == known
        client.stop()
