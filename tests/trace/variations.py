"""Incidents as they come: of several sockets, late, with jitter, amid noise, two at once."""

from functools import partial
from random import Random
from typing import Any

import trio
from tests.trace.incidents import SOON, Incident, declared, ignore, takes
from tests.trace.laboratory import URL, Laboratory, refused

from slipstream_trio import Backoff, PushTimeout, SlipstreamError, connect
from slipstream_trio.testing.faults import Faults, Link, faulty_network
from slipstream_trio.testing.server import Channel, Outcome, Refuse, Reply
from slipstream_trio.transport import find_connector

__all__ = ["VARIATIONS"]

VARIATIONS: dict[str, Incident] = {}
incident = partial(declared, VARIATIONS)


async def crash(_: Channel, __: Any) -> Outcome:
    """Crash."""
    raise RuntimeError("told to crash")


async def noise(lab: Laboratory) -> None:
    """Reconnect as asked, be refused, and give up: nothing of it is an incident."""
    async with connect(URL, transport=lab.connector, telemetry=lab.telemetry) as socket, socket.join("room:70") as room:
        for number in range(3):
            await trio.sleep(1)
            with trio.move_on_after(0.005):
                await room.push("search", {"number": number})
            socket.reconnect()
            await socket.wait_connected()
            await ignore(socket.channel("lounge:1").join)


# Ends


@incident("idle_close", "configuration", "3 ends", timeout=None)
async def balancer_that_closes_what_is_idle(lab: Laboratory) -> None:
    random = Random(1)
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
    async with lab.desk(), connect(URL, heartbeat_interval=None, **options) as quiet, quiet.join("room:90") as room:
        for _number in range(3):
            await trio.sleep(2 + 5 * random.random())
            await room.push("msg", {})
            await trio.sleep(20 + 2 * random.random())
            next(each for each in lab.server.connections if "room:90" in each.channels).drop()
            await trio.sleep(1)


@incident("idle_close", "configuration", "heartbeat_interval is 30 s", timeout=10)
async def heartbeats_rarer_than_the_limit(lab: Laboratory) -> None:
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
    async with lab.desk(), connect(URL, heartbeat_interval=30, **options) as quiet, quiet.join("prices:usd"):
        await trio.sleep(3)
        lab.servers[0].connections[0].drop()
        await trio.sleep(30)


@incident("maximum_age", "network or proxy", "4 connections lived")
async def maximum_age_with_jitter(lab: Laboratory) -> None:
    random = Random(2)
    await noise(lab)
    async with lab.desk(**SOON):
        for _number in range(4):
            await trio.sleep(19 + 2 * random.random())
            lab.connection.drop()
            await trio.sleep(0.25)
        await trio.sleep(4)


@incident("maximum_age", "network or proxy", "an age of 1")
async def maximum_age_of_two_sockets(lab: Laboratory) -> None:
    async with trio.open_nursery() as nursery:

        async def limit(name: str, start: float) -> None:
            await trio.sleep(start)
            for _number in range(3):
                await trio.sleep(15)
                next(each for each in lab.server.connections if name in each.channels).close(1001)
                await trio.sleep(0.25)

        async with lab.desk(**SOON) as (one, _), one.join("room:91"):
            nursery.start_soon(limit, "room:91", 0)
            await trio.sleep(6)
            async with lab.desk(**SOON) as (two, _), two.join("room:92"):
                nursery.start_soon(limit, "room:92", 0)
                await trio.sleep(50)


@incident("server_restart", "server", "2 sockets in 2 batches")
async def rolling_restart_of_two_sockets(lab: Laboratory) -> None:
    async with lab.desk(**SOON), lab.desk(**SOON):
        await trio.sleep(12)
        for connection in lab.server.connections:
            connection.close(1001)
            await trio.sleep(4)
        await trio.sleep(5)


async def restart(lab: Laboratory, code: int) -> None:
    """Restart the server under a desk: it is down for six seconds."""
    async with lab.desk():
        await trio.sleep(12)
        lab.down = True
        lab.connection.close(code)
        await trio.sleep(6)
        lab.down = False
        await trio.sleep(12)


@incident("server_restart", "server", "1012")
async def restart_that_takes_a_while(lab: Laboratory) -> None:
    await restart(lab, 1012)


