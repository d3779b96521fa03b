"""The writer's task: when it runs, and in which context."""

from collections.abc import Sequence
from contextvars import ContextVar

import pytest
import trio
import trio.lowlevel
from tests.client.support import living_tasks, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

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
