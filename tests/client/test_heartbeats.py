"""Heartbeats and pings."""

from contextvars import ContextVar

import pytest
import trio
import trio.lowlevel
from tests.client.support import URL, running, scripted
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, Socket, connect
from slipstream_trio.telemetry import HandleStart, Telemetry
from slipstream_trio.testing.server import Channel

JOINS = frozenset({"phx_join", "phx_leave"})


class Slow(Channel):
    async def join(self, payload: float) -> None:
        await trio.sleep(payload)


async def test_heartbeats_are_sent_at_the_interval(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=10) as (_, peer):
        await trio.sleep(9.9)
        assert peer.count("heartbeat") == 0
        await trio.sleep(0.2)
        assert peer.sent == [(None, "1", "phoenix", "heartbeat", {})]
        await trio.sleep(90)
        assert peer.count("heartbeat") == 10


async def test_the_default_interval_is_half_of_what_phoenix_allows(autojump_clock: MockClock) -> None:
    async with scripted() as (_, peer):
        await trio.sleep(3601)
        assert peer.count("heartbeat") == 120


async def test_without_an_interval_none_are_sent_and_the_server_hangs_up(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (_, peer):
        await trio.sleep(1000)
        assert peer.sent == []
    with pytest.raises(ConnectionLost) as raised:
        async with (
            running() as server,
            connect(URL, transport=server.connector(), reconnect=None, heartbeat_interval=None),
        ):
            await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("closed_by_server", 1002)
    assert 1060 <= trio.current_time() < 1061


@pytest.mark.parametrize(("options", "seconds"), [({}, 20), ({"heartbeat_timeout": 3}, 13)])
async def test_a_heartbeat_that_is_not_answered_ends_the_connection(
    options: dict[str, float], seconds: float, autojump_clock: MockClock
) -> None:
    with pytest.raises(ConnectionLost) as raised:
        async with scripted(answers=JOINS, heartbeat_interval=10, **options) as (_, peer):
            await trio.sleep_forever()
    assert raised.value.reason == "heartbeat_timeout"
    assert trio.current_time() == pytest.approx(seconds)
    assert peer.closed_with == (1000, "heartbeat_timeout")


async def test_a_message_counts_where_the_transport_does_not_tell_what_it_heard(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat_timeout"):
        async with scripted(answers=JOINS, heartbeat_interval=10, heartbeat_timeout=5) as (_, peer):
            await trio.sleep(13)
            peer.message("room", "tick")
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(18)


async def test_what_a_transport_heard_counts_though_no_message_is_whole_yet(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat_timeout"):
        async with scripted(answers=JOINS, heartbeat_interval=10, heartbeat_timeout=5) as (_, peer):
            await trio.sleep(13)
            peer.heard = trio.current_time()
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(18)


async def test_a_dead_server_has_a_second_to_answer_the_close(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost) as raised:
        async with scripted(answers=JOINS, heartbeat_interval=10, heartbeat_timeout=3) as (_, peer):
            peer.answers_close = False
            peer.pause()
            await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("heartbeat_timeout", 1006)
    assert trio.current_time() == pytest.approx(14)
    assert peer.closed_with is None
    assert peer.left


async def test_no_limit_for_the_answer_means_half_a_minute(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat_timeout"):
        async with scripted(answers=JOINS, heartbeat_interval=10, heartbeat_timeout=None) as (_, peer):
            await trio.sleep(39)
            assert peer.count("heartbeat") == 1
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(40)


async def test_a_ping_is_a_heartbeat_and_gives_the_round_trip(autojump_clock: MockClock) -> None:
    async with scripted(answers=JOINS) as (socket, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            heartbeat = await peer.wait_sent("heartbeat")
            await trio.sleep(0.25)
            peer.reply(heartbeat)

        nursery.start_soon(answer)
        assert await socket.ping() == pytest.approx(0.25)
        assert peer.sent == [(None, "1", "phoenix", "heartbeat", {})]


async def test_a_ping_that_is_cancelled_before_sends_nothing(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await socket.ping()
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert peer.sent == []


async def test_pings_share_the_heartbeat_that_is_outstanding(autojump_clock: MockClock) -> None:
    trips: list[float] = []

    async def ping(socket: Socket) -> None:
        trips.append(await socket.ping())

    async with scripted(answers=JOINS, heartbeat_interval=10) as (socket, peer):
        await trio.sleep(10.5)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ping, socket)
            await trio.sleep(0.5)
            assert peer.count("heartbeat") == 1
            peer.reply(peer.sent[0])
    assert trips == [pytest.approx(1)] * 3


async def test_a_ping_can_be_cancelled_and_the_next_shares_its_heartbeat(autojump_clock: MockClock) -> None:
    async with scripted(answers=JOINS) as (socket, peer), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await socket.ping()
        nursery.start_soon(socket.ping)
        await trio.sleep(1)
        assert peer.count("heartbeat") == 1
        peer.reply(peer.sent[0])


async def test_a_ping_that_is_not_answered_ends_the_connection(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat_timeout"):
        async with scripted(answers=JOINS, heartbeat_timeout=3) as (socket, _):
            await socket.ping()
    assert trio.current_time() == pytest.approx(3)


async def test_a_ping_while_the_connection_is_closed_tells_why(autojump_clock: MockClock) -> None:
    async with running() as server, connect(URL, transport=server.connector(), heartbeat_interval=10) as socket:
        server.connections[0].pause_reading()
        server.connections[0].pause_writing()
        await trio.sleep(21)
        assert (socket.status, socket.state.status) == ("connected", "closing")
        with pytest.raises(ConnectionLost) as raised:
            await socket.ping()
    assert raised.value.reason == "heartbeat_timeout"


async def test_a_slow_join_extends_the_deadline_of_the_heartbeat(autojump_clock: MockClock) -> None:
    options = {"heartbeat_interval": 10, "heartbeat_timeout": 3, "join_timeout": None}
    async with scripted(answers={"phx_leave"}, **options) as (socket, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.sleep(18)
            peer.answers.add("heartbeat")
            peer.reply(peer.sent[0])
            peer.reply(peer.sent[1])

        nursery.start_soon(answer)
        async with socket.join("room"):
            assert trio.current_time() == pytest.approx(18)
            assert peer.count("heartbeat") == 1
            await trio.sleep(21)
        assert peer.count("heartbeat") == 3


async def test_a_join_that_blocks_the_whole_server_is_survived(autojump_clock: MockClock) -> None:
    async with running(channels={"slow:*": Slow}) as server:
        options = {"heartbeat_interval": 10.0, "heartbeat_timeout": 5.0, "join_timeout": 120.0}
        async with connect(URL, transport=server.connector(), reconnect=None, **options) as socket:  # type: ignore[arg-type]
            async with socket.join("slow:1", 24), socket.join("lab:1") as channel:
                await trio.sleep(60)
                assert await channel.push("echo", 1) == 1


async def test_the_time_for_the_answer_runs_from_when_the_heartbeat_was_written(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat"):
        async with scripted(answers={"phx_join"}, heartbeat_interval=30, heartbeat_timeout=10) as (socket, peer):
            began = trio.current_time()
            channel = socket.channel("room")
            await channel.join()
            peer.pause()
            await channel.send("event")  # its write goes on until the heartbeat has waited for 5 seconds
            await trio.sleep(35)
            peer.resume()
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(45, abs=0.1)


async def test_a_heartbeat_behind_a_write_that_makes_progress_is_not_overdue(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=30, heartbeat_timeout=10) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        await trio.sleep(31)  # one heartbeat has been written and answered
        for began in (False, True):
            await trio.sleep(0 if began else 24)
            peer.pause()
            if not began:
                await channel.send("event")  # its write goes on until the next heartbeat has waited for some seconds
            for _ in range(5 if began else 2):
                peer.write_blocked_since = trio.current_time()
                await trio.sleep(4)
            peer.resume()
            peer.write_blocked_since = None
            if not began:
                peer.pause()
                await trio.lowlevel.checkpoint()
        await trio.sleep(60)
        assert (socket.status, socket.generation) == ("connected", 1)


async def test_what_is_due_is_handled_in_the_context_of_connect(autojump_clock: MockClock) -> None:
    variable = ContextVar("variable", default="outside")
    seen: list[str] = []
    bus = Telemetry()
    variable.set("connect")
    async with scripted(telemetry=bus, heartbeat_interval=10):
        variable.set("later")
        bus.attach("context", HandleStart.name, lambda _: seen.append(variable.get()))
        await trio.sleep(15)
        bus.detach("context")
    assert set(seen) == {"connect"}


async def test_what_is_written_after_a_heartbeat_is_no_answer_to_it(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="heartbeat"):
        async with scripted(answers=JOINS, heartbeat_interval=10, heartbeat_timeout=3) as (socket, _):
            channel = socket.channel("room")
            await channel.join()
            for _ in range(20):
                await channel.send("event")
                await trio.sleep(1)
    assert trio.current_time() == pytest.approx(13)


async def test_nothing_is_kept_of_a_ping(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        await socket.ping()
        peer.answers.discard("heartbeat")
        with trio.move_on_after(1):
            await socket.ping()
        assert not socket._pings
