"""Spans for OpenTelemetry: whose ids they have, whose children they are, and what they cost when nobody wants them."""

import gc
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.integrations.support import (
    ABSENT,
    lose_once,
    parent_id,
    provider,
    span_id,
    trace_id,
    visit,
)
from trio.testing import MockClock

from slipstream_trio import Client, ConnectionLost, ConnectionRejected, connect, run_client
from slipstream_trio.telemetry import HandleStop, SpanException

pytest.importorskip("opentelemetry.sdk.trace", reason=ABSENT)

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from slipstream_trio.integrations.opentelemetry import (
    IdGenerator,
    attach_spans,
)


def telemetry_spans(recorder: Recorder) -> dict[str, tuple[str | None, str | None]]:
    """Return the spans that telemetry told of: span_id to trace_id and connection_id."""
    return {
        record.metadata["span_id"]: (record.origin.trace_id, record.origin.connection_id)
        for record in recorder.records
        if record.name[-1] == "stop"
    }


async def test_spans_have_the_ids_of_the_telemetry_and_are_children_of_their_connection(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus, handles=1):
        socket = await visit(recorder)
    told = telemetry_spans(recorder)
    exported = {span_id(span): (trace_id(span), parent_id(span)) for span in collected.spans}
    assert exported.pop(str(socket.connection_id)) == (socket.trace_id, None)
    closed = collected.named("connection closed")
    assert exported.pop(span_id(closed)) == (socket.trace_id, socket.connection_id)
    del told[str(socket.connection_id)]
    assert exported == told


