"""A Supabase Realtime server for tests: its channels' behaviour on the library's own server, in real time or virtual.

Sources: supabase/realtime, lib/realtime_web/channels/user_socket.ex and realtime_channel.ex with realtime_channel/,
lib/realtime_web/socket/v2_serializer.ex, lib/extensions/postgres_cdc_rls/ and lib/realtime/adapters/changes.ex.
"""

import base64
import json
import math
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from slipstream_trio import ProtocolError
from slipstream_trio.integrations import supabase
from slipstream_trio.protocol import Frame, Message
from slipstream_trio.testing.server import (
    Channel,
    Connection,
    JoinRefused,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
    Stop,
)
from slipstream_trio.testing.server.wire import Wire

API_KEY: Final = "anon-key-5f1c"
URL: Final = "http://abc.supabase.co"
PATH: Final = "/realtime/v1"
CONFIRM_INTERVAL: Final = 300.0
EXPECTED: Final = frozenset({"event", "schema", "table", "filter"})


def jwt(expires: Any, **claims: Any) -> str:
    """Return an unsigned token that expires at a time, in seconds since 1970."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"role": "authenticated", "exp": expires, **claims}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def expiry_of(token: str) -> float:
    """Return when a token expires."""
    claims = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])


@attrs.frozen
class UserBroadcast:
    """What a user broadcasts: its payload as it came, in JSON or not."""

    event: str
    body: bytes
    is_json: bool
    meta: Mapping[str, Any] = attrs.field(factory=dict)


class SupabaseWire(Wire):
    """The server's side of the serializers, with the two kinds of 2.0.0."""

    def decode(self, frame: Frame) -> Message:
        if isinstance(frame, str) or frame[:1] != b"\x03":
            return super().decode(frame)
        strings, start = [], 7
        for length in frame[1:6]:
            strings.append(frame[start : start + length])
            start += length
        if start > len(frame):
            raise ProtocolError("it ends inside its header")
        join_ref, ref, topic, event, meta = (string.decode() for string in strings)
        payload = UserBroadcast(event, frame[start:], frame[6] != 0, json.loads(meta) if meta else {})
        return Message(join_ref, ref, topic, "broadcast", payload)

    def encode(self, message: Message) -> Frame:
        payload = message.payload
        if not isinstance(payload, UserBroadcast):
            return super().encode(message)
        if self.vsn == "1.0.0":
            shown = {"type": "broadcast", "event": payload.event, "payload": json.loads(payload.body)}
            return super().encode(message._replace(payload={**shown, "meta": payload.meta} if payload.meta else shown))
        meta = json.dumps(payload.meta).encode() if payload.meta else b""
        strings = [message.topic.encode(), payload.event.encode(), meta]
        return b"".join([bytes([4, *map(len, strings), payload.is_json]), *strings, payload.body])


class SupabaseServer:
    """A project's Realtime server.

    Parameters:
        now: the wall clock, in seconds since 1970.
        messages_a_second: broadcasts that a channel may send within a second, before it is shut down.
        joins_a_second: joins of a connection within a second, before it is refused and cut.
        most_bytes: of a broadcast's payload.
        subscribes_after: seconds from a join to its subscription to Postgres.

    Attributes:
        phoenix: the server below.
        unreadable: topics whose private channels nobody may join.
        stored: broadcasts from the database: topic, time in ms, id, event, payload.
        lists: edits what a join is told of its changes.
        subscribed: called after each subscription to Postgres.
        rooms: the joined channels.
        tokens: each token that a channel was joined with or told, in order.
        checks_tokens: whether it reads tokens.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        messages_a_second: int = 100,
        joins_a_second: int = 100,
        most_bytes: int = 3_000_000,
        subscribes_after: float = 1,
    ) -> None:
        self.now = now
        self.messages_a_second = messages_a_second
        self.joins_a_second = joins_a_second
        self.most_bytes = most_bytes
        self.subscribes_after = subscribes_after
        self.unreadable: set[str] = set()
        self.stored: list[tuple[str, int, str, str, Any]] = []
        self.lists: Callable[[list[dict[str, Any]]], Any] = lambda changes: changes
        self.subscribed: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.rooms: list[Room] = []
        self.tokens: list[str | None] = []
        self.checks_tokens = True
        self.joins: list[float] = []
        mount = Mount(channels={"realtime:*": lambda: Room(self)}, connect=self._admit, handler=self._handler)
        self.phoenix = PhoenixServer({PATH: mount, "/socket": mount})

    def _admit(self, request: Request) -> None:
        if request.params.get("apikey") != API_KEY:
            raise Refuse(401, body='{"error":"API key is missing"}')

    def _handler(self, connection: Connection) -> "Handler":
        connection.wire = SupabaseWire(connection.wire.vsn)
        return Handler(connection)

    async def change(
        self, kind: str, table: str, record: Any = None, old_record: Any = None, *, schema: str = "public", **more: Any
    ) -> None:
        """Tell all who asked for it that a row has changed."""
        data = {
            "type": kind,
            "schema": schema,
            "table": table,
            "commit_timestamp": "2026-11-28T10:11:12.345Z",
            "columns": [{"name": "id", "type": "int8"}],
            "errors": None,
            **({} if record is None else {"record": record}),
            **({} if old_record is None else {"old_record": old_record}),
            **more,
        }
        for room in list(self.rooms):
            ids = [id_of(asked) for asked in room.changes if _matches(asked, data)]
            if ids:
                await room.tell("postgres_changes", {"ids": ids, "data": data})

    async def shut_down(self, message: str) -> None:
        """Shut all channels down."""
        for room in list(self.rooms):
            await room.shut_down(message)


class Handler:
    """Routes messages, and cuts a connection that joins too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def handle(self, message: Message) -> None:
        await self._connection.router.handle(message)
        if self._connection.assigns.get("disconnect"):
            self._connection.close(1000)

    def ended(self) -> None:
        self._connection.router.ended()


