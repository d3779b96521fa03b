"""What happens at the same age, or the same time, is a cause only where nothing else was spared by it."""

from typing import Any

import pytest
import trio
from tests.trace.floods import quiet_sockets
from tests.trace.laboratory import EPOCH, Laboratory, recorded

from slipstream_trio.trace import diagnose, read


def causes(path: Any, incident: Any) -> set[str]:
    return {finding.cause for finding in diagnose(read(recorded(path, incident, {"timeout": None})))}


@pytest.mark.parametrize(("starts", "found"), [((0, 300), True), ((0, 300, 0), False)])
def test_a_connection_that_grew_older_acquits_an_age(starts: tuple[float, ...], found: bool, tmp_path: Any) -> None:
    async def closed_at_an_age(lab: Laboratory) -> None:
        async with quiet_sockets(lab, *starts):
            for topic in ("room:0", "room:1"):
                await trio.sleep(300)
                next(each for each in lab.server.connections if topic in each.channels).close(1001)
            await trio.sleep(20)

    assert ("maximum_age" in causes(tmp_path / "age.jsonl", closed_at_an_age)) == found


@pytest.mark.parametrize(("hours", "found"), [((1, 2), True), ((1, 4), False), ((2, 3), False)])
def test_an_hour_that_a_connection_outlives_acquits_the_clock(
    hours: tuple[int, ...], found: bool, tmp_path: Any
) -> None:
    async def cut_at_full_hours(lab: Laboratory) -> None:
        start = 3600 - EPOCH / 1e9 % 3600
        async with quiet_sockets(lab, 100):
            for hour in hours:
                await trio.sleep_until(start + 3600 * (hour - 1) + 1)
                lab.connection.drop()
            await trio.sleep(300)

    assert ("ends_by_clock" in causes(tmp_path / "hours.jsonl", cut_at_full_hours)) == found
