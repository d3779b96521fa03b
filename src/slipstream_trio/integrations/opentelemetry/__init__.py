"""OpenTelemetry: `attach_spans` and `attach_metrics`, for the extra `opentelemetry`, which brings its API only."""

from .ids import IdGenerator
from .metrics import attach_metrics
from .tracing import attach_spans, current_trace_parent

__all__ = ["IdGenerator", "attach_metrics", "attach_spans", "current_trace_parent"]
