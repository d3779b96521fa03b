"""Incidents of the laboratory: the cause is named first, in one command, whatever else goes on."""

from pathlib import Path

import pytest
from tests.trace.incidents import INCIDENTS
from tests.trace.laboratory import recorded

from slipstream_trio.trace import diagnose, read


@pytest.mark.parametrize("name", INCIDENTS)
def test_the_cause_is_named_first(name: str, tmp_path: Path) -> None:
    incident = INCIDENTS[name]
    found = diagnose(read(recorded(tmp_path / "incident.jsonl", incident.happen, incident.mount)))
    assert [(each.cause, each.blame) for each in found[:1]] == [(incident.cause, incident.blame)], found
    text = "\n".join((found[0].mechanism, found[0].topic or "", *found[0].evidence, found[0].advice))
    for part in incident.told:
        assert part in text, text
