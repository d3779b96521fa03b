"""What a collector sees of live connections, sent by OpenTelemetry's SDK and its exporter over HTTP."""

import threading
from collections.abc import Iterator

import pytest
from tests.client.support import Recorder
from tests.integrations.collector import collecting
from tests.integrations.support import ABSENT, sdk, visit
from trio.testing import MockClock

from slipstream_trio.telemetry import SpanException

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=ABSENT)

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from slipstream_trio.integrations.opentelemetry import IdGenerator, attach_spans


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("generator", [True, False])
async def test_a_collector_gets_the_ids_of_the_telemetry_and_the_right_parents(
    generator: bool, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    with collecting() as collector:
        provider = sdk().TracerProvider(id_generator=IdGenerator() if generator else None, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector.url)))
        with attach_spans(tracer_provider=provider, telemetry=recorder.bus, handles=1):
            socket = await visit(recorder)
        provider.shutdown()
    told = {
        record.metadata["span_id"]: (record.origin.trace_id, record.origin.connection_id)
        for record in recorder.records
        if record.name[-1] == "stop" and not isinstance(record, SpanException)
    }
    del told[str(socket.connection_id)]
    received = collector.ids()
    connection = collector.named("connection")
    closed = collector.named("connection closed")
    del received[connection.span_id.hex()], received[closed.span_id.hex()]
    assert connection.trace_id.hex() == socket.trace_id
    if generator:
        assert connection.span_id.hex() == socket.connection_id
        assert connection.parent_span_id == b""
        assert received == told
    else:
        assert connection.parent_span_id.hex() == socket.connection_id
        assert list(received.values()) == list(told.values())
