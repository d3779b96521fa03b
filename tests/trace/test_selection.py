"""Which records of a recording are looked at, when they happened, and in which order those of several come."""

from typing import Any

import attrs
import pytest
from tests.trace.scenes import START, two_connections

from slipstream_trio.telemetry import Record
from slipstream_trio.trace.read import WallClock
from slipstream_trio.trace.selection import Glance, Moment, Selection, look

RECORDS = two_connections()


def chosen(**options: Any) -> list[Glance]:
    return list(look([RECORDS], Selection(**options)))


def whats(**options: Any) -> set[str]:
    return {glance.line.what for glance in chosen(**options)}


def test_every_record_but_the_starts_that_have_an_end_is_looked_at() -> None:
    starts = [record for record in RECORDS if record.name[-1] == "start" and record.name[2] != "connect"]
    asked = [record for record in RECORDS if record.name[1:] == ("client", "connect", "start")]
    assert len(chosen()) == len(RECORDS) - len(starts) - len(asked)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kinds": ["push"]}, {"push"}),
        ({"kinds": ["client *"], "topics": ["room:l*"]}, {"client join", "client push"}),
        ({"events": ["fail"]}, {"push", "client push"}),
        ({"topics": ["room:other"]}, {"dropped"}),
        ({"topics": ["nowhere", "room:other"]}, {"dropped"}),
        ({"topics": ["room:[!l]*"]}, {"dropped"}),
        ({"connections": ["2"], "kinds": ["conn*", "gap"]}, {"connection", "gap"}),
        ({"traces": ["22"], "kinds": ["gap"]}, {"gap"}),
        ({"traces": ["3"]}, set()),
        ({"slower": 150_000_000}, {"client push", "connection"}),
    ],
)
def test_records_are_chosen(options: dict[str, Any], expected: set[str]) -> None:
    assert whats(**options) == expected


def test_errors_are_what_went_wrong() -> None:
    found = chosen(errors=True)
    assert {glance.line.what for glance in found} >= {"client push", "reply", "gap", "reconnect", "closed", "dropped"}
    assert all(glance.line.mood == "bad" for glance in found)
    assert len(found) < len(chosen()) / 4


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0.1", START + 100_000_000),
        ("100ms", START + 100_000_000),
        ("2m", START + 120_000_000_000),
        ("22:13:20.5", START + 500_000_000),  # START is 22:13:20 UTC on 2023-11-14
        ("2023-11-14T22:13:21", START + 1_000_000_000),
        ("2023-11-14T23:13:21+01:00", START + 1_000_000_000),
    ],
)
def test_moments_are_read(text: str, nanoseconds: int) -> None:
    assert Moment.parse(text).after(START) == nanoseconds


@pytest.mark.parametrize("digits", [30, 400])
def test_a_moment_may_be_further_than_any_clock(digits: int) -> None:
    assert Moment.parse("9" * digits).after(START) > START + 100 * 365 * 86_400_000_000_000


@pytest.mark.parametrize("text", ["", "soon", "12 parsecs", "-1", "25:00", "nan"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Moment.parse(text)


def test_since_and_until_are_on_the_clock_that_is_shown() -> None:
    everything = chosen()
    since, until = Moment.parse("0.1"), Moment.parse("0.2")
    some = chosen(since=since, until=until)
    assert some == [
        glance
        for glance in everything
        if glance.elapsed + glance.end - glance.at >= 100_000_000 and glance.elapsed <= 200_000_000
    ]
    assert 0 < len(some) < len(everything)


def test_what_comes_after_until_is_not_read() -> None:
    def records() -> Any:
        yield from RECORDS
        raise AssertionError

    assert list(look([records()], Selection(until=Moment.parse("0.01"))))


def test_several_recordings_are_put_in_order_of_time() -> None:
    half = [number for number, record in enumerate(RECORDS) if record.name[1:] == ("client", "connect", "start")][1]
    both = [glance.at for glance in look([RECORDS[half:], RECORDS[:half]])]
    assert both == sorted(both)


def test_a_span_without_an_end_is_told_as_unfinished() -> None:
    cut = next(number for number, record in enumerate(RECORDS) if record.name[1:3] == ("client", "push")) + 1
    *_, last = look([RECORDS[:cut]])
    assert (last.line.what, last.line.event, last.line.status) == ("client push", "new_msg", "unfinished")
    assert last.line.took is None
    *_, last = look([RECORDS[: cut + 1]])
    assert (last.line.what, last.line.status) == ("PushMessage", "unfinished")


@attrs.frozen
class Once(Record):
    name = ("slipstream", "x")
    measurements: dict[str, int]
    metadata: dict[str, Any] = attrs.field(factory=dict)
    origin: Any = None


def once(system_time: int, monotonic_time: int) -> Record:
    return Once({"system_time": system_time, "monotonic_time": monotonic_time})


def test_times_follow_the_monotonic_clock_and_jumps_of_the_other() -> None:
    clock = WallClock()
    second = 1_000_000_000
    assert clock.at(once(100 * second, 5 * second)) == 100 * second
    assert clock.at(once(100 * second + 900, 5 * second + 7)) == 100 * second + 7
    assert clock.at(once(300 * second, 6 * second)) == 300 * second
    assert clock.at(once(301 * second, 0)) == 301 * second


def test_a_clock_that_is_set_back_makes_nothing_earlier() -> None:
    clock, second = WallClock(), 1_000_000_000
    assert clock.at(once(1000 * second, 5 * second)) == 1000 * second
    assert clock.at(once(400 * second, 6 * second)) == 1001 * second
    assert clock.at(once(401 * second, 7 * second)) == 1002 * second
    assert clock.at(once(1001 * second, 607 * second)) == 1602 * second, "also where it is as late as it was"
    assert clock.at(once(1101 * second, 608 * second)) == 1702 * second, "set forth, or the machine slept"


def test_a_stop_happened_when_its_start_did_and_so_long_after() -> None:
    stop = next(record for record in RECORDS if record.name[-1] == "stop")
    start = next(record for record in RECORDS if record.metadata.get("span_id") == stop.metadata["span_id"])
    assert WallClock().at(stop) == start.measurements["system_time"] + stop.measurements["duration"]
