"""Spans for OpenTelemetry's collectors: as a file of OTLP JSON, or sent by OTLP over HTTP."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, TextIO

from ..errors import ExportError
from ..errors.base import lacks
from ..telemetry import Record
from .export_files import written
from .export_spans import Description, ExportedSpan, TopicPattern, exported_spans, topic_pattern

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["SERVICE", "export_otlp_json", "send_otlp"]

SERVICE: Final = "slipstream"
SCOPE: Final = "slipstream_trio"
BATCH: Final = 512  # spans in a line, and in a request
KINDS: Final = {"internal": 1, "client": 3, "consumer": 5}  # the numbers of `SpanKind` in OTLP
ERROR: Final = 2  # the number of the status `STATUS_CODE_ERROR`
SAMPLED: Final = 1
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT: Final = "http://localhost:4318/v1/traces"
"""The endpoint of OpenTelemetry's exporter: the first of these variables that is set, or the default."""


def export_otlp_json(
    records: Iterable[Record],
    path: str | PathLike[str] | TextIO,
    *,
    service: str = SERVICE,
    pattern: TopicPattern = topic_pattern,
) -> int:
    """Write the spans of records as OTLP JSON, one `TracesData` a line, and return how many these are.

    Parameters:
        records: in the order in which they were emitted, such as `trace.read` gives them.
        path: the file, or one that is open; compressed if its name ends in `.gz`.
        service: the resource's `service.name`.
        pattern: maps a topic to its text in names of spans.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    resource = {"attributes": _attributes({"service.name": service})}
    scope = {"name": SCOPE, "version": version("slipstream-trio")}
    with written(path) as file:
        for batch in _batches(exported_spans(records, pattern)):
            count += len(batch)
            spans = [_json(span) for span in batch]
            line = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    return count


def _batches(spans: Iterator[ExportedSpan]) -> Iterator[list[ExportedSpan]]:
    while batch := list(islice(spans, BATCH)):
        yield batch


def _json(span: ExportedSpan) -> dict[str, Any]:
    message: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "flags": SAMPLED,
        "name": span.told.name,
        "kind": KINDS[span.told.kind],
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(span.told.attributes),
    }
    if span.parent_id is not None:
        message["parentSpanId"] = span.parent_id
    if span.told.exception is not None:
        event = {"timeUnixNano": str(span.end), "name": "exception", "attributes": _attributes(_exception(span.told))}
        message["events"] = [event]
    if span.told.error is not None:
        message["status"] = {"code": ERROR, "message": span.told.error}
    return message


def _exception(told: Description) -> dict[str, str]:
    assert told.exception is not None
    return dict(zip(("exception.type", "exception.message", "exception.stacktrace"), told.exception, strict=True))


def _attributes(values: Mapping[str, str | float | bool]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: str | float | bool) -> dict[str, Any]:  # noqa: FBT001 - an attribute's value may be one
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


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
        for batch in _batches(exported_spans(records, pattern)):
            if exporter.export([_readable(span, resource) for span in batch]) is not SpanExportResult.SUCCESS:
                where = endpoint or _default_endpoint()
                raise ExportError(f"{where} did not take the spans; {count} were sent before. Is a collector there?")
            count += len(batch)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no types
    return count


def _default_endpoint() -> str:
    """Return what OpenTelemetry's exporter sends to; of a variable the name, as the URL in it may have a password."""
    named = [name for name in ENDPOINTS if os.environ.get(name)]
    return f"the endpoint of {named[0]}" if named else DEFAULT


def _readable(span: ExportedSpan, resource: "Resource") -> "ReadableSpan":
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind, Status, StatusCode

    kinds = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}
    events = [] if span.told.exception is None else [Event("exception", _exception(span.told), span.end)]
    return ReadableSpan(
        name=span.told.name,
        context=_context(span.trace_id, span.span_id),
        parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
        resource=resource,
        attributes=span.told.attributes,
        events=events,
        kind=kinds[span.told.kind],
        instrumentation_scope=InstrumentationScope(SCOPE, version("slipstream-trio")),
        status=Status(StatusCode.UNSET) if span.told.error is None else Status(StatusCode.ERROR, span.told.error),
        start_time=span.start,
        end_time=span.end,
    )


def _context(trace_id: str, span_id: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(SAMPLED))
