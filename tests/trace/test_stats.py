"""What recordings come to in numbers."""

from typing import Any

import attrs
import pytest
from tests.trace.scenes import Scene, two_connections

from slipstream_trio.protocol import SendHeartbeat
from slipstream_trio.telemetry import (
    BufferOverflowed,
    ClientCallbackStart,
    ClientCallbackStop,
    ClientPushStart,
    Origin,
    SpanException,
)
from slipstream_trio.trace import stats
from slipstream_trio.trace.selection import look
from slipstream_trio.trace.stats import KEYS, Statistics


def summary_of(records: Any, **options: Any) -> Statistics:
    statistics = Statistics(**options)
    for glance in look([records]):
        statistics.feed(glance)
    return statistics


SUMMARY = summary_of(two_connections())


def test_pushes_are_measured_from_the_call_to_the_reply() -> None:
    group = SUMMARY.sections["pushes"]["room:lobby", "new_msg"]
    assert (group.count, group.outcomes) == (20, {"ok": 20})
    told = group.as_dict(SUMMARY.seconds)
    # The n-th took n milliseconds on the way, and twice 50 µs to be handled.
    assert told["nanoseconds"] == {
        "min": 1_100_000,
        "p50": 10_100_000,
        "p90": 18_100_000,
        "p99": 20_100_000,
        "max": 20_100_000,
        "exact": True,
    }
    assert told["per_second"] == round(20 / SUMMARY.seconds, 3)
    assert SUMMARY.sections["pushes"]["room:lobby", "silence"].outcomes == {"timeout": 1}


def test_everything_else_is_counted() -> None:
    sections = SUMMARY.sections
    assert sections["connections"][()].outcomes == {"lost": 1, "closed_by_client": 1}
    assert sections["joins"]["room:lobby",].outcomes == {"ok": 2}
    assert sections["reconnects"][()].times.most == 50_000_000
    assert sections["gaps"]["room:lobby",].outcomes == {"reconnected": 1}
    assert {key: group.outcomes for key, group in sections["drops"].items()} == {
        ("in", "room:other"): {"not_joined": 1}
    }
    assert {key: group.outcomes for key, group in sections["overflows"].items()} == {("room:lobby",): {"raise": 1}}
    assert sections["errors"]["client push",].outcomes == {"error": 1, "timeout": 1}
    assert list(sections) == list(KEYS)


def test_pushes_are_measured_without_the_time_in_which_they_waited() -> None:
    scene = Scene()
    scene.connect()
    scene.join("room:1")
    scene.push("room:1", "event", {}, took=7_000_000)
    stop: Any = scene.records[-1]
    scene.records[-1] = attrs.evolve(stop, waited=5_000_000)
    group = summary_of(scene.records).sections["pushes"]["room:1", "event"]
    assert (group.times.most, group.waits.most) == (2_100_000, 5_000_000)
    assert group.as_dict(1.0)["waited"]["max"] == 5_000_000


def test_what_overflows_cost_is_summed_over_their_episodes() -> None:
    scene = Scene()
    scene.connect()
    for phase, dropped in (("began", 1), ("lasts", 10), ("ended", 12), ("began", 1), ("ended", 5)):
        scene.once(BufferOverflowed, "room:1", "drop_oldest", 8, "channel", phase, dropped)
    group = summary_of(scene.records).sections["overflows"]["room:1",]
    assert (group.count, group.dropped) == (2, 17)
    assert group.as_dict(0)["dropped"] == 17


def test_silences_are_listed() -> None:
    scene = Scene()
    scene.connect()
    for length in (2, 3):
        scene.handle(SendHeartbeat(0.0))
        scene.pass_time(length * 1_000_000_000)
        scene.frame(None, str(scene.state.current_ref), "phoenix", "phx_reply", '{"status":"ok","response":{}}')
    silences = summary_of(scene.records).sections["silences"]
    assert [(key, round(group.times.most / 1e9)) for key, group in silences.items()] == [
        (("0.002", "11111111"), 2),
        (("2.002", "11111111"), 3),
    ]


def test_frames_are_counted_and_weighed_each_way() -> None:
    received, sent = 0, 0
    for record in two_connections():
        if record.name[1:] == ("connection", "handle", "stop"):
            received += len(getattr(record.metadata["raw_message"], "frame", "").encode())
            frames = [effect.frame for effect in record.metadata["return"] if hasattr(effect, "frame")]
            sent += sum(len(frame.encode() if isinstance(frame, str) else frame) for frame in frames)
    assert (SUMMARY.bytes_in, SUMMARY.bytes_out) == (received, sent)
    messages = SUMMARY.sections["messages"]
    assert messages["out", "room:lobby", "new_msg"].count == 20
    assert messages["out", "phoenix", "heartbeat"].count == 1
    assert sum(group.size for (way, *_), group in messages.items() if way == "out") == sent


def test_callbacks_are_measured_by_name() -> None:
    scene = Scene()
    scene.connect()
    start = ClientCallbackStart(scene.origin, scene.span_id(), *scene.times(), "Mine", "handle_message", ())
    scene.pass_time(7_000)
    scene.records += [start, ClientCallbackStop(start, scene.origin, scene.monotonic(), "ok", None)]
    group = summary_of(scene.records).sections["callbacks"]["handle_message",]
    assert (group.count, group.times.most, group.outcomes) == (1, 7_000, {"ok": 1})


def test_topics_can_be_counted_together() -> None:
    assert set(summary_of(two_connections(), merge_topics=True).sections["joins"]) == {("room:*",)}


def test_topics_without_end_are_counted_together_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_GROUPS", 5)
    scene = Scene()
    scene.connect()
    for number in range(20):
        scene.join(f"room:{number}")
    joins = summary_of(scene.records).sections["joins"]
    assert len(joins) == 6
    assert joins["(others)",].count == 15
    assert sum(group.count for group in joins.values()) == 20


def test_of_no_records_there_is_nothing_to_say() -> None:
    nothing = summary_of([])
    assert (nothing.records, nothing.seconds, nothing.as_dict()["pushes"]) == (0, 0.0, [])


def test_an_exception_is_an_outcome() -> None:
    origin = Origin("c" * 16, "d" * 32, "e" * 16, 1)
    push = ClientPushStart(origin, "b" * 16, 0, 5, "t", "e", {})
    errors = summary_of([push, SpanException(push, origin, 9, "ValueError", "no", "…")]).sections["errors"]
    assert {key: group.outcomes for key, group in errors.items()} == {("client push",): {"raised": 1}}
