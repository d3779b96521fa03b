"""Frames that come together lead to the same as frames that come one by one."""

from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from tests.client.support import scripted
from tests.protocol import wire
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Channel, Message, Subscription
from slipstream_trio.protocol import Frame, StdlibCodec, V2Serializer

PRESENCE = {"ada": {"metas": [{"phx_ref": "1"}]}}

FRAMES: dict[str, Frame] = {
    "plain": wire.text(None, None, "room", "tick", 1),
    "of this join": wire.text("1", None, "room", "tick", 2),
    "of another join": wire.text("9", None, "room", "tick", 3),
    "with a ref": wire.text(None, "77", "room", "tick", 4),
    "a reply": wire.text("1", "99", "room", "phx_reply", {"status": "ok", "response": {}}),
    "of another channel": wire.text(None, None, "other", "tick", 5),
    "of no channel": wire.text(None, None, "nowhere", "tick", 6),
    "a presence state": wire.text(None, None, "room", "presence_state", PRESENCE),
    "malformed": "[1, 2",
    "too deep": '[null,null,"room","tick",' + "[" * 200 + "]" * 200 + "]",
    "long": wire.text(None, None, "room", "tick", "x" * 500),
    "heavy": wire.text(None, None, "room", "tick", "y" * 3000),
    "binary": b"\x02\x04\x04roomtickbytes",
}


async def outcome(frames: list[Frame], codec: Any, *, together: bool) -> list[Any]:
    """Return what the readers of two channels got of the frames, and who is present."""
    options: dict[str, Any] = {} if codec is None else {"serializer": V2Serializer(codec())}
    got: list[Any] = []

    async def read(channel: Channel, mine: list[Message]) -> None:
        async for message in channel:
            mine.append(message)  # noqa: PERF401 - it is looked at while this goes on

    async with (
        scripted(**options) as (socket, peer),
        socket.join("room") as room,
        socket.join("other") as other,
        room.presence() as presence,
        trio.open_nursery() as nursery,
    ):
        for channel in (room, other):
            got.append([])
            nursery.start_soon(read, channel, got[-1])
        await wait_all_tasks_blocked()
        peer.feed(FRAMES["plain"])  # the first one makes the channel's buffer
        await wait_all_tasks_blocked()
        for some in [frames] if together else [[frame] for frame in frames]:
            peer.feed(*some)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        got.append((dict(presence), socket.status))
    return got


def outcomes(frames: list[Frame], codec: Any) -> list[list[Any]]:
    runs = (partial(outcome, frames, codec, together=together) for together in (True, False))
    return [trio.run(run, clock=MockClock(autojump_threshold=0)) for run in runs]


@pytest.mark.parametrize("codec", [None, StdlibCodec])
@given(names=st.lists(st.sampled_from(sorted(FRAMES)), min_size=1, max_size=12))
def test_frames_that_come_together_lead_to_what_each_alone_does(codec: Any, names: list[str]) -> None:
    together, one_by_one = outcomes([FRAMES[name] for name in names], codec)
    assert together == one_by_one


@pytest.mark.parametrize("name", sorted(FRAMES))
@pytest.mark.parametrize("place", [0, 10, 19])
def test_one_other_frame_in_a_flood_is_treated_as_it_is_alone(name: str, place: int) -> None:
    frames = [FRAMES["plain"]] * 20
    frames[place] = FRAMES[name]
    together, one_by_one = outcomes(frames, None)
    assert together == one_by_one
    assert len(together[0]) >= 20


async def test_a_subscription_gets_what_comes_together(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as room:
        peer.feed(FRAMES["plain"])
        await wait_all_tasks_blocked()
        async with room.subscribe() as messages:
            peer.feed(*[FRAMES["plain"]] * 20)
            with trio.fail_after(1):
                for _ in range(20):
                    await anext(messages)


async def test_what_comes_together_and_does_not_fit_is_dropped(autojump_clock: MockClock) -> None:
    async with scripted(buffer=16) as (socket, peer), socket.join("room") as room:
        peer.feed(FRAMES["plain"])
        await wait_all_tasks_blocked()
        peer.feed(*[FRAMES["plain"]] * 20)
        await wait_all_tasks_blocked()
        assert room.dropped == 5


async def test_what_came_together_counts_for_what_comes_next(autojump_clock: MockClock) -> None:
    async with scripted(buffer=40) as (socket, peer), socket.join("room") as room:
        peer.feed(FRAMES["plain"])
        await wait_all_tasks_blocked()
        for _ in range(10):
            peer.feed(*[FRAMES["plain"]] * 15)
            await wait_all_tasks_blocked()
        assert room.dropped == 1 + 10 * 15 - 40


async def test_a_crowded_subscription_is_eased_beside_one_that_is_not(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # the machine may be busy
    received = 0

    async def read(messages: Subscription) -> None:
        nonlocal received
        async for _ in messages:
            received += 1

    async with scripted() as (socket, peer), socket.join("room") as room, trio.open_nursery() as nursery:
        async with room.subscribe(buffer=16) as messages, room.subscribe("tick"):
            nursery.start_soon(read, messages)
            await wait_all_tasks_blocked()
            peer.feed(*[FRAMES["plain"]] * 100)
            await wait_all_tasks_blocked()
            assert (received, messages.dropped) == (100, 0)
