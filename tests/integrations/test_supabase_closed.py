"""Supabase Realtime: system messages, and channels that the server shuts down."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from tests.integrations.supabase_server import SupabaseServer, connected, next_event, next_of, told
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    ChannelClosed,
    Gap,
    JoinError,
)
from slipstream_trio.integrations.supabase import (
    BroadcastReceived,
    PostgresChange,
    RealtimeChannel,
    SystemMessage,
)

AGAIN: dict[str, Any] = {"rejoin_closed": True, "rejoin": Backoff((1,), jitter=0)}
TODOS = PostgresChange(table="todos")


@pytest.fixture
async def server() -> AsyncIterator[SupabaseServer]:
    made = SupabaseServer(messages_a_second=5, most_bytes=1000)
    async with made.phoenix.run():
        yield made
        assert not made.phoenix.errors


async def test_system_messages_are_told(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[TODOS]) as room:
        assert await next_event(room) == SystemMessage("postgres_changes", "ok", "Subscribed to PostgreSQL")


async def test_a_system_error_is_told_and_logged_and_the_channel_goes_on(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server) as realtime:
        async with realtime.channel("room", postgres_changes=[PostgresChange(table="unknown")]) as room:
            event = await next_event(room)
            assert (event.status, event.message[:19]) == ("error", "Unable to subscribe")
            await room.send("hi")
            assert room.channel.status == "joined"
    assert "Unable to subscribe" in caplog.text


async def test_a_channel_that_is_shut_down_ends_with_the_servers_reason(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room") as room:
        for _ in range(6):
            await room.send("hi")
        assert await next_event(room) == SystemMessage("system", "error", "Too many messages per second")
        for _ in range(2):
            with pytest.raises(ChannelClosed, match="Too many messages per second"):
                await next_event(room)
        with pytest.raises(ChannelClosed):
            await room.send("hi")


async def test_a_channel_that_is_closed_without_a_word_just_ends(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room") as room:
        server.rooms[0].stop("normal")
        assert [event async for event in room] == []


async def test_a_channel_that_is_shut_down_is_joined_again_by_choice(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, **AGAIN) as realtime, realtime.channel("room") as room:
        for _ in range(6):
            await room.send("hi")
        begun = trio.current_time()
        assert [type(await next_event(room)) for _ in range(2)] == [SystemMessage, Gap]
        assert trio.current_time() == pytest.approx(begun + 1, abs=0.1)
        await server.rooms[0].tell("broadcast", {"type": "broadcast", "event": "back", "payload": 1})
        assert await next_event(room) == BroadcastReceived("back", 1, {})
        server.rooms[0].stop("normal")
        assert isinstance(await next_event(room), Gap)


async def test_it_is_joined_again_though_nobody_reads_and_sends_wait_for_that(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, **AGAIN) as realtime, realtime.channel("room") as room:
        await server.shut_down("Too many messages per second")
        await wait_all_tasks_blocked()
        await room.send("hi")
        assert trio.current_time() == pytest.approx(1, abs=0.1)
        assert await told(server, "broadcast")


async def test_a_join_anew_that_is_refused_is_tried_again(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, **AGAIN) as realtime, realtime.channel("room", private=True) as room:
        server.unreadable.add("room")
        await server.shut_down("Too many messages per second")
        await trio.sleep(3.5)
        server.unreadable.clear()
        assert await next_of(room, Gap)
        assert len(await told(server, "phx_join")) == 5


async def test_joins_anew_are_given_up_at_the_limit(server: SupabaseServer, autojump_clock: MockClock) -> None:
    patience = Backoff((1,), jitter=0, limit=2)
    async with connected(server, rejoin_closed=True, rejoin=patience) as realtime:
        async with realtime.channel("room", private=True) as room:
            server.unreadable.add("room")
            await server.shut_down("You no longer have permission to read")
            with pytest.raises(JoinError, match="do not have permissions"):
                await next_of(room, Gap)
            assert len(await told(server, "phx_join")) == 3


async def test_all_readers_come_to_the_end(server: SupabaseServer, autojump_clock: MockClock) -> None:
    ended = []

    async def read(room: RealtimeChannel) -> None:
        with pytest.raises(ChannelClosed, match="enough"):
            async for _ in room:
                pass
        ended.append(room)

    async with connected(server) as realtime, realtime.channel("room") as room, trio.open_nursery() as nursery:
        nursery.start_soon(read, room)
        nursery.start_soon(read, room)
        await wait_all_tasks_blocked()
        await server.shut_down("enough")
    assert ended == [room, room]
