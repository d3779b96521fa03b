"""Pushes, sends and joins across the end of a connection."""

import pytest
import trio
from tests.recovery.support import Outcomes, connected_again, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import (
    ChannelClosed,
    ConnectionLost,
    JoinTimeout,
    PushTimeout,
)
from slipstream_trio.testing.server import Refuse


async def test_a_push_in_flight_raises_connection_lost_that_may_have_been_sent(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            closes = [("close", {"code": code}, code) for code in (1000, 1012)]
            for event, payload, code in [("drop", None, 1006), *closes]:
                generation = socket.generation
                with pytest.raises(ConnectionLost) as caught:
                    await channel.push(event, payload)
                assert (caught.value.code, caught.value.sent) == (code, True)
                await connected_again(there, socket, generation + 1)
    assert [event for event, _ in there.pushed] == ["drop", "close", "close"]


async def test_a_push_that_was_not_written_says_so(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.connection.pause_reading()
            done = Outcomes(nursery)
            # The first fills the pipe, and the writer is stuck in it; the second is never taken.
            done.start("written", channel.push, "echo", "x" * 200_000)
            await settle()
            done.start("waiting", channel.push, "echo", 2)
            await settle()
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert [(done.by[key].reason, done.by[key].sent) for key in ("written", "waiting")] == [
                ("lost", True),
                ("lost", False),
            ]
            await until(lambda: channel.status == "joined")
            assert await channel.push("echo", 3) == 3
    assert there.pushed == [("echo", 3)]


async def test_a_send_that_was_not_written_is_told_by_telemetry(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.connection.pause_reading()
            nursery.start_soon(channel.send, "big", "x" * 200_000)
            await settle()
            await channel.send("small", 1)
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.told("message_dropped", "direction", "topic", "event", "reason") == [
        ("out", "room:1", "small", "lost")
    ]
    assert there.pushed == []


async def test_a_push_made_meanwhile_waits_for_the_rejoin(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.joins["room:1"].append("refuse")
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            done = Outcomes(nursery)
            done.start("push", channel.push, "echo", 1)
            done.start("send", channel.send, "note", 2)
            await until(lambda: len(done.by) == 2)
    assert done.by == {"push": 1, "send": None}
    assert done.at == {"push": 2, "send": 2}  # a back-off of the socket's, one of the channel's
    assert sorted(there.pushed) == [("echo", 1), ("note", 2)]


async def test_a_push_made_meanwhile_times_out_in_time_and_is_never_sent(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.upgrades.append(Refuse(500))
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            began = trio.current_time()
            with pytest.raises(PushTimeout) as caught:
                await channel.push("echo", 1, timeout=0.5)
            assert caught.value.timeout == 0.5
            assert trio.current_time() - began == pytest.approx(0.5)
            await connected_again(there, socket, 2)
            await until(lambda: channel.status == "joined")
    assert there.pushed == []


async def test_the_time_waited_counts_against_the_pushs_timeout(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            began = trio.current_time()
            with pytest.raises(PushTimeout):
                await channel.push("silence", timeout=3)
            assert trio.current_time() - began == pytest.approx(3)
    assert there.pushed == [("silence", {})]


@pytest.mark.once
async def test_many_pushes_made_meanwhile_are_sent_once_each(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            done = Outcomes(nursery)
            for number in range(1000):
                done.start(number, channel.push, "echo", number)
            await until(lambda: len(done.by) == 1000)
    assert done.by == {number: number for number in range(1000)}
    assert sorted(payload for _, payload in there.pushed) == list(range(1000))


async def test_a_push_made_meanwhile_ends_with_the_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin=None) as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            there.joins["room:1"].append("refuse")
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            done = Outcomes(nursery)
            done.start("push", channel.push, "echo")
            done.start("send", channel.send, "echo")
            await until(lambda: len(done.by) == 2)
    for error in done.by.values():
        assert isinstance(error, ChannelClosed)
        assert error.reason == "join_refused"


async def test_a_push_that_waits_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            with trio.move_on_after(0.2) as waiting:
                await channel.push("echo", 1)
            assert waiting.cancelled_caught
            with trio.move_on_after(0.2) as waiting:
                await channel.send("echo", 1)
            assert waiting.cancelled_caught
            await connected_again(there, socket, 2)
    assert there.pushed == []


async def test_a_join_in_progress_raises_connection_lost(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.joins["room:1"].append("hang")
            async with trio.open_nursery() as nursery:
                channel = socket.channel("room:1")
                done = Outcomes(nursery)
                done.start("join", channel.join)
                await settle()
                assert status_of(channel) == "joining"
                there.connection.close(1012)
                await connected_again(there, socket, 2)
            assert isinstance(done.by["join"], ConnectionLost)
            assert done.by["join"].code == 1012
            assert status_of(channel) == "closed"
            await channel.join()
            assert status_of(channel) == "joined"
    assert [topic for _, topic, _ in there.asked] == ["room:1", "room:1"]


async def test_a_join_made_meanwhile_waits_for_the_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            async with socket.join("room:1") as channel:
                assert socket.generation == 2
                assert channel.last_gap is None  # nothing was joined, nothing was missed
                assert await channel.push("echo", 1) == 1


async def test_a_join_made_meanwhile_times_out_in_time(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(500))
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            channel = socket.channel("room:1")
            began = trio.current_time()
            with pytest.raises(JoinTimeout):
                await channel.join(timeout=0.5)
            assert trio.current_time() - began == pytest.approx(0.5)
            assert status_of(channel) == "closed"
            await connected_again(there, socket, 2)
            assert there.asked == []
            await channel.join()


async def test_the_time_waited_counts_against_the_joins_timeout(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.joins["room:1"].append("hang")
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            began = trio.current_time()
            with pytest.raises(JoinTimeout) as caught:
                await socket.channel("room:1").join(timeout=3)
            assert trio.current_time() - began == pytest.approx(3)
            assert caught.value.timeout == 3
            there.connection.drop()


async def test_a_push_after_the_loss_but_before_anybody_noticed_is_settled(autojump_clock: MockClock) -> None:
    """The server is gone, and the client does not know yet."""
    async with world() as there:
        async with there.connect(heartbeat_interval=2) as socket, socket.join("room:1") as channel:
            there.connection.pause_reading()
            with pytest.raises(ConnectionLost) as caught:
                await channel.push("echo", 1, timeout=60)
            assert caught.value.reason == "heartbeat_timeout"
            assert caught.value.sent
            # Made while it is closing: waits for the next.
            assert await channel.push("echo", 2, timeout=60) == 2
            assert socket.generation == 2
            there.server.connections[0].drop()


async def test_a_ping_in_flight_raises_connection_lost(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            there.connection.pause_reading()
            done = Outcomes(nursery)
            done.start("ping", socket.ping)
            await settle()
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert isinstance(done.by["ping"], ConnectionLost)
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            with pytest.raises(ConnectionLost):
                await socket.ping()
            await socket.wait_connected()
            assert await socket.ping() == 0


async def test_the_reply_of_an_older_connections_push_is_not_a_newer_ones(autojump_clock: MockClock) -> None:
    """Refs go on across connections, so that what is told late of the one is of nothing on the next."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            done.start("old", channel.push, "silence", 1)
            await settle()
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert isinstance(done.by["old"], ConnectionLost)
            assert await channel.push("echo", "new") == "new"
    refs = [record.metadata["ref"] for record in there.records_of("client", "push", "stop")]
    assert refs == ["2", "4"]
