"""What integrations cost, in nanoseconds an event: run `python benchmarks/integrations.py`.

A "message" is the telemetry of one received message, a "push" that of a push and its reply, without the work itself:
their records, and what the integration makes of them. Prints the best of several runs. Needs the extras `otlp` and
`prometheus`.
"""

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry

from slipstream_trio import ConnectionLost
from slipstream_trio.integrations import logging as logs, prometheus
from slipstream_trio.integrations.opentelemetry import IdGenerator, attach_metrics, attach_spans
from slipstream_trio.protocol import FrameReceived, Message, MessageReceived, Options, State, Transition, V2Serializer
from slipstream_trio.telemetry import ClientPushStart, ClientPushStop, Origin, Telemetry
from slipstream_trio.telemetry.span import ConnectionSpans

Attach = Callable[[Telemetry], Any]
ORIGIN = Origin("c" * 16, "7" * 32, "5" * 16, 1)
STATE = State(
    connection_id="c" * 16,
    trace_id="7" * 32,
    socket_id="5" * 16,
    generation=1,
    options=Options(url="ws://localhost/socket/websocket"),
)
MESSAGE = Message("1", None, "room:lobby", "new_msg", {"body": "hello"})
GIVEN = FrameReceived(0.0, '["1",null,"room:lobby","new_msg",{"body":"hello"}]')
TRANSITION = Transition(STATE, MESSAGE, (MessageReceived(MESSAGE),))


def spans(sampler: Any, handles: float) -> Attach:
    """Return how to attach OpenTelemetry's spans."""
    provider = TracerProvider(id_generator=IdGenerator(), sampler=ParentBased(sampler), shutdown_on_exit=False)
    return lambda bus: attach_spans(tracer_provider=provider, telemetry=bus, handles=handles)


def metrics(bus: Telemetry) -> Any:
    """Attach OpenTelemetry's metrics."""
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    return attach_metrics(meter_provider=provider, telemetry=bus)


@contextmanager
def logging_at(bus: Telemetry, level: int) -> Iterator[None]:
    """Attach logs, of handles too, to a logger of this level that writes nothing."""
    logger = logging.getLogger("benchmark")
    logger.setLevel(level)
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    with logs.attach(telemetry=bus, name="benchmark", handles=True):
        yield


def nothing(bus: Telemetry) -> Any:
    """Attach a handler that does nothing, to everything."""
    return bus.listen(lambda _: None)


SCENARIOS: list[tuple[str, Attach | None]] = [
    ("no handler", None),
    ("a handler that does nothing", nothing),
    ("OpenTelemetry spans, sampled out", spans(ALWAYS_OFF, 0.0)),
    ("OpenTelemetry spans, sampled out, handles=1", spans(ALWAYS_OFF, 1.0)),
    ("OpenTelemetry spans, sampled", spans(ALWAYS_ON, 0.0)),
    ("OpenTelemetry spans, sampled, handles=0.01", spans(ALWAYS_ON, 0.01)),
    ("OpenTelemetry spans, sampled, handles=1", spans(ALWAYS_ON, 1.0)),
    ("OpenTelemetry metrics", metrics),
    ("Prometheus", lambda bus: prometheus.attach(registry=CollectorRegistry(), telemetry=bus)),
    ("logging at WARNING, handles=True", lambda bus: logging_at(bus, logging.WARNING)),
    ("logging at DEBUG, handles=True", lambda bus: logging_at(bus, logging.DEBUG)),
]


def best(once: Callable[[], None], seconds: float) -> float:
    """Return how many nanoseconds a call takes, in the best of several runs."""
    found = float("inf")
    until = time.perf_counter() + seconds
    number = 200
    while time.perf_counter() < until:
        start = time.thread_time_ns()  # not the time that others had the processor
        for _ in range(number):
            once()
        found = min(found, (time.thread_time_ns() - start) / number)
    return found


def measure(attach: Attach | None, seconds: float) -> tuple[float, float]:
    """Return what a message and a push cost."""
    bus = Telemetry()
    connection = ConnectionSpans(bus, ORIGIN)
    pushes = bus.span(ClientPushStart.name[:-1])
    with ExitStack() as stack:
        if attach is not None:
            stack.enter_context(attach(bus))
        life = connection.start_connect(STATE)

        def message() -> None:
            if connection.handle.active:
                start, _ = connection.handled(GIVEN, STATE, V2Serializer())
                connection.stop_handle(start, TRANSITION)

        def push() -> None:
            if pushes.active:
                begun = bus.time_ns(), bus.monotonic_ns()
                start = ClientPushStart(ORIGIN, bus.ids.span_id(), *begun, "room:lobby", "new_msg", {})
                pushes.start.emit(start)
                pushes.stop.emit(ClientPushStop(start, ORIGIN, bus.monotonic_ns(), "ok", "2", "ok", {}))

        found = best(message, seconds), best(push, seconds)
        connection.stop_connect(life, STATE, ConnectionLost("closed_by_client"))
    return found


def main() -> None:
    """Print a line for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    arguments = parser.parse_args()
    print(f"{'':45} {'ns a message':>14} {'ns a push':>12}")  # noqa: T201
    for name, attach in SCENARIOS:
        message, push = measure(attach, arguments.seconds)
        print(f"{name:45} {message:14,.0f} {push:12,.0f}")  # noqa: T201


if __name__ == "__main__":
    main()