async def test_without_the_generator_trace_and_parent_are_the_telemetrys_and_span_ids_are_attributes(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    with (
        provider(generator=False) as (given, collected),
        attach_spans(tracer_provider=given, telemetry=recorder.bus, handles=1),
    ):
        socket = await visit(recorder)
    assert {trace_id(span) for span in collected.spans} == {socket.trace_id}
    assert {parent_id(span) for span in collected.spans} == {socket.connection_id}
    told = set(telemetry_spans(recorder))
    assert {span.attributes["slipstream.span_id"] for span in collected.spans} == told
    assert not told & {span_id(span) for span in collected.spans}


async def test_times_are_those_of_the_telemetry(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        await visit(recorder)
    (stop, *_) = recorder.named("push", "stop")
    span = collected.named("push lab:* echo")
    assert span.start_time == stop.start.system_time
    assert span.end_time - span.start_time == stop.duration


async def test_outcomes_are_attributes_and_failures_are_the_status(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        await visit(recorder)
    told = {
        span.name: (span.attributes["slipstream.outcome"], span.attributes.get("error.type"), span.status.status_code)
        for span in collected.spans
        if span.name.startswith(("push", "join", "leave", "connect "))
    }
    assert told == {
        "join lab:*": ("ok", None, StatusCode.UNSET),
        "push lab:* echo": ("ok", None, StatusCode.UNSET),
        "push lab:* fail": ("error", "error", StatusCode.ERROR),
        "push lab:* silence": ("timeout", "timeout", StatusCode.ERROR),
        "leave lab:*": ("ok", None, StatusCode.UNSET),
    }
    push = collected.named("push lab:* fail")
    assert push.kind is SpanKind.CLIENT
    assert push.status.description == "error, status error"
    assert {key: push.attributes[key] for key in push.attributes if key.startswith("messaging.")} == {
        "messaging.system": "phoenix",
        "messaging.operation.name": "push",
        "messaging.destination.name": "lab:1",
        "messaging.destination.template": "lab:*",
    }
    assert (push.attributes["slipstream.event"], push.attributes["slipstream.ref"]) == ("fail", "3")
    connection = collected.named("connection")
    assert connection.attributes["server.address"] == "localhost"
    assert connection.attributes["network.protocol.name"] == "websocket"


async def test_payloads_and_secrets_are_in_no_span(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    secrets = {"params": {"token": "hush-1"}, "headers": {"x-key": "hush-2"}, "auth_token": "hush-3"}
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus, handles=1):
        await visit(recorder, **secrets)
    said = " ".join(span.to_json() for span in collected.spans)
    assert "hello" not in said
    assert "hush" not in said


async def test_a_connection_that_lives_for_days_holds_no_span_open(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        async with scripted(telemetry=recorder.bus, heartbeat_interval=3600) as (socket, _):
            assert collected.names() == ["connect", "connection"]
            assert span_id(collected.named("connection")) == socket.connection_id
            await trio.sleep(3 * 24 * 3600)
            assert collected.names() == ["connect", "connection"]
    assert collected.names() == ["connect", "connection", "connection closed"]
    closed = collected.named("connection closed")
    assert closed.attributes["slipstream.termination_reason"] == "closed_by_client"
    assert closed.attributes["slipstream.connection.duration"] > 0


async def test_a_span_is_held_for_as_long_as_the_connection_lives_if_that_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus, hold=True):
        async with scripted(telemetry=recorder.bus) as (socket, _):
            assert collected.names() == ["connect"]
    assert collected.names() == ["connect", "connection"]
    (stop,) = recorder.named("connection", "connect", "stop")
    connection = collected.named("connection")
    assert span_id(connection) == socket.connection_id
    assert connection.end_time - connection.start_time == stop.duration


@pytest.mark.parametrize("hold", [False, True])
async def test_an_attempt_that_fails_is_an_error(hold: bool, autojump_clock: MockClock) -> None:
    async def refuse(_: Any) -> None:
        raise ConnectionRejected(403)

    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus, hold=hold):
        with pytest.raises(ConnectionRejected):
            async with connect(URL, transport=Scripted(opening=refuse), telemetry=recorder.bus):
                pass
    assert collected.names() == ["connect", "connection", "gave_up"]
    assert {span.status.status_code for span in collected.spans[:2]} == {StatusCode.ERROR}
    assert collected.named("connection").attributes["error.type"] == "connect_failed"
    assert "connect/3" in collected.named("gave_up").attributes["slipstream.hint"]


async def test_a_lost_connection_is_an_error(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        with pytest.raises(ConnectionLost):
            async with scripted(telemetry=recorder.bus) as (_, peer):
                peer.end()
                await trio.sleep_forever()
    closed = collected.named("connection closed")
    assert closed.status.status_code is StatusCode.ERROR
    assert closed.attributes["error.type"] == "lost"


async def test_each_connection_of_a_socket_is_a_trace_and_what_happens_once_is_in_it(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        await lose_once(recorder)
    assert len([span for span in collected.spans if span.name == "connection"]) == 2
    assert len({trace_id(span) for span in collected.spans}) == 2
    names = set(collected.names())
    assert {"gap lab:*", "overflow lab:*", "reconnect_scheduled", "message_dropped lab:*"} <= names
    connections = {span_id(span): trace_id(span) for span in collected.spans if span.name == "connection"}
    for span in collected.spans:
        if span.name != "connection":
            assert connections[str(parent_id(span))] == trace_id(span)
    gap, loss = [span for span in collected.spans if span.name == "gap lab:*"]
    assert gap.attributes["slipstream.reason"] == "reconnected"
    assert loss.attributes["slipstream.reason"] == "overflow"
    assert gap.start_time == gap.end_time


# Sampling


async def test_what_is_sampled_out_makes_no_spans_and_tells_the_server(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    connector = Scripted()
    with (
        provider(sampler=ParentBased(ALWAYS_OFF)) as (given, collected),
        attach_spans(tracer_provider=given, telemetry=recorder.bus, handles=1),
    ):
        async with (
            connect(URL, transport=connector, telemetry=recorder.bus) as socket,
            socket.join("room") as channel,
        ):
            await channel.push("echo")
            headers = dict(connector.requests[0].headers)
            assert headers["traceparent"].startswith(f"00-{socket.trace_id}-{socket.connection_id}-")
            assert int(headers["traceparent"][-2:], 16) & 1 == 0
    assert collected.spans == []


@pytest.mark.parametrize("generator", [True, False])
async def test_a_sampler_decides_for_whole_connections(generator: bool, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with (
        provider(generator=generator, sampler=ParentBased(TraceIdRatioBased(0.5))) as (given, collected),
        attach_spans(tracer_provider=given, telemetry=recorder.bus),
    ):
        for _ in range(40):
            async with scripted(telemetry=recorder.bus):
                pass
    names = collected.names()
    assert 5 <= names.count("connection") <= 35
    assert names.count("connect") == names.count("connection closed") == names.count("connection")
    if generator:  # the sampler then sees the very trace ids
        chosen = {trace_id(span) for span in collected.spans}
        bound = TraceIdRatioBased(0.5).bound
        assert all(int(chosen_id, 16) & (2**64 - 1) < bound for chosen_id in chosen)


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
async def test_handles_have_spans_by_choice(part: float, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with (
        provider() as (given, collected),
        attach_spans(tracer_provider=given, telemetry=recorder.bus, handles=part),
    ):
        async with scripted(telemetry=recorder.bus) as (socket, _), socket.join("room") as channel:
            for _ in range(50):
                await channel.push("echo")
    handled = [record for record in recorder.records if isinstance(record, HandleStop)]
    chosen = {record.span_id for record in handled if int(record.span_id, 16) < part * 2**64}
    exported = [span for span in collected.spans if span.name.startswith(("send", "receive", "handle"))]
    assert {span_id(span) for span in exported} == chosen
    assert len(chosen) == {0.0: 0, 1.0: len(handled)}.get(part, len(chosen))
    assert 0 <= len(chosen) <= len(handled)


def test_handles_are_a_part_of_all() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        attach_spans(telemetry=Recorder().bus, handles=2)


# Callbacks


class Caller(Client):
    """Traces something of its own in a callback, and pushes there."""

    def __init__(self, tracer: Any) -> None:
        self.tracer = tracer
        self.current: Any = None

    async def handle_connect(self, socket: Any) -> None:
        with self.tracer.start_as_current_span("mine"):
            await self.join("room")

    async def handle_join(self, channel: Any, response: Any) -> None:
        self.current = trace.get_current_span().get_span_context()
        await self.push("room", "echo", {})

    async def handle_reply(self, ref: Any, reply: Any) -> None:
        raise RuntimeError("the callback failed")


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_callback_is_the_current_span_while_it_runs(sampled: bool, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {} if sampled else {"sampler": ParentBased(ALWAYS_OFF)}
    before = trace.get_current_span()
    with provider(**options) as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        client = Caller(given.get_tracer("user"))
        with pytest.raises(RuntimeError, match="the callback failed"):
            await run_client(client, URL, transport=Scripted(), telemetry=recorder.bus)
    assert trace.get_current_span() is before
    (joined,) = recorder.named("handle_join", "start")
    assert f"{client.current.span_id:016x}" == joined.span_id
    assert f"{client.current.trace_id:032x}" == joined.origin.trace_id
    if not sampled:
        assert collected.spans == []
        return
    assert parent_id(collected.named("mine")) == span_id(collected.named("handle_connect"))
    assert span_id(collected.named("handle_join")) == joined.span_id
    (failed,) = [record for record in recorder.records if isinstance(record, SpanException)]
    span = collected.named("handle_reply")
    assert span_id(span) == failed.span_id
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert span.events[0].attributes["exception.message"] == "the callback failed"
    push = collected.named("push room echo")
    assert [link.context.span_id for link in push.links] == [client.current.span_id]


# Attaching


async def test_it_can_be_attached_while_a_connection_lives_and_taken_off(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected):
        async with scripted(telemetry=recorder.bus) as (socket, _):
            attachment = attach_spans(tracer_provider=given, telemetry=recorder.bus, hold=True)
            with pytest.raises(ValueError, match="attached already"):
                attach_spans(tracer_provider=given, telemetry=recorder.bus)
            await socket.channel("room").join()
            assert collected.spans == []  # its connection was not seen to begin, and was never sampled
        async with scripted(telemetry=recorder.bus) as (socket, _):
            attachment.detach()
            attachment.detach()
            assert span_id(collected.named("connection")) == socket.connection_id
            count = len(collected.spans)
            await socket.channel("room").join()
        assert len(collected.spans) == count
    assert recorder.bus.propagator is None
    assert [handler.handler_id for handler in recorder.bus.list_handlers()] == ["recorder"]


async def test_nothing_is_kept_of_connections_that_are_gone(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.detach("recorder")
    with provider() as (given, _), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        tracing = recorder.bus.list_handlers()[0].function.__self__  # type: ignore[attr-defined]

        async def one() -> None:
            async with scripted(telemetry=recorder.bus) as (socket, _):
                assert socket.connection_id in [origin.connection_id for origin in tracing._connections]
                await socket.channel("room").join()

        for _ in range(5):
            await one()
        gc.collect()
        assert len(tracing._connections) <= 1
        assert tracing._callers == {}
        assert tracing._callbacks == {}


# Ids


class Numbers:
    """A generator of the user's."""

    def generate_span_id(self) -> int:
        return 5

    def generate_trace_id(self) -> int:
        return 7

    def is_trace_id_random(self) -> bool:
        return False


def test_other_spans_have_ids_of_the_users_generator_or_random_ones() -> None:
    given: Any = Numbers()
    theirs = IdGenerator(given)
    assert (theirs.generate_span_id(), theirs.generate_trace_id(), theirs.is_trace_id_random()) == (5, 7, False)
    ours = IdGenerator()
    assert ours.is_trace_id_random()
    assert len({ours.generate_span_id() for _ in range(100)}) == 100
    assert len({ours.generate_trace_id() for _ in range(100)}) == 100
