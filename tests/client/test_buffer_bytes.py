"""The bytes that wait in the buffers of a socket: large messages, many channels, and who loses what."""

from contextlib import AsyncExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import trio
from tests.client.support import URL, Peer, Recorder, Scripted, scripted
from tests.protocol import wire
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, Client, Gap, Message, SlowConsumer, Socket, connect, run_client
from slipstream_trio.client.buffer import CHARGE, Buffer, ByteLimit

MIB = 2**20
PIECE = 100_000
"""Characters of a large payload."""


async def offer(peer: Peer, topic: str, *numbers: int, size: int = PIECE, event: str = "event") -> None:
    for number in numbers:
        peer.message(topic, event, [number, "x" * size])
    await wait_all_tasks_blocked()


async def taken(channel: Channel) -> list[int]:
    """Return the numbers of all messages that wait, and -n where n are missing."""
    found: list[int] = []
    with trio.move_on_after(1):
        async for item in channel.stream():
            found += [-item.dropped if isinstance(item, Gap) else item.payload[0]]
    return found


def waiting(socket: Socket) -> int:
    return sum(buffer.heavy + buffer.waiting * CHARGE for buffer in socket._buffers())


async def first_read(channel: Channel, peer: Peer) -> None:
    await offer(peer, channel.topic, 0, size=1)
    assert (await channel.receive()).payload[0] == 0


async def test_a_consumer_with_many_large_messages_loses_the_newest(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with (
        scripted(buffer_bytes=MIB, overflow="drop_newest", telemetry=recorder.bus) as (socket, peer),
        socket.join("room") as channel,
    ):
        await first_read(channel, peer)
        for number in range(1, 31):
            await offer(peer, "room", number)
            assert waiting(socket) <= MIB
        found = await taken(channel)
        missing = -sum(number for number in found if number < 0)
        numbers = [number for number in found if number > 0]
        assert numbers == sorted(numbers)
        assert numbers[:7] == list(range(1, 8))
        assert len(numbers) + missing == 30
        assert channel.dropped == missing
        assert waiting(socket) == 0
        phases = [record.phase for record in recorder.named("client", "overflow")]
        assert (phases[0], phases[-1]) == ("began", "ended")


async def test_nothing_is_lost_while_it_is_read(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=MIB) as (socket, peer), socket.join("room") as channel:
        for number in range(100):
            await offer(peer, "room", number)
            assert (await channel.receive()).payload[0] == number
        assert channel.dropped == 0
        assert channel.last_gap is None


async def test_a_large_message_that_finds_its_buffer_full_is_not_counted(autojump_clock: MockClock) -> None:
    async with scripted(buffer=2, overflow="drop_newest") as (socket, peer), socket.join("room") as channel:
        await first_read(channel, peer)
        await offer(peer, "room", 1, 2, 3, 4)
        assert waiting(socket) < 3 * PIECE
        assert await taken(channel) == [1, 2, -2]
        assert waiting(socket) == 0


@pytest.mark.parametrize("topics", [("idle", "busy"), ("busy", "idle")])
@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
async def test_it_is_at_the_cost_of_who_has_the_most(
    policy: Literal["raise", "drop_oldest", "drop_newest"], topics: tuple[str, str], autojump_clock: MockClock
) -> None:
    async with (
        scripted(buffer_bytes=MIB, overflow=policy) as (socket, peer),
        socket.join(topics[0]),
        socket.join(topics[1]),
    ):
        idle, busy = socket._channels["idle"], socket._channels["busy"]
        await first_read(idle, peer)
        await offer(peer, "idle", *range(1, 11))
        for number in range(50):
            await offer(peer, "busy", number)
            assert (await busy.receive()).payload[0] == number
        assert busy.dropped == 0
        assert idle.dropped >= 1
        found: list[int] = []
        with trio.move_on_after(1):
            while True:
                try:
                    found.append((await idle.receive()).payload[0])
                except SlowConsumer as slow:
                    found.append(-slow.dropped)
    kept = [number for number in found if number > 0]
    if policy == "drop_oldest":
        assert kept == list(range(11 - len(kept), 11))
    else:
        assert kept == list(range(1, len(kept) + 1))
    assert (policy == "raise") == (found[-1] == -idle.dropped)


async def test_many_channels_of_small_messages_are_bounded_together(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=4 * MIB, overflow="drop_newest") as (socket, peer), AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(socket.join(f"room:{index}")) for index in range(20)]
        for channel in channels:
            await first_read(channel, peer)
        for _ in range(10):
            for channel in channels:
                await offer(peer, channel.topic, *range(1, 51), size=10)
        assert waiting(socket) <= 4 * MIB + 1024 * CHARGE
        found = [await taken(channel) for channel in channels]
        assert sum(len([number for number in each if number > 0]) for each in found) >= 3 * MIB // CHARGE
        assert all(sum(1 if number > 0 else -number for number in each) == 500 for each in found), "each loss is told"


