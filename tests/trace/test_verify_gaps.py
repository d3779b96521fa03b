"""Traces that lack records: what they may have said is held against nobody, and everything else as before."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from tests.trace.support import live_records

from slipstream_trio.protocol import SendFrame
from slipstream_trio.telemetry import ConnectStart, ConnectStop, HandleStart, HandleStop
from slipstream_trio.trace import Verifier, Violation, verify

Records = list[Any]


@pytest.fixture(scope="module")
def good() -> Records:
    """Records of two connections, one after the other."""
    return [each for each in live_records() if each.name[1] == "connection"]


def where(records: Records, kind: type, connection: int = 0) -> list[int]:
    """Return where records of a type are, of one of the connections."""
    ids: list[str] = list(dict.fromkeys(each.connection_id for each in records))
    its = ids[connection]
    return [i for i, each in enumerate(records) if each.connection_id == its and isinstance(each, kind)]


def fed(verifier: Verifier, records: Records) -> list[tuple[int, int]]:
    """Feed records; return which break what, by their indices in this list."""
    first = verifier.records
    return [(each.index - first, each.invariant) for record in records for each in verifier.feed(record)]


def finished(verifier: Verifier) -> set[tuple[str | None, int]]:
    return {(violation.connection_id, violation.invariant) for violation in verifier.finish()}


Gap = Callable[[Verifier, str], None]


def anybody(verifier: Verifier, _: str) -> None:
    verifier.missed()


def its_own(verifier: Verifier, connection_id: str) -> None:
    verifier.missed(connection_id)


gaps = pytest.mark.parametrize("miss", [anybody, its_own])


@gaps
@pytest.mark.parametrize("before", ["start", "stop"])
@pytest.mark.parametrize("after", [0, 1], ids=["start", "stop"])
def test_after_a_gap_a_trace_goes_on_anywhere(before: str, after: int, miss: Gap, good: Records) -> None:
    starts = where(good, HandleStart)
    for left, right in ((2, 9), (5, 20), (1, 30)):
        cut = starts[left] + (1 if before == "start" else 2)
        verifier = Verifier()
        assert fed(verifier, good[:cut]) == []
        miss(verifier, good[0].connection_id)
        assert fed(verifier, good[starts[right] + after :]) == []
        assert finished(verifier) == set()


@gaps
def test_without_a_gap_it_does_not(miss: Gap, good: Records) -> None:
    starts = where(good, HandleStart)
    for after, invariant in ((0, 4), (1, 3)):
        assert (starts[5], invariant) in fed(Verifier(), [*good[: starts[5]], *good[starts[20] + after :]])


@gaps
@pytest.mark.parametrize("after", [0, 1], ids=["start", "stop"])
def test_what_is_wrong_behind_the_first_span_after_a_gap_is_found(after: int, miss: Gap, good: Records) -> None:
    starts = where(good, HandleStart)
    verifier = Verifier()
    fed(verifier, good[: starts[5]])
    miss(verifier, good[0].connection_id)
    rest = good[starts[20] + after :]
    following = where(rest, HandleStart)[1 - after]
    wrong = attrs.evolve(rest[following], state=attrs.evolve(rest[following].state, current_ref=99))
    assert fed(verifier, [*rest[:following], wrong]) == [(following, 4)]
    assert (1, 3) in fed(verifier, [rest[following + 1], rest[following + 1]])


@gaps
@pytest.mark.parametrize("open_span", [False, True])
def test_the_end_may_come_right_after_a_gap(open_span: bool, miss: Gap, good: Records) -> None:
    cut = where(good, HandleStart)[5] + open_span
    (end,) = where(good, ConnectStop)
    verifier = Verifier()
    fed(verifier, good[:cut])
    miss(verifier, good[0].connection_id)
    assert good[end].state != good[where(good, HandleStart)[5]].state
    assert fed(verifier, [good[end]]) == []
    assert finished(verifier) == set()
    # But it is the end.
    stop = good[where(good, HandleStart)[5] + 1]
    assert set(fed(verifier, [stop])) >= {(0, 2), (0, 3)}


@gaps
def test_what_ends_in_a_gap_is_not_missed(miss: Gap, good: Records) -> None:
    verifier = Verifier()
    fed(verifier, good[: where(good, HandleStart)[5] + 1])
    miss(verifier, good[0].connection_id)
    assert finished(verifier) == set()


def test_what_does_not_end_although_there_was_a_gap_before_is_missed(good: Records) -> None:
    starts = where(good, HandleStart)
    verifier = Verifier()
    fed(verifier, good[: starts[5]])
    verifier.missed()
    assert fed(verifier, good[starts[9] : starts[12] + 1]) == []
    assert finished(verifier) == {(good[0].connection_id, 2), (good[0].connection_id, 3)}


@gaps
def test_a_connection_that_began_in_a_gap_is_taken_up(miss: Gap, good: Records) -> None:
    for after in (0, 1):
        verifier = Verifier()
        miss(verifier, good[0].connection_id)
        assert fed(verifier, good[where(good, HandleStart)[7] + after : where(good, ConnectStop)[0] + 1]) == []
        assert finished(verifier) == set()
        assert verifier.connections == 1


def test_a_gap_of_one_connection_is_none_of_another(good: Records) -> None:
    first, second = where(good, HandleStart), where(good, HandleStart, 1)
    ids = [good[where(good, ConnectStart, number)[0]].connection_id for number in (0, 1)]
    verifier = Verifier()
    fed(verifier, [*good[: first[5]], *good[second[0] - 1 : second[5]]])
    verifier.missed(ids[0])
    assert fed(verifier, [good[first[20]]]) == []
    assert fed(verifier, [good[second[20]]]) == [(0, 4)]
    assert finished(verifier) == {(ids[0], 2), (ids[0], 3), (ids[1], 2), (ids[1], 3)}


def test_only_the_connection_that_has_a_gap_may_come_from_nowhere(good: Records) -> None:
    second = where(good, HandleStart, 1)[3]
    verifier = Verifier()
    verifier.missed(good[0].connection_id)
    assert fed(verifier, [good[second]]) == [(0, 2)]
    verifier.missed(good[second].connection_id)
    assert fed(verifier, [good[second + 1]]) == []


def test_the_duration_of_what_began_in_a_gap_is_believed(good: Records) -> None:
    starts, (end,) = where(good, HandleStart), where(good, ConnectStop)
    verifier = Verifier()
    verifier.missed()
    assert fed(verifier, [good[starts[-1] + 1], good[end]]) == []
    # Where the start is there, it is judged.
    lying = attrs.evolve(good[starts[8]], monotonic_time=good[starts[8]].monotonic_time - 1)
    verifier = Verifier()
    verifier.missed()
    assert fed(verifier, [lying, good[starts[8] + 1]]) == [(1, 5)]


# Beside gaps


def test_states_are_the_same_if_they_say_the_same(good: Records) -> None:
    index = where(good, HandleStart)[5]
    copied = attrs.evolve(good[index], state=attrs.evolve(good[index].state))
    assert copied.state is not good[index].state
    stop = attrs.evolve(good[index + 1], start=copied)
    assert verify([*good[:index], copied, stop, *good[index + 2 :]]) == []


def test_what_has_the_id_of_a_connection_that_ended_is_all_in_the_wrong(good: Records) -> None:
    (end,) = where(good, ConnectStop)
    again = good[: end + 1]
    violations = fed(Verifier(), [*good[: end + 1], *again])
    assert (end + 1, 1) in violations
    assert {index for index, invariant in violations if invariant == 2} == set(range(end + 1, 2 * end + 2))


def test_refs_are_judged_by_the_highest_too(good: Records) -> None:
    sending = [
        i
        for i, each in enumerate(good)
        if isinstance(each, HandleStop) and any(isinstance(effect, SendFrame) for effect in each.transition.return_)
    ][3:6]
    records = list(good)
    for index, ref in zip(sending, ("40", "38", "39"), strict=True):
        transition = records[index].transition
        effects = (attrs.evolve(transition.return_[0], ref=ref),)
        records[index] = attrs.evolve(records[index], transition=attrs.evolve(transition, return_=effects))
    violations = [each for each in verify(records) if each.connection_id == good[0].connection_id]
    late: list[Violation] = [each for each in violations if each.invariant == 5]
    assert [each.index for each in late[:2]] == sending[1:]
    assert [each.problem for each in late[:2]] == ["the ref 38 is sent after 40", "the ref 39 is sent after 40"]
