"""Incidents of full lines, expired tokens and clocks: the cause is named first, also without payloads."""

from pathlib import Path
from typing import Any

import pytest
from tests.trace.floods import FLOODS
from tests.trace.laboratory import recorded
from tests.trace.test_diagnosis_laboratory import as_older, as_told

from slipstream_trio.trace import diagnose, read

ALWAYS = ("export_floods_the_line", "token_expires_in_the_sleep")
NAMES = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.once) for name in FLOODS]


def made(name: str, tmp_path: Path, **options: Any) -> Path:
    return recorded(tmp_path / "incident.jsonl", FLOODS[name].happen, FLOODS[name].mount, **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_cause_is_named_first(name: str, tmp_path: Path) -> None:
    found = diagnose(read(made(name, tmp_path)))
    assert [(each.cause, each.blame) for each in found] == [(FLOODS[name].cause, FLOODS[name].blame)]
    for part in FLOODS[name].told:
        assert part in as_told(found[0])


@pytest.mark.once
@pytest.mark.parametrize("name", FLOODS)
def test_the_cause_is_named_first_in_an_older_recording(name: str, tmp_path: Path) -> None:
    found = diagnose(read(as_older(made(name, tmp_path))))
    assert [each.cause for each in found] == [FLOODS[name].cause]


@pytest.mark.once
@pytest.mark.parametrize("payloads", ["omit", "size"])
@pytest.mark.parametrize("name", FLOODS)
def test_the_cause_is_named_first_where_payloads_are_left_out(name: str, payloads: Any, tmp_path: Path) -> None:
    cause = "line_full" if FLOODS[name].cause.endswith("fills_line") else FLOODS[name].cause
    cause = "network_stalled" if name == "export_has_large_rows" else cause
    path = made(name, tmp_path, payloads=payloads)
    for its in (path, as_older(path)):
        found = diagnose(read(its))
        assert [each.cause for each in found] == [cause]
