"""Incidents of servers, and of how applications use them."""

from functools import partial
from typing import Any

import trio
from tests.trace.incidents import Incident, declared, ignore, takes
from tests.trace.laboratory import URL, Laboratory, refused
from tests.trace.networks import CLIENT

from slipstream_trio import Backoff, connect
from slipstream_trio.testing.server import Channel, Outcome, Reply

__all__ = ["SERVERS"]

SERVERS: dict[str, Incident] = {}
incident = partial(declared, SERVERS)


@incident("slow_handler", "server")
async def database_is_overloaded(lab: Laboratory) -> None:
    async with lab.desk() as (socket, nursery), socket.join("room:3") as one, socket.join("room:4") as two:
        await trio.sleep(12)
        for event in ("msg", "search", "history", "save", "load"):
            lab.events[event] = takes(2.5)
        for number in range(5):
            nursery.start_soon(ignore, partial(one.push, "save", {"number": number}))
            nursery.start_soon(ignore, partial(two.push, "load", {"number": number}))
            await trio.sleep(4)


@incident("pushes_too_fast", "application", "save")
async def pushes_are_faster_than_the_channel(lab: Laboratory) -> None:
    lab.events["save"] = takes(0.3)
    async with lab.desk() as (socket, nursery), socket.join("room:3") as room:
        await trio.sleep(5)
        for number in range(80):
            nursery.start_soon(ignore, partial(room.push, "save", {"number": number}, timeout=5))
            await trio.sleep(0.1)
        await trio.sleep(20)


@incident("join_crash", "server", "join crashed")
async def join_crashes_from_the_beginning(lab: Laboratory) -> None:
    lab.joins["room:9"] = refused("join crashed")
    async with lab.desk(**CLIENT) as (socket, _):
        for _number in range(5):
            await trio.sleep(3)
            await ignore(socket.channel("room:9").join)


@incident("rate_limit", "application", "12 times")
async def pushes_above_a_rate(lab: Laboratory) -> None:
    lab.events["save"] = takes(0.01, Reply({"reason": "rate limit exceeded"}, status="error"))
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as room:
        for number in range(12):
            await trio.sleep(1)
            await ignore(partial(room.push, "save", {"number": number}))


@incident("bad_frames", "server", "vsn")
async def answers_of_another_version(lab: Laboratory) -> None:
    lab.joins["room:9"] = 1000
    async with lab.desk(**CLIENT):
        for number in range(6):
            await trio.sleep(2)
            told = f'"topic":"prices:eur","event":"tick","ref":null,"payload":{{"n":{number}}}'
            await lab.connection.send_raw(f"{{{told}}}")


@incident("channel_crash", "server", "each time after save")
async def channel_that_stops_at_a_push(lab: Laboratory) -> None:
    async def stop(channel: Channel, _: Any) -> Outcome:
        channel.stop("normal")
        return None

    async with lab.desk(**CLIENT) as (socket, _):
        for _number in range(4):
            await trio.sleep(1)
            async with socket.join("room:3") as room:
                await trio.sleep(3)
                lab.events["save"] = stop
                await ignore(partial(room.push, "save", {}))


@incident("closed_by_server", "server", "1011")
async def socket_crashes_at_once(lab: Laboratory) -> None:
    async with lab.desk(reconnect=Backoff((0.1, 0.3, 1.0), jitter=0)):
        await trio.sleep(9)
        for _number in range(5):
            lab.connection.close(1011)
            await trio.sleep(1.2)
        await trio.sleep(5)


