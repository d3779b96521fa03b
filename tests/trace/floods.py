"""Incidents of full lines, of tokens that expire in a machine's sleep, and of servers that end by the clock."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from tests.trace.incidents import SOON, Incident, declared, ignore, takes
from tests.trace.laboratory import EPOCH, URL, Laboratory
from tests.trace.networks import CLIENT, HOUR, over_network

from slipstream_trio import Channel as ClientChannel, ConnectError, SlipstreamError, connect
from slipstream_trio.testing.faults import Link
from slipstream_trio.testing.server import Channel, Outcome, Refuse, Reply

__all__ = ["FLOODS"]

FLOODS: dict[str, Incident] = {}
incident = partial(declared, FLOODS)

PATIENT: dict[str, Any] = {"heartbeat_interval": 5, "heartbeat_timeout": 30, **SOON}


def line(rate: float) -> Link:
    """Return a line that carries so many bytes a second."""
    return Link(latency=0.02, jitter=0.01, bandwidth=rate)


# Uploads


async def upload(
    nursery: trio.Nursery, room: ClientChannel, count: int, size: int, *, timeout: float, every: float = 0.0
) -> None:
    """Push so many chunks, none of which waits for the answer to another."""
    for number in range(count):
        chunk = {"number": number, "data": "x" * size}
        nursery.start_soon(ignore, partial(room.push, "chunk", chunk, timeout=timeout))
        await trio.sleep(every)


@incident("upload_fills_line", "application", "chunk", "kB/s")
async def file_is_uploaded_at_once(lab: Laboratory) -> None:
    async with over_network(lab, toward_server=line(60_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(12)
            await upload(nursery, room, 20, 30_000, timeout=40)
            await trio.sleep(25)


@incident("upload_fills_line", "application", "chunk")
async def chunks_time_out_behind_each_other(lab: Laboratory) -> None:
    async with over_network(lab, toward_server=line(40_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(8)
            await upload(nursery, room, 24, 20_000, timeout=5, every=0.25)
            await trio.sleep(25)


@incident("upload_fills_line", "application", "frame")
async def screen_is_shared_over_a_thin_line(lab: Laboratory) -> None:
    lab.events["frame"] = takes(0, None)
    async with over_network(lab, toward_server=line(50_000)):
        async with lab.desk(**PATIENT) as (socket, _), socket.join("room:3") as room:
            await trio.sleep(10)
            for _number in range(60):
                with trio.move_on_after(2):
                    await ignore(partial(room.send, "frame", {"data": "x" * 12_000}))
                await trio.sleep(0.1)
            await trio.sleep(12)


@incident("upload_fills_line", "application", "backup")
async def one_upload_is_larger_than_the_line(lab: Laboratory) -> None:
    async with over_network(lab, toward_server=line(80_000)):
        async with lab.desk(**PATIENT) as (socket, _), socket.join("room:3") as room:
            for _number in range(2):
                await trio.sleep(11)
                await ignore(partial(room.push, "backup", {"data": "x" * 700_000}, timeout=30))
            await trio.sleep(6)


@incident("upload_fills_line", "application", "chunk")
async def upload_costs_the_heartbeat(lab: Laboratory) -> None:
    async with over_network(lab, toward_server=line(30_000)):
        async with lab.desk(**CLIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(9)
            await upload(nursery, room, 40, 25_000, timeout=20, every=0.2)
            await trio.sleep(30)


@incident("upload_fills_line", "application", "chunk")
async def upload_delays_another_socket(lab: Laboratory) -> None:
    async with over_network(lab, toward_server=line(60_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), lab.desk(**PATIENT), socket.join("room:3") as room:
            await trio.sleep(8)
            await upload(nursery, room, 24, 30_000, timeout=5, every=0.25)
            await trio.sleep(25)


@incident("pushes_too_fast", "application", "chunk")
async def chunks_are_large_but_the_channel_is_slow(lab: Laboratory) -> None:
    lab.events["chunk"] = takes(0.5)
    async with lab.desk() as (socket, nursery), socket.join("room:3") as room:
        await trio.sleep(8)
        await upload(nursery, room, 24, 30_000, timeout=5, every=0.25)
        await trio.sleep(15)


# Downloads


def floods(count: int, size: int) -> Any:
    """Return what answers an event with a flood of messages."""

    async def answer(channel: Channel, payload: Any) -> Outcome:
        for number in range(count):
            await channel.push("row", {"row": number, "text": "y" * size})
        return Reply({})

    return answer


def stream(count: int, size: int, period: float) -> Any:
    """Return what answers an event at once, and sends messages from then on."""

    async def answer(channel: Channel, payload: Any) -> Outcome:
        async def flood() -> None:
            for number in range(count):
                await channel.push("row", {"row": number, "text": "z" * size})
                await trio.sleep(period)

        channel.spawn(flood)
        return Reply({})

    return answer


@incident("download_fills_line", "network or proxy", "row", "kB/s")
async def export_floods_the_line(lab: Laboratory) -> None:
    lab.events["export"] = floods(100, 8_000)
    async with over_network(lab, toward_client=line(80_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(12)
            nursery.start_soon(ignore, partial(room.push, "export", {}, timeout=40))
            await trio.sleep(25)


@incident("download_fills_line", "network or proxy", "page")
async def pages_are_asked_for_at_once(lab: Laboratory) -> None:
    lab.events["page"] = takes(0.01, Reply({"text": "y" * 50_000}))
    async with over_network(lab, toward_client=line(60_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(10)
            for number in range(16):
                nursery.start_soon(ignore, partial(room.push, "page", {"number": number}, timeout=6))
            await trio.sleep(25)


@incident("download_fills_line", "network or proxy", "row")
async def broadcasts_exceed_the_line(lab: Laboratory) -> None:
    lab.events["watch"] = stream(150, 4_000, 0.05)
    async with over_network(lab, toward_client=line(40_000)):
        async with lab.desk(**PATIENT) as (socket, _), socket.join("room:3") as room:
            await trio.sleep(10)
            await room.push("watch", {})
            await trio.sleep(25)


@incident("download_fills_line", "network or proxy", "row")
async def export_has_large_rows(lab: Laboratory) -> None:
    lab.events["export"] = floods(12, 90_000)
    async with over_network(lab, toward_client=line(60_000)):
        async with lab.desk(**PATIENT) as (socket, nursery), socket.join("room:3") as room:
            await trio.sleep(12)
            nursery.start_soon(ignore, partial(room.push, "export", {}, timeout=40))
            await trio.sleep(35)


@incident("slow_handler", "server")
async def stream_is_steady_but_the_database_is_slow(lab: Laboratory) -> None:
    lab.events["watch"] = stream(400, 2_000, 0.1)
    options: dict[str, Any] = {"heartbeat_interval": 30}
    async with lab.desk(**options) as (socket, nursery), socket.join("room:3") as one, socket.join("room:4") as two:
        await one.push("watch", {})
        await trio.sleep(10)
        for event in ("msg", "search", "history", "save", "load"):
            lab.events[event] = takes(2.5)
        for number in range(5):
            nursery.start_soon(ignore, partial(one.push, "save", {"number": number}))
            nursery.start_soon(ignore, partial(two.push, "load", {"number": number}))
            await trio.sleep(4)


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
