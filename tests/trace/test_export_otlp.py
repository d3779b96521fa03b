"""Recordings for OpenTelemetry's collectors, sent over HTTP."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.integrations.collector import ABSENT, collecting
from tests.integrations.support import lose_once, visit
from trio.testing import MockClock

from slipstream_trio import Client, ExportError, run_client
from slipstream_trio.telemetry import ClientJoinStart, ClientJoinStop, MessageDiscarded, Origin, Record
from slipstream_trio.trace import read, record
from slipstream_trio.trace.export_otlp import readable_spans, send_otlp
from slipstream_trio.trace.export_spans import topic_pattern

TRACE_PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


async def _both(recorder: Recorder) -> None:
    await visit(recorder, trace_parent=TRACE_PARENT)
    await lose_once(recorder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """Record three connections; return the file, and the records as they were live."""
    path = tmp_path_factory.mktemp("recording") / "trace.jsonl"
    recorder = Recorder()
    with record(path, telemetry=recorder.bus):
        trio.run(_both, recorder, clock=MockClock(autojump_threshold=0))
    return path, recorder.records


def told(records: list[Record]) -> dict[str, tuple[str, str]]:
    """Return the spans that telemetry told of: span_id to trace_id and parent."""
    spans: dict[str, tuple[str, str]] = {}
    each: Any
    for each in records:
        if each.name[-1] in ("stop", "exception"):
            parent = each.origin.connection_id
            if each.span_id == parent:
                parent = "b" * 16 if each.origin.trace_id == "a" * 32 else ""
            spans[each.span_id] = (each.origin.trace_id, parent)
    return spans


def spans_of(records: Iterable[Record]) -> Iterator[Any]:
    resources = pytest.importorskip("opentelemetry.sdk.resources", reason=ABSENT)
    return readable_spans(records, resources.Resource({}), topic_pattern)


def test_live_records_and_those_read_back_are_the_same_spans(made: tuple[Path, list[Record]]) -> None:
    path, records = made
    spans = [span.to_json() for span in spans_of(read(path))]
    assert spans == [span.to_json() for span in spans_of(records)]


def test_a_collector_gets_the_ids_of_the_telemetry(made: tuple[Path, list[Record]]) -> None:
    path, records = made
    threads = set(threading.enumerate())
    with collecting() as collector:
        count = send_otlp(read(path), collector.url, headers={"api-key": "k"}, service="shop")
    assert set(threading.enumerate()) <= threads  # one that was idle may have ended
    expected = told(records)
    received = collector.ids()
    assert len(received) == count
    assert {span_id: received[span_id] for span_id in expected} == expected
    assert {resource["service.name"] for resource in collector.resources} == {"shop"}
    assert {headers["api-key"] for headers in collector.headers} == {"k"}
    assert len(received) == len(expected) + sum(len(each.name) == 3 for each in records)
    push = collector.named("push lab:* fail")
    assert (push.kind, push.status.code, push.status.message) == (3, 2, "error, status error")
    assert push.end_time_unix_nano > push.start_time_unix_nano > 1_600_000_000 * 10**9
    attributes = {each.key: each.value for each in push.attributes}
    assert attributes["messaging.destination.name"].string_value == "lab:1"


def test_a_collector_that_refuses_is_an_error(made: tuple[Path, list[Record]]) -> None:
    with collecting(status=400) as collector, pytest.raises(ExportError, match="did not take the spans; 0 were sent"):
        send_otlp(read(made[0]), collector.url)


@pytest.mark.parametrize(
    ("variable", "where"),
    [
        (None, "http://localhost:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "the endpoint of OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "the endpoint of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ],
)
def test_an_endpoint_that_was_not_given_is_named(
    variable: str | None, where: str, made: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason=ABSENT)
    results = pytest.importorskip("opentelemetry.sdk.trace.export", reason=ABSENT)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "http://user:hush@localhost:1/v1/traces")
    failure = results.SpanExportResult.FAILURE
    monkeypatch.setattr(exporter.OTLPSpanExporter, "export", lambda *_: failure)
    with pytest.raises(ExportError) as told:
        send_otlp(read(made[0]))
    assert str(told.value).startswith(f"{where} did not take the spans")
    assert "hush" not in str(told.value)


def test_spans_are_sent_from_a_source_tree_that_is_not_installed(
    made: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = metadata.distribution

    def not_ours(name: str) -> metadata.Distribution:
        if name == "slipstream-trio":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "distribution", not_ours)
    with collecting() as collector:
        assert send_otlp(read(made[0]), collector.url) > 0


def test_a_missing_extra_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ExportError, match="slipstream-trio\\[otlp\\]"):
        send_otlp([], "http://127.0.0.1:1/v1/traces")


def test_spans_that_have_no_end_are_exported_as_unfinished(made: tuple[Path, list[Record]]) -> None:
    records = made[1]
    cut = next(index for index, each in enumerate(records) if each.name[2:] == ("push", "stop"))
    spans = {f"{span.context.span_id:016x}": span for span in spans_of(records[:cut])}
    connection = spans[str(records[cut].origin.connection_id)]
    assert connection.attributes["slipstream.unfinished"] is True
    assert connection.end_time == max(span.end_time for span in spans.values())
    assert sum("slipstream.unfinished" in span.attributes for span in spans.values()) == 2


class _Broken(Client):
    async def handle_connect(self, socket: Any) -> None:
        raise RuntimeError("the callback failed")


@pytest.fixture(scope="module")
def broken() -> list[Record]:
    """Return the records of a client whose callback raised."""
    recorder = Recorder()

    async def fail() -> None:
        with suppress(RuntimeError):
            await run_client(_Broken(), URL, transport=Scripted(), telemetry=recorder.bus)

    trio.run(fail, clock=MockClock(autojump_threshold=0))
    return recorder.records


def test_an_exception_is_an_event_of_its_span(broken: list[Record]) -> None:
    with collecting() as collector:
        send_otlp(broken, collector.url)
    span = collector.named("handle_connect")
    assert (span.status.code, span.status.message) == (2, "the callback failed")
    (event,) = span.events
    said = {each.key: each.value.string_value for each in event.attributes}
    assert (event.name, event.time_unix_nano) == ("exception", span.end_time_unix_nano)
    assert (said["exception.type"], said["exception.message"]) == ("RuntimeError", "the callback failed")
    assert "in handle_connect" in said["exception.stacktrace"]
    names = {each.key: each.value.string_value for each in span.attributes}
    assert names["error.type"] == "RuntimeError"
    assert names["code.function.name"] == "_Broken.handle_connect"


def test_values_have_their_types(made: tuple[Path, list[Record]]) -> None:
    cut = next(index for index, each in enumerate(made[1]) if each.name[2:] == ("push", "stop"))
    scheduled = [each for each in made[1] if each.name[2:] == ("reconnect_scheduled",)]
    with collecting() as collector:
        send_otlp([*made[1][:cut], *scheduled], collector.url)
    values = {each.key: each.value for span in collector.spans for each in span.attributes}
    assert values["slipstream.unfinished"].bool_value is True
    assert values["slipstream.generation"].int_value == 1
    assert values["slipstream.delay"].HasField("double_value")


def test_what_belongs_to_no_connection_is_left_out() -> None:
    nowhere = Origin(None, None, "5" * 16, 0)
    start = ClientJoinStart(nowhere, "d" * 16, 10**18, 5, "room", {})
    stop = ClientJoinStop(start, nowhere, 9, "lost", None)
    dropped = MessageDiscarded(nowhere, 10**18, 5, "out", "a", "b", None, "lost")
    assert list(spans_of([start, stop, dropped])) == []
    assert list(spans_of([start])) == []
    here = Origin("c" * 16, "7" * 32, "5" * 16, 1)
    begun = attrs.evolve(start, origin=here)
    (span,) = spans_of([begun, ClientJoinStop(begun, nowhere, 9, "lost", None)])
    assert (span.context.trace_id, span.parent.span_id) == (int("7" * 32, 16), int("c" * 16, 16))


def test_handles_are_told_by_what_they_handled() -> None:
    recorder = Recorder()

    async def odd() -> None:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            await socket.channel("room").join()
            peer.feed("nonsense", b"\x00\x01")
            peer.message("room", "news", 1)
            await trio.testing.wait_all_tasks_blocked()

    trio.run(odd, clock=MockClock(autojump_threshold=0))
    spans = {span.name: span for span in spans_of(recorder.records)}
    assert spans["receive"].attributes["error.type"] == "frame_rejected"
    assert spans["receive room news"].attributes["messaging.message.envelope.size"] == 31
    assert spans["handle CloseConnection"].attributes["slipstream.input"] == "CloseConnection"


def test_it_is_a_stream(made: tuple[Path, list[Record]]) -> None:
    taken = 0

    def counted() -> Iterator[Record]:
        nonlocal taken
        for each in made[1]:
            taken += 1
            yield each

    next(spans_of(counted()))
    assert taken < 10
