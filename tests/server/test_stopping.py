"""How a server drains its connections, and stops."""

from typing import Any

import pytest
import trio
import trio.testing
from tests.server.raw_client import RawClient

from slipstream_trio.testing.server import Channel, Flavour, Mount, PhoenixServer


def server_of(batch: int, interval: float, **options: Any) -> PhoenixServer:
    mounts = {"/socket": Mount(channels={"*": Channel})}
    return PhoenixServer(mounts, drain_batch=batch, drain_interval=interval, **options)


async def joined(server: PhoenixServer, nursery: trio.Nursery, *topics: str) -> RawClient:
    client = await RawClient.connect(server, nursery)
    for topic in topics:
        assert (await client.join(topic))[4]["status"] == "ok"
    return client


async def test_draining_lets_new_connections_and_joins_in_and_spares_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = server_of(batch=1, interval=10)
    async with server.run(), trio.open_nursery() as nursery:
        old = await joined(server, nursery, "1")
        idle = await joined(server, nursery)
        nursery.start_soon(server.drain)
        await trio.sleep(1)
        assert old.closed == (1012, "server")
        new = await joined(server, nursery, "1")
        assert (await idle.join("1"))[4]["status"] == "ok"
        await trio.sleep(20)
        assert idle.closed is new.closed is None
        nursery.cancel_scope.cancel()


async def test_draining_takes_channels_in_batches_with_a_pause_after_each_whole_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = server_of(batch=2, interval=3)
    async with server.run(), trio.open_nursery() as nursery:
        clients = [
            await joined(server, nursery, "1", "2"),
            await joined(server, nursery, "1"),
            await joined(server, nursery, "1"),
            await joined(server, nursery, "1"),
        ]
        await server.drain()
        assert [client.log[-1] for client in clients] == [
            (at, ("close", 1012, "", True, "server")) for at in (0, 3, 3, 6)
        ]
        nursery.cancel_scope.cancel()


async def test_draining_passes_over_what_was_left_meanwhile(autojump_clock: trio.testing.MockClock) -> None:
    server = server_of(batch=1, interval=3)
    async with server.run(), trio.open_nursery() as nursery:
        await joined(server, nursery, "1")
        client = await joined(server, nursery, "1")
        nursery.start_soon(server.drain)
        await trio.sleep(1)
        await client.push("1", "2", "1", "phx_leave", {})
        await trio.sleep(10)
        assert client.closed is None
        nursery.cancel_scope.cancel()


async def test_draining_ends_after_30_seconds(autojump_clock: trio.testing.MockClock) -> None:
    server = server_of(batch=1, interval=20)
    async with server.run(), trio.open_nursery() as nursery:
        clients = [await joined(server, nursery, "1") for _ in range(3)]
        await server.drain()
        assert trio.current_time() == 30
        assert [client.closed for client in clients] == [(1012, "server"), (1012, "server"), None]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("flavour", "end", "after"), [("bandit", (1000, "server"), 0), ("cowboy", (1006, "tcp"), 5)])
async def test_a_stopping_server_accepts_until_it_has_drained_and_its_web_server_ends_what_came(
    flavour: Flavour, end: Any, after: float, autojump_clock: trio.testing.MockClock
) -> None:
    server = server_of(batch=1, interval=10, flavour=flavour)
    async with server.run(), trio.open_nursery() as nursery:
        await joined(server, nursery, "t")
        nursery.start_soon(server.stop)
        await trio.sleep(9)
        late = await joined(server, nursery, "t")
        await trio.sleep(2)
        with pytest.raises(ConnectionRefusedError):
            await server.open_stream()
        await late.over.wait()
        assert late.closed == end
        assert late.log[-1][0] == 10 + after
        nursery.cancel_scope.cancel()


async def test_a_draining_server_listens_until_it_has_drained(mock_clock: trio.testing.MockClock) -> None:
    server = server_of(batch=1, interval=10)
    async with server.serve() as listening, trio.open_nursery() as nursery:
        old = await joined(server, nursery, "t")
        nursery.start_soon(server.stop)
        await old.over.wait()
        late = RawClient(await trio.open_tcp_stream(listening.host, listening.port))
        await late.open("/socket/websocket?vsn=2.0.0")
        nursery.start_soon(late.read)
        assert (await late.join("t"))[4]["status"] == "ok"
        mock_clock.jump(10)
        await late.over.wait()
        assert late.closed == (1000, "server")
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(listening.host, listening.port)
        nursery.cancel_scope.cancel()
