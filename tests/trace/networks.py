"""Incidents of machines and networks: laptops that sleep, proxies, certificates, links that are slow or half dead."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from tests.trace.incidents import SOON, Incident, declared, ignore
from tests.trace.laboratory import URL, Laboratory

from slipstream_trio import ConnectError, SlipstreamError, connect
from slipstream_trio.testing.faults import Faults, FaultyNetwork, Ignore, Link, Rule, Vanish, faulty_network
from slipstream_trio.testing.server import Refuse
from slipstream_trio.transport import find_connector

__all__ = ["NETWORKS"]

NETWORKS: dict[str, Incident] = {}
incident = partial(declared, NETWORKS)

HOUR = 3_600_000_000_000
CLIENT: dict[str, Any] = {"heartbeat_interval": 5, "heartbeat_timeout": 5, **SOON}


@asynccontextmanager
async def over_network(lab: Laboratory, **faults: Any) -> AsyncIterator[FaultyNetwork]:
    """Let connections pass a network that has faults."""
    async with faulty_network(Faults(**faults)) as network:
        lab.connector = find_connector("auto", network.opener(lambda _: lab.server.open_stream()))
        yield network


async def outage(lab: Laboratory, failure: Exception, seconds: float) -> None:
    """Cut the connections, and let attempts fail for a while."""
    if isinstance(failure, Refuse):
        lab.refusal = failure
    else:
        lab.failure = failure
    for connection in list(lab.server.connections):
        connection.drop()
    await trio.sleep(seconds)
    lab.refusal = lab.failure = None
    await trio.sleep(8)


# This process


@incident("process_stood_still", "this process", "a timer was 6.00 s late")
async def blocked_while_it_connects(lab: Laboratory) -> None:
    async def block() -> None:
        await trio.sleep(4)
        lab.clock.jump(12)

    async with over_network(lab, rules=[Rule(Ignore(), connections=(1,))]), trio.open_nursery() as nursery:
        nursery.start_soon(block)
        async with lab.desk(retry_first=True, **CLIENT):
            await trio.sleep(12)


@incident("process_stood_still", "this process", "the machine slept")
async def laptop_sleeps_and_the_server_has_closed(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.slept = HOUR
        lab.connection.drop()
        await trio.sleep(8)


@incident("process_stood_still", "this process", "the machine slept")
async def laptop_sleeps_and_its_link_is_dead(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.connection.pause_writing()
        lab.connection.pause_reading()
        lab.slept = HOUR
        await trio.sleep(22)


@incident("process_stood_still", "this process", "the machine slept")
async def laptop_wakes_before_its_network(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.slept = 8 * HOUR
        unknown = "the host is unknown ([Errno -3] Temporary failure in name resolution); is the URL spelt right?"
        await outage(lab, ConnectError(f"no connection to lab port 443: {unknown}"), 10)


@incident("process_stood_still", "this process", "for 90")
async def process_is_stopped_until_the_server_gives_up(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.clock.jump(90)
        lab.connection.drop()
        await trio.sleep(8)


@incident("process_stood_still", "this process")
async def process_is_stopped_and_its_link_is_dead(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.connection.pause_writing()
        lab.connection.pause_reading()
        lab.clock.jump(600)
        await trio.sleep(20)


@incident("connection_cut", "network or proxy")
async def clock_is_set_long_before_a_cut(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.slept = HOUR
        await trio.sleep(12)
        lab.connection.drop()
        await trio.sleep(8)


# Attempts


@incident("network_down", "network or proxy", "name resolution")
async def name_server_fails(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        unknown = "the host is unknown ([Errno -3] Temporary failure in name resolution); is the URL spelt right?"
        await outage(lab, ConnectError(f"no connection to lab port 443: {unknown}"), 20)


@incident("tls_failed", "server", "certificate has expired")
async def certificate_expires(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        text = "the server's certificate is not accepted: certificate has expired; see ssl_context"
        await outage(lab, ConnectError(f"TLS handshake with lab port 443 failed: {text}"), 20)


@incident("not_websocket", "network or proxy", "200")
async def captive_portal(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        await outage(lab, Refuse(200, [("content-type", "text/html")], "<html>Welcome to Hotel WiFi</html>"), 20)


@incident("not_websocket", "network or proxy", "426")
async def proxy_without_websockets(lab: Laboratory) -> None:
    lab.refusal = Refuse(426, [("server", "nginx")], "Upgrade required")
    try:
        async with lab.desk():
            pass
    except* SlipstreamError:
        pass


@incident("server_gone", "server", "502")
async def server_is_killed_behind_a_proxy(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT), lab.desk(**CLIENT):
        await trio.sleep(12)
        await outage(lab, Refuse(502, [("server", "nginx")], "<h1>502 Bad Gateway</h1>"), 15)


@incident("server_restart", "server", "1012", "503")
async def server_is_drained_behind_a_proxy(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT), lab.desk(**CLIENT):
        await trio.sleep(12)
        for connection in list(lab.server.connections):
            connection.close(1012)
        await trio.sleep(0.1)
        lab.refusal = Refuse(503, [("retry-after", "2")])
        await trio.sleep(9)
        lab.refusal = None
        await trio.sleep(8)


@incident("refused_414", "configuration")
async def token_makes_the_url_too_long(lab: Laboratory) -> None:
    lab.refusal = Refuse(414)
    try:
        async with lab.desk(params={"token": "x" * 9_000}):
            pass
    except* SlipstreamError:
        pass


@incident("unauthorized", "configuration", "check_origin")
async def origin_is_not_allowed(lab: Laboratory) -> None:
    lab.refusal = Refuse(403)
    try:
        async with lab.desk(headers={"origin": "https://elsewhere.example"}):
            pass
    except* SlipstreamError:
        pass


@incident("credentials_revoked", "server", "403", auth_token=True)
async def keys_are_rotated_by_a_deployment(lab: Laboratory) -> None:
    try:
        async with lab.desk(auth_token=lambda: "fresh", **SOON):
            await trio.sleep(12)
            lab.refusal = Refuse(403)
            lab.connection.close(1012)
            await trio.sleep(8)
    except* SlipstreamError:
        pass


@incident("session_gone", "network or proxy", "sticky")
async def polls_are_balanced_over_nodes(lab: Laboratory) -> None:
    lab.connector = find_connector("longpoll", lambda _: lab.server.open_stream())
    async with lab.desk(url="http://lab/socket/longpoll", **CLIENT):
        for _number in range(4):
            await trio.sleep(5)
            *_, session = lab.server.sessions.values()
            del lab.server.sessions[session.token]
            session.token += " of another node"
            lab.server.sessions[session.token] = session
        await trio.sleep(5)


# Links


@incident("dead_link", "network or proxy", "one direction")
async def link_toward_the_server_dies(lab: Laboratory) -> None:
    async with over_network(lab) as network, lab.desk(**CLIENT):
        await trio.sleep(12)
        network.inject(Vanish(both=False), toward="server")
        await trio.sleep(12)
        lab.connection.drop()
        await trio.sleep(8)


@incident("dead_link", "network or proxy", "import")
async def large_frames_vanish(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as room:
        for _number in range(2):
            await trio.sleep(12)
            lab.connection.pause_writing()
            lab.connection.pause_reading()
            await ignore(partial(room.push, "import", {"rows": "x" * 60_000}))
        await trio.sleep(8)


@incident("slow_link", "network or proxy")
async def link_is_slow(lab: Laboratory) -> None:
    async with over_network(lab, toward_client=Link(latency=1.5), toward_server=Link(latency=1.5)):
        async with lab.desk(heartbeat_interval=10, push_timeout=2) as (socket, _), socket.join("room:3") as room:
            for number in range(12):
                await trio.sleep(2)
                await ignore(partial(room.push, "save", {"number": number}))
            await trio.sleep(8)


@incident("connection_cut", "network or proxy", "3 sockets")
async def proxy_is_reloaded(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT), lab.desk(**CLIENT), lab.desk(**CLIENT):
        await trio.sleep(12)
        for connection in list(lab.server.connections):
            connection.drop()
        await trio.sleep(12)


@incident("dead_link", "network or proxy")
async def nat_forgets_what_is_idle(lab: Laboratory) -> None:
    options: dict[str, Any] = {"heartbeat_interval": 30, "heartbeat_timeout": 5, **SOON}
    async with (
        lab.desk(),
        connect(URL, transport=lab.connector, telemetry=lab.telemetry, **options) as quiet,
        quiet.join("room:90"),
    ):
        for _number in range(3):
            await trio.sleep(20)
            held = next(each for each in reversed(lab.server.connections) if "room:90" in each.channels)
            held.pause_writing()
            held.pause_reading()
            await trio.sleep(18)


@incident("dead_link", "network or proxy")
async def wifi_is_lost(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        lab.connection.pause_writing()
        lab.connection.pause_reading()
        lab.failure = ConnectError("no connection to lab port 443: [Errno 113] No route to host")
        await trio.sleep(25)
        lab.failure = None
        await trio.sleep(5)


@incident("network_down", "network or proxy")
async def cable_is_pulled(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT), lab.desk(**CLIENT):
        await trio.sleep(12)
        await outage(lab, ConnectError("no connection to lab port 443: [Errno 101] Network is unreachable"), 15)


@incident("connection_cut", "network or proxy")
async def balancer_has_no_healthy_server(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        await trio.sleep(12)
        for _number in range(6):
            lab.connection.drop()
            await trio.sleep(0.4)
        await trio.sleep(8)


@incident("network_stalled", "network or proxy")
async def packets_are_lost(lab: Laboratory) -> None:
    async with lab.desk():
        for seconds in (2.2, 1.6, 3.4, 2.8):
            await trio.sleep(5)
            lab.connection.pause_writing()
            await trio.sleep(seconds)
            lab.connection.resume_writing()
        await trio.sleep(5)


@incident("idle_close", "configuration", "60", timeout=None)
async def heartbeats_are_off_behind_a_balancer(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
        async with connect(URL, heartbeat_interval=None, **options) as quiet, quiet.join("room:90") as room:
            for seconds in (1, 7, 13):
                await trio.sleep(seconds)
                await room.push("msg", {})
                await trio.sleep(60)
                next(each for each in reversed(lab.server.connections) if "room:90" in each.channels).drop()
                await trio.sleep(1)


@incident("process_stood_still", "this process")
async def blocked_loop_longer_than_the_heartbeat(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT):
        for seconds in (8, 12):
            await trio.sleep(14)
            lab.clock.jump(seconds)
        await trio.sleep(14)


@incident("process_stood_still", "this process")
async def blocked_on_a_quiet_socket_until_closed(lab: Laboratory) -> None:
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, "heartbeat_interval": 30, **SOON}
    async with connect(URL, **options) as socket, socket.join("room:1") as room:
        await trio.sleep(40)
        await room.push("save", {})
        lab.clock.jump(100)
        lab.connection.close(1000)
        await trio.sleep(20)
