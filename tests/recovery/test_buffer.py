"""What waits for a consumer: three policies, counters, gaps, and what ends it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from tests.recovery.support import settle

from slipstream_trio import Gap, Message, SlowConsumer
from slipstream_trio.client.buffer import Buffer, Overflow

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Made:
    """A buffer, whose clock goes on by a second whenever it is asked, and the gaps that it told of."""

    def __init__(self, limit: int, policy: Overflow = "raise") -> None:
        self.seconds = 0
        self.told: list[Gap] = []
        self.last: Gap | None = None
        self.lost: list[tuple[str, int]] = []
        self.topic = "room:1"
        self.buffer = Buffer(self, limit, policy, "channel")  # type: ignore[arg-type]

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.buffer.put(message(number))

    async def take(self, count: int = 1) -> list[Any]:
        """Read so many items: numbers for messages, gaps, or the exception's name and number."""
        return [await self._take() for _ in range(count)]

    async def rest(self) -> list[Any]:
        """Read all that is there."""
        taken = []
        while len(self.buffer):
            taken.append(await self._take())
        return taken

    async def _take(self) -> Any:
        with trio.fail_after(1):
            try:
                item = await self.buffer.get(gaps=True)
            except SlowConsumer as error:
                return (error.topic, error.dropped)
            return item.payload if isinstance(item, Message) else (item.reason, item.dropped)

    # As the streams of a channel

    def new_overflow(self) -> Gap:
        self.seconds += 1
        now = BEGIN + timedelta(seconds=self.seconds)
        return Gap("overflow", now, now, 1)

    def overflowed(self, gap: Gap, *_: Any, first: bool) -> None:
        self.last = gap
        if first:
            self.told.append(gap)

    def emit(self, gap: Gap) -> None:
        self.lost.append((gap.reason, gap.dropped))


def message(number: int) -> Message:
    return Message(None, None, "room:1", "tick", number)


def lost(since: int = 0, until: int = 0) -> Gap:
    return Gap("reconnected", BEGIN + timedelta(seconds=since), BEGIN + timedelta(seconds=until))


async def started(limit: int, policy: Overflow) -> Made:
    """Return a buffer that somebody has begun to read."""
    made = Made(limit, policy)
    made.put(0)
    assert await made.take() == [0]
    return made


# Policies


async def test_raise_drops_what_comes_and_tells_the_reader_where() -> None:
    made = await started(2, "raise")
    made.put(1, 2, 3, 4)
    assert made.buffer.dropped == 2
    assert await made.take(2) == [1, 2]
    assert await made.take() == [("room:1", 2)]
    made.put(5)
    assert await made.take() == [5]


async def test_drop_newest_does_the_same_but_goes_on() -> None:
    made = await started(2, "drop_newest")
    made.put(1, 2, 3, 4)
    assert made.buffer.dropped == 2
    assert await made.rest() == [1, 2, ("overflow", 2)]


async def test_drop_oldest_keeps_the_latest() -> None:
    made = await started(2, "drop_oldest")
    made.put(1, 2, 3, 4)
    assert made.buffer.dropped == 2
    assert await made.rest() == [("overflow", 2), 3, 4]


@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
async def test_who_reads_only_messages_is_not_stopped_but_by_raise(policy: Overflow) -> None:
    made = await started(1, policy)
    made.put(1, 2)
    if policy == "raise":
        assert (await made.buffer.get(gaps=False)).payload == 1
        with pytest.raises(SlowConsumer):
            await made.buffer.get(gaps=False)
    else:
        assert (await made.buffer.get(gaps=False)).payload == (2 if policy == "drop_oldest" else 1)


@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
async def test_while_nobody_reads_the_oldest_go_and_the_first_reader_is_told(policy: Overflow) -> None:
    made = Made(2, policy)
    made.put(1, 2, 3, 4, 5)
    assert made.buffer.dropped == 3
    first = ("room:1", 3) if policy == "raise" else ("overflow", 3)
    assert await made.rest() == [first, 4, 5]


