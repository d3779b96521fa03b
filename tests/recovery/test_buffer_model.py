"""A buffer against a model: what a reader is told, put together, is what was put."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import trio
from attrs import define, field
from hypothesis import given, strategies as st

from slipstream_trio import Gap, Message, Overflow, SlowConsumer
from slipstream_trio.client.buffer import Buffer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOST = Gap("reconnected", NOW, NOW)


@define
class Model:
    """All messages with a mark on those that are lost, and the places of lost connections."""

    limit: int
    policy: Overflow
    items: deque[Any] = field(factory=deque)
    read: bool = False
    dropped: int = 0

    def put(self, number: int) -> None:
        kept = [index for index, item in enumerate(self.items) if type(item) is int]
        if len(kept) < self.limit:
            self.items.append(number)
            return
        self.dropped += 1
        if self.read and self.policy != "drop_oldest":
            self.items.append("dropped")
        else:
            self.items[kept[0]] = "dropped"
            self.items.append(number)

    def mark(self) -> None:
        self.items.append("lost")

    def get(self) -> list[Any]:
        """Return what the next reads give: a message, or the losses up to the next message."""
        self.read = True
        if type(self.items[0]) is int:
            return [self.items.popleft()]
        losses = []
        while self.items and type(self.items[0]) is not int:
            losses.append(self.items.popleft())
        dropped, was_lost = losses.count("dropped"), "lost" in losses
        if self.policy == "raise" and dropped:
            return [("slow", dropped), *([("reconnected", 0)] if was_lost else [])]
        return [("reconnected" if was_lost else "overflow", dropped)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 6)),
        st.tuples(st.just("mark"), st.just(1)),
        st.tuples(st.just("get"), st.integers(1, 6)),
    ),
    max_size=40,
)


async def next_of(buffer: Buffer) -> Any:
    with trio.fail_after(1):
        try:
            item = await buffer.get(gaps=True)
        except SlowConsumer as error:
            return ("slow", error.dropped)
        return item.payload if isinstance(item, Message) else (item.reason, item.dropped)


class Streams:
    """What a buffer tells of, in place of a channel's streams."""

    topic = "room:1"

    def __init__(self) -> None:
        self.episodes: list[bool] = []
        self.told: list[Gap] = []

    def new_overflow(self) -> Gap:
        return Gap("overflow", NOW, NOW, 1)

    def overflowed(self, *_: Any, first: bool) -> None:
        self.episodes.append(first)

    def emit(self, gap: Gap) -> None:
        self.told.append(gap)


async def compare(limit: int, policy: Overflow, steps: list[tuple[str, int]]) -> None:
    streams = Streams()
    episodes, told = streams.episodes, streams.told
    buffer = Buffer(streams, limit, policy, "channel")  # type: ignore[arg-type]
    model = Model(limit, policy)
    number = 0
    for what, count in steps:
        for _ in range(count):
            if what == "put":
                number += 1
                buffer.put(Message(None, None, "room:1", "tick", number))
                model.put(number)
            elif what == "mark":
                buffer.mark(LOST)
                model.mark()
            elif model.items:
                for expected in model.get():
                    assert await next_of(buffer) == expected
        assert buffer.dropped == model.dropped == len(episodes)
        assert bool(len(buffer)) == bool(model.items)
        assert len(buffer) <= 2 * limit + 1
    while model.items:
        for expected in model.get():
            assert await next_of(buffer) == expected
    assert len(buffer) == 0
    assert sum(gap.dropped for gap in told) == buffer.dropped


@given(st.integers(1, 4), st.sampled_from(get_args(Overflow)), STEPS)
def test_a_reader_is_told_every_message_or_its_loss(limit: int, policy: Overflow, steps: list[tuple[str, int]]) -> None:
    run: Callable[..., None] = trio.run
    run(compare, limit, policy, steps)
