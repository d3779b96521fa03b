"""Payloads of joins: values are fixed at the call; functions are asked late, within `join_timeout`."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.peers import RECONNECT, REJOIN, World
from trio.testing import MockClock

from slipstream_trio import Channel, Client, JoinTimeout, Socket, run_client
from slipstream_trio.telemetry import RejoinScheduled
from slipstream_trio.testing.kit import FakeConnection, FakeServer


class Joining(Told):
    """Joins "room:1" at the first connection, with a payload; writes down when it was told of something.

    Attributes:
        times: the callbacks, with the times at which they were called.
        reasons: those of `handle_topic_close`.
    """

    def __init__(self, payload: Any) -> None:
        super().__init__()
        self.payload = payload
        self.times: list[tuple[float, str]] = []
        self.reasons: list[Exception] = []

    async def handle_connect(self, socket: Socket) -> None:
        await self.join("room:1", self.payload)
        self._note("connect")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        self._note("join")

    async def handle_topic_close(self, topic: str, reason: Exception) -> None:
        self.reasons.append(reason)
        self._note("topic_close")

    def _note(self, what: str) -> None:
        self.times.append((trio.current_time(), what))
        self.note(what)


def scheduled(world: World) -> list[tuple[float, int]]:
    """Return the delays of rejoins that were scheduled, and the numbers of the attempts."""
    return [(record.delay, record.attempt) for record in world.records if isinstance(record, RejoinScheduled)]


async def test_a_function_that_hangs_is_a_failed_join_and_asked_again_by_the_back_off(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def payload() -> Any:
        asked.append(trio.current_time())
        if len(asked) < 4:
            await trio.sleep_forever()
        return {"asked": len(asked)}

    asked: list[float] = []
    client = Joining(payload)
    async with a_world() as world, running(world, client, join_timeout=3):
        await client.until("join")
        client.stop()
    # Each takes 3 s, and then 1, 2, and 5 s are waited.
    assert asked == [0, 4, 9, 17]
    assert client.times == [
        (0, "connect"),
        (3, "topic_close"),
        (7, "topic_close"),
        (12, "topic_close"),
        (17, "join"),
    ]
    assert world.payloads == [{"asked": 4}]
    assert scheduled(world) == [(1, 1), (2, 2), (5, 3)]
    for reason in client.reasons:
        assert isinstance(reason, JoinTimeout)
        assert (reason.topic, reason.timeout) == ("room:1", 3)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_that_raises_is_a_failed_join_with_its_exception(
    is_async: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def payload() -> Any:
        raised.append(LookupError(f"attempt {len(raised)}"))
        if len(raised) < 3:
            raise raised[-1]
        return {"attempt": len(raised)}

    async def async_payload() -> Any:
        return payload()

    raised: list[LookupError] = []
    client = Joining(async_payload if is_async else payload)
    async with a_world() as world, running(world, client):
        await client.until("join")
        client.stop()
    assert client.reasons == raised[:2]
    assert client.times == [(0, "connect"), (0, "topic_close"), (1, "topic_close"), (3, "join")]
    assert world.payloads == [{"attempt": 3}]
    assert [record.levelno for record in caplog.records if "room:1" in record.message] == [logging.ERROR] * 2


async def test_a_function_that_returns_what_cannot_be_sent_is_a_failed_join(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [{1, 2}, b"binary", {"a": 1}]
    client = Joining(lambda: answers.pop(0))
    async with a_world() as world, running(world, client):
        await client.until("join")
        assert trio.current_time() == 3
        client.stop()
    assert [type(reason).__name__ for reason in client.reasons] == ["SerializationError"] * 2
    assert world.payloads == [{"a": 1}]


async def test_without_rejoin_a_function_is_asked_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def payload() -> Any:
        asked.append(trio.current_time())
        await trio.sleep_forever()

    asked: list[float] = []
    client = Joining(payload)
    async with a_world() as world, running(world, client, join_timeout=3, rejoin=None):
        await client.until("topic_close")
        await trio.sleep(100)
        assert asked == [0]
        await client.join("room:1", {"by": "hand"})
        await client.until("join")
        client.stop()
    assert world.payloads == [{"by": "hand"}]


async def test_one_that_hangs_at_a_rejoin_holds_up_no_other_channel(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def payload() -> Any:
        asked.append(trio.current_time())
        if len(asked) == 2:
            await trio.sleep_forever()
        return {"asked": len(asked)}

    asked: list[float] = []
    client = Joining(payload)
    async with a_world() as world, running(world, client, join_timeout=3):
        await client.until("join")
        await client.join("room:2", {"value": 1})
        await client.until("join", times=2)
        world.connection.close(1012)  # the next comes after 1 s
        await client.until("join", times=3)
        assert trio.current_time() == 1
        await client.until("join", times=4)
        client.stop()
    assert asked == [0, 1, 5]
    assert client.times[-2:] == [(4, "topic_close"), (5, "join")]
    assert world.payloads == [{"asked": 1}, {"value": 1}, {"value": 1}, {"asked": 3}]


async def test_a_leave_ends_the_asking(autojump_clock: MockClock) -> None:
    async def payload() -> Any:
        try:
            await trio.sleep_forever()
        finally:
            client.note("cancelled")

    client = Joining(payload)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        await trio.sleep(1)
        await client.leave("room:1")
        await client.until(("leave", "room:1"))
        await client.until("cancelled")
        await trio.sleep(100)
        assert trio.current_time() == 101
        client.stop()
    assert world.payloads == []
    assert client.reasons == []


@pytest.mark.parametrize("_", range(4))
async def test_a_leave_that_follows_at_once_does_too(_: int, autojump_clock: MockClock) -> None:
    async def payload() -> Any:
        client.note("asked")
        await trio.sleep_forever()

    async def connected(_: Socket) -> None:
        await client.join("room:1", payload)
        await client.leave("room:1")
        await trio.sleep(1)
        await client.join("room:1", {"value": 1})

    client = Told(connect=connected)
    async with a_world() as world, running(world, client, join_window=1):
        await client.until(("join", "room:1", 1))  # there is one slot, which was given back
        assert trio.current_time() == 1
        client.stop()
    assert world.payloads == [{"value": 1}]


# When it is asked


async def beside(nursery: trio.Nursery, server: FakeServer, client: Client, **options: Any) -> FakeConnection:
    """Run a client, and return its first connection."""

    async def run() -> None:
        given = {"transport": server.connector(), "reconnect": RECONNECT, "rejoin": REJOIN, **options}
        await run_client(client, server.url, **given)

    nursery.start_soon(run)
    return await server.accept()


async def down_for(nursery: trio.Nursery, server: FakeServer, seconds: float) -> None:
    """Let the server be away for a while from now on."""

    async def restart() -> None:
        await server.restart(down=seconds, code=None)

    nursery.start_soon(restart)
    await trio.sleep(1)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_is_asked_when_there_is_a_connection_to_send_its_answer_on(
    is_async: bool, autojump_clock: MockClock
) -> None:
    def payload() -> Any:
        return {"at": trio.current_time()}

    async def async_payload() -> Any:
        await trio.sleep(2)  # the server has join_timeout after that
        return payload()

    client = Client()
    async with FakeServer() as server, trio.open_nursery() as nursery:
        await beside(nursery, server, client, join_timeout=3)
        await down_for(nursery, server, 120)
        await client.join("room:1", async_payload if is_async else payload)
        await client.join("room:2", {"value": 1})
        connection = await server.accept(within=300)
        for topic in ("room:1", "room:2"):
            join = await connection.expect_join(topic)
            if topic == "room:1":
                assert trio.current_time() - join.payload["at"] < 0.1
            await trio.sleep(0.5 if topic == "room:2" and is_async else 2.5)
            if topic == "room:1":
                await join.reply_ok()
        assert [message.topic for message in connection.messages].count("room:1") == 1
        client.stop()


async def test_a_join_made_while_there_is_no_connection_has_its_whole_time_then(autojump_clock: MockClock) -> None:
    client = Joining({"value": 1})
    async with FakeServer() as server, trio.open_nursery() as nursery:
        await beside(nursery, server, client, join_timeout=3)
        connection = server.connections[0]
        first = await connection.expect_join("room:1")
        await first.reply_ok()
        await down_for(nursery, server, 60)
        await client.join("room:2", {"value": 2})
        connection = await server.accept(within=300)
        join = await connection.expect_join("room:2")
        await trio.sleep(2.5)
        await join.reply_ok()
        await trio.sleep(0.1)
        assert client.reasons == []
        assert client.log.count("join") == 2
        client.stop()


@pytest.mark.parametrize("answer", ["before the next connection", "after it"])
async def test_a_function_that_a_loss_interrupts_is_asked_again_or_in_time(
    answer: str, autojump_clock: MockClock
) -> None:
    async def payload() -> Any:
        asked.append(trio.current_time())
        await trio.sleep(2 if answer == "before the next connection" else 4)
        return {"asked": len(asked)}

    asked: list[float] = []
    client = Joining(payload)
    async with a_world() as world, running(world, client, join_timeout=5):
        await client.until("connect")
        await trio.sleep(1)
        if answer == "before the next connection":
            world.upgrades.append(OSError("nobody there"))
        world.connection.drop()  # the next connection comes at 4 s, or at 2 s
        await client.until("join")
        client.stop()
    assert client.reasons == []
    if answer == "before the next connection":
        assert asked == [0, 4]
        assert world.payloads == [{"asked": 2}]
    else:
        assert asked == [0]
        assert world.payloads == [{"asked": 1}]


# Values


def edits() -> list[Any]:
    """Return ways to edit the dict {"list": [1]}."""

    def clear(payload: dict[str, Any]) -> None:
        payload.clear()

    def append(payload: dict[str, Any]) -> None:
        payload["list"].append(2)

    def spoil(payload: dict[str, Any]) -> None:
        payload["nonsense"] = object()

    return [clear, append, spoil]


@pytest.mark.parametrize("edit", edits())
async def test_a_value_is_fixed_at_the_call(edit: Callable[[Any], None], autojump_clock: MockClock) -> None:
    async def connected(_: Socket) -> None:
        if not world.payloads:
            await client.join("room:1", payload)
            edit(payload)

    payload: dict[str, Any] = {"list": [1]}
    client = Told(connect=connected)
    async with a_world() as world, running(world, client):
        await client.until(("join", "room:1", 1))
        world.connection.close(1012)
        await client.until(("join", "room:1", 2))
        await client.push("room:1", "crash")
        await client.until(("join", "room:1", 3))
        client.stop()
    assert world.payloads == [{"list": [1]}] * 3


@pytest.mark.parametrize("edit", edits())
async def test_a_value_is_fixed_while_there_is_no_connection(
    edit: Callable[[Any], None], autojump_clock: MockClock
) -> None:
    payload: dict[str, Any] = {"list": [1]}
    client = Told()
    async with a_world() as world:
        world.upgrades.extend([OSError("nobody there")] * 3)
        async with running(world, client):
            await trio.sleep(0.5)
            await client.join("room:1", payload)
            edit(payload)
            await client.until(("join", "room:1", 1))
            client.stop()
    assert world.payloads == [{"list": [1]}]
