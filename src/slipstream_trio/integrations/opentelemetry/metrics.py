"""Metrics for OpenTelemetry: one instrument of its API for each of `measures`."""

from collections.abc import Callable
from functools import partial
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import Meter, MeterProvider

from ...telemetry import Telemetry, default_telemetry
from ...trace.export_spans import TopicPattern, topic_pattern
from ..attachment import Attachment
from ..measures import BUCKETS, INSTRUMENTS, Instrument, attach_measures

HANDLER: Final = "slipstream_trio.integrations.opentelemetry.metrics"


def attach_metrics(
    *,
    meter_provider: MeterProvider | None = None,
    telemetry: Telemetry = default_telemetry,
    pattern: TopicPattern = topic_pattern,
    limit: int = 100,
    messages: bool = True,
) -> Attachment:
    """Measure connections, messages, pushes, joins, reconnects, gaps, drops and heartbeats by OpenTelemetry.

    Parameters:
        meter_provider: None takes the global one.
        telemetry: the bus; by default the process's.
        pattern: maps a topic to the value of the attribute `topic`.
        limit: the most different topics, and events; further ones are "other".
        messages: count messages and heartbeats. It costs each message its telemetry records.

    Raises:
        ValueError: it is attached already.
    """
    meter = metrics.get_meter("slipstream_trio", meter_provider=meter_provider)
    recordings = {instrument: _create(meter, instrument) for instrument in INSTRUMENTS}

    def child(instrument: Instrument, labels: tuple[str, ...]) -> Callable[[float], None]:
        names = (f"slipstream.{name}" for name in instrument.labels.split())
        return partial(recordings[instrument], attributes=dict(zip(names, labels, strict=True)))

    return attach_measures(HANDLER, telemetry, child, pattern=pattern, limit=limit, messages=messages)


def _create(meter: Meter, instrument: Instrument) -> Callable[..., None]:
    its = f"slipstream.{instrument.name}", instrument.unit, instrument.description
    if instrument.kind == "gauge":
        return meter.create_up_down_counter(*its).add
    if instrument.kind == "counter":
        return meter.create_counter(*its).add
    return meter.create_histogram(*its, explicit_bucket_boundaries_advisory=BUCKETS).record
