"""Spans for OpenTelemetry's collectors, sent by OTLP over HTTP."""

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..errors import ExportError
from ..errors.base import lacks
from ..telemetry import Record
from .export_spans import ExportedSpan, TopicPattern, exported_spans, topic_pattern
from .schema import library_version

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["SERVICE", "send_otlp"]

SERVICE: Final = "slipstream"
SCOPE: Final = "slipstream_trio"
BATCH: Final = 512  # spans in a request
SAMPLED: Final = 1
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT: Final = "http://localhost:4318/v1/traces"
"""The endpoint of OpenTelemetry's exporter: the first of these variables that is set, or the default."""
_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")


def send_otlp(
    records: Iterable[Record],
    endpoint: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    service: str = SERVICE,
    pattern: TopicPattern = topic_pattern,
) -> int:
    """Send the spans of records to a collector, by OTLP over HTTP (protobuf), and return how many these are.

    Needs the extra `otlp`. It runs until everything is sent: in a Trio program call it by `trio.to_thread.run_sync`.

    Parameters:
        records: in the order in which they were emitted, such as `trace.read` gives them.
        endpoint: such as http://localhost:4318/v1/traces; None takes what OpenTelemetry's environment variables say.
        headers: to be sent with each request.
        timeout: of a request and its retries, in seconds.
        service: the resource's `service.name`.
        pattern: maps a topic to its text in names of spans.

    Raises:
        ExportError: the collector could not be reached, or refused; or the extra is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as error:
        raise ExportError(lacks("OTLP", error, "otlp")) from None
    exporter = OTLPSpanExporter(endpoint=endpoint, headers=None if headers is None else dict(headers), timeout=timeout)
    resource = Resource({"service.name": service})
    count = 0
    try:
        spans = exported_spans(records, pattern)
        while batch := list(islice(spans, BATCH)):
            if exporter.export([_readable(span, resource) for span in batch]) is not SpanExportResult.SUCCESS:
                # What OpenTelemetry's exporter sends to; a variable by its name, as the URL in it may have a password.
                named = [f"the endpoint of {name}" for name in ENDPOINTS if os.environ.get(name)]
                where = endpoint or next(iter(named), DEFAULT)
                raise ExportError(f"{where} did not take the spans; {count} were sent before. Is a collector there?")
            count += len(batch)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no types
    return count


def _readable(span: ExportedSpan, resource: "Resource") -> "ReadableSpan":
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind, Status, StatusCode

    kinds = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}
    exception = span.told.exception
    told = {} if exception is None else dict(zip(_EXCEPTION, exception, strict=True))
    return ReadableSpan(
        name=span.told.name,
        context=_context(span.trace_id, span.span_id),
        parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
        resource=resource,
        attributes=span.told.attributes,
        events=[Event("exception", told, span.end)] if told else [],
        kind=kinds[span.told.kind],
        instrumentation_scope=InstrumentationScope(SCOPE, library_version()),
        status=Status(StatusCode.UNSET) if span.told.error is None else Status(StatusCode.ERROR, span.told.error),
        start_time=span.start,
        end_time=span.end,
    )


def _context(trace_id: str, span_id: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(SAMPLED))
