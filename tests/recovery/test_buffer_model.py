"""A buffer against a model: what a reader is told, put together, is what was put."""

from collections import deque
from typing import Any, get_args

import pytest
import trio
from attrs import define, field
from hypothesis import example, given, strategies as st
from tests.client.support import URL, Recorder, Scripted
from tests.recovery.support import settle
from tests.scheduling import play

from slipstream_trio import Backoff, Channel, Message, Overflow, SlowConsumer, Socket, Stream, connect


@define
class Model:
    """All messages with a mark on those that are lost, and the places of lost connections."""

    limit: int
    policy: Overflow
    items: deque[Any] = field(factory=deque)
    read: bool = False
    dropped: int = 0
    episodes: list[int] = field(factory=list)
    overflows: bool = False
    told: int = 0

    def put(self, number: int) -> None:
        kept = [index for index, item in enumerate(self.items) if type(item) is int]
        if len(kept) < self.limit:
            self.items.append(number)
            return
        at_head = not self.read or self.policy == "drop_oldest"
        self.dropped += 1
        if not self.overflows:
            self.episodes.append(0)
        self.overflows = True
        self.episodes[-1] += 1
        if at_head:
            self.items[kept[0]] = "dropped"
        self.items.append(number if at_head else "dropped")

    def mark(self) -> None:
        self.items.append("lost")

    def get(self) -> list[Any]:
        """Return what the next reads give: a message, or the losses up to the next message."""
        self.read = True
        if type(self.items[0]) is int:
            message = self.items.popleft()
            if sum(type(item) is int for item in self.items) <= self.limit // 2:
                self.overflows = False
            return [message]
        losses = []
        while self.items and type(self.items[0]) is not int:
            losses.append(self.items.popleft())
        dropped, was_lost = losses.count("dropped"), "lost" in losses
        self.told += dropped
        if self.policy == "raise" and dropped:
            return [("slow", dropped), *([("reconnected", 0)] if was_lost else [])]
        return [("reconnected" if was_lost else "overflow", dropped)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 6)),
        st.tuples(st.just("mark"), st.just(1)),
        st.tuples(st.just("get"), st.integers(1, 6)),
    ),
    max_size=20,
)


async def next_of(stream: Stream) -> Any:
    with trio.fail_after(1):
        try:
            item = await anext(stream)
        except SlowConsumer as error:
            return ("slow", error.dropped)
        return item.payload if isinstance(item, Message) else (item.reason, item.dropped)


class Channeled:
    """A channel of a scripted peer, its model, and what telemetry tells of its losses."""

    def __init__(self, socket: Socket, channel: Channel, connector: Scripted, model: Model, told: Recorder) -> None:
        self.channel = channel
        self.stream = channel.stream()
        self.number = 0
        self._socket = socket
        self._connector = connector
        self._model = model
        self._told = told

    @property
    def episodes(self) -> tuple[int, list[int]]:
        """How many overflows have begun, and what those that are over have cost."""
        told = self._told.named("client", "overflow")
        return sum(each.phase == "began" for each in told), [each.dropped for each in told if each.phase == "ended"]

    @property
    def told(self) -> int:
        return sum(gap.dropped for gap in self._told.named("client", "gap"))

    async def put(self) -> None:
        self.number += 1
        self._connector.peer.message("room", "tick", self.number)
        self._model.put(self.number)
        await settle()

    async def mark(self) -> None:
        self._connector.peer.end()
        self._model.mark()
        await settle()
        await self._socket.wait_connected()
        await settle()

    async def get(self) -> None:
        for expected in self._model.get() if self._model.items else ():
            assert await next_of(self.stream) == expected


async def compare(limit: int, policy: Overflow, steps: list[tuple[str, int]], ended: bool) -> None:
    model, told, connector = Model(limit, policy), Recorder(), Scripted()
    options: dict[str, Any] = {"transport": connector, "telemetry": told.bus, "reconnect": Backoff((1,), jitter=0)}
    async with connect(URL, buffer=limit, overflow=policy, heartbeat_interval=None, **options) as socket:
        channel = socket.channel("room")
        await channel.join()
        it = Channeled(socket, channel, connector, model, told)
        for name, count in steps:
            for _ in range(count):
                await getattr(it, name)()
            over = model.episodes[:-1] if model.overflows else model.episodes
            assert it.episodes == (len(model.episodes), over)
            assert (channel.dropped, it.told) == (model.dropped, model.told)
        if ended:
            await channel.leave()
            assert it.told == model.dropped
        while model.items:
            await it.get()
        assert it.told == channel.dropped
        if ended:
            with pytest.raises(StopAsyncIteration):
                await anext(it.stream)


PUT, GET, MARK = (("put", 1), ("get", 1), ("mark", 1))


@example(1, "drop_newest", [PUT, GET, PUT, MARK, PUT, PUT, MARK], False)  # a loss beside a lost connection
@example(2, "drop_oldest", [PUT, GET, PUT, PUT, PUT, MARK, PUT, PUT], False)  # that comes between two losses
@example(1, "raise", [PUT, GET, PUT, PUT, MARK, PUT, GET, GET], False)  # what "raise" tells beside one
@example(2, "raise", [PUT, PUT, PUT, MARK, PUT, PUT], True)  # losses that are told at the end alone
@given(st.integers(1, 4), st.sampled_from(get_args(Overflow)), STEPS, st.booleans())
def test_a_reader_is_told_every_message_or_its_loss(
    limit: int, policy: Overflow, steps: list[tuple[str, int]], ended: bool
) -> None:
    play(compare, limit, policy, steps, ended)
