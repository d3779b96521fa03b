"""Messages on topics that are not joined go to those who listen to them."""

from typing import Any, Final

import pytest
import trio
from tests.client.support import URL, Scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, ConfigurationError, ConnectionLost, Gap, SlowConsumer, connect
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.kit import Answer, FakeConnection, FakeServer

ANSWERS: Final[frozenset[Answer]] = frozenset({"connect", "join", "leave", "heartbeat", "push"})
DOCUMENT = "__absinthe__:doc:1"


async def say(connection: FakeConnection, topic: str, *numbers: int, join_ref: str | None = None) -> None:
    for number in numbers:
        text = f'[{"null" if join_ref is None else join_ref}, null, "{topic}", "subscription:data", {number}]'
        await connection.send_raw(text)


async def test_messages_reach_every_listener_to_their_topic(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        async with (
            socket.listen("__absinthe__:doc:*") as documents,
            socket.listen(DOCUMENT, "other") as one,
            socket.listen("other") as other,
        ):
            await say(connection, DOCUMENT, 1)
            await say(connection, "__absinthe__:doc:2", 2)
            await say(connection, "other", 3)
            assert [(await anext(documents)).payload for _ in range(2)] == [1, 2]
            assert [(await anext(one)).payload for _ in range(2)] == [1, 3]
            message = await anext(other)
            assert (message.topic, message.event, message.payload) == ("other", "subscription:data", 3)


async def test_what_nobody_listens_to_is_dropped_and_told(autojump_clock: MockClock) -> None:
    bus, dropped = Telemetry(), []

    def handler(record: Record) -> None:
        dropped.append((record.metadata["topic"], record.metadata["reason"]))

    bus.attach("dropped", ("slipstream", "client", "message_dropped"), handler)
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), telemetry=bus) as socket,
    ):
        connection = await server.accept()
        async with socket.listen("a:*") as messages:
            await say(connection, "a:1", 1)
            await say(connection, "a", 2)
            await say(connection, "b:1", 2)
            await say(connection, "a:2", 3, join_ref='"9"')  # of some join: not for those who listen
            await connection.send_raw('[null, "7", "a:2", "subscription:data", 4]')  # an answer to something
            assert (await anext(messages)).payload == 1
            await wait_all_tasks_blocked()
        await say(connection, "a:3", 4)
        await trio.sleep(0.1)
    assert dropped == [(topic, "not_joined") for topic in ("a", "b:1", "a:2", "a:2", "a:3")]


async def test_a_topic_with_a_channel_is_that_channels_alone(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), rejoin=Backoff((10,), jitter=0)) as socket,
    ):
        connection = await server.accept()
        async with socket.listen("room:*") as messages:
            async with socket.join("room:1") as channel:
                await say(connection, "room:1", 1)
                assert (await channel.receive()).payload == 1
                await connection.channel("room:1").crash()
                await trio.sleep(0.1)
                assert channel.status == "errored"
                await say(connection, "room:1", 2)
                await trio.sleep(20)
            await say(connection, "room:1", 3)
            assert (await anext(messages)).payload == 3


async def test_after_a_reconnect_the_stream_has_a_gap_up_to_the_opening(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), reconnect=Backoff((7,), jitter=0)) as socket,
    ):
        connection = await server.accept()
        async with socket.listen(DOCUMENT) as messages:
            await trio.sleep(3)
            await say(connection, DOCUMENT, 1)
            await trio.sleep(2)
            await connection.drop()
            connection = await server.accept(within=10)
            await say(connection, DOCUMENT, 2)
            stream = messages.stream()
            found: list[Any] = [await anext(stream) for _ in range(3)]
            assert [getattr(item, "payload", None) for item in found] == [1, None, 2]
            gap = found[1]
            assert isinstance(gap, Gap)
            assert gap.reason == "reconnected"
            assert (gap.until - gap.since).total_seconds() == pytest.approx(9, abs=0.1)


async def test_a_slow_listener_is_told_what_it_missed(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        async with socket.listen(DOCUMENT, buffer=2, overflow="raise") as messages, trio.open_nursery() as nursery:
            await say(connection, DOCUMENT, 0)
            assert (await anext(messages)).payload == 0
            nursery.start_soon(say, connection, DOCUMENT, 1, 2, 3, 4)
            await trio.sleep(1)
            assert [(await anext(messages)).payload for _ in range(2)] == [1, 2]
            with pytest.raises(SlowConsumer) as caught:
                await anext(messages)
            assert (caught.value.topic, caught.value.dropped) == (DOCUMENT, 2)


async def test_a_listener_ends_with_its_block_and_with_the_socket(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server:
        async with connect(server.url, transport=server.connector()) as socket:
            async with socket.listen("a") as ended:
                pass
            with pytest.raises(StopAsyncIteration):
                await anext(ended)
            with pytest.raises(KeyError):
                async with socket.listen("a") as left:
                    raise KeyError
            with pytest.raises(StopAsyncIteration):
                await anext(left)
            async with socket.listen("a") as messages:
                await socket.disconnect()
                with pytest.raises(StopAsyncIteration):
                    await anext(messages)
            async with socket.listen("a") as messages:
                with pytest.raises(StopAsyncIteration):
                    await anext(messages)


async def test_a_listener_is_told_that_the_connection_is_lost_for_good(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server:
        with pytest.raises(ConnectionLost):
            async with connect(server.url, transport=server.connector(), reconnect=None) as socket:
                connection = await server.accept()
                async with socket.listen("a") as messages:
                    with trio.CancelScope(shield=True):
                        await connection.drop()
                        with pytest.raises(ConnectionLost):
                            await anext(messages)
                await trio.sleep_forever()


@pytest.mark.parametrize(
    ("topics", "options", "option"),
    [
        ((), {}, "topics"),
        ((1,), {}, "topics"),
        (("a",), {"buffer": 0}, "buffer"),
        (("a",), {"overflow": "x"}, "overflow"),
    ],
)
async def test_what_cannot_be_listened_to_is_refused(
    topics: Any, options: Any, option: str, autojump_clock: MockClock
) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        with pytest.raises(ConfigurationError) as caught:
            async with socket.listen(*topics, **options):
                pass
        assert caught.value.option == option


async def test_what_is_missed_before_anything_has_come_is_so_since_the_opening(autojump_clock: MockClock) -> None:
    async def open_slowly(_: object) -> None:
        await trio.sleep(5)

    connector = Scripted(opening=open_slowly)
    async with (
        connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket,
        socket.listen("topic") as messages,
    ):
        await trio.sleep(3)
        connector.peer.end()
        gap = await anext(messages.stream())
        assert isinstance(gap, Gap)
        assert (gap.until - gap.since).total_seconds() == pytest.approx(9)


async def test_the_gap_of_a_reconnect_is_told_before_anything_else_comes(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with (
        connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket,
        socket.listen(DOCUMENT) as messages,
    ):
        for _ in range(2):
            connector.peer.end()
            with trio.fail_after(2):
                assert isinstance(await anext(messages.stream()), Gap)
