"""Span contexts: of what the telemetry calls a span, of what it was given, and of the span that is current."""

from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, TraceState

__all__ = ["current", "links_to", "of_ids", "of_trace_parent", "traceparent", "under"]

VERSION: Final = "00"


def current() -> SpanContext | None:
    """Return the context of the span that is current; None if there is none."""
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def of_ids(trace_id: str, span_id: str, flags: int, state: TraceState | None = None) -> SpanContext:
    """Return the context of a span whose ids are the telemetry's."""
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(flags), trace_state=state
    )


def of_trace_parent(trace_parent: str) -> SpanContext:
    """Return the context that a W3C traceparent tells of: that of the current span, if it is the one."""
    _, trace_id, span_id, flags = trace_parent.split("-")
    given = of_ids(trace_id, span_id, int(flags, 16))
    here = current()
    same = here is not None and (here.trace_id, here.span_id) == (given.trace_id, given.span_id)
    return here if same and here is not None else given


def traceparent(context: SpanContext) -> str:
    """Return a context as a W3C traceparent."""
    return f"{VERSION}-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def under(context: SpanContext | None) -> Context:
    """Return what to start a child of a span in; None makes it the first of its trace."""
    return Context() if context is None else trace.set_span_in_context(NonRecordingSpan(context), Context())


def links_to(context: SpanContext | None) -> tuple[Link, ...]:
    """Return the link to a span, if there is one."""
    return () if context is None else (Link(context),)
