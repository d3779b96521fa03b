"""Supabase Realtime: connections, joins, broadcasts and presence."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.integrations.supabase_server import API_KEY, URL, SupabaseServer, connected, jwt, next_event, next_of, told
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    ConfigurationError,
    ConnectionRejected,
    Gap,
    JoinError,
    PushError,
    SerializationError,
    trace,
)
from slipstream_trio.integrations import supabase
from slipstream_trio.integrations.supabase import (
    Broadcast,
    BroadcastReceived,
    PostgresChange,
    Presence,
    PresenceSynced,
)
from slipstream_trio.telemetry import Record, Telemetry

EXACT = Backoff((1,), jitter=0)
TODOS = PostgresChange(table="todos")


@pytest.fixture
async def server() -> AsyncIterator[SupabaseServer]:
    made = SupabaseServer(messages_a_second=5, most_bytes=1000)
    async with made.phoenix.run():
        yield made
        assert not made.phoenix.errors


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://abc.supabase.co", "/realtime/v1/websocket"),
        ("http://abc.supabase.co/", "/realtime/v1/websocket"),
        ("ws://abc.supabase.co/realtime/v1", "/realtime/v1/websocket"),
        ("ws://localhost:4000/socket/websocket", "/socket/websocket"),
    ],
)
async def test_the_url_is_the_projects_or_a_websockets(
    url: str, path: str, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    params = {"log_level": "info"}
    async with supabase.connect(url, API_KEY, transport=server.phoenix.connector(), params=params):
        [connection] = await server.phoenix.wait_connections()
        assert connection.request.path.partition("?")[0] == path
        assert connection.request.params == {"apikey": API_KEY, "log_level": "info", "vsn": "2.0.0"}


async def test_a_wrong_key_is_refused(server: SupabaseServer, autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionRejected) as raised:
        async with supabase.connect(URL, "other", transport=server.phoenix.connector()):
            pytest.fail("the block must not be entered")
    assert raised.value.status == 401


def test_params_are_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match="params"):
        supabase.connect(URL, API_KEY, params=dict)


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [(None, API_KEY, "url: str; not NoneType"), (URL, None, "api_key: str; not NoneType")],
)
def test_the_url_and_the_key_are_strings(url: Any, key: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        supabase.connect(url, key)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"broadcast": {"self": True}}, "broadcast: Broadcast or None; not dict"),
        ({"presence": True}, "presence: Presence or None; not bool"),
        ({"postgres_changes": TODOS}, "postgres_changes: Iterable; not PostgresChange"),
    ],
)
async def test_what_a_channel_is_asked_for_is_checked_at_the_call(
    options: Any, told: str, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime:
        with pytest.raises(ConfigurationError, match=told):
            realtime.channel("room", **options)


def test_the_kind_of_a_change_is_one_that_the_server_knows() -> None:
    with pytest.raises(ConfigurationError, match=r"event: .* not 'insert'"):
        PostgresChange("insert")  # type: ignore[arg-type]


async def test_blocks_say_how_they_are_used(server: SupabaseServer, autojump_clock: MockClock) -> None:
    connecting: Any = supabase.connect(URL, API_KEY)
    with pytest.raises(TypeError, match=r"async with supabase.connect\(…\) as realtime:"):
        await connecting
    async with connected(server) as realtime:
        assert repr(realtime) == f"<Realtime on {realtime.socket!r}>"
        joining: Any = realtime.channel("room")
        with pytest.raises(AttributeError, match=r"async with realtime.channel\(…\) as channel:"):
            joining.send("x")
        async with realtime.channel("room") as channel:
            assert repr(channel) == f"<RealtimeChannel on {channel.channel!r}>"


async def test_the_key_is_never_told(server: SupabaseServer, autojump_clock: MockClock) -> None:
    bus, seen = Telemetry(), list[str]()

    def see(record: Record) -> None:
        seen.append(f"{record!r} {record.metadata!r}")

    bus.attach("spy", (), see, prefix=True)
    async with connected(server, telemetry=bus) as realtime, realtime.channel("room") as room:
        await room.send("hi")
    assert len(seen) > 10
    assert not [text for text in seen if API_KEY in text]


async def test_a_recording_has_neither_the_key_nor_the_token(
    server: SupabaseServer, autojump_clock: MockClock, tmp_path: Path
) -> None:
    token = jwt(4_000_000_000, canary="c4n4ry")
    file = tmp_path / "a.jsonl"
    with trace.record(file):
        async with connected(server, access_token=lambda: token) as realtime, realtime.channel("room") as room:
            await realtime.refresh_token()
            await room.send("hi", b"bytes")
    text = file.read_text()
    assert "realtime:room" in text
    assert not [secret for secret in (API_KEY, *token.split(".")[1:]) if secret in text]
    assert list(trace.check([file])) == []


async def test_a_channel_is_joined_with_its_configuration(server: SupabaseServer, autojump_clock: MockClock) -> None:
    since = datetime(2026, 11, 28, 10, tzinfo=UTC)
    async with connected(server, access_token="sb_token") as realtime:
        async with realtime.channel(
            "room",
            broadcast=Broadcast(self_=True, ack=True, replay=since),
            presence=Presence("me"),
            postgres_changes=[TODOS, PostgresChange("INSERT", "other", filter="id=eq.1"), TODOS],
            private=True,
        ) as room:
            assert room.channel.topic == "realtime:room"
            assert await told(server, "phx_join") == [
                {
                    "config": {
                        "broadcast": {"self": True, "ack": True, "replay": {"since": 1_795_860_000_000}},
                        "presence": {"key": "me", "enabled": True},
                        "postgres_changes": [
                            {"event": "*", "schema": "public", "table": "todos"},
                            {"event": "INSERT", "schema": "other", "filter": "id=eq.1"},
                        ],
                        "private": True,
                    },
                    "access_token": "sb_token",
                }
            ]
        async with realtime.channel("plain"):
            assert (await told(server, "phx_join"))[1]["config"] == {
                "broadcast": {"self": False, "ack": False},
                "presence": {"key": "", "enabled": False},
                "postgres_changes": [],
                "private": False,
            }


async def test_replay_on_a_public_channel_is_refused_at_the_call(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime:
        with pytest.raises(ConfigurationError, match="private=True"):
            realtime.channel("room", broadcast=Broadcast(replay=datetime.now(UTC)))


async def test_a_private_channel_that_nobody_may_read_is_refused(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    server.unreadable.add("secret")
    async with connected(server) as realtime:
        with pytest.raises(JoinError, match="do not have permissions"):
            async with realtime.channel("secret", private=True):
                pytest.fail("the block must not be entered")


async def test_too_many_joins_are_refused_and_the_connection_is_replaced(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    server.joins_a_second = 2
    async with connected(server, reconnect=EXACT) as realtime:
        async with realtime.channel("a") as room, realtime.channel("b"):
            with pytest.raises(JoinError, match="Too many joins per second"):
                async with realtime.channel("c"):
                    pytest.fail("the block must not be entered")
            assert (await next_of(room, Gap)).reason == "reconnected"
            assert realtime.socket.generation == 2


async def test_the_channel_is_left_at_the_end_of_its_block(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime:
        async with realtime.channel("room") as room:
            assert len(server.rooms) == 1
        assert room.channel.status == "closed"
        assert server.rooms == []
        with pytest.raises(StopAsyncIteration):
            await next_event(room)
        async with realtime.channel("room") as room:
            assert room.channel.status == "joined"


async def test_an_exception_of_the_block_leaves_it_unchanged(server: SupabaseServer, autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connected(server) as realtime, realtime.channel("room"):
            raise ZeroDivisionError


async def test_a_cancelled_block_leaves_the_channel(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime:
        with trio.move_on_after(5) as scope:
            async with realtime.channel("room") as room:
                async for _ in room:
                    pytest.fail("nothing comes")
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert server.rooms == []


@pytest.mark.parametrize("vsn", ["2.0.0", "1.0.0"])
@pytest.mark.parametrize("receiver", ["2.0.0", "1.0.0"])
async def test_a_broadcast_reaches_the_others(
    vsn: str, receiver: str, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, vsn=vsn) as realtime, connected(server, vsn=receiver) as other:
        async with realtime.channel("room") as room, other.channel("room") as theirs:
            await room.send("hello", {"body": ["hi"]})
            await room.send("nothing")
            assert await next_event(theirs) == BroadcastReceived("hello", {"body": ["hi"]}, {})
            assert await next_event(theirs) == BroadcastReceived("nothing", {}, {})
            with trio.move_on_after(5):
                pytest.fail(f"its own, which it does not want: {await next_event(room)}")


async def test_bytes_are_sent_as_they_are(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime:
        async with realtime.channel("room", broadcast=Broadcast(self_=True)) as room:
            await room.send("blob", b"\x00\xff{")
            assert await next_event(room) == BroadcastReceived("blob", b"\x00\xff{", {})


@pytest.mark.parametrize(("vsn", "event"), [("1.0.0", "blob"), ("2.0.0", "é" * 128)])
async def test_bytes_that_cannot_be_sent_raise(
    vsn: str, event: str, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, vsn=vsn) as realtime, realtime.channel("room") as room:
        with pytest.raises(SerializationError):
            await room.send(event, b"blob")
        assert await told(server, "broadcast") == []


async def test_a_value_that_is_not_json_raises_with_its_place(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room") as room:
        with pytest.raises(SerializationError, match=r'payload"\]\["when'):
            await room.send("hi", {"when": datetime.now(UTC)})


async def test_an_acknowledged_broadcast_waits_for_its_reply(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime:
        async with realtime.channel("room", broadcast=Broadcast(ack=True)) as room:
            [connection] = server.phoenix.connections
            connection.pause_writing()
            with trio.move_on_after(3) as scope:
                await room.send("hi")
            assert scope.cancelled_caught
            await room.send("hi", ack=False)
            connection.resume_writing()
            await room.send("hi", ack=True)
            with pytest.raises(PushError, match="payload_size_exceeded"):
                await room.send("large", "x" * 1001)


async def test_without_acknowledgements_nothing_is_waited_for(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room") as room:
        server.phoenix.connections[0].pause_writing()
        await room.send("hi", ack=True)
        server.phoenix.connections[0].resume_writing()


async def test_broadcasts_of_the_database_are_replayed(server: SupabaseServer, autojump_clock: MockClock) -> None:
    server.stored = [("room", 1_000, "old", "note", {}), ("room", 3_000, "7c", "note", {"n": 1})]
    replay = Broadcast(replay=datetime.fromtimestamp(2, UTC))
    async with connected(server) as realtime, realtime.channel("room", broadcast=replay, private=True) as room:
        assert await next_event(room) == BroadcastReceived("note", {"n": 1}, {"replayed": True, "id": "7c"})


async def test_presences_are_tracked_and_untracked(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime, connected(server) as other:
        async with (
            realtime.channel("room", presence=Presence("me")) as room,
            other.channel("room", presence=Presence()) as theirs,
            theirs.channel.presence() as presence,
        ):
            assert await next_event(theirs) == PresenceSynced({}, {}, full=True)
            await room.track({"mood": "fine"})
            joined = await next_event(theirs)
            assert (joined.leaves, joined.full) == ({}, False)
            assert joined.joins["me"]["metas"][0]["mood"] == "fine"
            assert presence["me"]["metas"][0]["mood"] == "fine"
            await room.untrack()
            assert list((await next_event(theirs)).leaves) == ["me"]
            assert len(presence) == 0


async def test_a_presence_that_the_server_does_not_take_raises(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room", presence=Presence("me")) as room:
        with pytest.raises(PushError, match="must be a map"):
            await room.channel.push("presence", {"type": "presence", "event": "track", "payload": 1})


@pytest.mark.parametrize("loss", ["connection", "crash", "shut down"])
async def test_what_is_tracked_is_told_again_after_a_join(
    loss: str, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, reconnect=EXACT, rejoin=EXACT, rejoin_closed=True) as realtime:
        async with realtime.channel("room", presence=Presence("me")) as room:
            await room.track({"mood": "fine"})
            if loss == "connection":
                server.phoenix.connections[0].drop()
            elif loss == "crash":
                server.rooms[0].stop("crash")
            else:
                await server.shut_down("Too many messages per second")
            assert (await next_of(room, Gap)).reason == ("reconnected" if loss == "connection" else "rejoined")
            await trio.sleep(1)
            assert server.rooms[-1].tracked == {"mood": "fine"}
            await room.untrack()
            server.phoenix.connections[0].drop()
            await next_of(room, Gap)
            await trio.sleep(1)
            assert server.rooms[-1].tracked is None


# Wherever it is interrupted


@pytest.mark.parametrize("after", range(0, 60, 4))
async def test_a_cancellation_at_any_moment_leaves_nothing_behind(
    after: int, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, access_token=lambda: "sb_token") as realtime:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, after, scope)
                for number in range(20):
                    async with realtime.channel(f"room{number % 2}", broadcast=Broadcast(ack=True)) as room:
                        await room.send("hi")
                        await room.track({"n": number})
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert server.rooms == []
        async with realtime.channel("room0"), realtime.channel("room1"):
            assert len(server.rooms) == 2


async def cancel_after(passes: int, scope: trio.CancelScope) -> None:
    """Cancel after the scheduler was passed so often."""
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    scope.cancel()