class Room(Channel):
    """A channel, `realtime:*`."""

    def __init__(self, server: SupabaseServer) -> None:
        self.server = server
        self.changes: list[dict[str, Any]] = []
        self.sent: list[float] = []
        self.tracked: Any = None
        self.token: str | None = None
        self._checking: trio.CancelScope = trio.CancelScope()

    @property
    def name(self) -> str:
        return self.topic.removeprefix("realtime:")

    async def join(self, payload: Any) -> Any:
        server, config = self.server, payload.get("config") or {}
        self._limit_joins()
        if not self.name:
            raise JoinRefused({"reason": "TopicNameRequired: You must provide a topic name"})
        self.broadcasts, presence = config.get("broadcast") or {}, config.get("presence") or {}
        self.private = bool(config.get("private"))
        self.enabled, self.key = bool(presence.get("enabled")), presence.get("key") or f"made-{self.join_ref}"
        self.token = payload.get("access_token")
        server.tokens.append(self.token)
        if (problem := self._token_problem(self.token)) is not None:
            raise JoinRefused({"reason": f"InvalidJWTToken: {problem}"})
        if self.private and self.name in server.unreadable:
            problem = f"You do not have permissions to read from this Channel topic: {self.name}"
            raise JoinRefused({"reason": f"Unauthorized: {problem}"})
        if "replay" in self.broadcasts and not self.private:
            raise JoinRefused({"reason": "UnableToReplayMessages: Replay is not allowed for public channels"})
        self.changes = list(config.get("postgres_changes") or [])
        return {"postgres_changes": server.lists([{**asked, "id": id_of(asked)} for asked in self.changes])}

    def _limit_joins(self) -> None:
        now = trio.current_time()
        self.server.joins = [at for at in self.server.joins if at > now - 1] + [now]
        if len(self.server.joins) > self.server.joins_a_second:
            self.socket.assigns["disconnect"] = True
            raise JoinRefused({"reason": "ClientJoinRateLimitReached: Too many joins per second"})

    def _left(self, token: str | None) -> float:
        """Return the seconds until a token expires."""
        if token is None or token.startswith("sb_") or not self.server.checks_tokens:
            return math.inf
        return expiry_of(token) - self.server.now()

    def _token_problem(self, token: str | None) -> str | None:
        ago = -self._left(token)
        return f"Token has expired {round(ago)} seconds ago" if ago >= 0 else None

    async def after_join(self) -> None:
        self.server.rooms.append(self)
        self.spawn(self._live)
        replay = self.broadcasts.get("replay")
        if replay is not None:
            for topic, at, id_, event, payload in self.server.stored:
                if topic == self.name and at >= replay["since"]:
                    meta = {"replayed": True, "id": id_}
                    told = {"type": "broadcast", "event": event, "payload": payload, "meta": meta}
                    await self.push("broadcast", told)
        if self.enabled:
            await self.push("presence_state", self.presence.list())

    async def _live(self) -> None:
        """Subscribe to Postgres, and confirm the token, until the channel ends."""
        try:
            if self.changes:
                self.spawn(self._subscribe)
            while True:
                with trio.CancelScope() as self._checking:
                    await trio.sleep(max(min(CONFIRM_INTERVAL, self._left(self.token)), 0.0))
                    if (problem := self._token_problem(self.token)) is not None:
                        await self.shut_down(problem)
                        return
        finally:
            if self in self.server.rooms:
                self.server.rooms.remove(self)

    async def _subscribe(self) -> None:
        await trio.sleep(self.server.subscribes_after)
        unknown = [asked for asked in self.changes if asked.get("table") == "unknown"]
        if unknown:
            await self._say("postgres_changes", "error", "Unable to subscribe to changes with given parameters.")
        else:
            await self._say("postgres_changes", "ok", "Subscribed to PostgreSQL")
            await self.server.subscribed()

    async def _say(self, extension: str, status: str, message: str) -> None:
        told = {"extension": extension, "status": status, "message": message, "channel": self.name}
        await self.push("system", told)

    async def shut_down(self, message: str) -> None:
        """End the channel as the server does, and say why."""
        if self in self.server.rooms:
            self.server.rooms.remove(self)
        await self._say("system", "error", message)
        self.stop("normal")

    async def tell(self, event: str, payload: Any) -> None:
        """Send past the channel's process, as the server does what many get: without a join_ref."""
        await self.socket.send_raw(self.socket.wire.encode(Message(None, None, self.topic, event, payload)))

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "broadcast":
                return await self._broadcast(payload)
            case "presence":
                return self._presence(payload)
            case "access_token":
                return await self._access_token(payload.get("access_token"))
        return None

    async def _broadcast(self, payload: Any) -> Outcome:
        now = trio.current_time()
        self.sent = [at for at in self.sent if at > now - 1] + [now]
        if len(self.sent) > self.server.messages_a_second:
            await self._say("system", "error", "Too many messages per second")
            return Stop()
        size = len(payload.body) if isinstance(payload, UserBroadcast) else len(json.dumps(payload))
        fits = size <= self.server.most_bytes
        if fits:
            await (self.broadcast if self.broadcasts.get("self") else self.broadcast_from)("broadcast", payload)
        if not self.broadcasts.get("ack"):
            return None
        return Reply() if fits else Reply("payload_size_exceeded", "error")

    def _presence(self, payload: Any) -> Outcome:
        match payload:
            case {"event": "track", "payload": dict() as meta}:
                if self.tracked is None:
                    self.presence.track(self.key, meta)
                elif meta != self.tracked:
                    self.presence.update(self.key, meta)
                self.tracked = meta
                return Reply()
            case {"event": "track"}:
                return Reply({"reason": "Presence track payload must be a map"}, "error")
            case {"event": "untrack"}:
                self.presence.untrack(self.key)
                self.tracked = None
                return Reply()
        return Reply(status="error")

    async def _access_token(self, token: Any) -> Outcome:
        if token is None or token == self.token or token.startswith("sb_"):
            return None
        self.server.tokens.append(token)
        if (problem := self._token_problem(token)) is not None:
            await self._say("system", "error", problem)
            return Stop()
        self.token = token
        self._checking.cancel()
        if self.changes:
            self.spawn(self._subscribe)
        return None


