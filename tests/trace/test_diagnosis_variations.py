"""Incidents as they come: the cause is named first, whatever else goes on, and however the recording was made."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.trace.laboratory import recorded
from tests.trace.test_diagnosis_laboratory import as_older, as_told
from tests.trace.variations import VARIATIONS

from slipstream_trio.trace import Finding, diagnose, read
from slipstream_trio.trace.diagnosis import Diagnosis
from slipstream_trio.trace.read import read_files

ALWAYS = ("one_cut", "joins_above_a_rate", "crash_loop_after_different_pushes")
NAMES = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.once) for name in VARIATIONS]
BY_PAYLOADS = {
    "joins_with_a_token_that_expires": "refused_since",
    "joins_above_a_rate": None,
    "orders_repeated_late": "push_timeout_too_short",
    "repeated_orders_and_a_standstill": "process_stood_still",
    "duplicates_without_a_counter_that_begin_late": None,
    "messages_missing_once": None,
    "large_message_once": "network_stalled",
}
"""Those of which payloads tell more, and what is found without them."""


def first(found: list[Finding]) -> tuple[str | None, str]:
    return (found[0].cause, found[0].blame) if found else (None, "")


def made(name: str, tmp_path: Path, **options: Any) -> Path:
    return recorded(tmp_path / "incident.jsonl", VARIATIONS[name].happen, VARIATIONS[name].mount, **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_cause_is_named_first(name: str, tmp_path: Path) -> None:
    incident, found = VARIATIONS[name], diagnose(read(made(name, tmp_path)))
    assert first(found) == (incident.cause, incident.blame)
    for part in incident.told:
        assert part in as_told(found[0])


@pytest.mark.once
@pytest.mark.parametrize("name", VARIATIONS)
def test_the_cause_is_named_first_in_an_older_recording(name: str, tmp_path: Path) -> None:
    found = diagnose(read(as_older(made(name, tmp_path))))
    assert first(found) == (VARIATIONS[name].cause, VARIATIONS[name].blame)


@pytest.mark.once
@pytest.mark.parametrize("name", VARIATIONS)
def test_the_cause_is_named_first_where_payloads_are_left_out(name: str, tmp_path: Path) -> None:
    found = diagnose(read(made(name, tmp_path, payloads="omit")))
    assert first(found)[0] == BY_PAYLOADS.get(name, VARIATIONS[name].cause)


@pytest.mark.filterwarnings("ignore::slipstream_trio.trace.RecordingWarning")
@pytest.mark.parametrize("name", ["one_cut", "slow_handler_alone", "blocked_once_late"])
def test_nothing_else_is_found_where_the_beginning_or_the_middle_is_missing(name: str, tmp_path: Path) -> None:
    path = made(name, tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    third = len(lines) // 3
    for left in (lines[:1] + lines[third:], [*lines[:third], "damaged", *lines[third + 200 :]]):
        path.write_text("".join(left))
        found = Diagnosis.of(str(path), ((str(file), entry) for file, entry in read_files([path]))).findings
        assert {each.cause for each in found} <= {VARIATIONS[name].cause}


def test_numbers_are_told_in_plain_english(tmp_path: Path) -> None:
    (finding,) = diagnose(read(made("one_cut", tmp_path)))
    assert finding.evidence[0] == "once, on 1 socket, at 13.0 s"
    assert json.dumps(finding.as_dict()).count("1 times") == 0
