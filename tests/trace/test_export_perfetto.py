"""Recordings for Perfetto: held against the format of Chrome's trace events."""

import gzip
import json
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import Recorder, scripted
from tests.integrations.support import lose_once, visit
from trio.testing import MockClock

from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.trace.export_perfetto import export_perfetto

Event = dict[str, Any]

FIELDS = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "i": {"name", "cat", "pid", "tid", "ts", "s", "args"},
}
"""What an event of each phase has, beside `ph`."""


async def _many(recorder: Recorder) -> None:
    await visit(recorder)
    await lose_once(recorder)
    async with scripted(telemetry=recorder.bus) as (socket, _), socket.join("room:1") as channel:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(channel.push, "echo", number)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    recorder = Recorder()
    trio.run(_many, recorder, clock=MockClock(autojump_threshold=0))
    return recorder.records


def exported(records: Iterable[Record], path: Path) -> list[Event]:
    count = export_perfetto(records, path)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    trace = json.loads(content)
    assert set(trace) == {"displayTimeUnit", "traceEvents"}
    events: list[Event] = trace["traceEvents"]
    assert len(events) == count
    return events


@pytest.fixture(scope="module")
def events(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    return exported(records, tmp_path_factory.mktemp("perfetto") / "trace.json")


def names(events: list[Event], what: str) -> dict[tuple[int, int], str]:
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == what}


def test_every_event_has_what_its_phase_asks_for(events: list[Event]) -> None:
    for event in events:
        assert set(event) == {"ph", *FIELDS[event["ph"]]}
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        for key in {"ts", "dur"} & set(event):
            assert isinstance(event[key], float)
            assert event[key] >= 0


def test_every_track_is_named_once_before_it_is_used(events: list[Event]) -> None:
    named: set[tuple[int, int]] = set()
    for event in events:
        track = event["pid"], event["tid"]
        if event["name"] == "thread_name":
            assert track not in named
            named.add(track)
        elif event["ph"] != "M":
            assert track in named
    assert sorted(tid for _, tid in named) == list(range(1, len(named) + 1))


def test_a_socket_is_a_process_and_its_connections_and_topics_are_tracks(
    events: list[Event], records: list[Record]
) -> None:
    sockets = list(dict.fromkeys(record.origin.socket_id for record in records))
    processes = names(events, "process_name")
    assert list(processes.values()) == [f"socket {socket_id}" for socket_id in sockets]
    tracks = names(events, "thread_name")
    connections = {
        f"connection {record.origin.generation} {record.origin.connection_id}"
        for record in records
        if record.name[1] == "connection"
    }
    assert {name for name in tracks.values() if name.startswith("connection")} == connections
    assert {"topic lab:1", "topic room:1", "topic room:1 (5)", "client"} <= set(tracks.values())


def test_every_span_is_a_slice_with_its_times_in_microseconds(events: list[Event], records: list[Record]) -> None:
    slices = {event["args"]["slipstream.span_id"]: event for event in events if event["ph"] == "X"}
    ends = [record for record in records if record.name[-1] in ("stop", "exception")]
    assert len(slices) == len(ends)
    each: Any
    for each in ends:
        event = slices[each.span_id]
        assert event["ts"] * 1000 == pytest.approx(each.start.monotonic_time, abs=1)
        assert event["dur"] * 1000 == pytest.approx(each.measurements["duration"], abs=1)
        assert event["args"]["trace_id"] == each.origin.trace_id


def test_slices_of_one_track_lie_beside_or_within_each_other(events: list[Event]) -> None:
    tracks: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for slices in tracks.values():
        open_until: list[float] = []
        for start, end in sorted(slices, key=lambda each: (each[0], -each[1])):
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + 0.001
            open_until.append(end)


def test_what_happens_once_is_an_instant(events: list[Event]) -> None:
    instants = {event["name"] for event in events if event["ph"] == "i"}
    assert {"gap lab:*", "overflow lab:*", "reconnect_scheduled"} <= instants


def test_what_has_no_end_reaches_to_the_end_of_the_recording(records: list[Record], tmp_path: Path) -> None:
    cut = next(index for index, each in enumerate(records) if each.name[2:] == ("push", "stop"))
    events = exported(records[:cut], tmp_path / "trace.json")
    open_slices = [event for event in events if event.get("args", {}).get("slipstream.unfinished")]
    assert [event["name"] for event in open_slices] == ["connection", "push lab:* echo"]
    last = max(event["ts"] + event["dur"] for event in events if event["ph"] == "X")
    assert [event["ts"] + event["dur"] for event in open_slices] == pytest.approx([last, last])


def test_how_long_something_was_open_does_not_depend_on_the_wall_clock(tmp_path: Path) -> None:
    an_hour_each_time = count(step=3_600_000_000_000).__next__
    recorder = Recorder(Telemetry(time_ns=an_hour_each_time))
    trio.run(visit, recorder, clock=MockClock(autojump_threshold=0))
    opened, *others = exported(recorder.records[:-1], tmp_path / "trace.json")[::-1]
    assert opened["args"]["slipstream.unfinished"]
    last = max(event["ts"] + event.get("dur", 0) for event in others if event["ph"] != "M")
    assert opened["ts"] + opened["dur"] == pytest.approx(last)


def test_a_recording_that_begins_in_the_midst_is_exported_too(records: list[Record], tmp_path: Path) -> None:
    cut = next(index for index, each in enumerate(records) if each.name[2:] == ("push", "stop"))
    ends = [each for each in records[cut:] if each.name[-1] == "stop"]
    events = exported(records[cut:], tmp_path / "trace.json")
    assert len([event for event in events if event["ph"] == "X"]) == len(ends)


def test_nothing_is_an_empty_trace(tmp_path: Path) -> None:
    assert exported([], tmp_path / "trace.json") == []


def test_a_name_that_ends_in_gz_is_compressed(records: list[Record], events: list[Event], tmp_path: Path) -> None:
    assert exported(records, tmp_path / "trace.json.gz") == events
    first = (tmp_path / "trace.json.gz").read_bytes()
    export_perfetto(records, tmp_path / "trace.json.gz")
    assert (tmp_path / "trace.json.gz").read_bytes() == first


def test_payloads_are_not_exported(records: list[Record], tmp_path: Path) -> None:
    export_perfetto(records, tmp_path / "trace.json")
    assert "hello" not in (tmp_path / "trace.json").read_text()


def test_memory_does_not_grow_with_the_recording(records: list[Record], tmp_path: Path) -> None:
    def repeated(times: int) -> Iterator[Record]:
        for _ in range(times):
            yield from records

    def peak(times: int) -> int:
        tracemalloc.start()
        export_perfetto(repeated(times), tmp_path / "trace.json")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few = peak(1)
    assert peak(4) < 2 * few + 100_000
