"""Incidents, each of one cause, on a desk where everything else goes well."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from attrs import field, frozen
from tests.trace.laboratory import Laboratory, refused

from slipstream_trio import Backoff, PushTimeout, SlipstreamError
from slipstream_trio.testing.faults import Faults, Link, faulty_network
from slipstream_trio.testing.server import Channel, Outcome, Reply
from slipstream_trio.transport import find_connector

__all__ = ["INCIDENTS", "Incident", "declared"]

SOON = {"reconnect": Backoff((0.2,), jitter=0), "rejoin": Backoff((1,), jitter=0)}


@frozen
class Incident:
    """What happens, and what the diagnosis has to say of it."""

    cause: str
    blame: str
    happen: Callable[[Laboratory], Awaitable[None]]
    told: tuple[str, ...] = ()
    mount: dict[str, Any] = field(factory=dict)


INCIDENTS: dict[str, Incident] = {}


def declared(into: dict[str, Incident], cause: str, blame: str, *told: str, **mount: Any) -> Callable[[Any], Any]:
    """Declare an incident, and texts that its finding has to have."""

    def declare(happen: Callable[[Laboratory], Awaitable[None]]) -> Callable[[Laboratory], Awaitable[None]]:
        into[happen.__name__] = Incident(cause, blame, happen, told, mount)
        return happen

    return declare


incident = partial(declared, INCIDENTS)


def takes(seconds: float, outcome: Outcome = Reply()) -> Callable[[Channel, Any], Awaitable[Outcome]]:  # noqa: B008
    """Return what answers an event after a while."""

    async def answer(_: Channel, __: Any) -> Outcome:
        await trio.sleep(seconds)
        return outcome

    return answer


async def ignore(pushed: Callable[[], Awaitable[Any]]) -> None:
    """Push, whatever comes of it."""
    with suppress(SlipstreamError):
        await pushed()


# Silences


@incident("dead_link", "network or proxy", "nothing came", "counters in payloads skip")
async def half_open(lab: Laboratory) -> None:
    async with lab.desk(**SOON):
        await trio.sleep(13)
        lab.connection.pause_writing()
        lab.connection.pause_reading()
        await trio.sleep(20)


@incident("dead_link", "network or proxy", "a join of")
async def half_open_while_a_join_is_pending(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, nursery):
        await trio.sleep(13)
        lab.connection.pause_writing()
        await trio.sleep(2)
        nursery.start_soon(ignore, socket.channel("room:44").join)
        await trio.sleep(30)


@incident("process_stood_still", "this process", "for 3.", "for 4.")
async def blocked_event_loop(lab: Laboratory) -> None:
    async with lab.desk():
        await trio.sleep(14)
        lab.clock.jump(3)
        await trio.sleep(6)
        lab.clock.jump(4)
        await trio.sleep(6)


@incident("slow_join", "server", "room:9", "took 4.00 s")
async def slow_join(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _):
        await trio.sleep(10)
        lab.joins["room:9"] = 4
        async with socket.join("room:9"):
            await trio.sleep(8)


@incident("slow_join", "server", "room:9", "never answered")
async def join_that_never_returns(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, nursery):
        await trio.sleep(10)
        lab.joins["room:9"] = 1000
        nursery.start_soon(ignore, socket.channel("room:9").join)
        await trio.sleep(24)


@incident("large_message", "network or proxy", "room:3", "400 kB", "100 kB/s")
async def large_message(lab: Laboratory) -> None:
    lab.events["document"] = takes(0, Reply({"text": "x" * 400_000}))
    link = Link(latency=0.002, bandwidth=100_000)
    async with faulty_network(Faults(toward_client=link)) as network:
        lab.connector = find_connector("auto", network.opener(lambda _: lab.server.open_stream()))
        async with lab.desk() as (socket, _), socket.join("room:3") as room:
            await trio.sleep(10)
            await room.push("document", {"id": 7})
            await trio.sleep(8)


@incident("network_stalled", "network or proxy", "for 3")
async def stalled_network(lab: Laboratory) -> None:
    async with lab.desk():
        await trio.sleep(12)
        lab.connection.pause_writing()
        await trio.sleep(3)
        lab.connection.resume_writing()
        await trio.sleep(10)


@incident("slow_handler", "server", "answer report,")
async def slow_handler(lab: Laboratory) -> None:
    lab.events["report"] = takes(2.5)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(4):
            await trio.sleep(3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.push, "report", {"number": number})
                await trio.sleep(0.1)
                nursery.start_soon(room.push, "msg", {"text": "meanwhile"})


# Timeouts


@incident("push_timeout_too_short", "configuration", "given up after 2.00 s, answered after 3.00 s")
async def limit_too_short(lab: Laboratory) -> None:
    lab.events["export"] = takes(3)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(3):
            await trio.sleep(4)
            await ignore(partial(room.push, "export", {"number": number}, timeout=2))
        await trio.sleep(3)


@incident("asked_again", "application", "were asked again", '{"sku":"S-1"}')
async def repeated_orders(lab: Laboratory) -> None:
    lab.events["place"] = takes(3)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        await trio.sleep(4)
        for _attempt in range(3):
            try:
                await room.push("place", {"sku": "S-1"}, timeout=2)
                break
            except PushTimeout:
                await trio.sleep(0.1)
        await trio.sleep(12)


@incident("push_timeout_too_short", "configuration", "given up after 1.20 s, answered after 2.00 s")
async def own_scope_too_short(lab: Laboratory) -> None:
    lab.events["export"] = takes(2)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(4):
            await trio.sleep(3)
            with trio.move_on_after(1.2):
                await room.push("export", {"number": number})
        await trio.sleep(3)


@incident("never_answered", "server", "typing is never answered")
async def event_without_reply(lab: Laboratory) -> None:
    lab.events["typing"] = takes(0, None)
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for _number in range(3):
            await trio.sleep(1)
            await ignore(lambda: room.push("typing", {}, timeout=3))
            await room.push("msg", {"text": "hello"})


@incident("no_longer_answered", "server", "the last at 8")
async def channel_that_hangs(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _), socket.join("room:3") as room:
        for number in range(8):
            await trio.sleep(2)
            if number == 4:
                lab.events["save"] = takes(1000)
            await ignore(partial(room.push, "save", {"number": number}, timeout=3))


@incident("join_timeout_too_short", "configuration", "room:9")
async def join_timeout_too_short(lab: Laboratory) -> None:
    async with lab.desk(join_timeout=2, heartbeat_interval=20) as (socket, _):
        await trio.sleep(10)
        lab.joins["room:9"] = 4
        await ignore(socket.channel("room:9").join)
        await trio.sleep(8)


@incident("left_too_early", "application", "cut off by a leave")
async def leaves_before_the_answer(lab: Laboratory) -> None:
    lab.events["load"] = takes(0.8)
    async with lab.desk() as (socket, nursery):
        for number in range(4):
            await trio.sleep(2)
            async with socket.join(f"room:{60 + number}") as room:
                nursery.start_soon(ignore, partial(room.push, "load", {}))
                await trio.sleep(0.3)
        await trio.sleep(5)


@incident("left_too_early", "application", "cut off by a leave")
async def gives_up_with_the_channel(lab: Laboratory) -> None:
    lab.events["load"] = takes(0.8)
    async with lab.desk() as (socket, _):
        for number in range(4):
            await trio.sleep(2)
            with trio.move_on_after(0.4):
                async with socket.join(f"room:{60 + number}") as room:
                    await room.push("load", {})
        await trio.sleep(5)


# Channels


@incident("channel_crash", "server", "each time after delete", '{"id":9}')
async def crash_loop(lab: Laboratory) -> None:
    async def crash(_: Channel, __: Any) -> Outcome:
        raise RuntimeError("told to crash")

    lab.events["delete"] = crash
    async with lab.desk(**SOON) as (socket, _), socket.join("room:3") as room:
        for _number in range(4):
            await trio.sleep(3)
            await ignore(lambda: room.push("delete", {"id": 9}))
        await trio.sleep(3)


@incident("refused_since", "server", "unmatched topic", "refused since 12")
async def topic_that_is_gone(lab: Laboratory) -> None:
    async with lab.desk(**SOON) as (socket, _):
        for number in range(10):
            await trio.sleep(2)
            if number == 5:
                lab.joins["room:8"] = refused("unmatched topic")
            try:
                async with socket.join("room:8"):
                    await trio.sleep(0.1)
            except SlipstreamError:
                pass


@incident("too_many_channels", "application", "too many channels joined", max_channels=30)
async def channels_that_are_never_left(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _):
        for number in range(40):
            await trio.sleep(0.5)
            await ignore(socket.channel(f"room:{100 + number}").join)


@incident("fight_over_topic", "application", "AlreadyJoined")
async def two_tasks_join_one_topic(lab: Laboratory) -> None:
    async def task(start: float) -> None:
        await trio.sleep(start)
        for _number in range(6):
            try:
                async with socket.join("room:9") as room:
                    await room.push("msg", {})
                    await trio.sleep(1.5)
            except SlipstreamError:
                await trio.sleep(0.7)

    async with lab.desk() as (socket, _), trio.open_nursery() as nursery:
        nursery.start_soon(task, 1)
        nursery.start_soon(task, 1.4)


@incident("joins_by_turns", "server", "joins waited for others")
async def many_slow_joins(lab: Laboratory) -> None:
    lab.joins["room:7"] = 0.4
    async with lab.desk() as (socket, nursery):
        await trio.sleep(5)
        for number in range(12):
            lab.joins[f"room:{200 + number}"] = 0.4
            nursery.start_soon(ignore, socket.channel(f"room:{200 + number}").join)
        await trio.sleep(15)


@incident("code_raised", "application", "SerializationError")
async def payload_that_is_no_json(lab: Laboratory) -> None:
    async with lab.desk() as (socket, _), socket.join("room:9") as room:
        await trio.sleep(5)
        await ignore(partial(room.push, "draw", {"points": {1, 2}}))
        await trio.sleep(5)


# Losses


@incident("slow_consumer", "application", "prices:usd", "dropped in sum")
async def slow_consumer(lab: Laboratory) -> None:
    async with lab.desk(buffer=32) as (socket, _), socket.join("prices:usd") as prices:
        with trio.move_on_after(30):
            while True:
                await ignore(prices.receive)
                await trio.sleep(0.5)


@incident("duplicates", "server", "prices:eur")
async def duplicates(lab: Laboratory) -> None:
    async with lab.desk():
        await trio.sleep(10)
        lab.repeats = 2
        await trio.sleep(4)


@incident("messages_missing", "server", "n skips 4")
async def server_drops_messages(lab: Laboratory) -> None:
    async with lab.desk():
        await trio.sleep(10)
        for _number in range(2):
            lab.skipped += 4
            await trio.sleep(5)
