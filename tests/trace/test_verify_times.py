"""Times that go back: each record is judged by the highest time of its connection, and by nothing else."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from tests.trace.support import encoded, live_records, written

from slipstream_trio.telemetry import ConnectStop, HandleStart, HandleStop
from slipstream_trio.trace import Verifier, Violation, check, verify

Records = list[Any]


@pytest.fixture(scope="module")
def good() -> Records:
    """Records of connections, two of them, whose times are a microsecond apart."""
    records = [each for each in live_records() if each.name[1] == "connection"]
    clock = iter(range(10**9, 10**10, 1000))
    return moved(records, lambda _: next(clock), whole=False)


def moved(records: Records, time: Callable[[Any], int], *, whole: bool = True) -> Records:
    """Give records other times.

    Parameters:
        time: returns the time of a record.
        whole: move spans as a whole: only starts are asked for, and stops keep their distance.
    """
    starts: dict[str, Any] = {}
    told = []
    for each in records:
        if hasattr(each, "start"):
            start = starts[each.span_id]
            at = start.monotonic_time + each.duration if whole and isinstance(each, HandleStop) else time(each)
            each = attrs.evolve(each, start=start, monotonic_time=at)  # noqa: PLW2901 - the same, at another time
        else:
            each = starts[each.span_id] = attrs.evolve(each, monotonic_time=time(each))  # noqa: PLW2901 - likewise
        told.append(each)
    return told


def going_back(records: Records) -> list[int]:
    """Return which records come before a time that their connection had already."""
    highest: dict[str, int] = {}
    found = []
    for index, each in enumerate(records):
        if each.monotonic_time < highest.get(each.connection_id, 0):
            found.append(index)
        highest[each.connection_id] = max(each.monotonic_time, highest.get(each.connection_id, 0))
    return found


def late(violations: list[Violation]) -> list[int]:
    assert {violation.invariant for violation in violations} <= {5}
    return [violation.index for violation in violations]


def test_times_that_go_forward_are_good(good: Records) -> None:
    assert going_back(good) == late(verify(good)) == []
    assert verify(moved(good, lambda _: 7, whole=False)) == []  # a clock may stand


@pytest.mark.parametrize("seed", range(20))
def test_each_record_is_judged_by_the_highest_time_before_it(seed: int, good: Records) -> None:
    random = Random(seed)
    records = moved(good, lambda each: each.monotonic_time + random.choice([0, 0, 0, 5_000, -5_000, 100_000]))
    expected = going_back(records)
    assert len(expected) > 10
    assert late(verify(records)) == expected


def test_one_time_that_is_too_high_puts_all_that_follow_in_the_wrong(good: Records) -> None:
    at = next(index for index, each in enumerate(good) if isinstance(each, HandleStop) and index > 5)
    ahead = attrs.evolve(good[at], monotonic_time=10**15)
    records = [*good[:at], ahead, *good[at + 1 :]]
    connection_id = good[at].connection_id
    following = [index for index, each in enumerate(records) if index > at and each.connection_id == connection_id]
    assert len(following) > 20
    assert late(verify(records)) == following


def test_a_time_below_the_highest_is_wrong_though_it_is_above_the_last(good: Records) -> None:
    starts = [index for index, each in enumerate(good) if isinstance(each, HandleStart)][3:6]
    stops = [index + 1 for index in starts]
    times = dict(zip(starts, (2_000_050_000, 2_000_000_000, 2_000_025_000), strict=True))
    records = moved(good[: stops[-1] + 1], lambda each: times.get(good.index(each), each.monotonic_time))
    violations = [violation for each in [Verifier()] for record in records for violation in each.feed(record)]
    distances = [records[stops[0]].monotonic_time - records[index].monotonic_time for index in going_back(records)]
    assert late(violations) == going_back(records)
    assert late(violations)[-4:] == [starts[1], stops[1], starts[2], stops[2]]
    assert [violation.problem for violation in violations][-4:] == [
        f"its monotonic time is {distance} ns before the last" for distance in distances[-4:]
    ]


def test_each_connection_has_a_highest_time_of_its_own(good: Records) -> None:
    ids = list(dict.fromkeys(each.connection_id for each in good))
    first, second = ([each for each in good if each.connection_id == its] for its in ids)
    second = moved(second, lambda each: each.monotonic_time - 10**9 + 1)
    mixed = [each for pair in zip(first, second, strict=False) for each in pair]
    mixed += [*first[len(second) :], *second[len(first) :]]
    assert len(mixed) == len(good)
    assert verify(mixed) == []


def test_a_gap_sets_no_time_back(good: Records) -> None:
    connection_id = good[0].connection_id
    start = next(index for index, each in enumerate(good) if isinstance(each, HandleStart) and index > 20)
    for missed in (None, connection_id):
        verifier = Verifier()
        for each in good[:10]:
            assert verifier.feed(each) == []
        verifier.missed(missed)
        (early,) = moved([good[start]], lambda _: good[9].monotonic_time - 1)
        assert late(verifier.feed(early)) == [10]
        assert verifier.feed(attrs.evolve(good[start + 1], start=early)) == []


def test_durations_are_differences_also_where_times_go_back(good: Records) -> None:
    last = next(index for index, each in enumerate(good) if isinstance(each, ConnectStop))
    early = attrs.evolve(good[last], monotonic_time=good[last].start.monotonic_time + 1)
    assert late(verify([*good[:last], early, *good[last + 1 :]])) == [last]


def test_the_lines_of_a_recording_are_named(good: Records, tmp_path: Path) -> None:
    random = Random(1)
    records = moved(good, lambda each: each.monotonic_time + random.choice([0, 0, 20_000, -20_000]))
    named = [finding.line for finding in check([written(tmp_path / "trace.jsonl", encoded(records))])]
    assert Counter(named) == Counter(index + 2 for index in going_back(records))
