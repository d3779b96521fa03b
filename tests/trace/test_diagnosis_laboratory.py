"""Incidents of the laboratory: the cause is named first, in one command, whatever else goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import Recorder
from tests.trace.endings import ENDINGS
from tests.trace.incidents import INCIDENTS
from tests.trace.laboratory import recorded
from tests.trace.networks import NETWORKS
from tests.trace.servers import SERVERS
from trio.testing import MockClock

from slipstream_trio import JoinTimeout, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.trace import Finding, diagnose, read

ALL = INCIDENTS | ENDINGS | NETWORKS | SERVERS
ALWAYS = ("slow_handler", "repeated_orders", "redirect", "crash_loop", "laptop_sleeps_and_its_link_is_dead")
NAMES = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.once) for name in ALL]

LATER: dict[str, tuple[str, ...]] = {
    "Options": ("join_window", "retry_after_limit", "params", "headers", "auth_token"),
    "TransportClosed": ("ended_by", "reason"),
    "ConnectionClosed": ("ended_by",),
    "TimerTicked": ("heard", "heartbeat_written", "write_blocked_since"),
    "JoinTopic": ("deadline", "rejoin"),
    "slipstream connection connect stop": ("ended_by", "code", "message", "heard", "received"),
    "slipstream client join stop": ("reason", "waited"),
    "slipstream client leave stop": ("reason", "waited"),
    "slipstream client push stop": ("reason", "waited", "sent"),
    "slipstream client overflow": ("phase", "dropped"),
    "slipstream client message_dropped": ("frame",),
}
"""The fields that a recording of schema 1.0 does not have, of objects and of events."""

UNKNOWN = ("client send", "client gave_up", "client stalled")


def as_told(finding: Finding) -> str:
    return "\n".join((finding.mechanism, finding.topic or "", *finding.evidence, finding.advice))


@pytest.mark.parametrize("name", NAMES)
def test_the_cause_is_named_first(name: str, tmp_path: Path) -> None:
    incident = ALL[name]
    found = diagnose(read(recorded(tmp_path / "incident.jsonl", incident.happen, incident.mount)))
    assert [(each.cause, each.blame) for each in found] == [(incident.cause, incident.blame)]
    for part in incident.told:
        assert part in as_told(found[0])


def older(value: Any) -> Any:
    """Return what is told in a recording of schema 1.0."""
    if isinstance(value, list):
        return [older(item) for item in value]
    if not isinstance(value, dict):
        return value
    left_out = LATER.get(value.get("$") or value.get("name") or "", ())
    kept = {key: older(item) for key, item in value.items() if key not in left_out}
    for key in ("reason", "termination_reason"):
        if kept.get(key) in ("message_too_big", "protocol_error"):
            kept[key] = "closed_by_server"
    return kept


def as_older(path: Path) -> Path:
    """Make a recording one of schema 1.0."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["slipstream_trace"]["schema"] = "1.0"
    told = [older(line) for line in lines if not line.get("name", "").removeprefix("slipstream ").startswith(UNKNOWN)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in told))
    return path


@pytest.mark.once
@pytest.mark.parametrize("name", [*INCIDENTS, *ENDINGS])
def test_the_cause_is_named_first_in_an_older_recording(name: str, tmp_path: Path) -> None:
    incident = ALL[name]
    path = recorded(tmp_path / "incident.jsonl", incident.happen, incident.mount)
    found = diagnose(read(as_older(path)))
    assert [(each.cause, each.blame) for each in found] == [(incident.cause, incident.blame)]


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("half_open", "dead_link"),
        ("killed", "server_gone"),
        ("repeated_orders", "push_timeout_too_short"),
        ("channels_that_are_never_left", "refused_since"),
        ("crash_loop", "channel_crash"),
        ("duplicates", None),
    ],
)
def test_nothing_else_is_named_where_payloads_are_left_out(name: str, cause: str | None, tmp_path: Path) -> None:
    path = recorded(tmp_path / "incident.jsonl", ALL[name].happen, ALL[name].mount, payloads="omit")
    assert [each.cause for each in diagnose(read(path))] == ([] if cause is None else [cause])


def test_a_join_that_is_never_answered_is_told_while_other_things_are() -> None:
    clock = MockClock(autojump_threshold=0)

    def now() -> int:
        return round(clock.current_time() * 1e9)

    recorder = Recorder(Telemetry(time_ns=now, monotonic_ns=now))

    async def main() -> None:
        async with (
            FakeServer() as server,
            connect(server.url, transport=server.connector(), telemetry=recorder.bus, heartbeat_interval=1) as socket,
        ):
            with pytest.raises(JoinTimeout):
                await socket.channel("room:1").join(timeout=4)
            await trio.sleep(5)

    trio.run(main, clock=clock)
    assert [each.cause for each in diagnose(recorder.records)] == ["join_never_answered"]


@pytest.mark.parametrize(("seconds", "cause"), [(3600, "process_stood_still"), (6, "connection_cut")])
def test_a_machine_whose_clocks_all_stood_is_told_by_the_server_s(seconds: int, cause: str, tmp_path: Path) -> None:
    path = recorded(tmp_path / "incident.jsonl", NETWORKS["clock_is_set_long_before_a_cut"].happen)
    lines, number = path.read_text().splitlines(), 0
    for place, line in enumerate(lines):
        if '"$":"TransportOpened"' in line:
            told = json.loads(line)
            date = ("date", f"Fri, 27 Nov 2026 {21 + number * seconds // 3600}:00:12 GMT")
            told["raw_message"]["response_headers"] = {"$": "tuple", "items": [{"$": "tuple", "items": list(date)}]}
            lines[place], number = json.dumps(told), number + 1
    path.write_text("\n".join(lines) + "\n")
    assert [each.cause for each in diagnose(read(path))] == [cause]