async def test_the_limit_holds_after_each_look(autojump_clock: MockClock) -> None:
    limit, recorder = 200 * CHARGE, Recorder()
    async with scripted(buffer=5000, buffer_bytes=limit, telemetry=recorder.bus) as (socket, peer), socket.join("room"):
        for count in (200, 1, 822):  # with the reply to the join, 1024 frames, after which all buffers are looked at
            await offer(peer, "room", *range(count), size=1)
        await offer(peer, "room", 0, size=1)
        assert waiting(socket) == limit - limit // 8 + CHARGE, "an eighth was free"
        await offer(peer, "room", 0, size=40 * CHARGE)
        assert waiting(socket) <= limit
        assert [overflow.phase for overflow in recorder.named("overflow")] == ["began"]


async def test_a_large_message_counts_also_where_small_ones_come_with_it(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=MIB) as (socket, peer), socket.join("room") as channel:
        await first_read(channel, peer)
        for number in range(11):
            peer.message("room", "event", [number, ""])
            await offer(peer, "room", number)
        assert channel.dropped > 0


async def test_large_messages_find_room_beside_many_small_ones(autojump_clock: MockClock) -> None:
    async with scripted(buffer=5000, buffer_bytes=4 * MIB) as (socket, peer), socket.join("room"):
        await offer(peer, "room", *range(1500), size=1)
        for number in range(10):
            await offer(peer, "room", number)
            assert waiting(socket) <= 4 * MIB


def test_all_buffers_are_looked_at_only_when_the_limit_may_be_reached() -> None:
    looks = 0

    def buffers() -> tuple[Buffer, ...]:
        nonlocal looks
        looks += 1
        return ()

    limit = ByteLimit(4000 * CHARGE, buffers)
    for expected in range(3):
        for _ in range(4):
            limit.all_light(["light"] * 500)
            limit.make_room(400 * CHARGE)
            assert looks == expected
        limit.all_light(["light"] * 500)
        assert looks == expected
        limit.make_room(1)
        assert looks == expected + 1


@pytest.mark.parametrize("heavy", [0, CHARGE])
def test_a_limit_is_crowded_when_more_than_half_of_it_waits(heavy: int) -> None:
    backlog: Any = SimpleNamespace(heavy=heavy, waiting=50)
    assert ByteLimit(100 * CHARGE, lambda: [backlog]).crowded == (heavy > 0)


async def test_an_overflow_of_bytes_ends_when_half_of_what_was_left_is_read(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"buffer_bytes": MIB, "overflow": "drop_oldest", "telemetry": recorder.bus}
    async with scripted(**options) as (socket, peer), socket.join("room") as channel:
        await first_read(channel, peer)
        await offer(peer, "room", *range(11))
        assert channel.dropped == 3  # so seven were left, to which one was added
        for _ in range(5):
            assert [overflow.phase for overflow in recorder.named("overflow")] == ["began"]
            await channel.receive()
        assert [overflow.phase for overflow in recorder.named("overflow")] == ["began", "ended"]


async def test_a_large_message_that_just_fits_drops_nothing(autojump_clock: MockClock) -> None:
    size = len(wire.text(None, None, "room", "event", [0, "x" * PIECE]))
    for missing in (0, 1):
        limit = 2 * size + CHARGE - missing
        recorder = Recorder()
        async with (
            scripted(buffer_bytes=limit, telemetry=recorder.bus) as (socket, peer),
            socket.join("room") as channel,
        ):
            await offer(peer, "room", 0)
            await offer(peer, "room", 1)
            assert channel.dropped == missing
            assert [overflow.phase for overflow in recorder.named("overflow")] == ["began", "ended"][: 2 * missing]


async def test_a_message_above_the_limit_comes_alone(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=10_000) as (socket, peer), socket.join("room") as channel:
        await first_read(channel, peer)
        await offer(peer, "room", 1)
        assert (await channel.receive()).payload[0] == 1


async def test_the_gap_of_a_reconnect_stays_between_the_messages_around_it(autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"buffer_bytes": MIB, "overflow": "drop_newest", "reconnect": Backoff((1,), jitter=0)}
    connector = Scripted()
    async with connect(URL, transport=connector, **options) as socket, socket.join("room") as channel:
        peer = connector.peer
        await first_read(channel, peer)
        await offer(peer, "room", *range(1, 9))
        socket.reconnect()
        await trio.sleep(5)
        assert socket.generation == 2
        await offer(connector.peer, "room", *range(9, 20))
        found: list[Any] = []
        with trio.move_on_after(1):
            async for item in channel.stream():
                found += [item.reason if isinstance(item, Gap) else item.payload[0]]
        assert found.index("reconnected") in range(1, 9)
        numbers = [item for item in found if isinstance(item, int)]
        assert numbers == sorted(numbers)
        assert len(numbers) + channel.dropped == 19


async def test_what_a_subscription_leaves_unread_counts_no_longer(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=4 * MIB) as (socket, peer), socket.join("room") as channel:
        async with channel.subscribe("tick") as ticks:
            await offer(peer, "room", *range(10), event="tick")
            assert waiting(socket) > 20 * PIECE, "once for each buffer"
        assert waiting(socket) < 11 * PIECE
        assert [(await anext(ticks)).payload[0] for _ in range(10)] == list(range(10))
        assert len(await taken(channel)) == 10
        assert waiting(socket) == 0


