"""However a server's presences change, and whenever its messages come, the client's list becomes the server's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, strategies as st
from tests.transcripts import TRANSCRIPTS, read_lines

from slipstream_trio.protocol import Presence, PresenceChange, sync_diff, sync_state

KEYS = ("a", "b", "c")

# A server


@define
class Server:
    """Presences as Phoenix tracks them, and a diff for each change."""

    entries: dict[str, list[dict[str, Any]]] = field(factory=dict)
    refs: int = 0

    def state(self) -> dict[str, Any]:
        return {key: {"metas": [dict(meta) for meta in metas]} for key, metas in self.entries.items()}

    def do(self, action: str, key: str, choice: int) -> dict[str, Any] | None:
        """Change something; returns the diff, None if there is nothing to change."""
        metas = self.entries.get(key, [])
        if action == "join":
            new = self._meta()
            self.entries.setdefault(key, []).append(new)
            return {"joins": {key: {"metas": [new]}}, "leaves": {}}
        if not metas:
            return None
        old = metas.pop(choice % len(metas))
        if action == "update":
            new = {**self._meta(), "phx_ref_prev": old["phx_ref"]}
            metas.append(new)
            return {"joins": {key: {"metas": [new]}}, "leaves": {key: {"metas": [old]}}}
        if not metas:
            del self.entries[key]
        return {"joins": {}, "leaves": {key: {"metas": [old]}}}

    def _meta(self) -> dict[str, Any]:
        self.refs += 1
        return {"phx_ref": str(self.refs)}


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["join", "join", "update", "leave"]), st.sampled_from(KEYS), st.integers(0, 3)),
    max_size=25,
)


def run(server: Server, actions: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    return [diff for action in actions if (diff := server.do(*action)) is not None]


def feed(presence: Presence, messages: list[tuple[str, Any]]) -> tuple[Presence, list[PresenceChange]]:
    changes: list[PresenceChange] = []
    for event, payload in messages:
        presence, more = presence.received_all([(event, payload)])
        changes += more
    return presence, changes


def diffs(payloads: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [("presence_diff", payload) for payload in payloads]


def sorted_refs(entries: Any) -> dict[str, list[str]]:
    return {key: sorted(meta["phx_ref"] for meta in value["metas"]) for key, value in entries.items()}


def replayed(before: Any, changes: list[PresenceChange]) -> dict[str, list[str]]:
    """Return what a user has who only ever follows the changes; each must be one."""
    known = {key: set(refs) for key, refs in sorted_refs(before).items()}
    for change in changes:
        refs = {meta["phx_ref"] for meta in change.metas}
        mine = known.setdefault(change.key, set())
        if change.kind == "join":
            assert not refs & mine
            mine |= refs
        else:
            assert refs <= mine
            mine -= refs
        assert refs
    return {key: sorted(refs) for key, refs in known.items() if refs}


@given(ACTIONS, ACTIONS, ACTIONS)
def test_state_and_diffs_give_the_servers_list(
    before: list[tuple[str, str, int]], early: list[tuple[str, str, int]], late: list[tuple[str, str, int]]
) -> None:
    """The state is as of some moment; diffs from before that moment may come before it, none of after it."""
    server = Server()
    run(server, before)
    first = run(server, early)
    state = server.state()
    after = run(server, late)
    messages = [*diffs(first), ("presence_state", state), *diffs(after)]
    presence, changes = feed(Presence(), messages)
    assert sorted_refs(presence.entries) == sorted_refs(server.state())
    assert replayed({}, changes) == sorted_refs(server.state())


@given(ACTIONS, ACTIONS, st.integers(0, 25))
def test_it_does_not_matter_when_the_state_comes(
    before: list[tuple[str, str, int]], during: list[tuple[str, str, int]], place: int
) -> None:
    """A state that was made before some diffs, and comes behind them, and one that comes in front of them, agree."""
    server = Server()
    run(server, before)
    state = server.state()
    after = diffs(run(server, during))
    place = min(place, len(after))
    in_front, _ = feed(Presence(), [("presence_state", state), *after])
    behind, changes = feed(Presence(), [*after[:place], ("presence_state", state), *after[place:]])
    assert sorted_refs(in_front.entries) == sorted_refs(behind.entries) == sorted_refs(server.state())
    assert replayed({}, changes) == sorted_refs(server.state())


@given(ACTIONS, ACTIONS, ACTIONS, ACTIONS)
def test_a_rejoin_catches_up_with_what_was_missed(
    before: list[tuple[str, str, int]],
    missed: list[tuple[str, str, int]],
    early: list[tuple[str, str, int]],
    late: list[tuple[str, str, int]],
) -> None:
    server = Server()
    run(server, before)
    presence, _ = feed(Presence(), [("presence_state", server.state())])
    known = presence.entries
    run(server, missed)
    first = run(server, early)
    messages = [*diffs(first), ("presence_state", server.state()), *diffs(run(server, late))]
    presence, changes = feed(presence.rejoined(), messages)
    assert sorted_refs(presence.entries) == sorted_refs(server.state())
    assert replayed(known, changes) == sorted_refs(server.state())


# Whatever comes: what no server sends, too

REFS = st.sampled_from("123456")
ENTRIES = st.builds(
    lambda refs, more: {"metas": [{"phx_ref": ref, "at": index} for index, ref in enumerate(refs)], **more},
    st.lists(REFS, max_size=4),  # none, and one twice, too
    st.sampled_from([{}, {"name": "Ada"}, {"name": "Bob"}]),
)
STATES = st.dictionaries(st.sampled_from(KEYS), ENTRIES)
DIFFS = st.builds(lambda joins, leaves: {"joins": joins, "leaves": leaves}, STATES, STATES)
MESSAGES = st.lists(
    st.tuples(st.just("presence_state"), STATES) | st.tuples(st.just("presence_diff"), DIFFS), max_size=8
)


def folded(before: Any, changes: Any) -> dict[str, Any]:
    """Return what is known after changes to who knows nothing else; each must begin where the one before it ended."""
    entries = dict(before)
    for change in changes:
        assert change.before == entries.get(change.key)
        if change.after is None:
            del entries[change.key]
        else:
            entries[change.key] = change.after
    return entries


def assert_joins_come_first(changes: Any) -> None:
    kinds = [change.kind for change in changes]
    assert kinds == sorted(kinds)


@given(STATES, STATES)
def test_the_changes_of_a_state_chain_and_lead_to_it(known: Any, state: Any) -> None:
    entries, changes = sync_state(known, state)
    assert folded(known, changes) == entries
    assert_joins_come_first(changes)
    assert {key: set(refs) for key, refs in sorted_refs(entries).items()} == {
        key: set(refs) for key, refs in sorted_refs(state).items()
    }
    assert all(entries[key] == state[key] for key in {change.key for change in changes if change.after is not None})


@given(STATES, DIFFS)
def test_the_changes_of_a_diff_chain_and_lead_to_what_is_known_after_it(known: Any, diff: Any) -> None:
    entries, changes = sync_diff(known, diff)
    assert folded(known, changes) == entries
    assert_joins_come_first(changes)
    assert len({(change.kind, change.key) for change in changes}) == len(changes)


@given(STATES, MESSAGES)
def test_changes_chain_over_messages_and_rejoins(known: Any, messages: list[tuple[str, Any]]) -> None:
    presence = Presence(known).rejoined()
    changes: list[PresenceChange] = []
    for event, payload in messages:
        presence, more = presence.received_all([(event, payload)])
        assert_joins_come_first(more)
        changes += more
    assert folded(known, changes) == presence.entries
    assert Presence(known).received_all(messages) == (presence, tuple(changes))


# Recordings


def recordings() -> list[Path]:
    return sorted(TRANSCRIPTS.glob("*/presence_*.jsonl"))


def presences_of(path: Path, connection: str) -> Iterator[tuple[str, Any]]:
    """Yield the presence messages that a connection of a recording got, and the answers to its `list`."""
    lists: set[str] = set()
    for record in read_lines(path):
        if record.get("conn") != connection or "text" not in record:
            continue
        _, ref, _, event, payload = json.loads(record["text"])
        if record["dir"] == "send" and event == "list":
            lists.add(ref)
        elif record["dir"] == "recv" and event in ("presence_state", "presence_diff"):
            yield event, payload
        elif record["dir"] == "recv" and event == "phx_reply" and ref in lists:
            yield "list", payload["response"]


def test_there_are_recordings() -> None:
    assert len(recordings()) >= 4


@pytest.mark.parametrize("path", recordings(), ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("connection", ["a", "b"])
def test_recorded_presences_give_the_list_that_the_server_gave(path: Path, connection: str) -> None:
    presence = Presence()
    compared = 0
    for event, payload in presences_of(path, connection):
        if event == "list":
            listed = payload.get("list", payload)
            assert sorted_refs(presence.entries) == sorted_refs(listed)
            compared += 1
        else:
            presence, _ = presence.received_all([(event, payload)])
    assert presence.synced
    if connection == "a" and path.stem == "presence_two_users":
        assert compared
