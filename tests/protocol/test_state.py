"""A state: made with flat keywords, shown by flat names, compared by value, never changed in place."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st
from tests.drawing import examples
from tests.protocol.core import Core, opening_state

from slipstream_trio.protocol import STATE_FIELDS, Options, State, next_deadline
from slipstream_trio.protocol.state import changes
from slipstream_trio.protocol.topics import heap_of, merged
from slipstream_trio.testing.strategies import states

FIVE: dict[str, Any] = {
    "connection_id": "1" * 16,
    "trace_id": "2" * 32,
    "socket_id": "3" * 16,
    "generation": 1,
    "options": Options(url="ws://x"),
}
MAPPINGS = [
    "joins",
    "join_deadlines",
    "join_timeouts",
    "rejoins",
    "failed_rejoins",
    "turns",
    "leaves",
    "leave_deadlines",
]


def busy() -> State:
    """Return a state with something under every name."""
    core = Core(heartbeat_interval=10.0)
    core.joined("joined")
    core.reply(core.rejoin("refused"), "refused", status="error")
    core.rejoin("late", timeout=1.0)
    core.tick(1.0)
    core.join("pending", timeout=None, deadline=9.0)
    core.rejoin("waiting")
    core.leave("joined")
    core.heartbeat()
    return core.state


def changed_fields(before: State, after: State) -> list[str]:
    return [name for name, _ in changes(before, after)]


def flat(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in STATE_FIELDS}


def test_a_state_shows_what_it_was_made_with() -> None:
    given = flat(busy())
    plain: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()
    }
    assert all(plain[name] for name in MAPPINGS)
    assert flat(State(**plain)) == plain == given
    assert State(**plain) == busy()


def test_the_names_that_are_required_are_five() -> None:
    state = State(**FIVE)
    assert flat(state) == {
        **FIVE,
        **{name: {} for name in MAPPINGS},
        "trace_parent": None,
        "status": "opening",
        "turn_began": None,
        "turn_by_timeout": False,
        "heartbeat_ref": None,
        "heartbeat_sent_at": None,
        "heartbeat_deadline": None,
        "current_ref": 0,
        "close_reason": None,
    }
    for name in FIVE:
        with pytest.raises(TypeError, match=name):
            State(**{key: value for key, value in FIVE.items() if key != name})
    with pytest.raises(TypeError):
        State()


def test_without_turns_the_joins_that_are_pending_have_theirs_in_the_order_of_their_refs() -> None:
    joins = {"c": "10", "a": "9", "b": "2", "odd": "x"}
    state = State(**FIVE, joins=joins, join_deadlines={"c": 1.0, "a": None, "odd": None})
    assert list(state.turns.items()) == [("9", "a"), ("10", "c")]
    assert state.unanswered == 2
    assert State(**FIVE, joins=joins, join_deadlines={"c": 1.0}, turns={}).turns == {}


def test_an_overdue_rejoin_that_has_lost_its_turn_is_late_in_a_state_made_anew_too() -> None:
    core = Core(heartbeat_interval=None)
    core.rejoin("late", timeout=1.0)
    core.rejoin("waiting", timeout=50.0)
    core.tick(1.0)
    assert core.state.turn_queue.late == State(**flat(core.state)).turn_queue.late == ((1, "late"),)


def test_a_rejoin_that_has_no_turn_is_late_only_if_it_is_overdue() -> None:
    state = State(**FIVE, joins={"a": "1"}, join_deadlines={"a": 5.0}, rejoins={"a": "again"}, turns={})
    assert state.turn_queue.late == ()


def test_leaves_have_no_limit_unless_one_is_given() -> None:
    assert State(**FIVE, leaves={"a": "2"}).leave_deadlines == {"a": None}


def test_what_has_its_turn_need_not_be_pending() -> None:
    state = State(**FIVE, turns={"1": "given up"})
    assert attrs.evolve(state, turn_began=3.0).turns == {"1": "given up"}


@pytest.mark.parametrize(
    "different",
    [
        {"joins": {"x": "1"}},
        {"current_ref": 99},
        {"heartbeat_ref": None},
        {"connection_id": "9" * 16, "trace_id": "8" * 32},
        {"turns": {"4": "pending"}, "turn_began": 3.0},
        {"leaves": {}, "leave_deadlines": {}},
        {"status": "closing", "close_reason": "enough"},
        {},
    ],
)
def test_a_state_can_be_made_of_another_one_with_something_different(different: dict[str, Any]) -> None:
    state = busy()
    assert flat(attrs.evolve(state, **different)) == {**flat(state), **different}
    assert flat(state) == flat(busy())
    assert set(changed_fields(state, attrs.evolve(state, **different))) == set(different)


def test_what_differs_in_a_mapping_is_what_was_put_and_what_is_gone() -> None:
    before = State(**FIVE, joins={"a": "1", "b": "2", "c": "3"}, join_deadlines={"a": 1.0})
    after = attrs.evolve(before, joins={"a": "1", "b": "4", "d": "5"}, join_deadlines={"a": 2.0})
    assert dict(changes(before, after)) == {
        "joins": ({"b": "4", "d": "5"}, ["c"]),
        "join_deadlines": ({"a": 2.0}, []),
    }
    one, other = (State(**FIVE, joins=joins) for joins in ({"a": "1"}, {"b": "2"}))
    assert dict(changes(one, other)) == {"joins": ({"b": "2"}, ["a"])}


def test_a_turn_goes_on_in_a_state_that_is_made_of_another_one() -> None:
    began = State(**FIVE, joins={"a": "1"}, join_deadlines={"a": None}, turn_began=3.0, turn_by_timeout=True)
    evolved = attrs.evolve(began, turns={"1": "a", "2": "b"})
    assert (evolved.turn_began, evolved.turn_by_timeout, dict(evolved.turns)) == (3.0, True, {"1": "a", "2": "b"})


@pytest.mark.parametrize("name", MAPPINGS)
def test_mappings_are_read_only_and_equal_to_dicts(name: str) -> None:
    mapping = getattr(busy(), name)
    as_dict = dict(mapping)
    assert mapping == as_dict
    assert as_dict == mapping
    assert mapping == getattr(busy(), name)
    assert mapping != {**as_dict, "more": None}
    assert mapping != list(as_dict)
    assert not isinstance(mapping, dict)
    assert not hasattr(mapping, "__setitem__")
    assert (len(mapping), repr(mapping)) == (len(as_dict), repr(as_dict))
    for key, value in as_dict.items():
        assert key in mapping
        assert mapping[key] == value
    assert "nowhere" not in mapping
    assert mapping.get("nowhere") is None
    with pytest.raises(KeyError):
        mapping["nowhere"]
    with pytest.raises(TypeError):
        hash(mapping)


def test_mappings_are_in_the_order_of_refs() -> None:
    core = Core(heartbeat_interval=None)
    topics = [f"room:{n * 7 % 23}" for n in range(23)]
    for topic in topics:
        core.join(topic, timeout=50.0)
    for name in ("joins", "join_deadlines"):
        assert list(getattr(core.state, name)) == topics
    assert list(core.state.join_timeouts) == topics[1:]
    assert list(core.state.turns.values()) == topics


def test_a_state_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        busy().current_ref = 1  # type: ignore[misc]


def test_the_repr_has_all_names() -> None:
    state = busy()
    assert repr(state) == f"State({', '.join(f'{name}={getattr(state, name)!r}' for name in STATE_FIELDS)})"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_copies_are_equal_and_go_on_alike(copied: Any) -> None:
    state = copied(busy())
    assert state == busy()
    assert hash(state) == hash(busy())
    assert next_deadline(state) == next_deadline(busy()) == 6.0
    assert state.join_deadlines == busy().join_deadlines


def test_ten_thousand_topics_can_be_copied_and_compared() -> None:
    joins = {f"t{n}": str(n + 1) for n in range(10_000)}
    state = State(**FIVE, status="open", joins=joins, join_deadlines=dict.fromkeys(joins, 5.0))
    again = pickle.loads(pickle.dumps(copy.deepcopy(state)))
    assert again == state
    assert state.joins == joins
    assert (next_deadline(again), again.unanswered) == (5.0, 10_000)


@examples(100)
@given(states())
def test_every_state_is_what_it_shows(state: State) -> None:
    again = State(**flat(state))
    assert again == state
    assert hash(again) == hash(state)
    assert next_deadline(again) == next_deadline(state)
    assert pickle.loads(pickle.dumps(state)) == state
    assert changed_fields(state, again) == []


@examples(50)
@given(states(), states())
def test_states_are_equal_if_they_show_the_same(one: State, other: State) -> None:
    assert (one == other) == (flat(one) == flat(other))
    changed = dict(changes(one, other))
    assert set(changed) == {name for name in STATE_FIELDS if getattr(one, name) != getattr(other, name)}
    for name, change in changed.items():
        if change is not None:
            put, gone = change
            kept = {key: value for key, value in getattr(one, name).items() if key not in gone}
            assert {**kept, **put} == getattr(other, name)


def test_a_state_is_no_other_thing() -> None:
    for part in (opening_state(), opening_state().turn_queue):
        assert part.__eq__("thing") is NotImplemented


# The heap of deadlines

ENTRIES = st.lists(st.tuples(st.floats(0, 9), st.integers(1, 99), st.sampled_from("ab")), max_size=40)


@examples(200)
@given(ENTRIES, ENTRIES, ENTRIES)
def test_a_heap_gives_its_entries_from_the_earliest_to_the_latest(
    begun: list[Any], added: list[Any], other: list[Any]
) -> None:
    heap = heap_of(begun)
    for entry in added:
        heap = merged(heap, heap_of([entry]))
    heap = merged(heap, heap_of(other))
    drawn = []
    while heap is not None:
        size, entry, left, right = heap
        drawn.append(entry)
        assert size + len(drawn) == len([*begun, *added, *other]) + 1
        before, heap = heap, merged(left, right)
        assert before[1] == entry
    assert drawn == sorted([*begun, *added, *other])


def edge(heap: Any) -> int:
    return 0 if heap is None else 1 + edge(heap[3])


@pytest.mark.parametrize("order", [1, -1])
def test_the_right_edge_of_a_heap_is_short(order: int) -> None:
    heap: Any = None
    for n in range(4000):
        heap = merged(heap, heap_of([(float(order * n), n, "t")]))
        assert edge(heap) <= 12
    for _ in range(4000):
        assert heap is not None
        heap = merged(heap[2], heap[3])
        assert edge(heap) <= 12
    assert heap is None