async def test_iteration_goes_on_after_slow_consumer_and_each_loss_is_told_once() -> None:
    made = await started(1, "raise")
    made.put(1, 2)
    assert await made.take(2) == [1, ("room:1", 1)]
    made.put(3, 4, 5)
    assert await made.take(2) == [3, ("room:1", 2)]
    assert made.buffer.dropped == 3
    assert len(made.told) == 2


# Gaps


async def test_a_gap_is_where_the_messages_are_missing() -> None:
    made = await started(10, "raise")
    made.put(1)
    made.buffer.mark(lost())
    made.put(2)
    assert await made.rest() == [1, ("reconnected", 0), 2]


async def test_who_reads_only_messages_passes_over_a_gap() -> None:
    made = await started(10, "raise")
    made.buffer.mark(lost())
    made.put(1)
    assert (await made.buffer.get(gaps=False)).payload == 1


async def test_gaps_side_by_side_are_one() -> None:
    made = await started(10, "raise")
    made.buffer.mark(lost(1, 2))
    made.buffer.mark(Gap("rejoined", BEGIN + timedelta(seconds=3), BEGIN + timedelta(seconds=4)))
    assert len(made.buffer) == 1
    assert await made.buffer.get(gaps=True) == lost(1, 4)


async def test_an_overflow_and_a_lost_connection_side_by_side_are_one_gap() -> None:
    made = await started(1, "drop_newest")
    made.put(1, 2, 3)
    made.buffer.mark(lost(10, 20))
    made.put(4)
    assert made.buffer.dropped == 3
    assert await made.take() == [1]
    assert await made.buffer.get(gaps=True) == Gap("reconnected", BEGIN + timedelta(seconds=1), lost(0, 20).until, 3)


async def test_with_drop_oldest_the_gap_moves_to_the_front_with_what_is_lost() -> None:
    made = await started(2, "drop_oldest")
    made.put(1)
    made.buffer.mark(lost())
    made.put(2, 3, 4)
    assert await made.rest() == [("reconnected", 2), 3, 4]


async def test_a_gap_between_two_losses_is_kept_once() -> None:
    made = await started(2, "drop_oldest")
    made.put(1, 2, 3)
    made.buffer.mark(lost())
    assert len(made.buffer) == 4
    made.put(4, 5)
    assert await made.rest() == [("reconnected", 3), 4, 5]


async def test_a_lost_connection_is_told_beside_a_slow_consumer() -> None:
    made = await started(1, "raise")
    made.put(1, 2)
    made.buffer.mark(lost())
    made.put(3)
    assert await made.take() == [1]
    assert await made.take() == [("room:1", 2)]
    assert await made.take() == [("reconnected", 0)]
    made.put(4)
    assert await made.rest() == [4]


@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
async def test_only_the_first_loss_of_a_row_is_an_episode(policy: Overflow) -> None:
    made = await started(2, policy)
    made.put(*range(100))
    assert made.buffer.dropped == 98
    assert len(made.told) == 1
    assert made.told[0].dropped == 1
    assert made.last is not None
    assert made.last.dropped == 98
    await made.rest()
    made.put(*range(10))
    assert len(made.told) == 2


async def test_a_loss_next_to_a_lost_connection_is_an_episode_too() -> None:
    made = await started(1, "drop_newest")
    made.put(1)
    made.buffer.mark(lost())
    made.put(2, 3)
    assert len(made.told) == 1


@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("read", [False, True])
async def test_it_is_bounded_whatever_happens(policy: Overflow, read: bool) -> None:
    made = await started(3, policy) if read else Made(3, policy)
    for number in range(1000):
        made.put(number)
        if number % 3 == 0:
            made.buffer.mark(lost())
        assert len(made.buffer) <= 2 * 3 + 1


# Reading


