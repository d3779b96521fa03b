"""The values that users give and get: a channel's configuration, and events made from its messages.

Sources: supabase/realtime, lib/realtime_web/channels/payloads/, lib/realtime_web/channels/realtime_channel.ex,
lib/realtime/adapters/changes.ex and lib/extensions/postgres_cdc_rls/; supabase/supabase-js,
packages/core/realtime-js/src/RealtimeChannel.ts.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal, get_args

from attrs import asdict, field, frozen

from ...client import Gap
from ...errors import ConfigurationError, ProtocolError
from ...protocol import Message, Presences
from ...protocol.presence import check_presence

__all__ = [
    "BadMessage", "Broadcast", "BroadcastReceived", "PostgresChange", "PostgresChanged", "Presence", "PresenceSynced",
    "RealtimeEvent", "SystemMessage",
]  # fmt: skip

ChangeKind = Literal["INSERT", "UPDATE", "DELETE"]


@frozen
class Broadcast:
    """How a channel broadcasts: whether it gets its own, whether the server acknowledges them.

    A private channel gets the database's broadcasts again after a join, those since the time `replay`.
    """

    self_: bool = False
    ack: bool = False
    replay: datetime | None = None


@frozen
class Presence:
    """That a channel follows who is there; `key` is what it tracks under, the server makes one if it is empty."""

    key: str = ""


@frozen
class PostgresChange:
    """The changes that a channel asks for: of one kind or all, of one table or all, of rows like "id=eq.1" or all."""

    event: Literal["*"] | ChangeKind = field(default="*")
    schema: str = "public"
    table: str | None = None
    filter: str | None = None

    @event.validator
    def _check_event(self, _: object, event: str) -> None:
        known = ("*", *get_args(ChangeKind))
        if event not in known:
            raise ConfigurationError("event", f"one of {', '.join(map(repr, known))}; not {event!r}")


Routes = Mapping[int | str, tuple[PostgresChange, ...]]  # from the server's ids to what they stand for


def join_config(
    broadcast: Broadcast, presence: Presence | None, changes: Iterable[PostgresChange], *, private: bool
) -> dict[str, Any]:
    """Return the `config` of a join's payload; raises `ConfigurationError` for one that the server would refuse."""
    told: dict[str, Any] = {"self": broadcast.self_, "ack": broadcast.ack}
    if broadcast.replay is not None:
        if not private:
            raise ConfigurationError("broadcast", "the server replays on private channels only: pass private=True")
        told["replay"] = {"since": int(broadcast.replay.timestamp() * 1000)}
    return {
        "broadcast": told,
        "presence": {"key": presence.key if presence else "", "enabled": presence is not None},
        "postgres_changes": [asdict(change, filter=lambda _, value: value is not None) for change in changes],
        "private": private,
    }


def routes_of(response: Any, changes: Iterable[PostgresChange]) -> Routes:
    """Return what each id of a join's response stands for; raises `ProtocolError` if it lists other changes."""
    given = response.get("postgres_changes") if isinstance(response, dict) else None
    listed = [entry if isinstance(entry, dict) else {} for entry in given] if isinstance(given, list) else []
    theirs = [{name: entry.get(name) for name in ("event", "schema", "table", "filter")} for entry in listed]
    ids: list[Any] = [entry.get("id") for entry in listed]
    if theirs != [asdict(change) for change in changes] or not all(type(each) in (int, str) for each in ids):
        raise ProtocolError(f"the server lists other postgres_changes than those asked for: {given!r}")
    pairs = list(zip(ids, changes, strict=True))
    return {each: tuple(change for other, change in pairs if other == each) for each in ids}


@frozen
class BroadcastReceived:
    """Somebody, or the database, has broadcast; of the latter `meta` has the `id`, and whether it was `replayed`."""

    event: str
    payload: Any
    meta: Mapping[str, Any]


@frozen
class PostgresChanged:
    """A row has changed, from `old_record` (or its key; None if it was inserted) to `record` (None if it was deleted).

    `matches` has those of the channel's `postgres_changes` that it is told for, `columns` Postgres's types by name,
    `errors` why values are missing, such as "Error 401: Unauthorized"; with those there may be no time.
    """

    type: ChangeKind
    schema: str
    table: str
    commit_timestamp: datetime | None
    record: Mapping[str, Any] | None
    old_record: Mapping[str, Any] | None
    columns: Mapping[str, str]
    errors: tuple[str, ...]
    matches: tuple[PostgresChange, ...]


@frozen
class PresenceSynced:
    """What has come and gone; if `full`, after a join, all that is there. `Channel.presence` adds it up."""

    joins: Presences
    leaves: Presences
    full: bool


@frozen
class SystemMessage:
    """The server says something about the channel; with extension "system" and status "error", it closes it next."""

    extension: str
    status: str
    message: str


@frozen
class BadMessage:
    """A message that is not what the server should send, and its fault."""

    message: Message
    problem: str


RealtimeEvent = BroadcastReceived | PostgresChanged | PresenceSynced | SystemMessage | BadMessage | Gap
"""An item of a channel's iteration."""


def event_of(message: Message, routes: Routes) -> RealtimeEvent | None:
    """Return the event of a message; None for a change of a kind that was not asked for."""
    payload = message.payload
    try:
        match message.event:
            case "broadcast":
                meta = _value(payload, "meta", dict, NoneType) or {}
                return BroadcastReceived(_value(payload, "event", str), payload.get("payload"), meta)
            case "postgres_changes":
                return _changed(_value(payload, "ids", list), _value(payload, "data", dict), routes)
            case "presence_state" | "presence_diff" as event:
                check_presence(event, payload)
                full = event == "presence_state"
                joins = payload if full else payload.get("joins", {})
                return PresenceSynced(joins, {} if full else payload.get("leaves", {}), full)
            case "system":
                return SystemMessage(*(_value(payload, name, str) for name in ("extension", "status", "message")))
        raise ProtocolError(f"unknown event {message.event!r}")
    except (ProtocolError, ValueError) as error:
        return BadMessage(message, str(error))


def _changed(ids: list[Any], data: Mapping[str, Any], routes: Routes) -> PostgresChanged | None:
    kind, schema, table = (_value(data, name, str) for name in ("type", "schema", "table"))
    told = [change for each in ids if type(each) in (int, str) for change in routes.get(each, ())]
    if not told or kind not in get_args(ChangeKind):
        raise ProtocolError(f"a change of unknown type or ids: {kind!r}, {ids!r}")
    # Older servers tell all kinds of changes to a subscription that asked for one.
    matches = tuple(dict.fromkeys(change for change in told if change.event in ("*", kind)))
    record, old_record = (_value(data, name, dict, NoneType) for name in ("record", "old_record"))
    errors, columns = _value(data, "errors", list, str, NoneType), _value(data, "columns", list, NoneType)
    types = {_value(column, "name", str): _value(column, "type", str) for column in columns or ()}
    problems = (errors,) if isinstance(errors, str) else tuple(map(str, errors or ()))
    text = _value(data, "commit_timestamp", str, NoneType)
    time = None if text is None else datetime.fromisoformat(text)
    time = time and time.replace(tzinfo=time.tzinfo or UTC)
    change = PostgresChanged(kind, schema, table, time, record, old_record, types, problems, matches)
    return change if matches else None


def _value(of: Any, name: str, *kinds: type) -> Any:
    """Return a value in an object; raises `ProtocolError` unless it is of one of these kinds."""
    value = of.get(name) if isinstance(of, dict) else None
    if type(value) not in kinds:
        raise ProtocolError(f"{name!r} is {'missing' if value is None else type(value).__name__}")
    return value
