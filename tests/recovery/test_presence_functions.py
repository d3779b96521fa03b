"""Presence as pure functions: states, diffs, and the order in which they come."""

import time
from typing import Any

import pytest

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import Presence, PresenceChange, sync_diff, sync_state
from slipstream_trio.protocol.presence import check_presence


def meta(ref: str, previous: str | None = None, **more: Any) -> dict[str, Any]:
    return {"phx_ref": ref, **({} if previous is None else {"phx_ref_prev": previous}), **more}


def metas(*refs: str) -> dict[str, Any]:
    return {"metas": [meta(ref) for ref in refs]}


def diff(joins: dict[str, Any] | None = None, leaves: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"joins": joins or {}, "leaves": leaves or {}}


def told(changes: tuple[PresenceChange, ...]) -> list[tuple[str, str, list[str]]]:
    """Return kind, key and refs of changes."""
    return [(change.kind, change.key, [item["phx_ref"] for item in change.metas]) for change in changes]


# States


def test_the_first_state_is_all_joins() -> None:
    entries, changes = sync_state({}, {"a": metas("1"), "b": metas("2", "3")})
    assert entries == {"a": metas("1"), "b": metas("2", "3")}
    assert told(changes) == [("join", "a", ["1"]), ("join", "b", ["2", "3"])]
    assert changes[0] == PresenceChange("join", "a", None, (meta("1"),), metas("1"))


@pytest.mark.parametrize("known", [metas("1"), {"metas": [meta("1", note="old")]}])
def test_an_entry_without_news_hides_none_that_comes_after_it(known: dict[str, Any]) -> None:
    entries, changes = sync_state({"a": known}, {"a": metas("1"), "b": metas("2")})
    assert set(entries) == {"a", "b"}
    assert told(changes) == [("join", "b", ["2"])]


def test_a_state_that_says_what_is_known_changes_nothing() -> None:
    known = {"a": metas("1"), "b": metas("2", "3")}
    entries, changes = sync_state(known, {"b": metas("2", "3"), "a": metas("1")})
    assert entries == known
    assert changes == ()


def test_a_state_tells_who_came_before_who_went() -> None:
    entries, changes = sync_state({"gone": metas("1"), "stays": metas("2")}, {"new": metas("3"), "stays": metas("2")})
    assert entries == {"new": metas("3"), "stays": metas("2")}
    assert told(changes) == [("join", "new", ["3"]), ("leave", "gone", ["1"])]
    assert [change.before for change in changes] == [None, metas("1")]
    assert [change.after for change in changes] == [metas("3"), None]


def test_a_state_tells_single_metas() -> None:
    entries, changes = sync_state({"a": metas("1", "2")}, {"a": metas("2", "3")})
    assert entries == {"a": metas("2", "3")}
    assert told(changes) == [("join", "a", ["3"]), ("leave", "a", ["1"])]
    assert [change.before for change in changes] == [metas("1", "2"), metas("1", "2", "3")]
    assert [change.after for change in changes] == [metas("1", "2", "3"), metas("2", "3")]


def test_a_state_is_told_as_a_diff_that_brought_it_would_be() -> None:
    known = {"a": metas("1", "2"), "b": metas("3"), "c": metas("4")}
    state = {"a": metas("2", "5"), "b": metas("3"), "d": metas("6")}
    by_diff = sync_diff(known, diff({"a": metas("5"), "d": metas("6")}, {"a": metas("1"), "c": metas("4")}))
    assert sync_state(known, state) == by_diff


def test_an_entry_whose_refs_are_the_same_stays_as_it_is() -> None:
    known = {"a": {"metas": [meta("1"), meta("2")], "name": "Ada"}}
    assert sync_state(known, {"a": {"metas": [meta("2"), meta("1", mood="new")], "name": "Ada L."}}) == (known, ())


def test_a_presence_that_loses_its_metas_or_gets_them_is_told() -> None:
    entries, changes = sync_state({"a": {"metas": []}, "b": metas("1")}, {"a": metas("2"), "b": {"metas": []}})
    assert entries == {"a": metas("2"), "b": {"metas": []}}
    assert told(changes) == [("join", "a", ["2"]), ("leave", "b", ["1"])]
    entries, changes = sync_state({"a": {"metas": []}}, {})
    assert (entries, told(changes)) == ({}, [("leave", "a", [])])


def test_a_presence_without_metas_is_one_all_the_same() -> None:
    entries, changes = sync_state({}, {"a": {"metas": []}})
    assert entries == {"a": {"metas": []}}
    assert told(changes) == [("join", "a", [])]


# Diffs


def test_a_diff_brings_somebody() -> None:
    entries, changes = sync_diff({}, diff({"a": {"metas": [meta("1")], "user": {"name": "A"}}}))
    assert entries == {"a": {"metas": [meta("1")], "user": {"name": "A"}}}
    assert told(changes) == [("join", "a", ["1"])]


