"""Who is there: Phoenix Presence, as pure functions over its two messages.

`presence_state` has everybody, `presence_diff` who came and who went. An update of a meta is both at once: a join whose
`phx_ref_prev` is the `phx_ref` of a leave. In the usual order a client's own diff comes before the first state, so
diffs are kept until the state has come; the same holds after a rejoin, whose state replaces what was known.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
from attrs import frozen

from ..errors import ProtocolError

__all__ = ["PRESENCE_EVENTS", "Presence", "PresenceChange", "Presences", "sync_diff", "sync_state"]

STATE: Final = "presence_state"
DIFF: Final = "presence_diff"
PRESENCE_EVENTS: Final = frozenset({STATE, DIFF})
"""The events that carry presences."""

MOST_PENDING: Final = 1024
"""Diffs that are kept for a state to come; a server that never sends one should not fill the memory."""

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
    """What is known of a topic's presences; never changed in place.

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
        """Return what is known after a message, and what has changed.

        Raises:
            ProtocolError: the payload is not what Phoenix sends.
        """
        if event == STATE:
            entries = _presences(payload)
            for diff in self.pending:
                entries, _ = sync_diff(entries, diff)
            entries, changes = sync_state(self.entries, entries)
            return Presence(entries, synced=True), changes
        diff = _diff(payload)
        if not self.synced:
            return Presence(self.entries, pending=(*self.pending, diff)[-MOST_PENDING:]), ()
        entries, changes = sync_diff(self.entries, diff)
        return Presence(entries, synced=True), changes


def sync_state(current: Presences, state: Presences) -> tuple[Presences, tuple[PresenceChange, ...]]:
    """Return `state`, and what is different from `current`: those who went, then those who came."""
    changes = []
    for key, presence in current.items():
        gone = _without_refs(presence, state.get(key))
        if gone:
            changes.append(PresenceChange("leave", key, presence, gone, state.get(key)))
    for key, presence in state.items():
        new = _without_refs(presence, current.get(key))
        if new or key not in current:
            changes.append(PresenceChange("join", key, current.get(key), new, presence))
    return dict(state), tuple(changes)


def sync_diff(current: Presences, diff: Mapping[str, Any]) -> tuple[Presences, tuple[PresenceChange, ...]]:
    """Return `current` with those of `diff` who came, without those who went, and what has changed.

    A state that came before it may have told some of it already.
    """
    entries = dict(current)
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
        gone = tuple(meta for meta in before["metas"] if _ref(meta) in refs)
        if before["metas"] and not gone:
            continue
        kept = [meta for meta in before["metas"] if _ref(meta) not in refs]
        left = {**before, "metas": kept} if kept else None
        if left is None:
            del entries[key]
        else:
            entries[key] = left
        changes.append(PresenceChange("leave", key, before, gone, left))
    return entries, tuple(changes)


def _without_refs(presence: Mapping[str, Any], other: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
    known = _refs(other) if other is not None else frozenset()
    return tuple(meta for meta in presence["metas"] if _ref(meta) not in known)


def _refs(presence: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(_ref(meta) for meta in presence["metas"])


def _ref(meta: Mapping[str, Any]) -> str:
    ref: str = meta["phx_ref"]
    return ref


def _diff(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, dict):
        raise ProtocolError("a presence_diff that is no object")
    return {"joins": _presences(payload.get("joins", {})), "leaves": _presences(payload.get("leaves", {}))}


def _presences(payload: Any) -> Presences:
    """Return the payload if it is what it should be."""
    if not isinstance(payload, dict):
        raise ProtocolError("presences that are no object")
    for presence in payload.values():
        metas = presence.get("metas") if isinstance(presence, dict) else None
        if not isinstance(metas, list) or not all(_is_meta(meta) for meta in metas):
            raise ProtocolError("a presence without a list of metas that have a phx_ref")
    return payload


def _is_meta(meta: Any) -> bool:
    return isinstance(meta, dict) and isinstance(meta.get("phx_ref"), str)
