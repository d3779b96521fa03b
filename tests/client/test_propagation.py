"""What the upgrade tells a server of the connection's trace."""

from collections.abc import Iterable
from typing import Any

import pytest
from tests.client.support import URL, Recorder, Scripted, running
from tests.telemetry.support import ORIGIN
from trio.testing import MockClock

from slipstream_trio import connect
from slipstream_trio.telemetry import ConnectStart, Origin

PARENT = f"00-{'a' * 32}-{'b' * 16}-00"


async def headers_of(recorder: Recorder, **options: Any) -> tuple[dict[str, str], str]:
    """Connect; return the headers of the upgrade, and the connection_id."""
    connector = Scripted()
    async with connect(URL, transport=connector, telemetry=recorder.bus, **options) as socket:
        (request,) = connector.requests
        headers = dict(request.headers)
        assert len(headers) == len(request.headers)
        return headers, str(socket.connection_id)


async def test_a_connection_of_its_own_trace_tells_nothing(autojump_clock: MockClock) -> None:
    assert (await headers_of(Recorder()))[0] == {}


async def test_a_connection_with_a_trace_parent_is_the_parent_of_what_the_server_does(
    autojump_clock: MockClock,
) -> None:
    headers, connection_id = await headers_of(Recorder(), trace_parent=PARENT, headers={"x-mine": "1"})
    assert headers == {"x-mine": "1", "traceparent": f"00-{'a' * 32}-{connection_id}-00"}


async def test_the_state_tells_the_trace_parent(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    await headers_of(recorder, trace_parent=PARENT)
    (start,) = recorder.named("connection", "connect", "start")
    assert start.state.trace_parent == PARENT
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.state.trace_parent == PARENT


async def test_it_arrives_by_the_real_transport(autojump_clock: MockClock) -> None:
    async with running() as server:
        async with connect(URL, transport=server.connector(), trace_parent=PARENT) as socket:
            (connection,) = server.connections
            assert dict(connection.request.headers)["traceparent"] == f"00-{'a' * 32}-{socket.connection_id}-00"


async def test_a_header_that_the_user_gave_is_left_as_it_is(autojump_clock: MockClock) -> None:
    headers, _ = await headers_of(Recorder(), trace_parent=PARENT, headers=[("TraceParent", "mine")])
    assert headers == {"TraceParent": "mine"}


async def test_a_propagator_is_asked_once_the_connections_span_has_begun(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    asked: list[tuple[Origin, Any]] = []

    def propagator(origin: Origin) -> Iterable[tuple[str, str]]:
        asked.append((origin, recorder.records[-1]))
        return [("x-trace", str(origin.trace_id)), ("traceparent", "its own")]

    recorder.bus.propagator = propagator
    headers, connection_id = await headers_of(recorder, trace_parent=PARENT)
    assert headers == {"x-trace": "a" * 32, "traceparent": "its own"}
    ((origin, last),) = asked
    assert origin.connection_id == connection_id
    assert isinstance(last, ConnectStart)


async def test_a_propagator_may_add_to_the_given_trace(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.propagator = lambda _: [("x-more", "1")]
    headers, connection_id = await headers_of(recorder, trace_parent=PARENT)
    assert headers == {"x-more": "1", "traceparent": f"00-{'a' * 32}-{connection_id}-00"}


def _raises(_: Origin) -> Iterable[tuple[str, str]]:
    raise RuntimeError("no headers today")


@pytest.mark.parametrize(
    "propagator", [_raises, lambda _: [("a", "b\r\nc: d")], lambda _: [("é", "b")], lambda _: [5], lambda _: None]
)
async def test_a_propagator_that_fails_is_removed_and_reported_and_the_connection_goes_on(
    propagator: Any, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    recorder.bus.propagator = propagator
    headers, connection_id = await headers_of(recorder)
    assert headers == {}
    assert recorder.bus.propagator is None
    (failure,) = recorder.named("handler", "failure")
    assert (failure.handler_id, failure.origin.connection_id) == ("propagator", connection_id)


def test_a_bus_without_a_propagator_has_no_headers() -> None:
    assert Recorder().bus.propagate(ORIGIN) == ()