class Slow(Client):
    """Joins, and handles its first message until it may go on."""

    def __init__(self) -> None:
        self.found: list[int] = []  # the numbers of messages, and -n where n are missing
        self.go_on = trio.Event()

    async def handle_connect(self, socket: Socket) -> None:
        await self.join("room")

    async def handle_message(self, channel: Channel, message: Message) -> None:
        self.found.append(message.payload[0])
        await self.go_on.wait()

    async def handle_gap(self, channel: Channel, gap: Gap) -> None:
        self.found.append(-gap.dropped)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_a_callback_client_is_bounded_too(
    policy: Literal["drop_oldest", "drop_newest"], autojump_clock: MockClock
) -> None:
    client, connector = Slow(), Scripted()
    async with trio.open_nursery() as nursery:
        options: Any = {"transport": connector, "buffer_bytes": MIB, "overflow": policy}
        nursery.start_soon(partial(run_client, client, URL, **options))
        await wait_all_tasks_blocked()
        assert (socket := client.socket) is not None
        for number in range(31):
            await offer(connector.peer, "room", number)
            assert waiting(socket) <= MIB
        assert waiting(socket) > MIB // 2
        client.go_on.set()
        await wait_all_tasks_blocked()
        assert waiting(socket) == 0
        client.stop()
    found = client.found
    kept = [number for number in found if number > 0]
    assert kept == sorted(kept)
    assert len(kept) + -sum(number for number in found if number < 0) == 30
    assert (found[1] < 0) == (policy == "drop_oldest"), "the gap stands at its place"


async def test_small_messages_for_a_callback_client_are_counted_together(autojump_clock: MockClock) -> None:
    client, connector, limit = Slow(), Scripted(), 80 * CHARGE
    async with trio.open_nursery() as nursery:
        options: Any = {"transport": connector, "buffer": 5000, "buffer_bytes": limit, "overflow": "drop_newest"}
        nursery.start_soon(partial(run_client, client, URL, **options))
        await wait_all_tasks_blocked()
        assert (socket := client.socket) is not None
        for count in range(50, 1001, 50):
            await offer(connector.peer, "room", *range(50), size=1)
            assert waiting(socket) == (count - 1) * CHARGE
        await offer(connector.peer, "room", *range(50), size=1)
        await offer(connector.peer, "room", 0, size=1)  # more than 1024, so all that waits is looked at before
        assert waiting(socket) == limit - limit // 8 + CHARGE
        nursery.cancel_scope.cancel()


async def test_small_messages_for_a_callback_client_count_no_more_beside_a_subscription(
    autojump_clock: MockClock,
) -> None:
    client, connector = Slow(), Scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=connector, buffer_bytes=MIB))
        await wait_all_tasks_blocked()
        socket = client.socket
        assert socket is not None
        async with socket._channels["room"].subscribe("other"):
            for _ in range(301):
                await offer(connector.peer, "room", 0, size=1900)
            assert waiting(socket) == 300 * CHARGE
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("policy", "found"), [("drop_oldest", [0, -2, 3, 4, 5]), ("drop_newest", [0, -1, 2, -2, 5])])
async def test_one_of_few_messages_that_wait_for_a_callback_may_be_dropped(
    policy: Literal["drop_oldest", "drop_newest"], found: list[int], autojump_clock: MockClock
) -> None:
    client, connector = Slow(), Scripted()
    async with trio.open_nursery() as nursery:
        options: Any = {"transport": connector, "buffer_bytes": MIB, "overflow": policy}
        nursery.start_soon(partial(run_client, client, URL, **options))
        await wait_all_tasks_blocked()
        for number, pieces in enumerate([6, 6, 6, 3, 3, 3]):
            await offer(connector.peer, "room", number, size=pieces * PIECE)
        client.go_on.set()
        await wait_all_tasks_blocked()
        client.stop()
    assert client.found == found


async def test_what_a_client_is_not_told_of_as_its_topic_was_left_counts_no_longer(autojump_clock: MockClock) -> None:
    client, connector = Slow(), Scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=connector, buffer_bytes=MIB))
        await wait_all_tasks_blocked()
        assert (socket := client.socket) is not None
        await offer(connector.peer, "room", 0)  # which is being handled
        for _ in range(2):
            await client.leave("room")
            await wait_all_tasks_blocked()
            await client.join("room")
            await wait_all_tasks_blocked()
            await offer(connector.peer, "room", 1)
            assert waiting(socket) > 0
        await client.leave("room")
        await wait_all_tasks_blocked()
        assert waiting(socket) == 0
        client.go_on.set()
        await wait_all_tasks_blocked()
        client.stop()
    assert client.found == [0]


async def test_a_channel_that_nobody_has_read_loses_the_oldest(autojump_clock: MockClock) -> None:
    async with scripted(buffer_bytes=MIB, overflow="raise") as (socket, peer), socket.join("room") as channel:
        await offer(peer, "room", *range(1, 7))
        await offer(peer, "room", *range(7, 31))
        with pytest.raises(SlowConsumer):
            await channel.receive()
        found = await taken(channel)
        assert found == list(range(found[0], 31))