def test_another_meta_is_added_to_those_there_are() -> None:
    entries, changes = sync_diff({"a": metas("1")}, diff({"a": metas("2")}))
    assert entries == {"a": metas("1", "2")}
    assert told(changes) == [("join", "a", ["2"])]
    assert changes[0].before == metas("1")
    assert changes[0].after == metas("1", "2")


def test_somebody_goes_with_the_last_meta() -> None:
    entries, changes = sync_diff({"a": metas("1", "2")}, diff(leaves={"a": metas("1")}))
    assert entries == {"a": metas("2")}
    entries, more = sync_diff(entries, diff(leaves={"a": metas("2")}))
    assert entries == {}
    assert told(changes + more) == [("leave", "a", ["1"]), ("leave", "a", ["2"])]
    assert [change.after for change in changes + more] == [metas("2"), None]


def test_an_update_is_a_join_and_a_leave_in_one_diff() -> None:
    new = {"metas": [meta("2", "1", status="away")]}
    entries, changes = sync_diff({"a": metas("1"), "b": metas("9")}, diff({"a": new}, {"a": metas("1")}))
    assert entries == {"a": new, "b": metas("9")}
    assert told(changes) == [("join", "a", ["2"]), ("leave", "a", ["1"])]
    assert changes[0].metas[0]["phx_ref_prev"] == "1"


def test_what_is_known_already_is_no_change() -> None:
    known = {"a": metas("1", "2")}
    assert sync_diff(known, diff({"a": metas("1")})) == (known, ())
    assert sync_diff(known, diff(leaves={"a": metas("3"), "nobody": metas("4")})) == (known, ())
    entries, changes = sync_diff(known, diff({"a": metas("2", "3")}, {"a": metas("1", "7")}))
    assert entries == {"a": metas("2", "3")}
    assert told(changes) == [("join", "a", ["3"]), ("leave", "a", ["1"])]


def test_a_presence_without_metas_can_go() -> None:
    entries, changes = sync_diff({"a": {"metas": []}}, diff(leaves={"a": {"metas": []}}))
    assert entries == {}
    assert told(changes) == [("leave", "a", [])]


def test_arguments_are_not_changed() -> None:
    known, state, change = {"a": metas("1")}, {"a": metas("2")}, diff({"a": metas("3")}, {"a": metas("1")})
    sync_state(known, state)
    sync_diff(known, change)
    assert (known, state, change) == (
        {"a": metas("1")},
        {"a": metas("2")},
        diff({"a": metas("3")}, {"a": metas("1")}),
    )


# What is known


def received(presence: Presence, *messages: tuple[str, Any]) -> tuple[Presence, tuple[PresenceChange, ...]]:
    changes: tuple[PresenceChange, ...] = ()
    for event, payload in messages:
        presence, more = presence.received_all([(event, payload)])
        changes += more
    return presence, changes


def test_diffs_wait_for_the_state() -> None:
    own = ("presence_diff", diff({"me": metas("1")}))
    presence, changes = received(Presence(), own)
    assert (dict(presence.entries), presence.synced, changes) == ({}, False, ())
    presence, changes = received(presence, ("presence_state", {"me": metas("1"), "other": metas("2")}))
    assert presence.entries == {"me": metas("1"), "other": metas("2")}
    assert presence.synced
    assert presence.pending == ()
    assert told(changes) == [("join", "me", ["1"]), ("join", "other", ["2"])]  # each once


def test_diffs_that_waited_are_applied_in_order_and_only_what_came_of_them_is_told() -> None:
    presence, changes = received(
        Presence(),
        ("presence_diff", diff({"a": metas("1")})),
        ("presence_diff", diff({"a": {"metas": [meta("2", "1")]}}, {"a": metas("1")})),
        ("presence_state", {}),
    )
    assert presence.entries == {"a": {"metas": [meta("2", "1")]}}
    assert told(changes) == [("join", "a", ["2"])]


def test_once_there_is_a_state_diffs_count_at_once() -> None:
    presence, changes = received(
        Presence(), ("presence_state", {"a": metas("1")}), ("presence_diff", diff(leaves={"a": metas("1")}))
    )
    assert presence.entries == {}
    assert told(changes) == [("join", "a", ["1"]), ("leave", "a", ["1"])]


def test_after_a_rejoin_the_state_tells_what_happened_meanwhile() -> None:
    presence, _ = received(Presence(), ("presence_state", {"a": metas("1"), "b": metas("2")}))
    presence = presence.rejoined()
    assert not presence.synced
    assert presence.entries == {"a": metas("1"), "b": metas("2")}
    presence, changes = received(
        presence, ("presence_diff", diff({"c": metas("4")})), ("presence_state", {"b": metas("3")})
    )
    assert presence.entries == {"b": metas("3"), "c": metas("4")}
    assert told(changes) == [
        ("join", "b", ["3"]),
        ("join", "c", ["4"]),
        ("leave", "b", ["2"]),
        ("leave", "a", ["1"]),
    ]


def test_a_rejoin_forgets_diffs_of_the_join_before() -> None:
    presence, _ = received(Presence(), ("presence_diff", diff({"old": metas("1")})))
    presence, _ = received(presence.rejoined(), ("presence_state", {}))
    assert presence.entries == {}


