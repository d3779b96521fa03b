"""Recordings that were tampered with: wherever an invariant is broken, a line is named.

Two oracles, both independent of how recordings are written and read: the verifier on the records in memory, mutated
alike; and, for edits of lines, how the edit was made.

Some in a run of the tests; `SLIPSTREAM_EXAMPLES=20 pytest tests/trace/test_mutations.py` has thousands.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from tests.drawing import FACTOR
from tests.trace.support import encoded, live_records, values, written

from slipstream_trio.protocol import SendFrame
from slipstream_trio.telemetry import HandleStart, HandleStop, Origin
from slipstream_trio.trace import Flaw, check, verify

pytestmark = pytest.mark.once

MUTATIONS = max(12, round(50 * FACTOR))
HANDLE_STOP = "slipstream connection handle stop"


@pytest.fixture(scope="module")
def good() -> list[Any]:
    return live_records()


def faults(path: Path, lines: list[bytes]) -> list[Flaw]:
    return [finding for finding in check([written(path, lines)]) if finding.wrong]


def line_of(index: int) -> int:
    """Return the line of a record: the header comes before, and the end after the last."""
    return index + 2


def test_a_good_recording_has_no_fault(good: list[Any], tmp_path: Path) -> None:
    assert list(check([written(tmp_path / "trace.jsonl", encoded(good))])) == []


# Lines dropped, duplicated, moved


def dropped(random: Random, items: list[Any]) -> tuple[list[Any], int]:
    at = random.randrange(len(items))
    return [*items[:at], *items[at + 1 :]], at


def duplicated(random: Random, items: list[Any]) -> tuple[list[Any], int]:
    at = random.randrange(len(items))
    to = random.randint(at, min(len(items), at + random.choice([1, 5, 1000])))
    return [*items[:to], items[at], *items[to:]], at


def moved(random: Random, items: list[Any]) -> tuple[list[Any], int]:
    rest, at = dropped(random, items)
    to = min(max(0, at + random.choice([-20, -5, -2, -1, 1, 2, 5, 20])), len(rest))
    return [*rest[:to], items[at], *rest[to:]], min(at, to)


@pytest.mark.parametrize("mutate", [dropped, duplicated, moved], ids=lambda mutate: mutate.__name__)
def test_a_line_is_named_where_lines_were_dropped_duplicated_or_moved(
    good: list[Any], tmp_path: Path, mutate: Callable[[Random, list[Any]], tuple[list[Any], int]]
) -> None:
    lines = encoded(good)
    broken = 0
    for seed in range(MUTATIONS // 2):
        records, at = mutate(Random(seed), good)
        mutated, _ = mutate(Random(seed), lines[1:-1])
        violations = verify(records)
        if not violations:
            continue
        broken += 1
        named = [finding.line for finding in faults(tmp_path / "trace.jsonl", [lines[0], *mutated, lines[-1]])]
        # Where the verifier sees it, or before that, where a line refers to one that is not there any more.
        assert named, (seed, violations[0])
        assert line_of(at) <= min(named) <= line_of(violations[0].index), (seed, violations[0])
    assert broken > MUTATIONS // 4


def test_lines_that_are_gone_are_missed_even_where_no_invariant_is_broken(good: list[Any], tmp_path: Path) -> None:
    lines = encoded(good)
    at = next(index for index, record in enumerate(good) if record.name[2:] == ("message_dropped",))
    assert verify([*good[:at], *good[at + 1 :]]) == []
    (fault,) = faults(tmp_path / "trace.jsonl", [*lines[: at + 1], *lines[at + 2 :]])
    assert (fault.line, fault.kind) == (len(lines) - 1, "damaged")
    assert f"{len(good)} records were written, and {len(good) - 1} were read" in fault.problem


# Records edited, and written as if they had been so


def choose(random: Random, changes: list[Callable[[], Any]]) -> Any:
    return random.choice(changes)()


def edited(random: Random, records: list[Any]) -> list[Any]:
    """Change something in one record."""
    at = random.choice([i for i, each in enumerate(records) if isinstance(each, HandleStart | HandleStop)])
    record = records[at]
    if isinstance(record, HandleStart):
        origin, state = record.origin, record.state
        record = choose(
            random,
            [
                lambda: attrs.evolve(record, origin=attrs.evolve(origin, trace_id="e" * 32)),
                lambda: attrs.evolve(record, origin=attrs.evolve(origin, generation=origin.generation + 1)),
                lambda: attrs.evolve(record, origin=Origin("e" * 16, "e" * 32, "e" * 16, 1)),
                lambda: attrs.evolve(record, state=attrs.evolve(state, current_ref=state.current_ref + 7)),
                lambda: attrs.evolve(record, state=attrs.evolve(state, joins={**state.joins, "x": "1"})),
                lambda: attrs.evolve(record, span_id=next(each.span_id for each in records if each is not record)),
                lambda: attrs.evolve(record, monotonic_time=record.monotonic_time - random.choice([1, 10**9])),
            ],
        )
    else:
        transition, sent = record.transition, record.transition.return_
        state = transition.state
        record = choose(
            random,
            [
                lambda: attrs.evolve(record, monotonic_time=record.monotonic_time - 10**9),
                lambda: attrs.evolve(
                    record,
                    transition=attrs.evolve(transition, state=attrs.evolve(state, status="open", leaves={"y": "2"})),
                ),
                lambda: attrs.evolve(
                    record,
                    transition=attrs.evolve(
                        transition, return_=(*sent, SendFrame("[]", random.choice(["0", "1", "x"])))
                    ),
                ),
                lambda: attrs.evolve(
                    record, transition=attrs.evolve(transition, built_events=transition.built_events * 2)
                ),
            ],
        )
    return [*records[:at], record, *records[at + 1 :]]


def test_a_recording_of_edited_records_has_the_violations_that_they_have(good: list[Any], tmp_path: Path) -> None:
    broken = 0
    for seed in range(MUTATIONS):
        records = edited(Random(seed), good)
        violations = verify(records)
        found = faults(tmp_path / "trace.jsonl", encoded(records))
        named = {(each.line, each.connection_id, each.invariant, each.problem) for each in found}
        # A connection that nobody knew is taken for one that was open before: the encoder says so, and knows better.
        expected = {
            (line_of(each.index), each.connection_id, each.invariant, each.problem)
            for each in violations
            if each.connection_id != "e" * 16
        }
        if not any(each.connection_id == "e" * 16 for each in violations):
            assert named == expected, seed
        broken += bool(expected)
    assert broken > MUTATIONS // 2


# Lines edited by hand


def number(key: str, by: int) -> Callable[[Any], bool]:
    def edit(line: Any) -> bool:
        line[key] += by
        return True

    return edit


def span_id(line: Any) -> bool:
    line["span_id"] = "e" * 16
    return True


def connection_id(line: Any) -> bool:
    line["connection_id"] = "e" * 16
    return True


def end_state(line: Any) -> bool:
    if type(line["end_state"]) is dict:
        return False
    line["end_state"] -= 1
    return True


def ref(line: Any) -> bool:
    if not line["return"] or "ref" not in line["return"][0]:
        return False
    line["return"][0]["ref"] = "0"
    return True


EDITS: dict[str, tuple[Callable[[Any], bool], int]] = {
    # What to do to a handle stop, and how many records of its connection later it shows.
    "duration": (number("duration", 1), 0),
    "monotonic_time": (number("monotonic_time", 1), 0),
    "earlier": (number("monotonic_time", -(10**12)), 0),
    "span_id": (span_id, 0),
    "connection_id": (connection_id, 0),
    "end_state": (end_state, 1),
    "ref": (ref, 0),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_line_is_named_where_one_was_edited(good: list[Any], tmp_path: Path, name: str) -> None:
    edit, later = EDITS[name]
    lines = encoded(good)
    stops = [index for index, line in enumerate(lines) if index and values(line).get("name") == HANDLE_STOP]
    tried = 0
    for index in Random(name).sample(stops, len(stops)):
        line = values(lines[index])
        if not edit(line):
            continue
        tried += 1
        mutated = [*lines[:index], json.dumps(line).encode() + b"\n", *lines[index + 1 :]]
        named = {finding.line for finding in faults(tmp_path / "trace.jsonl", mutated)}
        connection = [
            at for at, each in enumerate(lines) if at >= index and b"slipstream connection" in each
        ]  # one connection at a time
        assert connection[later] + 1 in named, index
        if tried >= MUTATIONS // 4:
            break
    assert tried
