"""A line on which writing makes no progress: lost after `heartbeat_timeout`, whatever else is due, and not before."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running as running_client
from tests.client.support import URL, running, scripted
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, connect
from slipstream_trio.protocol import Frame
from slipstream_trio.testing.server import Channel

LARGE = "x" * 1_000_000


class Slow(Channel):
    async def join(self, payload: float) -> None:
        await trio.sleep(payload)


@pytest.mark.parametrize("interval", [None, 3, 30])
async def test_it_is_lost_after_the_timeout_whatever_the_interval(
    interval: float | None, autojump_clock: MockClock
) -> None:
    options: dict[str, Any] = {"heartbeat_interval": interval, "heartbeat_timeout": 5, "push_timeout": None}
    async with running() as server:
        with pytest.raises(ConnectionLost) as raised:
            async with (
                connect(URL, transport=server.connector(), reconnect=None, **options) as socket,
                socket.join("lab:1") as channel,
            ):
                await trio.sleep(2)
                server.connections[0].pause_reading()
                began = trio.current_time()
                await channel.push("echo", LARGE)
    assert (raised.value.reason, raised.value.ended_by) == ("heartbeat_timeout", "network")
    assert trio.current_time() - began == pytest.approx(5 + 1, abs=0.1)  # a second for the close frame


async def test_a_client_is_told_after_the_timeout(autojump_clock: MockClock) -> None:
    async def paused(_: Any) -> None:
        world.server.connections[0].pause_reading()
        await client.push("room:1", "echo", {"text": LARGE})
        client.note("pushed")

    client = Told("room:1", info=paused)
    options: dict[str, Any] = {"heartbeat_interval": 30, "heartbeat_timeout": 5}
    async with a_world() as world, running_client(world, client, **options):
        await client.until(("join", "room:1", 1))
        client.info("go on")
        await client.until("pushed")
        began = trio.current_time()
        await client.until(("disconnect", "ConnectionLost", "heartbeat_timeout", 1006))
        assert trio.current_time() - began == pytest.approx(6, abs=0.1)
        await client.until(("join", "room:1", 2))
        client.stop()


async def test_what_makes_progress_now_and_then_is_not_lost(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None, heartbeat_timeout=5) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.pause()
        await channel.send("event")
        for _ in range(10):
            peer.write_blocked_since = trio.current_time()
            await trio.sleep(4)
        peer.resume()
        peer.write_blocked_since = None
        assert (socket.status, socket.generation) == ("connected", 1)


async def test_without_heartbeats_and_a_timeout_none_is_lost(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.pause()
        peer.write_blocked_since = trio.current_time()
        await channel.send("event")
        await trio.sleep(1000)
        peer.resume()
        peer.write_blocked_since = None
        assert (socket.status, socket.generation) == ("connected", 1)


async def test_what_is_queued_behind_a_heartbeat_is_not_taken_for_it(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost):
        async with scripted(answers={"phx_join"}, heartbeat_interval=30, heartbeat_timeout=10) as (socket, peer):
            began = trio.current_time()
            channel = socket.channel("room")
            await channel.join()
            await trio.sleep(36)
            peer.pause()
            peer.write_blocked_since = trio.current_time()
            await channel.leave(timeout=None)
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(40 + 1, abs=0.1)


async def test_what_is_written_before_a_heartbeat_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def send(frames: Sequence[Frame]) -> None:
        peer.write_blocked_since = trio.current_time()
        await trio.sleep(6)
        await before(frames)
        peer.write_blocked_since = None

    with pytest.raises(ConnectionLost):
        async with scripted(answers={"phx_join"}, heartbeat_interval=30, heartbeat_timeout=10) as (socket, peer):
            began = trio.current_time()
            channel, before = socket.channel("room"), peer.send
            await channel.join()
            await trio.sleep(29)
            monkeypatch.setattr(peer, "send", send)
            await channel.send("event")
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(29 + 6 + 6 + 10, abs=0.1)


@pytest.mark.parametrize("takes", [15, 30])  # from what was heard last, four times the timeout is the longest
async def test_a_join_that_the_server_works_off_holds_it_up(takes: float, autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"heartbeat_interval": None, "heartbeat_timeout": 5, "join_timeout": None}
    lost: list[float] = []
    async with running(channels={"slow:*": Slow}) as server:
        async with (
            connect(URL, transport=server.connector(), **options) as socket,
            socket.join("lab:1") as channel,
            trio.open_nursery() as nursery,
        ):

            async def join() -> None:
                try:
                    await socket.channel("slow:1", takes).join()
                except ConnectionLost:
                    lost.append(trio.current_time() - began)

            began = trio.current_time()
            nursery.start_soon(join)
            await trio.sleep(1)
            await channel.send("nothing", LARGE)  # while the server works off the join, it reads nothing
            await trio.sleep(takes)
            assert socket.generation == (1 if takes == 15 else 2)
            assert lost == ([] if takes == 15 else [pytest.approx(20 + 1, abs=0.1)])
