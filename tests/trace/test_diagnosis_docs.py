"""The page on diagnosis names every cause that there is."""

import re
from pathlib import Path

from slipstream_trio.trace.diagnosis import channels, ends, losses, outages, silences, timeouts
from slipstream_trio.trace.diagnosis.finding import Cause

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "diagnosis.md"


def test_every_cause_is_told() -> None:
    modules = (channels, ends, losses, outages, silences, timeouts)
    causes = {value.name for module in modules for value in vars(module).values() if isinstance(value, Cause)}
    assert len(causes) > 30
    told = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    assert causes - told - {"refused_{status}"} == set()
