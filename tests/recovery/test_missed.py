"""No message is delivered without the gap before it, whatever leaves and joins happen meanwhile."""

import json
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, ChannelClosed, Gap, connect
from slipstream_trio.testing.kit import Answer, FakeServer

ANSWERS: Final[frozenset[Answer]] = frozenset({"connect", "join", "leave", "heartbeat", "push"})


async def read(stream: Any, found: list[Any]) -> None:
    async for item in stream:
        what = "gap" if isinstance(item, Gap) else item.payload
        found.append(what)


@pytest.mark.parametrize("subscribed", [True, False])
async def test_what_comes_while_a_rejoin_is_left_again_is_not_delivered(
    subscribed: bool, autojump_clock: MockClock
) -> None:
    async with (
        FakeServer(answers={"connect", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), reconnect=Backoff((1,), jitter=0)) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel, found = socket.channel("room:1"), list[Any]()
        async with channel.subscribe() as subscription:
            nursery.start_soon(read, subscription.stream() if subscribed else channel.stream(), found)
            nursery.start_soon(channel.join)
            fake = await (await connection.expect_join()).reply_ok()
            await fake.push("n", 0)
            await trio.sleep(0.1)
            await connection.drop()  # 1 is broadcast while nobody is there
            connection = await server.accept(within=2)
            join = await connection.expect_join()
            nursery.start_soon(channel.leave)
            leave = await connection.expect_leave()
            topic, ref = "room:1", join.join_ref
            await connection.send_raw(
                json.dumps([ref, ref, topic, "phx_reply", {"status": "ok", "response": {}}]),
                json.dumps([None, None, topic, "n", 2]),
                json.dumps([ref, leave.ref, topic, "phx_reply", {"status": "ok", "response": {}}]),
                json.dumps([ref, ref, topic, "phx_close", {}]),
            )
            await trio.sleep(0.1)
            assert found == [0]
            assert channel.status == "closed"


async def rejoined(channel: Channel, fake: Any, connection: Any) -> None:
    await channel.leave()
    await rejoined_after(channel, connection)


async def rejoined_after(channel: Channel, connection: Any) -> None:
    await channel.join()
    await connection.channel("room:1").push("n", 2)
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("waiting", [True, False])
async def test_a_reader_that_lags_across_a_leave_and_a_join_gets_a_gap(
    subscribed: bool, waiting: bool, autojump_clock: MockClock
) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        channel = socket.channel("room:1")
        async with channel.subscribe() as subscription:
            stream = subscription.stream() if subscribed else channel.stream()
            await channel.join()
            fake = connection.channel("room:1")
            await fake.push("n", 0)
            assert (await anext(stream)).payload == 0  # type: ignore[union-attr]
            if waiting:
                await fake.push("n", 1)
                await wait_all_tasks_blocked()
            await rejoined(channel, fake, connection)
            found = [await anext(stream) for _ in range(3 if waiting else 2)]
            payloads = [getattr(item, "payload", "gap") for item in found]
            assert payloads == ([1, "gap", 2] if waiting else ["gap", 2])
            gap = found[-2]
            assert isinstance(gap, Gap)
            assert gap.reason == "rejoined"
            assert channel.last_gap == gap


@pytest.mark.parametrize("subscribed", [True, False])
async def test_a_reader_that_saw_the_end_gets_no_gap_after_a_leave(subscribed: bool, autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        channel = socket.channel("room:1")
        async with channel.subscribe() as subscription:
            stream = subscription.stream() if subscribed else channel.stream()
            await channel.join()
            await connection.channel("room:1").push("n", 0)
            if not subscribed:
                assert (await anext(subscription)).payload == 0
            assert (await anext(stream)).payload == 0  # type: ignore[union-attr]
            if subscribed:
                assert (await channel.receive()).payload == 0
            await channel.leave()
            for reader in (subscription.stream(), channel.stream()):
                with pytest.raises(StopAsyncIteration):
                    await anext(reader)
            await channel.join()
            await connection.channel("room:1").push("n", 1)
            assert (await anext(stream)).payload == 1  # type: ignore[union-attr]
            assert channel.last_gap is None


async def test_each_end_that_a_reader_has_not_come_to_is_a_gap_from_then_on(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        channel = socket.channel("room:1")
        stream = channel.stream()
        await channel.join()
        await channel.leave()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await channel.join()
        await trio.sleep(10)
        await channel.leave()  # this end nobody comes to
        await trio.sleep(5)
        await rejoined_after(channel, connection)
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.reason == "rejoined"
        assert (gap.until - gap.since).total_seconds() == pytest.approx(5, abs=0.1)


async def test_a_gap_begins_at_the_last_message_received(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(
            server.url, transport=server.connector(), reconnect=Backoff((1,), jitter=0), heartbeat_interval=None
        ) as socket,
    ):
        connection = await server.accept()
        async with socket.join("room:1") as channel:
            await connection.channel("room:1").push("n", 0)
            await trio.sleep(30)
            await connection.drop()
            await server.accept(within=2)
            await trio.sleep(0.1)
            gap = channel.last_gap
            assert gap is not None
            assert (gap.until - gap.since).total_seconds() == pytest.approx(31, abs=0.1)


async def test_receive_gives_the_next_message_and_raises_at_the_end(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        channel = socket.channel("room:1")
        await channel.join()
        await connection.channel("room:1").push("n", 0)
        assert (await channel.receive()).payload == 0
        await connection.channel("room:1").close()
        with pytest.raises(ChannelClosed, match="closed"):
            await channel.receive()
