"""OpenTelemetry: `attach_spans` and `attach_metrics`, for the extra `opentelemetry`, which brings its API only."""

from ...errors.base import lacks

try:
    from .ids import IdGenerator
    from .metrics import attach_metrics
    from .tracing import attach_spans, current_trace_parent
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "opentelemetry"), name=_error.name) from None

__all__ = ["IdGenerator", "attach_metrics", "attach_spans", "current_trace_parent"]
