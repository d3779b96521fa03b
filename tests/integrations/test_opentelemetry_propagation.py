"""Whose trace the spans of a connection are in, and what servers are told of it."""

import pytest
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.integrations.support import (
    ABSENT,
    parent_id,
    provider,
    span_id,
    trace_id,
    visit,
)
from trio.testing import MockClock

from slipstream_trio import connect

pytest.importorskip("opentelemetry.sdk.trace", reason=ABSENT)

from opentelemetry import trace

from slipstream_trio.integrations.opentelemetry import (
    attach_spans,
    current_trace_parent,
)


async def test_a_connection_opened_inside_of_a_span_is_linked_to_it(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        with given.get_tracer("user").start_as_current_span("request") as outer:
            await visit(recorder)
    connection = collected.named("connection")
    assert connection.parent is None
    assert trace_id(connection) != trace_id(outer)
    assert [link.context.span_id for link in connection.links] == [outer.context.span_id]
    assert [link.context.span_id for link in collected.named("push lab:* echo").links] == [outer.context.span_id]


@pytest.mark.parametrize("generator", [True, False])
async def test_a_connection_joins_the_trace_that_it_is_opened_in_if_that_is_asked_for(
    generator: bool, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    with (
        provider(generator=generator) as (given, collected),
        attach_spans(tracer_provider=given, telemetry=recorder.bus),
    ):
        with given.get_tracer("user").start_as_current_span("request") as outer:
            socket = await visit(recorder, trace_parent=current_trace_parent)
    connection = collected.named("connection")
    assert socket.trace_id == trace_id(connection) == trace_id(outer)
    assert connection.parent == outer.context
    assert connection.links == ()
    assert parent_id(collected.named("join lab:*")) == socket.connection_id
    assert (span_id(connection) == socket.connection_id) == generator


def test_there_is_no_trace_parent_outside_of_spans() -> None:
    assert current_trace_parent() is None


@pytest.mark.parametrize(("flags", "spans"), [("01", 3), ("00", 0)])
async def test_a_given_trace_parent_is_the_connections_parent_and_its_sampling_holds(
    flags: str, spans: int, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    with provider() as (given, collected), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        async with scripted(telemetry=recorder.bus, trace_parent=f"00-{'a' * 32}-{'b' * 16}-{flags}"):
            pass
    assert len(collected.spans) == spans
    for span in collected.spans:
        assert trace_id(span) == "a" * 32
    if spans:
        assert parent_id(collected.named("connection")) == "b" * 16
        assert collected.named("connection").parent.is_remote


async def test_the_upgrade_carries_the_trace_with_its_state(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    connector = Scripted()
    state = trace.TraceState([("vendor", "x1")])
    context = trace.SpanContext(int("a" * 32, 16), int("b" * 16, 16), True, trace.TraceFlags(1), state)
    with provider() as (given, _), attach_spans(tracer_provider=given, telemetry=recorder.bus):
        with trace.use_span(trace.NonRecordingSpan(context)):
            async with connect(
                URL, transport=connector, telemetry=recorder.bus, trace_parent=current_trace_parent
            ) as socket:
                pass
    headers = dict(connector.requests[0].headers)
    assert headers == {"traceparent": f"00-{'a' * 32}-{socket.connection_id}-01", "tracestate": "vendor=x1"}


@pytest.mark.parametrize("generator", [True, False])
async def test_the_server_gets_the_telemetrys_ids(generator: bool, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    connector = Scripted()
    with (
        provider(generator=generator) as (given, _),
        attach_spans(tracer_provider=given, telemetry=recorder.bus),
    ):
        async with connect(URL, transport=connector, telemetry=recorder.bus) as socket:
            pass
    (name, value) = connector.requests[0].headers[0]
    assert (name, value[:-2]) == ("traceparent", f"00-{socket.trace_id}-{socket.connection_id}-")
    assert int(value[-2:], 16) & 1


async def test_servers_are_told_nothing_without_propagation(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    connector = Scripted()
    with (
        provider() as (given, _),
        attach_spans(tracer_provider=given, telemetry=recorder.bus, propagation=False),
    ):
        async with connect(URL, transport=connector, telemetry=recorder.bus):
            pass
    assert connector.requests[0].headers == ()


async def test_without_an_sdk_nothing_happens_and_servers_are_told_nothing(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    connector = Scripted()
    with attach_spans(tracer_provider=trace.NoOpTracerProvider(), telemetry=recorder.bus, handles=1):
        async with connect(URL, transport=connector, telemetry=recorder.bus) as socket:
            async with socket.join("room") as channel:
                await channel.push("echo")
    assert connector.requests[0].headers == ()
    assert recorder.named("handler", "failure") == []
