"""What the core says is read and replayed as it was written; what an older recording has not, has defaults."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from tests.drawing import examples
from tests.trace.support import back, encoded, values, written

from slipstream_trio.protocol import (
    ConnectionClosed,
    FrameReceived,
    JoinTopic,
    TimerTicked,
    TopicJoinOverdue,
    TransportClosed,
    TransportOpened,
)
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.deterministic import deterministic_telemetry
from slipstream_trio.testing.stateful import CoreConnection
from slipstream_trio.testing.strategies import History, histories
from slipstream_trio.trace import read, replay, verify
from slipstream_trio.trace.encode import FULL_EVERY, Encoder
from slipstream_trio.trace.redact import Redactor
from slipstream_trio.trace.schema import encode_line


def records_of(inputs: Any, options: Any = None) -> list[Any]:
    """Return the telemetry of a connection that handles these inputs."""
    records: list[Record] = []
    telemetry: Telemetry = deterministic_telemetry()
    with telemetry.listen(records.append):
        connection = CoreConnection(options, telemetry=telemetry)
        for each in inputs:
            connection.feed(each)
    return records


@examples(50)
@given(histories(max_inputs=30))
def test_whatever_happens_to_a_connection_is_read_and_replayed_as_it_was(history: History) -> None:
    records = records_of(history.inputs, history.start.options)
    with tempfile.TemporaryDirectory() as folder:
        recorded = back(Path(folder) / "trace.jsonl", records, redactor=Redactor(secrets=None))
    assert [each.metadata for each in recorded] == [each.metadata for each in records]
    assert list(replay(recorded)) == []


LIFE = [
    TransportOpened(0.0),
    JoinTopic(1.0, "a", {}, 5.0),
    JoinTopic(1.0, "b", {}, 5.0, 60.0, rejoin=True),
    FrameReceived(2.0, '["1","1","a","phx_reply",{"status":"ok","response":{}}]'),
    TimerTicked(7.0, 2.0, None, 6.0),
    TransportClosed(1009, "too big", "client", "message_too_big"),
]
NEW = {
    "JoinTopic": {"deadline", "rejoin"},
    "TimerTicked": {"heard", "heartbeat_written", "write_blocked_since"},
    "TransportClosed": {"ended_by", "reason"},
    "ConnectionClosed": {"ended_by"},
}
NEW_IN_STATES = {"join_timeouts", "rejoins", "failed_rejoins", "turns", "turn_began", "turn_by_timeout"}


def older(value: Any) -> Any:
    """Return what a recording of schema 1.0 has of a line."""
    if isinstance(value, list):
        return [older(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = NEW_IN_STATES if "n" in value else NEW.get(value.get("$", ""), set())
    return {key: older(item) for key, item in value.items() if key not in dropped}


def test_an_older_recording_is_read_with_defaults_for_what_it_has_not(tmp_path: Path) -> None:
    lines = [encode_line(older(values(line))) + b"\n" for line in encoded(records_of(LIFE))]
    lines[0] = lines[0].replace(b'"schema":"1.2"', b'"schema":"1.0"')
    recorded = list(read(written(tmp_path / "trace.jsonl", lines)))
    stops = [each.metadata for each in recorded if each.name[-2:] == ("handle", "stop")]
    assert [each["raw_message"] for each in stops] == [
        *LIFE[:2],
        JoinTopic(1.0, "b", {}, 5.0),
        LIFE[3],
        TimerTicked(7.0),
        TransportClosed(1009, "too big"),
    ]
    assert stops[-2]["built_events"] == (TopicJoinOverdue("b", "2"),)
    assert stops[-2]["end_state"].join_deadlines == {"b": 7.0}
    assert stops[-1]["built_events"] == (ConnectionClosed("message_too_big", 1009, "too big", "client"),)


@pytest.mark.parametrize(
    ("reason", "by"), [("lost", "network"), ("closed_by_server", "server"), ("disconnected", "client")]
)
def test_an_older_recordings_end_tells_by_its_reason_who_ended_it(reason: str, by: str, tmp_path: Path) -> None:
    closed = TransportClosed(1006, "", None, reason)
    lines = [encode_line(older(values(line))) + b"\n" for line in encoded(records_of([LIFE[0], closed]))]
    recorded = list(read(written(tmp_path / "trace.jsonl", lines)))
    [event] = [event for each in recorded for event in each.metadata.get("built_events", ()) if hasattr(event, "code")]
    assert event.ended_by == by


def test_a_state_that_is_written_in_full_while_a_join_waits_breaks_no_invariant(tmp_path: Path) -> None:
    encoder, records = Encoder(Redactor()), records_of(LIFE)
    lines = encoded([])[:1]
    for record in records:
        if record.name[-1] == "start" and record.metadata.get("raw_message") == LIFE[3]:
            encoder.restart()
        lines.append(encoder.encode(record))
    assert sum(b'"options"' in line for line in lines) == 2
    old = [encode_line(older(values(line))) + b"\n" for line in lines]
    problems = [each.problem for each in verify(read(written(tmp_path / "trace.jsonl", old)))]
    assert problems == ["the connection has no connect stop"]


def test_a_state_is_written_with_what_has_changed_alone() -> None:
    lines = [values(line) for line in encoded(records_of(LIFE))]
    changed = [set(line["end_state"]) - {"n", "from"} for line in lines if isinstance(line.get("end_state"), dict)]
    assert changed == [
        {"status", "heartbeat_deadline"},
        {"joins", "join_deadlines", "turns", "turn_began", "current_ref"},
        {"joins", "join_deadlines", "join_timeouts", "rejoins", "turns", "current_ref"},
        {"join_deadlines", "join_timeouts", "turns", "turn_began"},
        {"rejoins"},
        {"status", "close_reason"},
    ]
    assert len(lines) < FULL_EVERY
