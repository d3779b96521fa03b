"""What telemetry says of recovery: names, metadata and when."""

from datetime import datetime
from typing import Any

import pytest
import trio
from tests.peers import World
from tests.recovery.support import connected_again, settle, until, world
from trio.testing import MockClock

from slipstream_trio import PushTimeout
from slipstream_trio.telemetry import ClientJoinStop, Record
from slipstream_trio.testing.server import Refuse

IDS = {"connection_id", "trace_id", "socket_id", "generation", "start_time"}


def only(there: World, event: str) -> Record:
    (record,) = there.records_of("client", event)
    return record


def more_of(record: Record) -> dict[str, Any]:
    """Return the metadata beyond the ids, which every record has."""
    assert set(record.metadata) >= IDS
    assert isinstance(record.metadata["start_time"], datetime)
    assert set(record.measurements) == {"system_time", "monotonic_time"}
    return {key: value for key, value in record.metadata.items() if key not in IDS}


async def test_each_reconnect_is_announced_with_delay_attempt_and_reason(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            lost = socket.connection_id
            there.upgrades.append(Refuse(503))
            there.connection.close(1012)
            await connected_again(there, socket, 2)
    first, second = there.records_of("client", "reconnect_scheduled")
    assert more_of(first) == {
        "delay": 1,
        "attempt": 1,
        "reason": "closed_by_server",
        "code": 1012,
        "status": None,
    }
    assert more_of(second) == {"delay": 2, "attempt": 2, "reason": "rejected", "code": None, "status": 503}
    assert first.metadata["connection_id"] == lost
    assert second.metadata["connection_id"] != lost
    names = [record.name for record in there.records]
    # After the end of the connection, before the next begins.
    assert names.index(("slipstream", "connection", "connect", "stop")) < names.index(first.name)
    assert there.records.index(first) < there.records.index(there.records_of("connection", "connect", "start")[1])


async def test_nothing_is_scheduled_that_will_not_be(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1"):
            pass
        async with there.connect() as socket:
            await socket.disconnect()
    assert there.records_of("client", "reconnect_scheduled") == []
    assert there.records_of("client", "rejoin_scheduled") == []
    assert there.records_of("client", "gap") == []


async def test_each_rejoin_is_announced_with_delay_attempt_and_reason(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append("refuse")
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await until(lambda: channel.status == "joined")
    crashed, refused = there.records_of("client", "rejoin_scheduled")
    assert more_of(crashed) == {"topic": "room:1", "delay": 1, "attempt": 1, "reason": "crashed"}
    assert more_of(refused) == {"topic": "room:1", "delay": 2, "attempt": 2, "reason": "refused"}


async def test_a_rejoin_with_the_next_connection_is_not_scheduled(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1"):
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.records_of("client", "rejoin_scheduled") == []
    joins = there.records_of("client", "join", "stop")
    assert [(record.metadata["outcome"], record.metadata["generation"]) for record in joins] == [("ok", 1), ("ok", 2)]


async def test_a_gap_is_emitted_as_the_channel_has_it(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.drop()
            await connected_again(there, socket, 2)
            gap = channel.last_gap
            assert gap is not None
            record = only(there, "gap")
            assert more_of(record) == {
                "topic": "room:1",
                "reason": "reconnected",
                "since": gap.since,
                "until": gap.until,
                "dropped": 0,
            }
            assert record.metadata["connection_id"] == socket.connection_id
            assert record.metadata["generation"] == 2


async def test_an_overflow_is_emitted_when_it_begins_and_ends(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(buffer=2) as socket, socket.join("room:1") as channel:
            await channel.push("burst", {"n": 5})
    began, ended = there.records_of("client", "overflow")
    buffer = {"topic": "room:1", "policy": "raise", "buffer": 2, "consumer": "channel"}
    assert more_of(began) == {**buffer, "phase": "began", "dropped": 1}
    assert more_of(ended) == {**buffer, "phase": "ended", "dropped": 3}
    assert {"topic": "room:1", "reason": "overflow", "dropped": 3}.items() <= more_of(only(there, "gap")).items()


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
async def test_a_reply_that_comes_too_late_is_emitted_as_orphaned(reason: str, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            if reason == "timeout":
                with pytest.raises(PushTimeout):
                    await channel.push("late", 2, timeout=1)
            else:
                with trio.move_on_after(1):
                    await channel.push("late", 2)
            await trio.sleep(5)
    record = only(there, "reply_orphaned")
    assert more_of(record) == {"topic": "room:1", "ref": "2", "status": "ok", "response": {}, "reason": reason}
    assert record.metadata["start_time"].timestamp() == 1_700_000_002


async def test_a_push_given_up_on_another_connection_orphans_nothing(autojump_clock: MockClock) -> None:
    """Refs begin anew with each connection."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            with pytest.raises(PushTimeout):
                await channel.push("late", 2, timeout=1)
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert await channel.push("echo", 1) == 1
    assert there.records_of("client", "reply_orphaned") == []


async def test_message_dropped_on_its_way_in(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1"):
            await there.connection.send_raw(
                '["77", null, "room:1", "tick", {}]', '[null, "5", "else", "tick", {}]', "nonsense"
            )
            await settle()
    old, unknown, bad = there.records_of("client", "message_dropped")
    assert more_of(old) == {
        "direction": "in",
        "topic": "room:1",
        "event": "tick",
        "ref": None,
        "reason": "outdated_join_ref",
        "frame": None,
    }
    assert more_of(bad)["frame"] == "nonsense"
    assert more_of(unknown)["reason"] == "not_joined"
    assert more_of(unknown)["ref"] == "5"
    assert (more_of(bad)["topic"], more_of(bad)["event"]) == (None, None)


async def test_message_dropped_on_its_way_out(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.connection.pause_reading()
            nursery.start_soon(channel.send, "big", "x" * 200_000)
            await settle()
            await channel.send("small")
            there.connection.close(1011)
            there.connection.drop()
            await connected_again(there, socket, 2)
    record = only(there, "message_dropped")
    assert more_of(record)["direction"] == "out"
    assert (more_of(record)["topic"], more_of(record)["event"]) == ("room:1", "small")


async def test_connect_spans_of_every_attempt(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.extend([Refuse(500, [("x-why", "rain")]), ConnectionRefusedError("nobody")])
            there.connection.drop()
            await connected_again(there, socket, 2)
            there.connection.drop()
            await connected_again(there, socket, 3)
    starts = there.records_of("client", "connect", "start")
    stops = there.records_of("client", "connect", "stop")
    assert [record.metadata["attempt"] for record in starts] == [1, 1, 2, 3, 1]
    assert [record.metadata["outcome"] for record in stops] == ["ok", "error", "error", "ok", "ok"]
    assert [record.metadata["generation"] for record in stops] == [1, 2, 2, 2, 3]
    assert ("x-why", "rain") in stops[1].metadata["response_headers"]


async def test_a_push_that_waited_has_one_span_that_ends_on_the_new_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            await channel.push("echo", 1)
    (start,) = there.records_of("client", "push", "start")
    (stop,) = there.records_of("client", "push", "stop")
    assert start.metadata["generation"] == 1
    assert stop.metadata["generation"] == 2
    assert stop.metadata["outcome"] == "ok"


async def test_outcomes_of_what_the_loss_ended(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.joins["room:2"].append("hang")

            async def fail(operation: Any) -> None:
                with pytest.raises(Exception, match="lost"):
                    await operation

            nursery.start_soon(fail, channel.push("silence"))
            nursery.start_soon(fail, socket.channel("room:2").join())
            await settle()
            there.connection.drop()
            await connected_again(there, socket, 2)
    (push,) = there.records_of("client", "push", "stop")
    assert push.metadata["outcome"] == "lost"
    joins = there.records_of("client", "join", "stop")
    assert [record.metadata["outcome"] for record in joins] == ["ok", "lost", "ok"]


async def test_with_nobody_listening_everything_works_the_same(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.telemetry.detach("world")
        async with there.connect(buffer=2) as socket, socket.join("room:1") as channel:
            there.joins["room:1"].append("refuse")
            there.upgrades.append(Refuse(500))
            there.connection.drop()
            await until(lambda: socket.generation == 2 and channel.status == "joined")
            await channel.push("burst", {"n": 5})
            await channel.send("crash")
            await until(lambda: channel.status == "errored")
            await until(lambda: channel.status == "joined")
            with trio.move_on_after(0.1):
                await channel.push("late", 0.2)
            await trio.sleep(1)
            assert channel.last_gap is not None
    assert there.records == []


async def test_a_rejoin_has_not_waited_as_its_span_begins_when_it_is_sent(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await channel.send("crash")
            await until(lambda: channel.last_gap is not None)
    stops = [record for record in there.records if isinstance(record, ClientJoinStop)]
    assert [(stop.outcome, stop.waited) for stop in stops] == [("ok", 0), ("ok", 0)]
