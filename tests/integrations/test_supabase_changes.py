"""Supabase Realtime: changes in Postgres, and messages that are not what they should be."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from tests.integrations.supabase_server import SupabaseServer, connected, id_of, next_event, next_of
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Gap,
    ProtocolError,
    SlowConsumer,
)
from slipstream_trio.integrations.supabase import (
    BadMessage,
    BroadcastReceived,
    PostgresChange,
    PostgresChanged,
    SystemMessage,
)

EXACT = Backoff((1,), jitter=0)
TODOS = PostgresChange(table="todos")


@pytest.fixture
async def server() -> AsyncIterator[SupabaseServer]:
    made = SupabaseServer(messages_a_second=5, most_bytes=1000)
    async with made.phoenix.run():
        yield made
        assert not made.phoenix.errors


async def test_changes_come_with_what_they_match(server: SupabaseServer, autojump_clock: MockClock) -> None:
    deleted = PostgresChange("DELETE", table="todos")
    one = PostgresChange("UPDATE", table="notes", filter="id=eq.1")
    async with connected(server) as realtime:
        async with realtime.channel("room", postgres_changes=[TODOS, deleted, one]) as room:
            await server.change("INSERT", "todos", {"id": 1, "text": "a"})
            await server.change("DELETE", "todos", None, {"id": 1})
            await server.change("UPDATE", "notes", {"id": 2}, {"id": 2})
            await server.change("UPDATE", "notes", {"id": 1}, {"id": 1})
            when = datetime(2026, 11, 28, 10, 11, 12, 345_000, tzinfo=UTC)
            columns = {"id": "int8"}
            assert [await next_event(room) for _ in range(3)] == [
                PostgresChanged("INSERT", "public", "todos", when, {"id": 1, "text": "a"}, None, columns, (), (TODOS,)),
                PostgresChanged("DELETE", "public", "todos", when, None, {"id": 1}, columns, (), (TODOS, deleted)),
                PostgresChanged("UPDATE", "public", "notes", when, {"id": 1}, {"id": 1}, columns, (), (one,)),
            ]


async def test_a_change_tells_why_values_are_missing(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[TODOS]) as room:
        for errors in (["Error 401: Unauthorized"], "Error 401: Unauthorized"):
            await server.change("INSERT", "todos", {}, commit_timestamp=None, columns=None, errors=errors)
            change = await next_event(room)
            assert change.errors == ("Error 401: Unauthorized",)
            assert (change.commit_timestamp, change.columns) == (None, {})


async def test_a_time_without_zone_is_in_utc(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[TODOS]) as room:
        await server.change("INSERT", "todos", {}, commit_timestamp="2026-11-28T10:00:00")
        assert (await next_event(room)).commit_timestamp == datetime(2026, 11, 28, 10, tzinfo=UTC)


async def test_a_kind_of_change_that_was_not_asked_for_is_passed_over(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    asked = PostgresChange("INSERT", table="todos")
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[asked]) as room:
        data = {"type": "DELETE", "schema": "public", "table": "todos", "old_record": {"id": 1}}
        ids = [id_of({"event": "INSERT", "schema": "public", "table": "todos"})]
        await server.rooms[0].tell("postgres_changes", {"ids": ids, "data": data})
        await server.change("INSERT", "todos", {"id": 2})
        assert (await next_event(room)).record == {"id": 2}


LISTS: dict[str, Any] = {
    "fewer": lambda changes: changes[:-1],
    "more": lambda changes: changes * 2,
    "other": lambda changes: [{**changes[0], "table": "other"}],
    "without id": lambda changes: [{key: value for key, value in changes[0].items() if key != "id"}],
    "odd id": lambda changes: [{**changes[0], "id": [1]}],
    "not objects": lambda changes: [1],
    "no list": lambda changes: "odd",
}


@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS)
async def test_a_list_of_other_changes_is_an_error(
    listed: Any, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    server.lists = listed
    async with connected(server) as realtime:
        with pytest.raises(ProtocolError, match="other postgres_changes"):
            async with realtime.channel("room", postgres_changes=[TODOS]):
                pytest.fail("the block must not be entered")
        await trio.sleep(1)
        assert server.rooms == []


async def test_a_list_of_other_changes_ends_a_channel_that_was_joined_again(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server, reconnect=EXACT) as realtime:
        async with realtime.channel("room", postgres_changes=[TODOS]) as room:
            server.lists = lambda changes: []
            server.phoenix.connections[0].drop()
            with pytest.raises(ProtocolError, match="other postgres_changes"):
                await next_of(room, PostgresChanged)
            await trio.sleep(1)
            assert (room.channel.status, server.rooms) == ("closed", [])
            with pytest.raises(ProtocolError, match="other postgres_changes"):
                await next_event(room)
    assert "is left" in caplog.text


async def test_ids_that_change_with_a_join_are_known(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, reconnect=EXACT) as realtime:
        async with realtime.channel("room", postgres_changes=[TODOS]) as room:
            server.lists = lambda changes: [{**change, "id": "new"} for change in changes]
            server.phoenix.connections[0].drop()
            await next_of(room, Gap)
            data = {"type": "INSERT", "schema": "public", "table": "todos", "record": {}}
            await server.rooms[0].tell("postgres_changes", {"ids": ["new"], "data": data})
            assert (await next_event(room)).matches == (TODOS,)


BAD: dict[str, tuple[str, Any]] = {
    "a broadcast without event": ("broadcast", {"type": "broadcast", "payload": 1}),
    "a broadcast that is a list": ("broadcast", [1]),
    "a broadcast with odd meta": ("broadcast", {"event": "x", "meta": 1}),
    "a change without ids": ("postgres_changes", {"data": {}}),
    "a change without data": ("postgres_changes", {"ids": [1]}),
    "a change of an unknown id": ("postgres_changes", {"ids": [1, [2], True], "data": {"type": "INSERT"}}),
    "a presence state without metas": ("presence_state", {"me": {}}),
    "a presence diff that is a string": ("presence_diff", "odd"),
    "a system message without status": ("system", {"extension": "system", "message": "x"}),
    "an unknown event": ("surprise", {}),
}


@pytest.mark.parametrize(("event", "payload"), BAD.values(), ids=BAD)
async def test_a_message_that_should_not_come_is_told_as_bad(
    event: str, payload: Any, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[TODOS]) as room:
        await server.rooms[0].tell(event, payload)
        bad = await next_event(room)
        assert isinstance(bad, BadMessage)
        assert (bad.message.event, bad.message.payload) == (event, payload)
        assert bad.problem
        assert isinstance(await next_event(room), SystemMessage)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "TRUNCATE"},
        {"type": None},
        {"schema": 1},
        {"table": None},
        {"commit_timestamp": "yesterday"},
        {"commit_timestamp": 1},
        {"columns": [1]},
        {"columns": {"id": "int8"}},
        {"record": [1]},
        {"old_record": "odd"},
        {"errors": 1},
    ],
    ids=repr,
)
async def test_a_change_that_should_not_come_is_told_as_bad(
    change: Any, server: SupabaseServer, autojump_clock: MockClock
) -> None:
    asked = {"event": "*", "schema": "public", "table": "todos"}
    data = {"type": "INSERT", "schema": "public", "table": "todos", "record": {}, **change}
    async with connected(server) as realtime, realtime.channel("room", postgres_changes=[TODOS]) as room:
        await server.rooms[0].tell("postgres_changes", {"ids": [id_of(asked)], "data": data})
        assert isinstance(await next_event(room), BadMessage)


async def test_a_slow_reader_is_told_and_goes_on(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, buffer=2) as realtime, realtime.channel("room") as room:
        for number in range(4):
            await server.rooms[0].tell("broadcast", {"event": "n", "payload": number})
            if not number:
                assert (await next_event(room)).payload == 0
        await wait_all_tasks_blocked()
        assert (await next_event(room)).payload == 1
        assert (await next_event(room)).payload == 2
        with pytest.raises(SlowConsumer):
            await next_event(room)
        await server.rooms[0].tell("broadcast", {"event": "n", "payload": 4})
        assert (await next_of(room, BroadcastReceived)).payload == 4


async def test_a_malformed_binary_frame_costs_nothing_else(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with connected(server) as realtime, realtime.channel("room") as room:
        await server.phoenix.connections[0].send_raw(b"\x04\xff", b"\x04", b"\x04\x0d\x01\x00\x07realtime:roomx{}")
        await server.rooms[0].tell("broadcast", {"event": "n", "payload": 1})
        assert (await next_event(room)).payload == 1
        assert realtime.socket.generation == 1
