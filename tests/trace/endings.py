"""Incidents of how connections end, and why there is no other."""

from functools import partial
from typing import Any

import trio
from tests.trace.incidents import SOON, Incident, declared, ignore, takes
from tests.trace.laboratory import URL, Laboratory

from slipstream_trio import Backoff, SlipstreamError, connect
from slipstream_trio.testing.server import Refuse, Reply

__all__ = ["ENDINGS"]

ENDINGS: dict[str, Incident] = {}
incident = partial(declared, ENDINGS)


@incident("idle_close", "configuration", "no heartbeats were sent", timeout=10)
async def idle_close(lab: Laboratory) -> None:
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
    async with lab.desk(), connect(URL, heartbeat_interval=None, **options) as quiet, quiet.join("prices:usd"):
        await trio.sleep(45)


@incident("maximum_age", "network or proxy", "an age of 12.0 s")
async def maximum_age(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        for _number in range(3):
            await trio.sleep(12)
            lab.connection.drop()
            await trio.sleep(0.2)
        await trio.sleep(3)


@incident("server_restart", "server", "3 batches", "1012")
async def rolling_restart(lab: Laboratory) -> None:
    async with lab.desk(**SOON), lab.desk(**SOON), lab.desk(**SOON):
        await trio.sleep(10)
        for connection in lab.server.connections:
            connection.close(1012)
            await trio.sleep(3)
        await trio.sleep(5)


@incident("server_gone", "server", "sent and not answered", "never sent", "Connection refused")
async def killed(lab: Laboratory) -> None:
    lab.events["place"] = takes(0.9)
    async with lab.desk() as (socket, nursery), socket.join("room:3") as desk:
        await trio.sleep(10)
        for number in range(9):
            nursery.start_soon(ignore, partial(desk.push, "place", {"sku": number}, timeout=4))
            await trio.sleep(0.4)
            if number == 4:
                nursery.start_soon(lab.kill, 7)
        await trio.sleep(20)


@incident("server_gone", "server", "the socket gave up")
async def killed_for_good(lab: Laboratory) -> None:
    try:
        async with lab.desk(reconnect=Backoff((0.1, 0.2), limit=4)):
            await trio.sleep(10)
            await lab.kill(1000)
    except* SlipstreamError:
        pass


@incident("own_message_limit", "configuration", "max_message_size of 65,536 bytes", 'docs {"doc":"d7"}')
async def message_too_big(lab: Laboratory) -> None:
    lab.events["docs"] = takes(0.05, Reply({"text": "x" * 90_000}))
    async with lab.desk(max_message_size=65_536, **SOON) as (socket, _), socket.join("room:3") as room:
        for _number in range(3):
            await trio.sleep(7)
            await ignore(lambda: room.push("docs", {"doc": "d7"}))
        await trio.sleep(3)


@incident("server_message_limit", "application", max_frame_size=50_000)
async def message_too_big_for_the_server(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, _), socket.join("room:3") as room:
        await trio.sleep(7)
        await ignore(lambda: room.push("upload", {"data": "x" * 60_000}))
        await trio.sleep(7)


@incident("bad_frames", "server", "one every 3.00 s", "prices:eur")
async def bad_frames(lab: Laboratory) -> None:
    async with lab.desk():
        for _number in range(5):
            await trio.sleep(3)
            await lab.connection.send_raw('[null,null,"prices:eur","tick",{"ask":NaN,"n":7}]')


@incident("broken_protocol", "network or proxy")
async def changed_bytes(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        await trio.sleep(8)
        await lab.connection.send_bytes(b"\xff\xff\x00\x00")
        await trio.sleep(4)


@incident("evicted", "application", "2 sockets")
async def two_sockets_of_a_user(lab: Laboratory) -> None:
    lab.evicts = True
    options = {"params": {"user": "7"}, "reconnect": Backoff((1.5,), jitter=0)}
    async with lab.desk(**options):
        await trio.sleep(5)
        async with lab.desk(**options):
            await trio.sleep(20)


@incident("evicted", "application", "2 sockets")
async def two_sockets_of_a_user_that_come_back_at_once(lab: Laboratory) -> None:
    lab.evicts = True
    soon = Backoff((0.05, 0.1, 0.25), jitter=0)  # a desk's first joins, which fail where they are cut off, take 20 ms
    async with lab.desk(params={"user": "7"}, reconnect=soon):
        await trio.sleep(5)
        async with lab.desk(params={"user": "7"}, reconnect=soon):
            await trio.sleep(12)


@incident("disconnected_by_server", "server", "1001")
async def user_logged_out_elsewhere(lab: Laboratory) -> None:
    async with lab.desk(params={"user": "7"}, **SOON), lab.desk(params={"user": "8"}, **SOON):
        await trio.sleep(9)
        lab.server.disconnect("7")
        await trio.sleep(9)


@incident("stale_token", "application", "auth_token was given as a value", "the socket gave up", auth_token=True)
async def token_that_expires(lab: Laboratory) -> None:
    try:
        async with lab.desk(auth_token="one-hour", **SOON):
            await trio.sleep(10)
            lab.refusal = Refuse(403)
            lab.connection.drop()
            await trio.sleep(10)
    except* SlipstreamError:
        pass


@incident("option_failed", "application", "LookupError: no token")
async def token_service_that_fails(lab: Laboratory) -> None:
    failing = False

    def params() -> dict[str, str]:
        if failing:
            raise LookupError("no token")
        return {}

    async with lab.desk(params=params, **SOON):
        await trio.sleep(6)
        failing = True
        lab.connection.drop()
        await trio.sleep(3)
        failing = False
        await trio.sleep(5)


@incident("unauthorized", "configuration", "403")
async def wrong_token(lab: Laboratory) -> None:
    async with lab.desk():
        lab.refusal = Refuse(403)
        await trio.sleep(2)
        try:
            async with connect(URL, transport=lab.connector, telemetry=lab.telemetry):
                pass
        except SlipstreamError:
            await trio.sleep(3)


@incident("rate_limit", "application", "retry-after")
async def rate_limit(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        await trio.sleep(8)
        lab.refusal = Refuse(429, [("retry-after", "3")])
        lab.connection.drop()
        await trio.sleep(5)
        lab.refusal = None
        await trio.sleep(5)


@incident("redirect", "configuration", "https://elsewhere.example/socket")
async def redirect(lab: Laboratory) -> None:
    lab.refusal = Refuse(301, [("location", "https://elsewhere.example/socket")])
    try:
        async with lab.desk():
            pass
    except* SlipstreamError:
        pass


@incident("refused_404", "server", "ends in /websocket")
async def wrong_path(lab: Laboratory) -> None:
    try:
        async with lab.desk(url="ws://lab/socket"):
            pass
    except* SlipstreamError:
        pass


@incident("unreachable", "configuration", "Connection refused")
async def nobody_there(lab: Laboratory) -> None:
    lab.down = True
    try:
        async with lab.desk():
            pass
    except* SlipstreamError:
        pass


@incident("connection_cut", "network or proxy")
async def cut(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        for seconds in (7, 4, 9):
            await trio.sleep(seconds)
            lab.connection.drop()
        await trio.sleep(5)


@incident("closed_by_server", "server", "1011")
async def server_failure(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        await trio.sleep(7)
        lab.connection.close(1011, "internal error")
        await trio.sleep(5)
