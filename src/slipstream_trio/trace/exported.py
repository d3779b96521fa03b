"""The spans of a recording, or of collected records, for tracing systems."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from attrs import frozen

from ..telemetry import Record
from .export_spans import Attributes, Description, Kind, TopicPattern, describe, is_once, topic_pattern

__all__ = ["UNFINISHED", "ExportedSpan", "exported_spans"]

CONNECTION: Final = ("slipstream", "connection", "connect")
UNFINISHED: Final = "slipstream.unfinished"
"""The attribute of a span whose end is not in the recording; it ends where that does."""


@frozen
class ExportedSpan:
    """A span with all that tracing systems ask for.

    Attributes:
        trace_id: the telemetry's, 32 hex digits.
        span_id: the telemetry's, 16 hex digits.
        parent_id: the connection_id; of a connection, what its `trace_parent` says, else None.
        name: few different ones.
        kind: as OpenTelemetry has it.
        start: in nanoseconds since the epoch.
        end: likewise.
        attributes: its attributes.
        error: why its status is an error, None if it is not.
        exception: type, message and stacktrace, where code raised.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: Kind
    start: int
    end: int
    attributes: Attributes
    error: str | None = None
    exception: tuple[str, str, str] | None = None


def exported_spans(records: Iterable[Record], pattern: TopicPattern = topic_pattern) -> Iterator[ExportedSpan]:
    """Give the spans of records one by one, as they end; then those that have no end.

    What happens once, such as a gap, is a span without length. What belongs to no connection has no trace, and is
    left out. Only the spans that are open are held in memory.

    Parameters:
        records: in the order in which they were emitted, such as `trace.read` gives them.
        pattern: maps a topic to its text in names of spans.
    """
    unfinished: dict[str, Any] = {}
    latest = 0
    record: Any
    for record in records:
        kind = record.name[-1]
        if kind == "start":
            unfinished[record.span_id] = record
            latest = max(latest, record.system_time)
        elif is_once(record.name):
            if record.origin.connection_id is not None:
                yield _once(record, describe(record, pattern))
        elif kind in ("stop", "exception"):
            unfinished.pop(record.span_id, None)
            span = _span(record, record.start.system_time, record.measurements["duration"], pattern)
            latest = max(latest, record.start.system_time + record.measurements["duration"])
            if span is not None:
                yield span
    for record in unfinished.values():
        span = _span(record, record.system_time, max(0, latest - record.system_time), pattern)
        if span is not None:
            span.attributes[UNFINISHED] = True
            yield span


def _span(record: Any, start: int, duration: int, pattern: TopicPattern) -> ExportedSpan | None:
    # Where a span ends is where its answer came from; where no connection is left then, it is where it began.
    origin = record.origin
    if origin.connection_id is None and record.name[-1] != "start":
        origin = record.start.origin
    if origin.connection_id is None or origin.trace_id is None:
        return None
    told = describe(record, pattern)
    return ExportedSpan(
        origin.trace_id,
        record.span_id,
        _parent(record) if record.name[:3] == CONNECTION else origin.connection_id,
        told.name,
        told.kind,
        start,
        start + duration,
        told.attributes,
        told.error,
        told.exception,
    )


def _parent(record: Any) -> str | None:
    trace_parent: str | None = getattr(record.metadata.get("state"), "trace_parent", None)
    return None if trace_parent is None else trace_parent[36:52]


def _once(record: Any, told: Description) -> ExportedSpan:
    origin, time = record.origin, record.measurements["system_time"]
    # A point has no span_id. This one is the same whenever the recording is exported.
    key = f"{origin.connection_id} {' '.join(record.name)} {record.measurements['monotonic_time']} {told.name}"
    span_id = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return ExportedSpan(
        origin.trace_id, span_id, origin.connection_id, told.name, told.kind, time, time, told.attributes
    )
