"""Incidents of tokens that expire in a machine's sleep, and of servers that end by the clock."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from tests.trace.incidents import SOON, Incident, declared, ignore, takes
from tests.trace.laboratory import EPOCH, URL, Laboratory
from tests.trace.networks import CLIENT, HOUR

from slipstream_trio import ConnectError, SlipstreamError, connect
from slipstream_trio.testing.server import Refuse

__all__ = ["FLOODS"]

FLOODS: dict[str, Incident] = {}
incident = partial(declared, FLOODS)

# A token that expires while the machine sleeps


@asynccontextmanager
async def given_up() -> AsyncIterator[None]:
    """Let a socket give up."""
    try:
        yield
    except* SlipstreamError:
        pass


@incident("stale_token", "application", "the machine slept", auth_token=True)
async def token_expires_in_the_sleep(lab: Laboratory) -> None:
    async with given_up(), lab.desk(auth_token="one-hour", **CLIENT):
        await trio.sleep(12)
        lab.slept = 8 * HOUR
        lab.refusal = Refuse(403)
        lab.connection.drop()
        await trio.sleep(8)


@incident("stale_token", "application", "the machine slept")
async def token_expires_in_the_sleep_of_a_dead_link(lab: Laboratory) -> None:
    async with given_up(), lab.desk(params={"token": "one"}, **CLIENT):
        await trio.sleep(12)
        lab.slept = 2 * HOUR
        lab.refusal = Refuse(401)
        lab.connection.pause_writing()
        lab.connection.pause_reading()
        await trio.sleep(22)


@incident("stale_token", "application", "the machine slept", "sent and not answered", auth_token=True)
async def token_expires_before_the_network_is_back(lab: Laboratory) -> None:
    lab.events["save"] = takes(1000)
    async with given_up(), lab.desk(auth_token="one", **CLIENT) as (socket, nursery), socket.join("room:3") as room:
        await trio.sleep(12)
        nursery.start_soon(ignore, partial(room.push, "save", {"number": 1}))
        await trio.sleep(0.1)
        lab.slept = 8 * HOUR
        lab.failure = ConnectError("no connection to lab port 443: [Errno 101] Network is unreachable")
        lab.connection.drop()
        await trio.sleep(10)
        lab.refusal, lab.failure = Refuse(403), None
        await trio.sleep(8)


@incident("stale_token", "application", "it stood still", auth_token=True)
async def token_expires_while_the_process_is_stopped(lab: Laboratory) -> None:
    async with given_up(), lab.desk(auth_token="one-hour", **CLIENT):
        await trio.sleep(12)
        lab.refusal = Refuse(403)
        lab.clock.jump(7200)
        lab.connection.drop()
        await trio.sleep(8)


# Ends by the clock


async def hourly(lab: Laboratory, hours: int, code: int | None) -> None:
    """Close all connections a moment after each full hour."""
    for _hour in range(hours):
        now = EPOCH / 1e9 + trio.current_time()
        await trio.sleep(3600 - now % 3600 + 1)
        for connection in list(lab.server.connections):
            if code is None:
                connection.drop()
            else:
                connection.close(code)
        await trio.sleep(5)


@asynccontextmanager
async def quiet_sockets(lab: Laboratory, *starts: float) -> AsyncIterator[None]:
    """Have sockets that are opened one after the other, so many seconds later each."""
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, "heartbeat_interval": 30, **SOON}
    async with AsyncExitStack() as stack:
        for number, start in enumerate(starts):
            await trio.sleep(start)
            socket = await stack.enter_async_context(connect(URL, **options))
            await stack.enter_async_context(socket.join(f"room:{number}"))
        yield


@incident("ends_by_clock", "server", "each hour, 0 min past it")
async def balancer_closes_all_each_hour(lab: Laboratory) -> None:
    async with quiet_sockets(lab, 0, 300, 200):
        await hourly(lab, 3, None)


@incident("ends_by_clock", "server", "each hour, 0 min past it")
async def one_socket_is_closed_each_hour(lab: Laboratory) -> None:
    async with quiet_sockets(lab, 400):
        await hourly(lab, 4, 1001)


@incident("ends_by_clock", "server", "each day at 06:33 UTC", timeout=None)
async def server_is_restarted_each_night(lab: Laboratory) -> None:
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
    async with connect(URL, heartbeat_interval=1000, **options) as socket, socket.join("room:1") as room:
        for seconds in (30_000, 86_400, 86_412):
            for _hour in range(int(seconds // 3000)):
                await trio.sleep(3000)
                await room.push("save", {})
            await trio.sleep(seconds % 3000)
            lab.down = True
            lab.connection.close(1012)
            await trio.sleep(4)
            lab.down = False
            await trio.sleep(1)
