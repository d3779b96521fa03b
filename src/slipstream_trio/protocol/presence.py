"""Phoenix Presence, as pure functions over its two messages.

`presence_state` has everybody, `presence_diff` who came and who went. An update of a meta is both at once: a join whose
`phx_ref_prev` is the `phx_ref` of a leave. In the usual order a client's own diff comes before the first state, so
diffs are kept until the state has come; the same holds after a rejoin, whose state replaces what was known.

Changes chain: each `before` is the `after` of the change before it of that key, and who folds the changes over what was
known has what is known. So a state is told as if a diff had brought it: joins, then leaves; and an entry whose refs are
the same stays the one that is known, whatever else the state says of it. phoenix.js does both, too.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import attrs
from attrs import frozen

from ..errors import ProtocolError

STATE: Final = "presence_state"
DIFF: Final = "presence_diff"
PRESENCE_EVENTS: Final = frozenset({STATE, DIFF})  # the events that carry presences
MOST_PENDING: Final = 1024  # diffs kept for a state to come: a server that never sends one should not fill the memory

Presences = Mapping[str, Mapping[str, Any]]
"""Key to presence: a mapping with a list `metas`, each of which has a `phx_ref`, and perhaps more."""


@frozen
class PresenceChange:
    """Somebody came or went.

    Attributes:
        kind: "join" or "leave".
        key: whose presence it is.
        before: the presence as it was, None if there was none.
        metas: the metas that came, or went.
        after: the presence as it is now; None if nothing is left of it.
    """

    kind: Literal["join", "leave"]
    key: str
    before: Mapping[str, Any] | None
    metas: tuple[Mapping[str, Any], ...]
    after: Mapping[str, Any] | None


@frozen
class Presence:
    """The presences of a topic, as far as they are known; never changed in place.

    Attributes:
        entries: who is there.
        synced: whether the state of the current join has come.
        pending: diffs that came before it.
    """

    entries: Presences = attrs.field(factory=dict)
    synced: bool = False
    pending: tuple[Mapping[str, Any], ...] = ()

    def rejoined(self) -> "Presence":
        """Return what is known after a new join: the same, but not for sure until its state comes."""
        return Presence(self.entries)

    def received(self, event: str, payload: Any) -> "tuple[Presence, tuple[PresenceChange, ...]]":
        """Return what is known after a message, and what has changed; see `received_all`."""
        return self.received_all([(event, payload)])

    def received_all(self, messages: Iterable[tuple[str, Any]]) -> "tuple[Presence, tuple[PresenceChange, ...]]":
        """Return what is known after messages, events and payloads, and what has changed; in time linear in all.

        Raises:
            ProtocolError: a payload is not what Phoenix sends.
        """
        entries, synced = dict(self.entries), self.synced
        pending = deque(self.pending, MOST_PENDING)
        changes: list[PresenceChange] = []
        for event, payload in messages:
            if event == STATE:
                state = dict(_presences(payload))
                for diff in pending:
                    _apply_diff(state, diff)
                pending.clear()
                entries, more = sync_state(entries, state)
                changes += more
                synced = True
            elif synced:
                changes += _apply_diff(entries, _diff(payload))
            else:
                pending.append(_diff(payload))
        return Presence(entries, synced, tuple(pending)), tuple(changes)


def check_presence(event: str, payload: Any) -> None:
    """Raise `ProtocolError` unless the payload of a presence message is what Phoenix sends."""
    (_presences if event == STATE else _diff)(payload)


def sync_state(current: Presences, state: Presences) -> tuple[dict[str, Mapping[str, Any]], tuple[PresenceChange, ...]]:
    """Return the presences of `state`, and what is different from `current`: those who came, then those who went.

    Of those whose refs are the same, the entry is that of `current`.
    """
    entries, joins, leaves = dict(state), [], []
    for key, presence in state.items():
        known = current.get(key)
        if presence == known:  # nearly all, after a rejoin
            continue
        new = _without_refs(presence, known)
        gone = () if known is None else _without_refs(known, presence)
        if known is not None and not new and not gone:
            entries[key] = known
            continue
        joined = presence
        if new or known is None:
            if known is not None and gone:
                joined = {**presence, "metas": [*known["metas"], *new]}
            joins.append(PresenceChange("join", key, known, new, joined))
        if gone:
            leaves.append(PresenceChange("leave", key, joined if new else known, gone, presence))
    for key, known in current.items():
        if key not in state:
            leaves.append(PresenceChange("leave", key, known, tuple(known["metas"]), None))
    return entries, (*joins, *leaves)


def sync_diff(current: Presences, diff: Mapping[str, Any]) -> tuple[Presences, tuple[PresenceChange, ...]]:
    """Return `current` with those of `diff` who came, without those who went, and what has changed.

    A state that came before it may have told some of it already.
    """
    entries = dict(current)
    return entries, tuple(_apply_diff(entries, diff))


def _apply_diff(entries: dict[str, Mapping[str, Any]], diff: Mapping[str, Any]) -> list[PresenceChange]:
    """Bring `entries` up to date in place, and return what has changed."""
    changes = []
    for key, presence in diff["joins"].items():
        before = entries.get(key)
        new = _without_refs(presence, before)
        if new or before is None:
            after = {**presence, "metas": [*(before["metas"] if before else ()), *new]}
            entries[key] = after
            changes.append(PresenceChange("join", key, before, new, after))
    for key, presence in diff["leaves"].items():
        before = entries.get(key)
        if before is None:
            continue
        refs = _refs(presence)
        gone = tuple(meta for meta in before["metas"] if meta["phx_ref"] in refs)
        if before["metas"] and not gone:
            continue
        kept = [meta for meta in before["metas"] if meta["phx_ref"] not in refs]
        left = {**before, "metas": kept} if kept else None
        if left is None:
            del entries[key]
        else:
            entries[key] = left
        changes.append(PresenceChange("leave", key, before, gone, left))
    return changes


def _without_refs(presence: Mapping[str, Any], other: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
    known = _refs(other) if other is not None else frozenset()
    return tuple(meta for meta in presence["metas"] if meta["phx_ref"] not in known)


def _refs(presence: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(meta["phx_ref"] for meta in presence["metas"])


def _diff(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, dict):
        raise ProtocolError("the payload of a presence_diff must be an object")
    return {"joins": _presences(payload.get("joins", {})), "leaves": _presences(payload.get("leaves", {}))}


def _presences(payload: Any) -> Presences:
    """Return the payload if it is what it should be."""
    if not isinstance(payload, dict):
        raise ProtocolError("presences must be an object")
    for presence in payload.values():
        metas = presence.get("metas") if isinstance(presence, dict) else None
        if not isinstance(metas, list) or not all(
            isinstance(meta, dict) and isinstance(meta.get("phx_ref"), str) for meta in metas
        ):
            raise ProtocolError("a presence without a list of metas that have a phx_ref")
    return payload