@incident("server_restart", "server", "1000")
async def restart_without_a_drainer(lab: Laboratory) -> None:
    await restart(lab, 1000)


@incident("evicted", "application", "2 sockets")
async def evicted_late_amid_noise(lab: Laboratory) -> None:
    options: dict[str, Any] = {"params": {"user": "7"}, "reconnect": Backoff((0.8, 1.6), jitter=0.3)}
    async with lab.desk(**options), lab.desk(params={"user": "8"}, **SOON):
        await noise(lab)
        await trio.sleep(10)
        lab.evicts = True
        async with lab.desk(**options):
            await trio.sleep(16)


@incident("stale_token", "application", "403", auth_token=True)
async def token_that_expires_at_a_time(lab: Laboratory) -> None:
    try:
        async with lab.desk(auth_token="one", **SOON):
            await trio.sleep(5)
            lab.connection.drop()
            await trio.sleep(15)
            lab.refusal = Refuse(403)
            lab.server.connections[-1].close(1001)
            await trio.sleep(5)
    except* SlipstreamError:
        pass


@incident("stale_token", "application", "token expired")
async def joins_with_a_token_that_expires(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, _):
        for number in range(10):
            await trio.sleep(2)
            if number == 5:
                lab.joins["room:8"] = refused("token expired")
            try:
                async with socket.join("room:8", {"access_token": "one"}):
                    await trio.sleep(0.1)
            except SlipstreamError:
                pass