@incident("slow_consumer", "application", "prices:usd")
async def reader_that_hangs(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk(buffer=32) as (socket, _), socket.join("prices:usd") as prices:
        for _number in range(50):
            await ignore(prices.receive)
        await trio.sleep(20)


@incident("channel_crash", "server", "room:*")
async def all_channels_of_a_kind_crash_at_once(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3"), socket.join("room:4"):
        await trio.sleep(12)
        for topic, channel in lab.connection.channels.items():
            if topic.startswith("room:"):
                channel.stop("killed")
        await trio.sleep(8)


@incident("asked_again", "application", "pay")
async def payment_is_retried_by_hand(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as room:
        for number in range(6):
            await trio.sleep(3)
            lab.events["pay"] = takes(7 if number == 4 else 0.1)
            for _attempt in range(2):
                with trio.move_on_after(5) as scope:
                    await ignore(partial(room.push, "pay", {"order": number}, timeout=4))
                if number != 4 or scope.cancelled_caught:
                    break
        await trio.sleep(12)


@incident("slow_join", "server", "room:9")
async def slow_join_on_a_quiet_socket(lab: Laboratory) -> None:
    options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, "heartbeat_interval": 5}
    async with connect(URL, **options) as socket, socket.join("room:1") as room, trio.open_nursery() as nursery:
        await trio.sleep(20)
        await room.push("save", {})
        lab.joins["room:9"] = 7
        nursery.start_soon(ignore, socket.channel("room:9").join)
        await trio.sleep(1)
        await room.push("save", {})
        await trio.sleep(12)


@incident("no_longer_answered", "server", "save and load")
async def channel_process_deadlocks(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(8):
            await trio.sleep(2)
            if number == 4:
                lab.events |= {"save": takes(1000), "load": takes(1000)}
            await ignore(partial(room.push, "load" if number % 2 else "save", {"number": number}, timeout=3))


@incident("push_ends_connection", "server", "import")
async def push_that_kills_the_connection(lab: Laboratory) -> None:
    async def crash(_: Channel, __: Any) -> Outcome:
        lab.connection.drop()
        await trio.sleep(1)
        return None

    lab.events["import"] = crash
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as room:
        for seconds in (5, 9, 7):
            await trio.sleep(seconds)
            await ignore(partial(room.push, "import", {"rows": "x" * 900}))
        await trio.sleep(8)


@incident("network_stalled", "network or proxy")
async def server_collects_garbage(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk():
        for _number in range(2):
            await trio.sleep(12)
            for connection in lab.server.connections:
                connection.pause_writing()
            await trio.sleep(3)
            for connection in lab.server.connections:
                connection.resume_writing()
        await trio.sleep(10)


@incident("join_timeout_too_short", "configuration")
async def rejoins_time_out_after_a_restart(lab: Laboratory) -> None:
    async with lab.desk(join_timeout=2, **CLIENT) as (socket, _), socket.join("room:9"):
        await trio.sleep(10)
        lab.joins["room:9"] = 4
        socket.reconnect()
        await trio.sleep(15)


@incident("push_timeout_too_short", "configuration")
async def two_reports_too_slow(lab: Laboratory) -> None:
    lab.events |= {"report": takes(4), "chart": takes(5)}
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as a, socket.join("room:4") as b:
        for number in range(3):
            await trio.sleep(6)
            await ignore(partial(a.push, "report", {"n": number}, timeout=3))
            await ignore(partial(b.push, "chart", {"n": number}, timeout=3))
        await trio.sleep(6)


@incident("refused_since", "server")
async def permission_is_taken_away(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:9"):
        await trio.sleep(10)
        lab.joins["room:9"] = refused("forbidden")
        lab.connection.channels["room:9"].stop("killed")
        await trio.sleep(12)


@incident("channel_crash", "server")
async def channel_is_killed_by_a_linked_process(lab: Laboratory) -> None:
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3"):
        for _ in range(3):
            await trio.sleep(6)
            lab.connection.channels["room:3"].stop("killed")
        await trio.sleep(4)


@incident("sometimes_unanswered", "server", "some pushes of save")
async def clause_that_does_not_reply(lab: Laboratory) -> None:
    async def save(_: Channel, payload: Any) -> Outcome:
        return None if payload["number"] % 4 == 1 else Reply({})

    lab.events["save"] = save
    async with lab.desk(**CLIENT) as (socket, _), socket.join("room:3") as room:
        for number in range(9):
            await trio.sleep(1)
            await ignore(partial(room.push, "save", {"number": number}, timeout=3))
