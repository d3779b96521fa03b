"""Replay: what was recorded agrees with the core, and what does not is shown where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.client.support import scripted
from tests.telemetry.support import ORIGIN
from tests.trace.support import back, live_records
from tests.trace.test_schema import Reversing

from slipstream_trio import Message, SerializationError
from slipstream_trio.protocol import (
    FrameReceived,
    Input,
    JoinTopic,
    MessageReceived,
    Options,
    SendFrame,
    State,
    TransportOpened,
    handle,
)
from slipstream_trio.telemetry import ConnectStart, HandleStart, HandleStop, SpanException, Telemetry
from slipstream_trio.trace import Absent, Difference, Replayer, differences, replay
from slipstream_trio.trace.redact import Redactor


@pytest.fixture(scope="module")
def good() -> list[Any]:
    return live_records()


def test_what_was_recorded_agrees_with_the_core(good: list[Any], tmp_path: Path) -> None:
    recorded = back(tmp_path / "trace.jsonl", good)
    replayer = Replayer()
    steps = [step for step in map(replayer.feed, recorded) if step is not None]
    assert len(steps) == sum(isinstance(each, HandleStop) for each in good) > 50
    for step in steps:
        assert step.divergences == ()
        assert step.transition is not None
        assert step.transition.state == step.after
        assert step.before == step.record.metadata["state"]


Change = Callable[[HandleStop], Any]


def changed(
    records: list[Any], which: Callable[[HandleStop], bool], **changes: Callable[[Any], Any]
) -> tuple[Any, int]:
    """Change the transition of the first record that is such; returns the records and its index."""
    index = next(i for i, each in enumerate(records) if isinstance(each, HandleStop) and which(each))
    transition = records[index].transition
    given = {name: change(getattr(transition, name)) for name, change in changes.items()}
    record = attrs.evolve(records[index], transition=attrs.evolve(transition, **given))
    return [*records[:index], record, *records[index + 1 :]], index


def received(stop: HandleStop) -> bool:
    return any(isinstance(each, MessageReceived) for each in stop.transition.built_events)


def sent(stop: HandleStop) -> bool:
    return any(isinstance(each, SendFrame) for each in stop.transition.return_)


@pytest.mark.parametrize(
    ("which", "changes", "field"),
    [
        (received, {"built_events": lambda _: ()}, "built_events[0]"),
        (
            received,
            {"built_events": lambda events: (attrs.evolve(events[0], message=events[0].message._replace(event="x")),)},
            "built_events[0].message.event",
        ),
        (received, {"state": lambda state: attrs.evolve(state, current_ref=99)}, "end_state.current_ref"),
        (received, {"state": lambda state: attrs.evolve(state, joins={})}, "end_state.joins.room"),
        (sent, {"return_": lambda effects: (attrs.evolve(effects[0], ref="99"),)}, "return[0].ref"),
        (sent, {"return_": lambda effects: (attrs.evolve(effects[0], frame="[]"),)}, "return[0].frame"),
        (sent, {"return_": lambda effects: effects * 2}, "return[1]"),
    ],
)
def test_a_divergence_is_shown_where_it_is(
    good: list[Any], tmp_path: Path, which: Any, changes: Any, field: str
) -> None:
    records, index = changed(good, which, **changes)
    first, *others = replay(back(tmp_path / "trace.jsonl", records))
    assert (first.line, first.field) == (index + 2, field)
    assert first.expected != first.got
    assert f"line {index + 2}: {field}: " in str(first)
    # What follows is taken as it was recorded, so that one fault is not shown for ever.
    assert len(others) <= 4


def test_a_state_that_comes_from_nowhere_is_a_divergence(good: list[Any], tmp_path: Path) -> None:
    index = [i for i, each in enumerate(good) if isinstance(each, HandleStart)][5]
    state = attrs.evolve(good[index].state, joins={**good[index].state.joins, "other": "1"})
    start = attrs.evolve(good[index], state=state)
    stop = attrs.evolve(good[index + 1], start=start)
    fields = [
        each.field for each in replay(back(tmp_path / "t.jsonl", [*good[:index], start, stop, *good[index + 2 :]]))
    ]
    assert fields[0] == "state.joins.other"
    assert len(fields) < 5


def test_the_order_of_a_frames_whitespace_and_numbers_is_no_divergence() -> None:
    same = SendFrame('[1, 1e3, "a"]', "1"), SendFrame('[1,1000.0,"a"]', "1")
    assert list(differences(*same)) == []
    assert [each.field for each in differences(same[0], SendFrame("[2]", "1"))] == ["frame"]
    assert [each.field for each in differences(same[0], SendFrame("[", "1"))] == ["frame"]


def test_differences_tell_what_is_on_one_side_only() -> None:
    assert list(differences({"a": 1}, {"a": 1, "b": [2]}, "x")) == [Difference("x.b", Absent(), [2])]
    assert list(differences((1, 2), (1,))) == [Difference("[1]", 2, Absent())]
    assert list(differences(Message(None, None, "a", "b", 1), Message(None, None, "a", "b", 2))) == [
        Difference("payload", 1, 2)
    ]
    assert list(differences(1, "1", "x")) == [Difference("x", 1, "1")]
    assert repr(Absent()) == "(nothing)"


def test_commands_that_could_not_be_handled_are_replayed_too(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry) as (socket, _), socket.join("room") as channel:
            with pytest.raises(SerializationError):
                await channel.push("event", {"object": object()})

    records = live_records(scenario)
    index = next(i for i, each in enumerate(records) if each.name[-2:] == ("handle", "exception"))
    recorded = back(tmp_path / "trace.jsonl", records)
    assert list(replay(recorded)) == []
    other = attrs.evolve(records[index], kind="KeyError")
    (divergence,) = replay(back(tmp_path / "trace.jsonl", [*records[:index], other, *records[index + 1 :]]))
    assert (divergence.field, divergence.expected) == ("exception", "KeyError")
    assert divergence.got.startswith("SerializationError: ")


def test_an_exception_that_does_not_come_again_is_a_divergence(good: list[Any], tmp_path: Path) -> None:
    index = next(i for i, each in enumerate(good) if isinstance(each, HandleStop) and received(each))
    stop = good[index]
    failed = SpanException(stop.start, stop.origin, stop.monotonic_time, "KeyError", "", "")
    recorded = back(tmp_path / "trace.jsonl", [*good[:index], failed, *good[index + 1 :]])
    assert [each.field for each in replay(recorded)] == ["exception"]
    assert list(replay(recorded, payloads_hidden=True)) == []


def test_a_serializer_of_the_users_is_taken_at_its_word(tmp_path: Path) -> None:
    options = Options(url="ws://localhost", serializer="reversing")
    state = State(connection_id="c" * 16, trace_id="7" * 32, socket_id="5" * 16, generation=1, options=options)
    records: list[Any] = []
    frames = ('[null,null,"room","event",{"a":1}]'[::-1], "[", "]")
    opening: list[Input] = [TransportOpened(0.0), JoinTopic(0.0, "room", {}, None)]
    for number, given in enumerate([*opening, *(FrameReceived(0.0, frame) for frame in frames)]):
        transition = handle(state, given, Reversing())
        start = HandleStart(ORIGIN, f"{number:016x}", number, number, given, state)
        records += [start, HandleStop(start, number, transition)]
        state = transition.state
    recorded = back(tmp_path / "trace.jsonl", records)
    assert [each.metadata["message"] for each in recorded[:-1] if "message" in each.metadata][2].payload == {"a": 1}
    assert list(replay(recorded)) == []


def test_after_a_gap_states_are_taken_up_again(good: list[Any], tmp_path: Path) -> None:
    recorded = back(tmp_path / "trace.jsonl", good)
    where = [i for i, each in enumerate(recorded) if each.name[-2:] == ("handle", "stop")]
    before = where[3]
    # Where nothing has changed there is nothing to be taken up.
    left = recorded[before].metadata["end_state"]
    after = next(i for i in where[8:] if recorded[i].metadata["state"] != left)
    replayer = Replayer()
    for each in recorded[: before + 1]:
        replayer.feed(each)
    replayer.missed()
    steps = [step for step in map(replayer.feed, recorded[after - 1 :]) if step is not None]
    assert not any(step.divergences for step in steps)
    assert steps[0].before == recorded[after].metadata["state"]


def test_the_first_state_is_that_of_the_connections_start(good: list[Any], tmp_path: Path) -> None:
    index = next(i for i, each in enumerate(good) if isinstance(each, ConnectStart))
    start = attrs.evolve(good[index], state=attrs.evolve(good[index].state, current_ref=99))
    (divergence,) = replay(back(tmp_path / "t.jsonl", [*good[:index], start, *good[index + 1 :]]))
    first = next(i for i, each in enumerate(good) if isinstance(each, HandleStop))
    assert (divergence.line, divergence.field) == (first + 2, "state.current_ref")
    assert (divergence.expected, divergence.got) == (0, 99)


def test_a_command_that_failed_has_changed_nothing_though_it_would_now(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry) as (socket, _), socket.join("room") as channel:
            with pytest.raises(SerializationError):
                await channel.push("event", {"object": object()})
            await channel.push("echo")

    recorded = back(tmp_path / "trace.jsonl", live_records(scenario), redactor=Redactor(payloads="omit"))
    assert list(replay(recorded, payloads_hidden=True)) == []
    assert [each.field for each in replay(recorded)] == ["exception"]


def test_one_fault_of_a_state_is_told_where_it_begins_and_where_it_ends(good: list[Any], tmp_path: Path) -> None:
    records, index = changed(good, received, state=lambda state: attrs.evolve(state, current_ref=99))
    following = next(i for i, each in enumerate(records) if i > index and isinstance(each, HandleStop))
    found = list(replay(back(tmp_path / "trace.jsonl", records)))
    assert [(each.line, each.field) for each in found] == [
        (index + 2, "end_state.current_ref"),
        (following + 2, "state.current_ref"),
    ]
    assert [each.expected for each in found] == [99, good[index].transition.state.current_ref]
    assert [each.got for each in found] == [good[index].transition.state.current_ref, 99]