@incident("connection_cut", "network or proxy", "once, on 1 socket")
async def one_cut(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        await trio.sleep(13)
        lab.connection.drop()
        await trio.sleep(9)


# Channels


@incident("channel_crash", "server", "4 times")
async def crash_loop_after_different_pushes(lab: Laboratory) -> None:
    await noise(lab)
    async with lab.desk(**SOON) as (socket, _), socket.join("room:3") as room:
        await trio.sleep(8)
        for event in ("delete", "rename", "move", "copy"):
            lab.events[event] = crash
            await trio.sleep(3)
            await ignore(partial(room.push, event, {"id": len(event)}))
        await trio.sleep(3)


@incident("rate_limit", "application", "joins")
async def joins_above_a_rate(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, _):
        await trio.sleep(6)
        for number in range(20):
            topic = f"room:{100 + number}"
            if number % 4 == 3:
                lab.joins[topic] = refused("rate limit exceeded")
            await ignore(socket.channel(topic).join)
            lab.joins.pop(topic, None)
        await trio.sleep(10)


@incident("refused_since", "server", "refused since")
async def refused_on_a_second_socket(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk(**SOON) as (socket, _):
        for number in range(12):
            await trio.sleep(2)
            if number == 8:
                lab.joins["room:8"] = refused("unmatched topic")
            try:
                async with socket.join("room:8"):
                    await trio.sleep(0.1)
            except SlipstreamError:
                pass


# Silences, timeouts


@incident("slow_join", "server", "room:9", "took 3.00 s")
async def slow_join_on_one_of_two_sockets(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk() as (socket, _):
        await noise(lab)
        await trio.sleep(10)
        for _number in range(2):
            lab.joins["room:9"] = 3
            async with socket.join("room:9"):
                await trio.sleep(8)


@incident("slow_join", "server", "room:9", "took 1.40 s")
async def join_that_is_a_little_slow(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _):
        await trio.sleep(11)
        lab.joins["room:9"] = 1.4
        async with socket.join("room:9"):
            await trio.sleep(8)


@incident("slow_handler", "server", "answer report,")
async def slow_handler_alone(lab: Laboratory) -> None:
    lab.events["report"] = takes(3.5)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        await trio.sleep(20)
        await room.push("report", {"number": 1})
        await trio.sleep(5)


@incident("asked_again", "application", "2 of them were asked again")
async def orders_repeated_late(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(10):
            await trio.sleep(1)
            if number == 6:
                lab.events["place"] = takes(5)
            for _attempt in range(3 if number == 6 else 1):
                try:
                    await room.push("place", {"sku": number}, timeout=2)
                    break
                except PushTimeout:
                    pass
            if number == 6:
                lab.events.pop("place")
                await trio.sleep(20)


@incident("push_timeout_too_short", "configuration", "given up after 2.00 s, answered after")
async def answers_that_come_long_after(lab: Laboratory) -> None:
    random = Random(3)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(6):
            await trio.sleep(6)
            lab.events["export"] = takes(0.3 if number < 3 else 3 + 4 * random.random())
            await ignore(partial(room.push, "export", {"number": number}, timeout=2))
        await trio.sleep(8)


@incident("dead_link", "network or proxy", "nothing came")
async def one_of_two_links_dies(lab: Laboratory) -> None:
    async with lab.desk(**SOON), lab.desk(**SOON):
        await noise(lab)
        await trio.sleep(10)
        lab.server.connections[0].pause_writing()
        lab.server.connections[0].pause_reading()
        await trio.sleep(25)


@incident("process_stood_still", "this process", "for 2.")
async def blocked_once_late(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk():
        await noise(lab)
        await trio.sleep(25)
        lab.clock.jump(2.5)
        await trio.sleep(3)


@incident("large_message", "network or proxy", "600 kB")
async def large_message_once(lab: Laboratory) -> None:
    lab.events["document"] = takes(0, Reply({"text": "x" * 600_000}))
    link = Link(latency=0.02, bandwidth=200_000)
    async with faulty_network(Faults(toward_client=link)) as network:
        lab.connector = find_connector("auto", network.opener(lambda _: lab.server.open_stream()))
        async with lab.desk() as (socket, _), socket.join("room:3") as room:
            await trio.sleep(16)
            await room.push("document", {"id": 7})
            await trio.sleep(4)


# Losses


@incident("duplicates", "server", "room:3")
async def duplicates_without_a_counter_that_begin_late(lab: Laboratory) -> None:
    async def say(channel: Channel, payload: Any) -> Outcome:
        for _ in range(2 if payload["number"] > 50 else 1):
            await channel.push("news", {"text": f"number {payload['number']}"})
        return Reply({})

    lab.events["say"] = say
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(64):
            await trio.sleep(0.5)
            await room.push("say", {"number": number})


@incident("slow_consumer", "application", "prices:usd")
async def slow_consumer_that_begins_late(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk(buffer=32) as (socket, _), socket.join("prices:usd") as prices:
        for number in range(160):
            await ignore(prices.receive)
            await trio.sleep(0 if number < 100 else 0.5)


@incident("messages_missing", "server", "skips")
async def messages_missing_once(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk():
        await trio.sleep(20)
        lab.skipped += 9
        await trio.sleep(5)


# Two at once


@incident("channel_crash", "server", "each time after delete")
async def crash_loop_and_cuts(lab: Laboratory) -> None:
    lab.events["delete"] = crash
    async with lab.desk(**SOON), lab.desk(**SOON) as (socket, _), socket.join("room:3") as room:
        for seconds in (3, 5, 2):
            await trio.sleep(seconds)
            await ignore(partial(room.push, "delete", {"id": 9}))
            await trio.sleep(2)
            lab.server.connections[0].drop()
        await trio.sleep(3)


@incident("asked_again", "application", '{"sku":"S-1"}')
async def repeated_orders_and_a_standstill(lab: Laboratory) -> None:
    lab.events["place"] = takes(3)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        await trio.sleep(12)
        lab.clock.jump(3)
        await trio.sleep(12)
        for _attempt in range(2):
            try:
                await room.push("place", {"sku": "S-1"}, timeout=2)
            except PushTimeout:
                await trio.sleep(0.1)
        await trio.sleep(8)


@incident("slow_consumer", "application", "prices:usd")
async def slow_consumer_and_bad_frames(lab: Laboratory) -> None:
    async with lab.desk(buffer=32) as (socket, _), socket.join("prices:usd") as prices:
        for number in range(50):
            if number % 10 == 9:
                await lab.connection.send_raw("[null,null")
            await ignore(prices.receive)
            await trio.sleep(0.5)


@incident("connection_cut", "network or proxy")
async def cuts_amid_pushes_that_are_never_answered(lab: Laboratory) -> None:
    lab.events["typing"] = takes(0, None)
    async with lab.desk(**SOON) as (socket, nursery), socket.join("room:3") as room:
        for number in range(20):
            nursery.start_soon(ignore, partial(room.push, "typing", {}, timeout=3))
            await trio.sleep(1)
            if number in (7, 12):
                lab.connection.drop()