def test_what_waits_for_a_state_is_bounded() -> None:
    messages = [("presence_diff", diff({str(number): metas(str(number))})) for number in range(3000)]
    presence, _ = received(Presence(), *messages)
    assert len(presence.pending) == 1024
    presence, _ = received(presence, ("presence_state", {}))
    assert "2999" in presence.entries


@pytest.mark.parametrize("waits", [True, False], ids=["before the state", "behind it"])
def test_a_thousand_diffs_cost_the_same_however_many_are_there(*, waits: bool) -> None:
    diffs = [("presence_diff", diff({f"new {number}": metas(f"new {number}")})) for number in range(1000)]

    def seconds(count: int) -> float:
        """The CPU time of the diffs with so many presences, the least of a few tries."""
        everybody = {str(number): metas(str(number)) for number in range(count)}
        messages = [*diffs, ("presence_state", everybody)] if waits else diffs
        took = []
        for _ in range(5):
            started = time.process_time()
            presence, _ = Presence(everybody, synced=not waits).received_all(messages)
            took.append(time.process_time() - started)
            assert len(presence.entries) == count + 1000
        return min(took)

    assert seconds(10_000) < 8 * seconds(100)  # a copy of all for each: 20 times as long, or longer


def test_messages_taken_in_together_are_as_those_one_by_one() -> None:
    messages = [
        ("presence_diff", diff({"a": metas("1")})),
        ("presence_state", {"b": metas("2")}),
        ("presence_diff", diff({"c": metas("3")}, {"b": metas("2")})),
        ("presence_state", {"c": metas("3", "4")}),
        ("presence_diff", diff({"c": metas("5")}, {"c": metas("3")})),
    ]
    assert Presence().received_all(messages) == received(Presence(), *messages)
    with pytest.raises(ProtocolError):
        Presence().received_all([*messages, ("presence_state", None)])


@pytest.mark.parametrize("missing", ["joins", "leaves"])
def test_half_a_diff_is_one(missing: str) -> None:
    payload = diff({"a": metas("1")}, {"b": metas("2")})
    del payload[missing]
    presence, _ = received(Presence(), ("presence_state", {"b": metas("2")}), ("presence_diff", payload))
    assert ("b" in presence.entries) == (missing == "leaves")
    assert ("a" in presence.entries) == (missing == "leaves")


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        b"x",
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": {"metas": None}},
        {"a": {"metas": {}}},
        {"a": {"metas": [None]}},
        {"a": {"metas": [{}]}},
        {"a": {"metas": [{"phx_ref": 1}]}},
        {"a": {"metas": [{"phx_ref": None}]}},
        {"ok": {"metas": [{"phx_ref": "1"}]}, "a": 1},
    ],
)
def test_what_phoenix_never_sends_is_a_protocol_error(payload: Any) -> None:
    presence, _ = received(Presence(), ("presence_state", {"x": metas("1")}))
    for event, given in (
        ("presence_state", payload),
        ("presence_diff", {"joins": payload, "leaves": {}}),
        ("presence_diff", {"joins": {}, "leaves": payload}),
    ):
        with pytest.raises(ProtocolError):
            presence.received_all([(event, given)])
        with pytest.raises(ProtocolError):
            check_presence(event, given)
    assert presence.entries == {"x": metas("1")}


def test_what_phoenix_sends_is_no_protocol_error() -> None:
    check_presence("presence_state", {"joins": metas("1")})
    check_presence("presence_diff", diff({"a": metas("1")}, {"b": metas("2")}))


@pytest.mark.parametrize("payload", [None, [], "x", 1, b"\0"])
def test_a_diff_is_an_object(payload: Any) -> None:
    with pytest.raises(ProtocolError, match=r"^the payload of a presence_diff must be an object$"):
        Presence().received_all([("presence_diff", payload)])


@pytest.mark.parametrize("payload", [None, [], "x", 1, b"\0"])
def test_a_state_is_an_object(payload: Any) -> None:
    with pytest.raises(ProtocolError, match=r"^presences must be an object$"):
        Presence().received_all([("presence_state", payload)])


@pytest.mark.parametrize("presence", [None, [], {}, {"metas": None}, {"metas": [{}]}, {"metas": [{"phx_ref": 1}]}])
def test_a_presence_has_metas_and_they_have_refs(presence: Any) -> None:
    with pytest.raises(ProtocolError, match=r"^a presence without a list of metas that have a phx_ref$"):
        Presence().received_all([("presence_state", {"x": presence})])


def test_whoever_is_not_there_leaves_without_keeping_others_from_it() -> None:
    current = {"x": metas("1"), "y": metas("2", "3")}
    leaves = {"nobody": metas("9"), "x": metas("8"), "y": metas("2")}
    entries, changes = sync_diff(current, diff(leaves=leaves))
    assert entries == {"x": metas("1"), "y": metas("3")}
    assert changes == (PresenceChange("leave", "y", metas("2", "3"), (meta("2"),), metas("3")),)
