"""The writer's task: when it runs, in which context, and how it ends."""

import math
from collections.abc import Sequence
from contextvars import ContextVar

import pytest
import trio
import trio.lowlevel
from tests.client.support import URL, Scripted, living_tasks, scripted
from tests.held import objects_held
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, connect
from slipstream_trio.protocol import Frame


async def test_the_writer_is_woken_for_the_transport_once(autojump_clock: MockClock) -> None:
    async with scripted() as (_socket, peer):
        for _ in range(2):
            peer.wake()
            await wait_all_tasks_blocked()
        assert peer.batches == [(), ()]


async def test_the_writer_does_not_run_in_the_context_of_who_pushes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def send(frames: Sequence[Frame]) -> None:
        seen.append(variable.get())
        await before(frames)

    variable = ContextVar("variable", default="outside")
    seen: list[str] = []
    variable.set("connect")
    async with scripted() as (socket, peer):
        before = peer.send
        monkeypatch.setattr(peer, "send", send)
        variable.set("push")
        channel = socket.channel("room")
        await channel.join()
        await trio.sleep(10)  # until the writer's task has ended
        assert await channel.push("echo", 1) == 1
    assert set(seen) == {"connect"}


async def test_the_writers_task_ends_each_time_it_has_nothing_to_do(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        idle: list[int] = []
        for _ in range(3):
            await channel.push("echo", 1)
            await channel.push("echo", 1)
            await trio.sleep(3)
            idle.append(living_tasks())
        assert len(set(idle)) == 1


async def test_the_writers_task_ends_after_a_write_that_took_long(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        await trio.sleep(3)
        idle = living_tasks()
        peer.pause()
        await channel.send("event")
        await trio.sleep(3)
        assert living_tasks() > idle
        peer.resume()
        await trio.sleep(3)
        assert living_tasks() == idle


async def test_the_writers_task_ends_in_another_socket_of_the_run_too(autojump_clock: MockClock) -> None:
    idle: list[int] = []
    for _ in range(2):
        async with scripted(heartbeat_interval=None) as (socket, _):
            idle.append(living_tasks())
            async with socket.join("room") as channel:
                await channel.push("echo", 1)
                await trio.sleep(3)
                idle.append(living_tasks())
                await channel.push("echo", 1)
    assert len(set(idle)) == 1


async def hang(_: Sequence[Frame]) -> None:
    await trio.sleep_forever()


async def test_a_socket_ends_at_once_though_its_writer_rests(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _), socket.join("room") as channel:
        await channel.push("echo", 1)
    assert trio.current_time() == 0


@pytest.mark.parametrize("more", [False, True])
async def test_a_write_that_ends_after_the_connection_is_the_last(
    more: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def send(frames: Sequence[Frame]) -> None:
        begun.extend(frames)
        await before(frames)
        await written.wait()

    written, connector = trio.Event(), Scripted()
    begun: list[Frame] = []
    async with connect(URL, transport=connector) as socket, socket.join("room") as channel:
        await channel.push("echo", 1)
        peer, before = connector.peer, connector.peer.send
        monkeypatch.setattr(peer, "send", send)
        await channel.send("event")
        await wait_all_tasks_blocked()
        if more:
            await channel.send("dropped")
        peer.end()
        left = []
        for _ in range(2):
            await wait_all_tasks_blocked()
            left.append(peer.left)
            written.set()
        assert left == [False, True]
        assert len(begun) == 1
        assert trio.current_time() == 0
        await socket.wait_connected()


async def test_a_close_that_waits_for_a_write_ends_with_the_connection(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector) as socket:
        connector.peer.pause()
        connector.peer.wake()
        await wait_all_tasks_blocked()
        socket.reconnect()
        await wait_all_tasks_blocked()
        connector.peer.end()
        await wait_all_tasks_blocked()
        assert socket.generation == 2
        assert trio.current_time() == 0


async def test_a_write_that_never_ends_is_given_up_a_second_after_the_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket:
        monkeypatch.setattr(connector.peer, "send", hang)
        connector.peer.wake()
        await wait_all_tasks_blocked()
        connector.peer.end()
        await trio.sleep(2.5)
        assert (socket.status, socket.generation) == ("connected", 2)


async def test_the_transport_is_left_when_the_write_has_ended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def send(_: Sequence[Frame]) -> None:
        try:
            await trio.sleep(math.inf)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.25)
            left.append(peer.left)

    left: list[bool] = []
    with trio.move_on_after(5):
        async with scripted(close_timeout=1) as (_, peer):
            monkeypatch.setattr(peer, "send", send)
            peer.answers_close = False
            peer.wake()
            await wait_all_tasks_blocked()
    assert left == [False]


async def test_a_socket_whose_write_was_given_up_is_not_kept(autojump_clock: MockClock) -> None:
    async def visit() -> int:
        async with scripted(close_timeout=1) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            peer.pause()
            peer.answers_close = False
            await channel.send("event")
        return objects_held()

    first = await visit()
    assert [await visit() for _ in range(2)] == [first, first]
