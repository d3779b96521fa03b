"""The values that users give and get: a channel's configuration, and events made from its messages.

Sources: supabase/realtime, lib/realtime_web/channels/payloads/, lib/realtime_web/channels/realtime_channel.ex,
lib/realtime/adapters/changes.ex and lib/extensions/postgres_cdc_rls/; supabase/supabase-js,
packages/core/realtime-js/src/RealtimeChannel.ts.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal

from attrs import asdict, frozen

from ...client import Gap
from ...errors import ConfigurationError, ProtocolError
from ...protocol import Message
from ...protocol.presence import check_presence

__all__ = [
    "BadMessage", "Broadcast", "BroadcastReceived", "ChannelConfig", "PostgresChange", "PostgresChanged", "Presence",
    "PresenceSynced", "RealtimeEvent", "Routes", "SystemMessage", "event_of",
]  # fmt: skip


@frozen
class Broadcast:
    """How a channel broadcasts.

    Attributes:
        self_: whether it gets its own broadcasts.
        ack: whether the server acknowledges them.
        replay: since when the database's broadcasts are sent again after a join; on private channels.
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

    event: Literal["*", "INSERT", "UPDATE", "DELETE"] = "*"
    schema: str = "public"
    table: str | None = None
    filter: str | None = None


Routes = Mapping[int | str, tuple[PostgresChange, ...]]
"""The changes that each id of the server stands for."""


@frozen
class ChannelConfig:
    """All that a channel is joined with, but for the token; raises `ConfigurationError`."""

    broadcast: Broadcast
    presence: Presence | None
    changes: tuple[PostgresChange, ...]
    private: bool

    def __attrs_post_init__(self) -> None:
        if self.broadcast.replay is not None and not self.private:
            raise ConfigurationError("broadcast", "the server replays on private channels only: pass private=True")

    def payload(self, token: str | None) -> dict[str, Any]:
        """Return the join's payload."""
        broadcast: dict[str, Any] = {"self": self.broadcast.self_, "ack": self.broadcast.ack}
        if self.broadcast.replay is not None:
            broadcast["replay"] = {"since": int(self.broadcast.replay.timestamp() * 1000)}
        config = {
            "broadcast": broadcast,
            "presence": {"key": self.presence.key if self.presence else "", "enabled": self.presence is not None},
            "postgres_changes": [asdict(each, filter=lambda _, value: value is not None) for each in self.changes],
            "private": self.private,
        }
        return {"config": config} if token is None else {"config": config, "access_token": token}

    def routes(self, response: Any) -> Routes:
        """Return what each id of the join's response stands for; raises `ProtocolError` for other changes than ours."""
        given = response.get("postgres_changes") if isinstance(response, dict) else None
        listed = [entry if isinstance(entry, dict) else {} for entry in given] if isinstance(given, list) else []
        theirs = [{name: entry.get(name) for name in ("event", "schema", "table", "filter")} for entry in listed]
        ids: list[Any] = [entry.get("id") for entry in listed]
        if theirs != [asdict(change) for change in self.changes] or not all(type(each) in (int, str) for each in ids):
            raise ProtocolError(f"the server lists other postgres_changes than those asked for: {given!r}")
        pairs = list(zip(ids, self.changes, strict=True))
        return {each: tuple(change for other, change in pairs if other == each) for each in ids}


@frozen
class BroadcastReceived:
    """Somebody, or the database, has broadcast.

    Attributes:
        event: the sender's event.
        payload: a JSON value, or `bytes`.
        meta: what the server says of it: an `id` where the database sent it, `replayed` where that was asked for.
    """

    event: str
    payload: Any
    meta: Mapping[str, Any]


@frozen
class PostgresChanged:
    """A row has changed.

    Attributes:
        type: "INSERT", "UPDATE" or "DELETE".
        schema: the table's schema.
        table: the table.
        commit_timestamp: when; None where the server does not say, as it may not with `errors`.
        record: the row as it is; None after a DELETE.
        old_record: the row as it was, or its key; None after an INSERT.
        columns: from a column's name to its type in Postgres, such as "int8".
        errors: why values are missing, such as "Error 401: Unauthorized".
        matches: those of the channel's `postgres_changes` that it is told for.
    """

    type: Literal["INSERT", "UPDATE", "DELETE"]
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
    """Somebody came, went, or tracks something else; `RealtimeChannel.presence` has all who are there.

    Attributes:
        joins: what has come, by key; with `full` all that there is.
        leaves: what has gone, by key.
        full: whether it is the state after a join.
    """

    joins: Mapping[str, tuple[Mapping[str, Any], ...]]
    leaves: Mapping[str, tuple[Mapping[str, Any], ...]]
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
                diff = {"joins": payload} if full else payload
                return PresenceSynced(_metas(diff.get("joins", {})), _metas(diff.get("leaves", {})), full)
            case "system":
                return SystemMessage(*(_value(payload, name, str) for name in ("extension", "status", "message")))
        raise ProtocolError(f"unknown event {message.event!r}")
    except ProtocolError as error:
        return BadMessage(message, error.problem)


def _changed(ids: list[Any], data: Mapping[str, Any], routes: Routes) -> PostgresChanged | None:
    kind = _value(data, "type", str)
    told = [change for each in ids if type(each) in (int, str) for change in routes.get(each, ())]
    if not told or kind not in ("INSERT", "UPDATE", "DELETE"):
        raise ProtocolError(f"a change of unknown type or ids: {kind!r}, {ids!r}")
    # Older servers tell all kinds of changes to a subscription that asked for one.
    matches = tuple(dict.fromkeys(change for change in told if change.event in ("*", kind)))
    columns, errors = _value(data, "columns", list, NoneType), _value(data, "errors", list, str, NoneType)
    time = _value(data, "commit_timestamp", str, NoneType)
    change = PostgresChanged(
        kind,
        _value(data, "schema", str),
        _value(data, "table", str),
        None if time is None else _time(time),
        _value(data, "record", dict, NoneType),
        _value(data, "old_record", dict, NoneType),
        {_value(column, "name", str): _value(column, "type", str) for column in columns or ()},
        (errors,) if isinstance(errors, str) else tuple(map(str, errors or ())),
        matches,
    )
    return change if matches else None


def _value(of: Any, name: str, *kinds: type) -> Any:
    """Return a value in an object; raises `ProtocolError` unless it is of one of these kinds."""
    value = of.get(name) if isinstance(of, dict) else None
    if type(value) not in kinds:
        raise ProtocolError(f"{name!r} is {'missing' if value is None else type(value).__name__}")
    return value


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ProtocolError(f"{text!r} is not a time") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _metas(presences: Mapping[str, Mapping[str, Any]]) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    return {key: tuple(presence["metas"]) for key, presence in presences.items()}