async def test_a_reader_waits(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(2)
    with trio.move_on_after(1) as waiting:
        await made.buffer.get(gaps=False)
    assert waiting.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.take)
        await settle()
        made.put(1)


async def test_readers_share_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(10)
    got: list[int] = []

    async def read() -> None:
        got.append((await made.buffer.get(gaps=False)).payload)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
        await settle()
        made.put(*range(5))
    assert sorted(got) == [0, 1, 2, 3, 4]


async def test_a_reader_that_is_cancelled_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(10)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def read() -> None:
            with scope:
                await made.buffer.get(gaps=False)

        nursery.start_soon(read)
        await settle()
        scope.cancel()
        made.put(1)
    assert await made.rest() in ([1], [])
    made.put(2)
    assert await made.rest() == [2]


async def test_reading_lets_others_run() -> None:
    made = Made(10_000)
    made.put(*range(5000))
    turns = 0
    done = False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await made.take(5000)
        done = True
    assert turns >= 4


@pytest.mark.parametrize(("count", "crowded"), [(2, False), (3, True), (5, True)])
async def test_it_is_crowded_when_more_than_half_full_of_messages_and_read(count: int, crowded: bool) -> None:
    made = await started(4, "raise")
    made.put(*range(count))
    made.buffer.mark(lost())
    assert made.buffer.crowded == crowded


async def test_it_is_not_crowded_if_nobody_reads() -> None:
    made = Made(4)
    made.put(*range(4))
    assert not made.buffer.crowded


# Ending


async def test_what_is_buffered_is_read_before_the_end(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(4)
    made.put(1)
    made.buffer.close(lambda: RuntimeError("over"))
    assert await made.take() == [1]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="over"):
            await made.buffer.get(gaps=False)


async def test_every_waiting_reader_is_told_the_end(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(4)
    ends: list[BaseException] = []

    async def read() -> None:
        try:
            await made.buffer.get(gaps=False)
        except StopAsyncIteration as end:
            ends.append(end)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await settle()
        made.buffer.close(StopAsyncIteration)
    assert len(ends) == 3


async def test_it_can_be_opened_again(autojump_clock: trio.testing.MockClock) -> None:
    made = Made(4)
    made.buffer.close(StopAsyncIteration)
    made.buffer.open()
    made.put(1)
    assert await made.take() == [1]
    with trio.move_on_after(1) as waiting:
        await made.buffer.get(gaps=False)
    assert waiting.cancelled_caught


@pytest.mark.parametrize("policy", ["raise", "drop_oldest", "drop_newest"])
async def test_each_loss_is_told_once_when_its_reader_comes_to_it(policy: Overflow) -> None:
    made = Made(2, policy)
    made.put(1, 2, 3)
    assert made.lost == []
    await made.rest()
    made.put(4, 5, 6, 7)
    await made.rest()
    assert made.lost == [("overflow", 1), ("overflow", 2)]
    made.buffer.close(StopAsyncIteration)
    assert made.lost == [("overflow", 1), ("overflow", 2)]


async def test_losses_that_nobody_came_to_are_told_at_the_end_and_not_again() -> None:
    made = Made(2)
    made.put(1, 2, 3)
    made.buffer.mark(Gap("reconnected", BEGIN, BEGIN))
    made.put(4, 5)
    made.buffer.close(StopAsyncIteration)
    assert made.lost == [("overflow", 3)]
    assert made.buffer.dropped == 3
    await made.rest()
    assert made.lost == [("overflow", 3)]


async def test_a_loss_beside_a_reconnect_is_told_as_a_loss() -> None:
    made = Made(2)
    made.put(1, 2)
    await made.take()
    made.put(3, 4)
    made.buffer.mark(Gap("reconnected", BEGIN, BEGIN))
    assert await made.rest() == [2, 3, ("room:1", 1), ("reconnected", 0)]
    assert made.lost == [("overflow", 1)]
