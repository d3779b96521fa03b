"""Each callback is a telemetry span."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.client.support import URL, Recorder, Scripted
from tests.peers import unbalanced
from tests.telemetry.support import CountingBus
from trio.testing import MockClock

from slipstream_trio import Caller, Client, ConnectionLost, Gap, Message, Reply, Socket, run_client
from slipstream_trio.telemetry import ClientCallbackStart, ClientCallbackStop, Record, SpanException

CALLBACKS = {name for name in vars(Client) if name.startswith("handle_") or name == "terminate"}


def callback_spans(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.name[1] == "client" and record.name[2] in CALLBACKS]


async def test_every_callback_is_a_span_whoever_overrides_it(autojump_clock: MockClock) -> None:
    class Plain(Client):
        pass

    client = Plain()
    client.cast("x")
    client.info("x")
    async with a_world() as world, running(world, client):
        with pytest.raises(NotImplementedError):
            await client.call("x")
        await client.join("room:1")
        await trio.sleep(1)
        await client.push("room:1", "burst", {"n": 1})
        await trio.sleep(1)
        await client.push("room:1", "crash")
        await trio.sleep(2)
        await client.leave("room:1")
        await trio.sleep(1)
        world.connection.drop()
        await trio.sleep(2)
        client.stop()
    spans = callback_spans(world.records)
    assert {record.name[2] for record in spans} == CALLBACKS
    assert unbalanced(world.records) == []
    assert [record.name for record in world.records].count(("slipstream", "client", "leave", "start")) == 1
    starts = [record for record in spans if isinstance(record, ClientCallbackStart)]
    stops = [record for record in spans if isinstance(record, ClientCallbackStop)]
    assert {start.client for start in starts} == {"Plain"}
    assert all(start.name == ("slipstream", "client", start.callback, "start") for start in starts)
    assert [stop.start for stop in stops] == starts  # one at a time
    assert all(stop.name == (*stop.start.name[:3], "stop") for stop in stops)
    arguments = {start.callback: start.arguments for start in starts}
    assert [type(argument) for argument in arguments["handle_connect"]] == [Socket]
    assert [type(argument) for argument in arguments["handle_disconnect"]] == [ConnectionLost]
    assert isinstance(arguments["handle_message"][1], Message)
    assert isinstance(arguments["handle_reply"][1], Reply)
    assert isinstance(arguments["handle_gap"][1], Gap)
    assert arguments["handle_call"][0] == "x"
    assert isinstance(arguments["handle_call"][1], Caller)
    assert arguments["terminate"] == (None,)


async def test_the_metadata_of_a_callback(autojump_clock: MockClock) -> None:
    async def double(message: Any, _: Caller) -> Any:
        await trio.sleep(1)
        return message * 2

    client = Told(call=double)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        assert client.socket is not None
        ids = (client.socket.connection_id, client.socket.trace_id, client.socket.socket_id, 1)
        await client.call(21)
        client.stop()
    start, stop = (record for record in world.records if record.name[2] == "handle_call")
    assert start.metadata["client"] == "Told"
    assert start.metadata["callback"] == "handle_call"
    assert start.metadata["arguments"][0] == 21
    assert set(start.measurements) == {"system_time", "monotonic_time"}
    assert {**start.metadata, "return": 42, "outcome": "ok"} == stop.metadata
    assert set(stop.measurements) == {"duration", "monotonic_time"}
    for record in (start, stop):
        facts = record.metadata
        assert (facts["connection_id"], facts["trace_id"], facts["socket_id"], facts["generation"]) == ids


async def test_a_callback_before_the_first_connection_has_no_connection_id(autojump_clock: MockClock) -> None:
    client = Told()
    client.info("early")
    async with a_world() as world, running(world, client, trace_parent=_slow_trace_parent):
        await client.until("connect")
        client.stop()
    [start] = [record for record in world.records if record.name[2:] == ("handle_info", "start")]
    assert (start.metadata["connection_id"], start.metadata["generation"]) == (None, 0)
    assert start.metadata["socket_id"] is not None


async def _slow_trace_parent() -> None:
    await trio.sleep(1)


async def test_a_callback_that_raises_is_an_exception(autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise KeyError("a bug")

    client = Told(info=fail)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        client.info("fail")
    [failed] = [record for record in callback_spans(world.records) if isinstance(record, SpanException)]
    assert failed.name == ("slipstream", "client", "handle_info", "exception")
    assert failed.kind == "KeyError"
    assert failed.metadata["client"] == "Told"
    assert failed.metadata["arguments"] == ("fail",)


async def test_a_callback_that_is_cancelled_stops(autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    client = Told(info=wait)
    async with a_world() as world, running(world, client) as run:
        await client.until("connect")
        client.info("wait")
        await trio.sleep(1)
        run.scope.cancel()
    [stop] = [record for record in world.records if record.name[2:] == ("handle_info", "stop")]
    assert stop.metadata["outcome"] == "cancelled"
    assert stop.metadata["return"] is None
    assert unbalanced(world.records) == []


async def test_nothing_is_made_while_nobody_listens(autojump_clock: MockClock) -> None:
    counting = CountingBus()
    client = Told("room:1")
    async with a_world() as world:
        counting.bus.attach("one", ("slipstream", "client", "handle_leave", "stop"), world.records.append)
        async with running(world, client, telemetry=counting.bus) as run:
            await client.until(("join", "room:1", 1))
            await client.call("x")
            client.stop()
    assert run.error is None
    assert world.records == []
    assert (counting.ids.asked, counting.times) == (3, 0)  # of the socket, the connection, the trace


async def test_a_span_that_begins_unobserved_emits_no_stop(autojump_clock: MockClock) -> None:
    async def wait(_: Any) -> None:
        await trio.sleep(1)

    client = Told(info=wait)
    async with a_world() as world:
        world.telemetry.detach("world")
        async with running(world, client):
            await client.until("connect")
            client.info("wait")
            await trio.sleep(0.5)
            world.telemetry.attach("late", (), world.records.append, prefix=True)
            await trio.sleep(1)
            client.stop()
        assert [record.name[2] for record in callback_spans(world.records)] == ["terminate"] * 2
        world.records.clear()  # a world looks at whole traces


async def test_the_span_of_a_leave_lasts_until_it_is_confirmed_or_given_up(autojump_clock: MockClock) -> None:
    recorder, client = Recorder(), Client()
    options: dict[str, Any] = {"leave_timeout": 3, "heartbeat_interval": None, "telemetry": recorder.bus}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, client, URL, transport=Scripted({"phx_join"}), **options))
        await trio.sleep(1)
        await client.join("room:1")
        await trio.sleep(1)
        await client.leave("room:1")
        await trio.sleep(2)
        assert recorder.named("client", "leave", "stop") == []
        await trio.sleep(2)
        client.stop()
    [stop] = recorder.named("client", "leave", "stop")
    assert (stop.outcome, stop.reason) == ("timeout", "leave_timeout")