def id_of(asked: Mapping[str, Any]) -> int:
    """Return the id of a subscription, the same for the same parameters."""
    return zlib.crc32(json.dumps(asked, sort_keys=True).encode())


def _matches(asked: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    row = data.get("record") or data.get("old_record") or {}
    column, _, value = (asked.get("filter") or "=eq.").partition("=eq.")
    return (
        asked.get("event", "*") in ("*", data["type"])
        and asked.get("schema", "public") in ("*", data["schema"])
        and asked.get("table", "*") in ("*", data["table"])
        and (not column or str(row.get(column)) == value)
    )


# For tests


@asynccontextmanager
async def connected(server: SupabaseServer, **options: Any) -> AsyncIterator[supabase.Realtime]:
    """Connect in memory."""
    async with supabase.connect(URL, API_KEY, transport=server.phoenix.connector(), **options) as realtime:
        yield realtime


async def next_event(room: supabase.RealtimeChannel) -> Any:
    """Return the next event."""
    return await anext(room)


async def next_of(room: supabase.RealtimeChannel, kind: Any) -> Any:
    """Return the next event of a class."""
    with trio.fail_after(60):
        async for found in room:
            if isinstance(found, kind):
                return found
    raise AssertionError("the channel has ended")


async def told(server: SupabaseServer, name: str) -> list[Any]:
    """Return what the newest connection has sent of an event."""
    await wait_all_tasks_blocked()
    return [message.payload for message in server.phoenix.connections[-1].received if message.event == name]
