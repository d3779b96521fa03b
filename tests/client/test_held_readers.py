"""Readers of many channels that are woken together, when a batch of messages has come for them."""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice

import pytest
import trio
from benchmarks.in_process import BATCH, Memory
from tests.client.support import Peer, living_tasks, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Channel, ChannelClosed, Socket, connect
from slipstream_trio.client.turn import SECONDS_A_READER

COUNT = 20
"""Channels, more than are woken at once."""


async def joined(stack: AsyncExitStack, socket: Socket) -> list[Channel]:
    return [await stack.enter_async_context(socket.join(f"room:{index}")) for index in range(COUNT)]


def feed(peer: Peer, channels: Iterable[Channel], number: int) -> None:
    """Let a message come in for each channel, all in one batch."""
    for channel in channels:
        peer.message(channel.topic, "tick", number)


async def take(channel: Channel, count: int) -> None:
    for _ in range(count):
        await anext(channel)


async def test_readers_get_what_came_in_one_batch_though_nothing_follows(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # so that they are held, however slow the machine
    received: dict[str, int] = {}

    async def read(channel: Channel) -> None:
        async for message in channel:
            received[message.topic] = message.payload

    async with scripted() as (socket, peer), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        channels = await joined(stack, socket)
        for channel in channels:
            nursery.start_soon(read, channel)
        for number in range(3):
            await wait_all_tasks_blocked()
            began = trio.current_time()
            feed(peer, channels, number)
            await wait_all_tasks_blocked()
            assert received == {channel.topic: number for channel in channels}
            assert trio.current_time() == began
            received.clear()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("passes", range(8))
async def test_a_message_whose_reader_was_cancelled_when_it_came_is_for_the_next(
    autojump_clock: object, passes: int
) -> None:
    async with scripted() as (socket, peer), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        channels = await joined(stack, socket)
        received: list[int] = []

        async def read(scope: trio.CancelScope) -> None:
            with scope:
                received.append((await anext(channels[0])).payload)

        first, second = trio.CancelScope(), trio.CancelScope()
        for channel in channels[1:]:
            nursery.start_soon(anext, channel)
        nursery.start_soon(read, first)
        await wait_all_tasks_blocked()
        nursery.start_soon(read, second)
        await wait_all_tasks_blocked()
        feed(peer, channels, 1)
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        first.cancel()
        await wait_all_tasks_blocked()
        if first.cancelled_caught:
            assert received == [1]
        else:
            feed(peer, channels[:1], 2)
            await wait_all_tasks_blocked()
            assert received == [1, 2]
        nursery.cancel_scope.cancel()


async def test_readers_get_what_came_as_their_connection_was_cut_off(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    received: list[str] = []

    async def read(channel: Channel) -> None:
        received.append((await anext(channel)).topic)

    options = {"heartbeat_interval": 10, "heartbeat_timeout": 5, "reconnect": Backoff((60,), jitter=0)}
    async with scripted(answers={"phx_join"}, **options) as (socket, peer), trio.open_nursery() as nursery:
        channels = [socket.channel(f"room:{index}") for index in range(COUNT)]
        for channel in channels:
            await channel.join()
            nursery.start_soon(read, channel)
        peer.answers_close = False
        await trio.sleep(15.5)  # it is being closed, for one second
        peer.handing_over = partial(autojump_clock.jump, 1)
        feed(peer, channels, 1)
        await trio.sleep(10)
        assert socket.status == "reconnecting"
        assert sorted(received) == sorted(channel.topic for channel in channels)
        nursery.cancel_scope.cancel()


async def test_readers_of_a_channel_that_ends_right_after_a_message_get_both(autojump_clock: object) -> None:
    ended: list[str] = []

    async def read(channel: Channel) -> None:
        assert (await anext(channel)).payload == 1
        with pytest.raises(ChannelClosed):
            await anext(channel)
        ended.append(channel.topic)

    async with scripted() as (socket, peer), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        channels = await joined(stack, socket)
        for channel in channels:
            nursery.start_soon(read, channel)
        await wait_all_tasks_blocked()
        feed(peer, channels, 1)
        for channel in channels:
            peer.end_channel(channel.topic, "phx_error")
        await wait_all_tasks_blocked()
        assert len(ended) == COUNT


async def test_one_task_wakes_the_readers_however_many_batches_come(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    numbers, tasks = iter(range(50)), list[int]()

    async with scripted() as (socket, peer), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        channels = await joined(stack, socket)

        def feed_next() -> None:
            tasks.append(living_tasks())
            for number in islice(numbers, 1):
                feed(peer, channels, number)

        for channel in channels:
            nursery.start_soon(take, channel, 50)
        await wait_all_tasks_blocked()
        peer.handing_over = feed_next
        before = living_tasks()
        feed_next()
        await wait_all_tasks_blocked()
    assert len(tasks) > 50
    assert max(tasks) <= before + 1


async def test_readers_are_woken_after_a_while_though_batch_follows_batch(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, received, waiting = 0.0, 0, list[int]()
    monkeypatch.setattr("time.perf_counter", lambda: now)
    fed = iter(range(50))

    async def read(channel: Channel) -> None:
        nonlocal received
        async for _ in channel:
            received += 1

    async with scripted() as (socket, peer), AsyncExitStack() as stack, trio.open_nursery() as nursery:
        channels = await joined(stack, socket)

        def feed_next() -> None:
            nonlocal now
            now += 0.3 * COUNT * SECONDS_A_READER
            for number in islice(fed, 1):
                feed(peer, channels, number)
                waiting.append((number + 1) * COUNT - received)

        for channel in channels:
            nursery.start_soon(read, channel)
        await wait_all_tasks_blocked()
        peer.handing_over = feed_next
        feed_next()
        await wait_all_tasks_blocked()
        assert (received, len(waiting)) == (50 * COUNT, 50)
        assert 3 * COUNT <= max(waiting) <= 10 * COUNT
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("catching_up", [0.05, 0.0], ids=["", "and the machine is so busy that its time is over"])
async def test_readers_who_keep_up_lose_nothing_though_they_are_held_while_many_bytes_come(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, catching_up: float
) -> None:
    monkeypatch.setattr("slipstream_trio.client.turn.CATCHING_UP", catching_up)
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # so that no time passes, after which they are not held
    batches, memory, received = 200, Memory(), 0

    async def read(channel: Channel) -> None:
        nonlocal received
        async for _ in channel:
            received += 1

    async with (
        connect("ws://memory/", transport=memory, heartbeat_interval=None, buffer_bytes=1024 * 2560) as socket,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        channels = await joined(stack, socket)
        for channel in channels:
            nursery.start_soon(read, channel)
        await wait_all_tasks_blocked()
        memory.offer([channel.topic for channel in channels], batches, 100)
        await wait_all_tasks_blocked()
        assert received == batches * BATCH
        nursery.cancel_scope.cancel()
