"""Spans for OpenTelemetry's collectors, sent by OTLP over HTTP."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..errors import ExportError
from ..errors.base import lacks
from ..telemetry import Origin, Record
from .export_spans import UNFINISHED, Description, TopicPattern, describe, ended, topic_pattern
from .schema import library_version

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["SERVICE", "send_otlp"]

SERVICE: Final = "slipstream"
BATCH: Final = 512  # spans in a request
# The endpoint of OpenTelemetry's exporter: the first of these variables that is set, or the default.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT: Final = "http://localhost:4318/v1/traces"


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
    count = 0
    try:
        spans = readable_spans(records, Resource({"service.name": service}), pattern)
        while batch := list(islice(spans, BATCH)):
            if exporter.export(batch) is not SpanExportResult.SUCCESS:
                # What OpenTelemetry's exporter sends to; a variable by its name, as the URL in it may have a password.
                named = [f"the endpoint of {name}" for name in ENDPOINTS if os.environ.get(name)]
                where = endpoint or next(iter(named), DEFAULT)
                raise ExportError(f"{where} did not take the spans; {count} were sent before. Is a collector there?")
            count += len(batch)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no types
    return count


def readable_spans(records: Iterable[Record], resource: "Resource", pattern: TopicPattern) -> Iterator["ReadableSpan"]:
    """Give the spans of records, in the order of their emission, as they end; then those that have no end.

    What happens once, such as a gap, is a span without length. What belongs to no connection has no trace, and is
    left out. Only the spans that are open are held in memory.
    """
    for record, lasted in ended(records, "system_time"):
        origin = record.origin
        if origin.connection_id is None:
            # Where a span ends is where its answer came from; where no connection is left then, it is where it began.
            origin = (getattr(record, "start", None) or record).origin
        if origin.connection_id is not None and origin.trace_id is not None:
            yield _readable(record, origin, lasted, describe(record, pattern), resource)


def _readable(record: Any, origin: Origin, lasted: int, told: Description, resource: "Resource") -> "ReadableSpan":
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    began = (getattr(record, "start", None) or record).system_time
    span_id, parent_id = record.span_id, origin.connection_id
    if record.name[-1] == "start":
        told.attributes[UNFINISHED] = True
    if span_id is None:
        # A point has no span_id. This one is the same whenever the recording is exported.
        key = f"{parent_id} {' '.join(record.name)} {record.measurements['monotonic_time']} {told.name}"
        span_id = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    if record.name[1:3] == ("connection", "connect"):
        trace_parent: str | None = getattr(record.metadata.get("state"), "trace_parent", None)
        parent_id = None if trace_parent is None else trace_parent[36:52]
    sampled = TraceFlags(TraceFlags.SAMPLED)
    context = partial(SpanContext, int(origin.trace_id or "", 16), is_remote=False, trace_flags=sampled)
    return ReadableSpan(
        name=told.name,
        context=context(int(span_id, 16)),
        parent=None if parent_id is None else context(int(parent_id, 16)),
        resource=resource,
        attributes=told.attributes,
        events=[Event("exception", told.exception, began + lasted)] if told.exception else [],
        kind=SpanKind[told.kind.upper()],
        instrumentation_scope=InstrumentationScope("slipstream_trio", library_version()),
        status=Status(StatusCode.UNSET) if told.error is None else Status(StatusCode.ERROR, told.error),
        start_time=began,
        end_time=began + lasted,
    )
