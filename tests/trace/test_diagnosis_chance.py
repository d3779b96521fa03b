"""What ends have in common may be chance: nothing is blamed by which others came to no harm, or that came too late."""

from functools import partial
from typing import Any

import pytest
import trio
from tests.trace.floods import quiet_sockets
from tests.trace.incidents import SOON, ignore, takes
from tests.trace.laboratory import EPOCH, Laboratory, causes, linked
from tests.trace.networks import over_network

from slipstream_trio.testing.faults import Link, Reset


@pytest.mark.parametrize(("starts", "found"), [((0, 300), True), ((0, 300, 0), False)])
def test_a_connection_that_grew_older_acquits_an_age(starts: tuple[float, ...], found: bool, tmp_path: Any) -> None:
    async def closed_at_an_age(lab: Laboratory) -> None:
        async with quiet_sockets(lab, *starts):
            for topic in ("room:0", "room:1"):
                await trio.sleep(300)
                next(each for each in lab.server.connections if topic in each.channels).close(1001)
            await trio.sleep(20)

    assert ("maximum_age" in causes(tmp_path / "age.jsonl", closed_at_an_age, timeout=None)) == found


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

    assert ("ends_by_clock" in causes(tmp_path / "hours.jsonl", cut_at_full_hours, timeout=None)) == found


async def cut_twice(lab: Laboratory, *before: float) -> None:
    """Pause for so long on a connection without heartbeats, then twice see one cut 20 s after a push."""
    async with linked(lab, heartbeat_interval=None, **SOON) as socket, socket.join("room:1") as room:
        for pause in (*before, 20.0, 20.0):
            await room.push("msg", {})
            await trio.sleep(pause)
            if pause == 20.0:
                lab.connection.drop()
                await trio.sleep(1)


@pytest.mark.parametrize(("before", "blamed"), [((), True), ((5.0,), True), ((60.0,), False)])
def test_a_longer_pause_that_did_no_harm_acquits_an_idle_limit(
    before: tuple[float, ...], blamed: bool, tmp_path: Any
) -> None:
    found = causes(tmp_path / "cut.jsonl", lambda lab: cut_twice(lab, *before), timeout=None)
    assert ("idle_close" in found) == blamed


def test_an_end_that_comes_before_a_push_can_have_led_to_it_is_not_blamed_on_that(tmp_path: Any) -> None:
    async def cut(lab: Laboratory) -> None:
        link = Link(latency=0.5)
        async with over_network(lab, toward_client=link, toward_server=link) as network:
            async with linked(lab, **SOON) as socket, socket.join("room:1") as room:
                for _number in range(2):
                    await trio.sleep(20)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ignore, partial(room.push, "import", {}))
                        await trio.sleep(0.3)
                        network.inject(Reset())
                    await room.push("load", {})

    assert causes(tmp_path / "cut.jsonl", cut) == {"connection_cut"}


def test_two_ends_with_several_pushes_under_way_are_blamed_on_none_of_them(tmp_path: Any) -> None:
    async def cut(lab: Laboratory) -> None:
        lab.events |= {"import": takes(1), "export": takes(1)}
        async with linked(lab, **SOON) as socket, socket.join("room:1") as room:
            for seconds in (20, 47):
                await trio.sleep(seconds)
                async with trio.open_nursery() as nursery:
                    for event in ("import", "export"):
                        nursery.start_soon(ignore, partial(room.push, event, {}))
                    await trio.sleep(0.3)
                    lab.connection.drop()
                await room.push("load", {})

    assert causes(tmp_path / "cut.jsonl", cut) == {"connection_cut"}
