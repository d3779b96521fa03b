"""Metrics for Prometheus, by `prometheus_client`: the extra `prometheus`."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from ..errors.base import lacks
from ..telemetry import Telemetry, default_telemetry
from ..trace.export_spans import TopicPattern, topic_pattern
from .attachment import Attachment
from .measures import BUCKETS, INSTRUMENTS, Instrument, attach_measures

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "prometheus"), name=_error.name) from None

__all__ = ["attach"]

HANDLER: Final = "slipstream_trio.integrations.prometheus"


def attach(
    *,
    registry: CollectorRegistry = REGISTRY,
    telemetry: Telemetry = default_telemetry,
    pattern: TopicPattern = topic_pattern,
    limit: int = 100,
    messages: bool = True,
) -> Attachment:
    """Measure connections, messages, pushes, joins, reconnects, gaps, drops and heartbeats by Prometheus.

    Detaching takes the metrics out of the registry.

    Parameters:
        registry: where the metrics are registered; by default the process's.
        telemetry: the bus; by default the process's.
        pattern: maps a topic to the value of the label `topic`.
        limit: the most different topics, and events; further ones are "other".
        messages: count messages and heartbeats. It costs each message its telemetry records.

    Raises:
        ValueError: it is attached already, or the registry has metrics of these names.
    """
    made = {instrument: _create(instrument) for instrument in INSTRUMENTS}

    def child(instrument: Instrument, labels: tuple[str, ...]) -> Callable[[float], None]:
        metric = made[instrument].labels(*labels) if labels else made[instrument]
        return metric.observe if isinstance(metric, Histogram) else metric.inc

    with ExitStack() as undo:
        attachment = attach_measures(HANDLER, telemetry, child, pattern=pattern, limit=limit, messages=messages)
        undo.callback(attachment.detach)
        for metric in made.values():
            registry.register(metric)
            undo.callback(registry.unregister, metric)
        return Attachment(undo.pop_all().close)


def _create(instrument: Instrument) -> Counter | Gauge | Histogram:
    name = f"slipstream_{instrument.name.replace('.', '_')}" + ("_seconds" if instrument.unit == "s" else "")
    if instrument.kind == "histogram":
        return Histogram(name, instrument.description, instrument.labels.split(), registry=None, buckets=BUCKETS)
    kind = Gauge if instrument.kind == "gauge" else Counter
    return kind(name, instrument.description, instrument.labels.split(), registry=None)
