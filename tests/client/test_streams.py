"""Iterating over channels and subscriptions: who gets which message."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from tests.client.support import URL, running, scripted
from tests.held import blocks_held
from trio.testing import MockClock

from slipstream_trio import ChannelClosed, Message, Subscription, connect

MESSAGES_A_TURN = 1024
"""After so many messages a consumer lets other tasks run."""


async def take(stream: Any, count: int) -> list[Any]:
    """Return the payloads of the next messages."""
    iterator = aiter(stream)
    return [(await anext(iterator)).payload for _ in range(count)]


async def test_messages_are_given_in_order_from_the_join_on(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        for number in range(5):
            peer.message("room", "event", number, join_ref=channel.join_ref if number % 2 else None)
        await trio.testing.wait_all_tasks_blocked()
        assert await take(channel, 5) == [0, 1, 2, 3, 4]
        peer.message("room", "named", {"a": 1}, join_ref=channel.join_ref)
        message = await anext(aiter(channel))
        assert message == Message(channel.join_ref, None, "room", "named", {"a": 1})


async def test_messages_right_behind_the_reply_of_the_join_are_not_missed(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_leave"}) as (socket, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            peer.reply(await peer.wait_sent("phx_join"))
            peer.message("room", "event", 1)
            peer.message("room", "event", 2)

        nursery.start_soon(answer)
        async with socket.join("room") as channel:
            await trio.sleep(1)
            assert await take(channel, 2) == [1, 2]


async def test_channels_get_their_own_messages_only(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("a") as one, socket.join("b") as other:
        peer.message("a", "event", 1)
        peer.message("b", "event", 2)
        peer.message("c", "event", 3)
        peer.message("a", "event", 4)
        assert await take(one, 2) == [1, 4]
        assert await take(other, 1) == [2]


async def test_two_tasks_that_iterate_over_one_channel_share_its_messages(autojump_clock: MockClock) -> None:
    async with running() as server, connect(URL, transport=server.connector()) as socket:
        async with socket.join("lab:1") as channel:
            taken: dict[str, list[int]] = {"a": [], "b": []}

            async def iterate(name: str) -> None:
                async for message in channel:
                    taken[name].append(message.payload["number"])
                    await trio.sleep(0.1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(iterate, "a")
                nursery.start_soon(iterate, "b")
                await channel.push("burst", {"count": 20})
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
            assert sorted(taken["a"] + taken["b"]) == list(range(20))
            assert taken["a"]
            assert taken["b"]
            assert taken["a"] == sorted(taken["a"])


async def test_a_reader_that_is_cancelled_loses_no_message(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        with trio.move_on_after(1):
            await take(channel, 1)
        peer.message("room", "event", 1)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await take(channel, 1)
        assert scope.cancelled_caught
        assert await take(channel, 1) == [1]


async def test_a_message_that_one_reader_was_woken_for_may_go_to_another(autojump_clock: MockClock) -> None:
    """The order in which Trio runs tasks is random, so it is tried until both have happened, and never goes wrong."""
    overtaken: set[bool] = set()
    async with scripted() as (socket, peer), socket.join("room") as channel:
        for _ in range(60):
            taken: dict[str, list[Any]] = {}

            async def read(name: str, taken: dict[str, list[Any]] = taken) -> None:
                taken[name] = await take(channel, 1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "waits")
                await trio.testing.wait_all_tasks_blocked()
                peer.message("room", "event", 1)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(read, "comes along")
                await trio.testing.wait_all_tasks_blocked()
                assert list(taken.values()) == [[1]]
                peer.message("room", "event", 2)
            assert sorted(taken.values()) == [[1], [2]]
            overtaken.add(taken["comes along"] == [1])
    assert overtaken == {False, True}


async def test_a_subscription_has_a_copy_of_its_own(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        async with channel.subscribe() as everything, channel.subscribe("a", "b", "a") as some:
            assert isinstance(some, Subscription)
            assert aiter(some) is some
            for event in ("a", "b", "c", "a"):
                peer.message("room", event, event)
            assert await take(some, 3) == ["a", "b", "a"]
            assert await take(everything, 4) == ["a", "b", "c", "a"]
            assert await take(channel, 4) == ["a", "b", "c", "a"]
            with trio.move_on_after(1) as scope:
                await take(some, 1)
            assert scope.cancelled_caught


async def test_a_subscription_sees_what_comes_while_it_is_open(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        peer.message("room", "a", "before")
        await trio.testing.wait_all_tasks_blocked()
        async with channel.subscribe("a") as first, channel.subscribe("a") as second:
            peer.message("room", "a", "during")
            await trio.testing.wait_all_tasks_blocked()
        peer.message("room", "a", "after")
        await trio.testing.wait_all_tasks_blocked()
        for subscription in (first, second):
            with trio.fail_after(1):
                assert [message.payload async for message in subscription] == ["during"]
        assert await take(channel, 3) == ["before", "during", "after"]


async def test_subscriptions_and_presences_that_have_ended_are_forgotten(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _peer), socket.join("room") as channel:

        async def subscribe(*numbers: int) -> int:
            for number in numbers:
                event = f"event {number}"
                with suppress(LookupError):
                    async with channel.subscribe(event, event, "other"), channel.subscribe(), channel.presence():
                        if number % 2:
                            raise LookupError
            return blocks_held()

        held = [await subscribe(*range(start, start + 200)) for start in range(0, 1000, 200)]
        # Python keeps some blocks of its own now and then; one kept for each subscription would be 200 every time.
        assert min(after - before for before, after in pairwise(held)) < 100


async def test_a_subscription_that_opens_before_the_join_misses_nothing(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_leave"}) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")

        async def answer() -> None:
            peer.reply(await peer.wait_sent("phx_join"))
            peer.message("room", "a", 1)

        async with channel.subscribe("a") as messages:
            nursery.start_soon(answer)
            await channel.join()
            assert await take(messages, 1) == [1]
        await channel.leave()


async def test_an_iteration_that_began_before_the_join_waits_for_it(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        taken: list[Any] = []

        async def iterate() -> None:
            taken.extend(await take(channel, 1))

        nursery.start_soon(iterate)
        await trio.testing.wait_all_tasks_blocked()
        await channel.join()
        peer.message("room", "a", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [1]


async def test_a_subscription_may_have_another_size(autojump_clock: MockClock) -> None:
    async with scripted(buffer=3) as (socket, peer), socket.join("room") as channel:
        async with channel.subscribe(buffer=5) as messages:
            for number in range(5):
                peer.message("room", "event", number)
            await trio.testing.wait_all_tasks_blocked()
            assert await take(messages, 5) == [0, 1, 2, 3, 4]
            assert (messages.dropped, channel.dropped) == (0, 2)


async def test_a_reader_whose_buffer_holds_one_message_is_woken_for_each(autojump_clock: MockClock) -> None:
    received: list[Any] = []

    async def read() -> None:
        async for message in channel:
            received.append(message.payload)  # noqa: PERF401 - it is looked at while this goes on

    async with (
        scripted(buffer=1) as (socket, peer),
        socket.join("room") as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read)
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked()
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        assert received == [0, 1, 2]
        nursery.cancel_scope.cancel()


async def test_a_consumer_with_much_to_read_lets_others_run(autojump_clock: MockClock) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    messages = 4 * MESSAGES_A_TURN
    async with scripted(buffer=messages) as (socket, peer), socket.join("room") as channel:
        for number in range(messages):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await trio.lowlevel.checkpoint()
            before = turns
            assert await take(channel, messages) == list(range(messages))
            assert turns - before >= 2  # of three; whether the other task runs first in a turn is random
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first_slow", [0, 1, 2])
async def test_a_consumer_that_is_slow_now_and_then_lets_others_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, first_slow: int
) -> None:
    now = last = longest = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    async def look() -> None:
        nonlocal last, longest
        while True:
            longest, last = max(longest, now - last), now
            await trio.lowlevel.checkpoint()

    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        for number in range(90):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(look)
        for number in range(90):
            await anext(channel)
            now += 0.02 if number % 9 >= first_slow else 1e-6
        nursery.cancel_scope.cancel()
    assert longest <= 0.0801  # not eight in a row, which few quick ones before them do not make free


async def test_an_iterator_is_a_checkpoint_for_cancellation_only(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        for number in range(10):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        stream = aiter(channel)
        await anext(stream)  # begins a turn
        with trio.CancelScope() as scope:
            await anext(stream)
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        assert await take(channel, 1) == [2]


@pytest.mark.once
@pytest.mark.parametrize("count", [2000])
async def test_a_consumer_that_keeps_up_gets_everything(
    count: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More messages than a buffer holds: the receive loop lets the consumer catch up."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # the machine may be busy
    async with running() as server, connect(URL, transport=server.connector(), buffer=64) as socket:
        async with socket.join("lab:1") as channel, trio.open_nursery() as nursery:
            taken: list[Any] = []

            async def iterate() -> None:
                taken.extend(await take(channel, count))

            nursery.start_soon(iterate)
            await trio.testing.wait_all_tasks_blocked()
            await channel.push("burst", {"count": count})
        assert [payload["number"] for payload in taken] == list(range(count))
        assert channel.dropped == 0


async def test_a_channel_that_nobody_read_can_be_read_once_it_is_joined_anew(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        await channel.leave()
        await channel.join()
        peer.message("room", "event")
        assert (await channel.receive()).event == "event"
        with trio.move_on_after(1) as waiting:
            await channel.receive()
        assert waiting.cancelled_caught


@pytest.mark.parametrize("read", [True, False])
async def test_a_channel_keeps_its_end_when_the_socket_ends(read: bool, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        if read:
            peer.message("room", "event")
            await anext(channel)
        peer.end_channel("room", "phx_error")
        await trio.sleep(1)
    with pytest.raises(ChannelClosed, match="crashed"):
        await anext(channel)


async def test_what_two_readers_pass_the_scheduler_for_goes_to_one_of_them(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    async def read() -> None:
        taken.extend(await take(channel, 1))

    async with scripted() as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event", 1)
        await trio.testing.wait_all_tasks_blocked()
        now += 1  # so their turn is over
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert taken == [1]
            peer.message("room", "event", 2)
        assert taken == [1, 2]


async def test_streams_say_of_which_topic_they_are(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _), socket.join("Messages") as channel, channel.subscribe() as subscription:
        assert repr(channel.stream()) == "<Stream of 'Messages', 0 buffered, 0 dropped>"
        assert repr(subscription) == "<Subscription of 'Messages', 0 buffered, 0 dropped>"
