"""Metrics, of OpenTelemetry and of Prometheus: the same scenarios, and the same numbers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.integrations.support import ABSENT, installed, lose_once, visit
from tests.telemetry.support import ORIGIN
from trio.testing import MockClock

from slipstream_trio import ConnectionRejected, InternalError, JoinTimeout, connect
from slipstream_trio.telemetry import MessageDiscarded, ReconnectScheduled

Key = tuple[str, frozenset[tuple[str, str]]]


class Measured:
    """The metrics, whoever has them: by name and labels, the value; of a histogram, how many there were."""

    def __init__(self, collect: Callable[[], Mapping[Key, float]]) -> None:
        self._collect = collect

    def freeze(self) -> None:
        """Keep what there is."""
        last = self._collect()
        self._collect = lambda: last

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._collect().get((name, frozenset(labels.items())))

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {dict(labels)[label] for found, labels in self._collect() if found == name}


@contextmanager
def by_opentelemetry(recorder: Recorder, **options: Any) -> Iterator[Measured]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from slipstream_trio.integrations.opentelemetry import attach_metrics

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def collect() -> dict[Key, float]:
        found: dict[Key, float] = {}
        data: Any = reader.get_metrics_data()
        if data is None:
            return found
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            name = metric.name.removeprefix("slipstream.").replace(".", "_")
            for point in metric.data.data_points:
                labels = frozenset((key.removeprefix("slipstream."), value) for key, value in point.attributes.items())
                found[name, labels] = point.count if hasattr(point, "count") else point.value
        return found

    try:
        with attach_metrics(meter_provider=provider, telemetry=recorder.bus, **options):
            measured = Measured(collect)
            yield measured
            measured.freeze()
    finally:
        provider.shutdown()


@contextmanager
def by_prometheus(recorder: Recorder, **options: Any) -> Iterator[Measured]:
    from prometheus_client import CollectorRegistry

    from slipstream_trio.integrations.prometheus import attach

    registry = CollectorRegistry()

    def collect() -> dict[Key, float]:
        found: dict[Key, float] = {}
        for metric in registry.collect():
            for sample in metric.samples:
                if sample.name.endswith(("_bucket", "_sum", "_created")):
                    continue
                name = sample.name.removeprefix("slipstream_").removesuffix("_total").removesuffix("_seconds_count")
                found[name, frozenset(sample.labels.items())] = sample.value
        return found

    with attach(registry=registry, telemetry=recorder.bus, **options):
        measured = Measured(collect)
        yield measured
        measured.freeze()
    assert list(registry.collect()) == []


Measuring = Callable[..., Any]
both = pytest.mark.parametrize(
    "measuring",
    [
        pytest.param(by_opentelemetry, marks=pytest.mark.skipif(not installed("opentelemetry.sdk"), reason=ABSENT)),
        pytest.param(
            by_prometheus,
            marks=pytest.mark.skipif(not installed("prometheus_client"), reason="needs the extra `prometheus`"),
        ),
    ],
)


@both
async def test_what_a_visit_does_is_counted_by_outcome(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with measuring(recorder) as measured:
        await visit(recorder)
    assert measured("connects", outcome="ok") == 1
    assert measured("connections") == 0
    assert measured("joins", topic="lab:*", outcome="ok") == 1
    assert measured("push_duration", topic="lab:*", event="echo", outcome="ok") == 1
    assert measured("push_duration", topic="lab:*", event="fail", outcome="error") == 1
    assert measured("push_duration", topic="lab:*", event="silence", outcome="timeout") == 1
    assert measured("heartbeat_duration") == 1
    sent = {"phx_join": 1, "echo": 1, "fail": 1, "silence": 1, "cast": 1, "phx_leave": 1}
    for event, count in sent.items():
        assert measured("messages", direction="out", topic="lab:*", event=event) == count
    assert measured("messages", direction="out", topic="phoenix", event="heartbeat") == 1
    # The join, two pushes and the leave.
    assert measured("messages", direction="in", topic="lab:*", event="phx_reply") == 4


@both
async def test_connections_are_counted_while_they_are_open(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus):
        with measuring(recorder) as measured:
            async with scripted(telemetry=recorder.bus):
                assert measured("connections") == 1
                async with scripted(telemetry=recorder.bus):
                    assert measured("connections") == 2
            # The one that was there before is not counted: its end would not be seen.
            assert measured("connections") == 0


@both
async def test_a_connection_that_ends_by_a_bug_is_not_open(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with measuring(recorder) as measured:
        with pytest.raises(InternalError):
            async with scripted(telemetry=recorder.bus) as (_, peer):
                peer.break_down(ZeroDivisionError("a bug"))
                await trio.sleep_forever()
        assert measured("connections") == 0
    assert recorder.named("connection", "connect", "exception")
    assert recorder.named("handler", "failure") == []


@both
async def test_attempts_that_fail(measuring: Measuring, autojump_clock: MockClock) -> None:
    async def refuse(_: Any) -> None:
        raise ConnectionRejected(403)

    recorder = Recorder()
    with measuring(recorder) as measured:
        with pytest.raises(ConnectionRejected):
            async with connect(URL, transport=Scripted(opening=refuse), telemetry=recorder.bus):
                pass
        assert measured("connects", outcome="error") == 1
        assert not measured("connections")


@both
async def test_what_a_loss_costs_is_counted_by_reason(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with measuring(recorder) as measured:
        await lose_once(recorder)
    assert measured("reconnects", reason="lost") == 1
    assert measured("gaps", topic="lab:*", reason="reconnected") == 1
    assert measured("overflows", topic="lab:*", policy="raise") == 1
    assert measured("dropped", direction="in", reason="not_joined") == 1
    assert measured("connects", outcome="ok") == 2


@both
def test_reasons_are_words(measuring: Measuring) -> None:
    recorder = Recorder()
    with measuring(recorder) as measured:
        for port in range(3):
            told = f"no connection to localhost port {port}"
            scheduled = ReconnectScheduled(ORIGIN, 0, 0, 0.1, 1, told, None, None)
            discarded = MessageDiscarded(ORIGIN, 0, 0, "in", None, None, None, f"not JSON: at {port}")
            recorder.bus.point(ReconnectScheduled.name).emit(scheduled)
            recorder.bus.point(MessageDiscarded.name).emit(discarded)
        assert measured("reconnects", reason="connect_failed") == 3
        assert measured("dropped", direction="in", reason="malformed") == 3


@both
async def test_joins_that_are_not_answered_and_heartbeats_by_the_clock(
    measuring: Measuring, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    with measuring(recorder) as measured:
        async with scripted(answers={"heartbeat"}, telemetry=recorder.bus, heartbeat_interval=3) as (socket, peer):
            with suppress(JoinTimeout):
                await socket.channel("lab:1").join(timeout=1)
            await peer.wait_sent("heartbeat")
            await trio.testing.wait_all_tasks_blocked()
    assert measured("joins", topic="lab:*", outcome="timeout") == 1
    assert measured("messages", direction="out", topic="lab:*", event="phx_leave") == 1
    assert measured("messages", direction="out", topic="phoenix", event="heartbeat") == 1
    assert measured("heartbeat_duration") == 1


@both
async def test_labels_are_few_whatever_topics_and_events_there_are(
    measuring: Measuring, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    with measuring(recorder, limit=3) as measured:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            for number in range(10):
                channel = socket.channel(f"kind{number}:1")
                await channel.join()
                peer.message(f"kind{number}:1", f"event{number}", {})
            await trio.testing.wait_all_tasks_blocked()
        assert len(measured.labels("joins", "topic")) == 4
        assert "other" in measured.labels("joins", "topic")
        assert measured("joins", topic="other", outcome="ok") == 7
        assert len(measured.labels("messages", "event")) <= 4


@both
async def test_topics_are_mapped_by_a_function(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with measuring(recorder, pattern=lambda topic: topic.upper()) as measured:
        async with scripted(telemetry=recorder.bus) as (socket, _):
            await socket.channel("room").join()
    assert measured("joins", topic="ROOM", outcome="ok") == 1


@both
async def test_messages_are_left_alone_if_that_is_asked_for(measuring: Measuring, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.detach("recorder")
    with measuring(recorder, messages=False) as measured:
        async with scripted(telemetry=recorder.bus) as (socket, _):
            assert not recorder.bus.span(("slipstream", "connection", "handle")).active
            await socket.channel("room").join()
    assert measured.labels("messages", "event") == set()
    assert measured("joins", topic="room", outcome="ok") == 1


@both
def test_attaching_twice_is_refused_and_changes_nothing(measuring: Measuring) -> None:
    recorder = Recorder()
    with measuring(recorder):
        with pytest.raises(ValueError, match="attached already"), measuring(recorder):
            pass
        assert len({handler.handler_id for handler in recorder.bus.list_handlers()}) == 2


def test_a_registry_that_has_the_names_already_is_left_as_it_is() -> None:
    pytest.importorskip("prometheus_client", reason="needs the extra `prometheus`")
    from prometheus_client import CollectorRegistry, Counter

    from slipstream_trio.integrations.prometheus import attach

    registry = CollectorRegistry()
    Counter("slipstream_gaps", "mine", registry=registry)
    recorder = Recorder()
    with pytest.raises(ValueError, match="slipstream_gaps"):
        attach(registry=registry, telemetry=recorder.bus)
    assert [metric.documentation for metric in registry.collect()] == ["mine"]
    assert [handler.handler_id for handler in recorder.bus.list_handlers()] == ["recorder"]
