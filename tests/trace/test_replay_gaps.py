"""Replay of recordings that lack records: states are taken up again where they were recorded, and nothing else is."""

from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.trace.support import REDACTOR, back, encoded, eventful, live_records, run, written

from slipstream_trio.cli import main
from slipstream_trio.protocol import State
from slipstream_trio.telemetry import HandleStop, Telemetry
from slipstream_trio.trace import Recorded, Replayer, ReplayStep, files_of, record
from slipstream_trio.trace.encode import Encoder
from slipstream_trio.trace.schema import missing_line


@pytest.fixture(scope="module")
def good() -> list[Any]:
    return live_records()


@pytest.fixture(name="recorded")
def _recorded(good: list[Any], tmp_path: Path) -> list[Recorded]:
    return back(tmp_path / "good.jsonl", good)


def handled(recorded: list[Recorded], connection: int = 0) -> list[int]:
    """Return where the ends of handle spans of a connection are."""
    ids = list(dict.fromkeys(each.connection_id for each in recorded if each.name[1] == "connection"))
    return [
        index
        for index, each in enumerate(recorded)
        if each.name[-2:] == ("handle", "stop") and each.connection_id == ids[connection]
    ]


def state(recorded: list[Recorded], index: int, key: str) -> State:
    found: State = recorded[index].metadata[key]
    return found


def gaps(recorded: list[Recorded], connection: int = 0) -> list[tuple[int, int]]:
    """Return ends of spans before a gap, and after it, between which the state became another one."""
    where = handled(recorded, connection)
    found = [
        (before, after)
        for number, before in enumerate(where)
        for after in where[number + 1 :]
        if state(recorded, before, "end_state") != state(recorded, after, "state")
    ]
    assert len(found) > 20
    return found


def steps(replayer: Replayer, records: list[Recorded]) -> list[ReplayStep]:
    return [step for step in map(replayer.feed, records) if step is not None]


def agree(made: list[ReplayStep]) -> bool:
    return not any(step.divergences for step in made)


@pytest.mark.parametrize("resume", [0, -1], ids=["stop", "start"])
def test_after_a_gap_states_are_taken_up_again_wherever_it_ends(recorded: list[Recorded], resume: int) -> None:
    for before, after in gaps(recorded)[:: len(gaps(recorded)) // 12]:
        for missed in (True, False):
            replayer = Replayer()
            assert agree(steps(replayer, recorded[: before + 1]))
            if missed:
                replayer.missed()
            made = steps(replayer, recorded[after + resume :])
            # Where nobody says that there is a gap, it is a divergence.
            assert agree(made) is missed
            assert made[0].before == state(recorded, after, "state")


def test_a_gap_is_one_of_all_connections(recorded: list[Recorded]) -> None:
    first, second = (gaps(recorded, connection)[5] for connection in (0, 1))
    for order in (1, -1):
        replayer = Replayer()
        for before, _ in (first, second)[::order]:
            start = next(i for i, each in enumerate(recorded) if each.connection_id == recorded[before].connection_id)
            assert agree(steps(replayer, recorded[start : before + 1]))
        replayer.missed()
        for _, after in (first, second):
            (step,) = steps(replayer, [recorded[after]])
            assert step.divergences == ()


def test_a_connection_whose_start_is_missing_is_taken_up_too(recorded: list[Recorded]) -> None:
    _, after = gaps(recorded)[10]
    replayer = Replayer()
    replayer.missed()
    assert agree(steps(replayer, recorded[after:]))


def test_what_is_wrong_after_a_gap_is_found_as_before(
    good: list[Any], recorded: list[Recorded], tmp_path: Path
) -> None:
    before, after = gaps(recorded)[10]
    where = next(index for index in handled(recorded) if index > after + 5)
    stop = good[where]
    assert isinstance(stop, HandleStop)
    wrong = attrs.evolve(stop.transition, state=attrs.evolve(stop.transition.state, current_ref=99))
    changed = back(tmp_path / "t.jsonl", [*good[:where], attrs.evolve(stop, transition=wrong), *good[where + 1 :]])
    replayer = Replayer()
    steps(replayer, changed[: before + 1])
    replayer.missed()
    found = [each for step in steps(replayer, changed[after:]) for each in step.divergences]
    assert {(each.line, each.field) for each in found} == {
        (where + 2, "end_state.current_ref"),
        (changed[next(index for index in handled(recorded) if index > where)].line, "state.current_ref"),
    }
    first, second = found
    assert (first.expected, second.got) == (99, 99)
    assert first.got == second.expected == stop.transition.state.current_ref


def test_one_gap_is_over_with_the_next_span(recorded: list[Recorded]) -> None:
    where = gaps(recorded)
    before, after = where[3]
    later = next(b for a, b in where if a == after)
    replayer = Replayer()
    steps(replayer, recorded[: before + 1])
    replayer.missed()
    (step,) = steps(replayer, [recorded[after]])
    assert step.divergences == ()
    (step,) = steps(replayer, [recorded[later]])
    assert {each.field.partition(".")[0] for each in step.divergences} == {"state"}


# Files


def replayed(*paths: Path) -> int:
    return main(["trace", "replay", *map(str, paths)])


@pytest.mark.parametrize("between", [missing_line(None, "queue_full"), b"(damaged)\n"], ids=["missing", "damaged"])
def test_a_file_with_a_gap_agrees(
    between: bytes, good: list[Any], recorded: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for before, after in gaps(recorded)[:: len(gaps(recorded)) // 3]:
        encoder = Encoder(REDACTOR)
        lines = [*encoded([])[:1], *map(encoder.encode, good[: before + 1])]
        encoder.restart()
        rest = [encoder.encode(each) for each in good[after - 1 :]]
        assert replayed(written(tmp_path / "gap.jsonl", [*lines, between, *rest])) == 0
        assert replayed(written(tmp_path / "none.jsonl", [*lines, *rest])) == 1
    capsys.readouterr()


def test_a_rotated_recording_that_lacks_a_file_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    telemetry = Telemetry()
    with record(path, telemetry=telemetry, max_size=6000, keep=99):
        run(eventful, telemetry)
    files = files_of([path])
    assert len(files) > 8
    assert replayed(*files) == 0
    for lacking in files[1:-1:2]:
        elsewhere = lacking.rename(tmp_path / "elsewhere")
        assert replayed(*(file for file in files if file != lacking)) == 0
        elsewhere.rename(lacking)
    assert "agrees" in capsys.readouterr().out
