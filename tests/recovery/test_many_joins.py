"""Joins go in a window, at a pace, and by turns."""

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from tests.client.support import PHOENIX, Scripted
from tests.recovery.support import Outcomes, settle
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    Channel,
    ChannelClosed,
    Client,
    ConnectionLost,
    JoinTimeout,
    Socket,
    connect,
    run_client,
)
from slipstream_trio.protocol import JoinTopic
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.faults import Faults, Link, faulty_network
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.testing.server import Channel as ServerChannel, Connection, Mount, PhoenixServer
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"


class Rooms:
    """A server whose joins take some time, and are counted.

    Parameters:
        seconds: how long each takes.
        allowed: joins in a second of one connection, beyond which it hangs up.
    """

    def __init__(self, seconds: float = 0.0, allowed: int | None = None) -> None:
        self.joins = 0
        self.asked: Counter[str] = Counter()
        self.hung_up = 0
        self.server = PhoenixServer({"/socket": Mount(channels={"room:*": self._room}, max_channels=None)})
        self._seconds = seconds
        self._allowed = allowed
        self._times: dict[Connection, list[float]] = {}

    def _room(self) -> ServerChannel:
        rooms = self

        class Room(ServerChannel):
            async def join(self, payload: Any) -> Any:
                rooms.joins += 1
                rooms.asked[self.topic] += 1
                rooms.count(rooms.server.connections[-1])
                await trio.sleep(rooms._seconds)
                return {}

            async def handle_in(self, event: str, payload: Any, ref: Any) -> None:
                """Answer nothing."""

        return Room()

    def count(self, connection: Connection) -> None:
        times = self._times.setdefault(connection, [])
        now = trio.current_time()
        times[:] = [time for time in times if time > now - 1] + [now]
        if self._allowed is not None and len(times) > self._allowed:
            self.hung_up += 1
            connection.drop()


async def joined(socket: Socket, count: int) -> list[Channel]:
    channels = [socket.channel(f"room:{number}") for number in range(count)]
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(channel.join)
    return channels


async def until(condition: Callable[[], bool], within: float) -> float:
    """Return the seconds after which a condition holds."""
    began = trio.current_time()
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - conditions of many objects, in virtual time
            await trio.sleep(0.1)
    return trio.current_time() - began


@pytest.mark.parametrize("joins", [300, pytest.param(2000, marks=pytest.mark.once)])
async def test_many_joins_over_a_long_line_take_few_round_trips(joins: int, autojump_clock: MockClock) -> None:
    rooms = Rooms()
    line = Faults(seed=1, toward_client=Link(latency=0.025), toward_server=Link(latency=0.025))
    async with rooms.server.run(), faulty_network(line) as network:
        connector = TrioWebSocketConnector(network.opener(lambda _: rooms.server.open_stream()))
        async with connect(URL, transport=connector) as socket:
            began = trio.current_time()
            channels = await joined(socket, joins)
            assert trio.current_time() - began < 2
            assert {channel.status for channel in channels} == {"joined"}
            assert rooms.joins == joins


@pytest.mark.parametrize(("channels", "seconds"), [(100, 0.3), (50, 1.0), (20, 12.0)])
async def test_channels_whose_join_is_slow_are_back_after_a_restart_with_one_join_each(
    channels: int, seconds: float, autojump_clock: MockClock
) -> None:
    rooms = Rooms(seconds)
    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), join_timeout=10 if seconds < 10 else 15) as socket,
    ):
        held = await joined(socket, channels)
        rooms.joins = 0
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: socket.generation >= 2, 5)
        took = await until(lambda: all(channel.status == "joined" for channel in held), channels * seconds * 1.2)
        assert took <= channels * seconds * 1.1
        assert rooms.joins == channels
        assert socket.generation == 2


async def test_a_rejoin_that_takes_longer_than_its_time_is_not_asked_again(autojump_clock: MockClock) -> None:
    rooms = Rooms(25.0)
    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), join_timeout=10, heartbeat_interval=20) as socket,
    ):
        channel = socket.channel("room:1")
        await channel.join(timeout=60)
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: socket.generation >= 2, 5)
        took = await until(lambda: channel.status == "joined", 60)
        assert took == pytest.approx(25, abs=1)
        assert rooms.joins == 2


async def test_a_rejoin_that_the_server_passed_over_is_asked_again_by_the_backoff(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), join_timeout=5, rejoin=Backoff((3,), jitter=0)) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        await (await connection.expect_join()).reply_ok()
        await trio.sleep(0.1)
        await connection.drop()
        connection = await server.accept()
        await connection.expect_join("room:1")  # and never answers it
        await connection.refute_join("room:1", within=25)
        await connection.expect_message(event="heartbeat", within=10)  # which was sent after it, and is answered
        await (await connection.expect_join("room:1", within=5)).reply_ok()
        await trio.sleep(0.1)
        assert (channel.status, socket.generation) == ("joined", 2)


async def test_a_rejoin_that_the_server_passed_over_ends_the_channel_where_rejoin_is_none(
    autojump_clock: MockClock,
) -> None:
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), join_timeout=5, rejoin=None) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel = socket.channel("room:1")
        nursery.start_soon(channel.join)
        await (await connection.expect_join()).reply_ok()
        await trio.sleep(0.1)
        await connection.drop()
        connection = await server.accept()
        await connection.expect_join("room:1")
        with pytest.raises(ChannelClosed, match="did not answer its join in time"):
            async for _ in channel:
                pytest.fail("nothing was sent")
        assert channel.status == "closed"


async def test_channels_are_back_and_stay_at_a_server_that_hangs_up_on_fast_joins(autojump_clock: MockClock) -> None:
    rooms = Rooms(allowed=20)
    async with rooms.server.run(), connect(URL, transport=rooms.server.connector()) as socket:
        held = [socket.channel(f"room:{number}") for number in range(60)]
        for channel in held:
            await channel.join()
            await trio.sleep(0.1)
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: socket.generation >= 2, 5)
        took = await until(lambda: all(channel.status == "joined" for channel in held), 15)
        assert took <= 15
        generation = socket.generation
        await trio.sleep(60)
        assert socket.generation == generation
        assert {channel.status for channel in held} == {"joined"}


async def test_users_joins_go_before_the_librarys(autojump_clock: MockClock) -> None:
    rooms = Rooms(1.0)
    bus, order = Telemetry(), list[str]()

    def handler(record: Record) -> None:
        given = record.metadata["raw_message"]
        if isinstance(given, JoinTopic):
            order.append(given.topic)

    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), telemetry=bus, join_window=2) as socket,
    ):
        await joined(socket, 10)
        [connection] = await rooms.server.wait_connections()
        bus.attach("order", ("slipstream", "connection", "handle", "start"), handler)
        connection.drop()
        await until(lambda: socket.generation >= 2, 5)
        async with socket.join("room:mine"):
            pass
        assert order.index("room:mine") <= 2


async def test_a_users_join_has_its_time_from_its_turn(autojump_clock: MockClock) -> None:
    rooms = Rooms(3.0)
    async with rooms.server.run(), connect(URL, transport=rooms.server.connector(), join_timeout=5) as socket:
        channels = await joined(socket, 10)  # the last of them is answered after 30 seconds
        assert {channel.status for channel in channels} == {"joined"}
        assert trio.current_time() == pytest.approx(30, abs=1)


async def test_an_explicit_timeout_runs_from_the_call(autojump_clock: MockClock) -> None:
    rooms = Rooms(3.0)
    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), join_window=1) as socket,
        trio.open_nursery() as nursery,
    ):
        for number in range(3):
            nursery.start_soon(socket.channel(f"room:{number}").join)
        await trio.sleep(0.1)
        began = trio.current_time()
        with pytest.raises(JoinTimeout) as caught:
            await socket.channel("room:late").join(timeout=4)
        assert trio.current_time() - began == pytest.approx(4)
        assert caught.value.sent is False
        await trio.sleep(20)
        assert rooms.asked["room:late"] == 0


@pytest.mark.parametrize("full", [True, False])
async def test_a_dead_line_with_a_full_window_is_noticed_as_fast_as_with_one_join(
    full: bool, autojump_clock: MockClock
) -> None:
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), heartbeat_interval=10, join_timeout=8) as socket,
        AsyncExitStack() as stack,
    ):
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        connection = await server.accept()
        connection.partition()

        async def retry(topic: str) -> None:
            while True:
                try:
                    await socket.channel(topic).join()
                except (JoinTimeout, ConnectionLost):
                    await trio.sleep(1)

        for number in range(30 if full else 1):
            nursery.start_soon(retry, f"room:{number}")
        took = await until(lambda: socket.status == "reconnecting", 60)
        assert took <= 10 + 10 + 1.1
        connection.heal()


async def test_a_join_not_sent_yet_stays_queued_over_a_reconnect(autojump_clock: MockClock) -> None:
    rooms = Rooms(2.0)
    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), join_window=1) as socket,
        trio.open_nursery() as nursery,
    ):
        results: list[str] = []

        async def join(topic: str) -> None:
            try:
                await socket.channel(topic).join()
                results.append("joined")
            except Exception as error:  # noqa: BLE001 - compared below
                results.append(type(error).__name__)

        for number in range(3):
            nursery.start_soon(join, f"room:{number}")
        await trio.sleep(1)
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: len(results) == 3, 20)
        assert sorted(results) == ["ConnectionLost", "joined", "joined"]


async def test_a_join_that_waits_for_a_slot_has_its_time_from_the_loss_of_the_connection(
    autojump_clock: MockClock,
) -> None:
    rooms = Rooms(100.0)
    options: dict[str, Any] = {"join_window": 1, "join_timeout": 60, "reconnect": Backoff((1000,), jitter=0)}
    async with (
        rooms.server.run(),
        connect(URL, transport=rooms.server.connector(), heartbeat_interval=None, **options) as socket,
        trio.open_nursery() as nursery,
    ):
        done = Outcomes(nursery)
        for topic in ("room:1", "room:2"):
            done.start(topic, socket.channel(topic).join)
            await settle()
        await trio.sleep(20)
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: len(done.by) == 2, 100)
        assert [type(done.by[topic]) for topic in ("room:1", "room:2")] == [ConnectionLost, JoinTimeout]
        assert not done.by["room:2"].sent
        assert done.at == {"room:1": 20, "room:2": 80}


async def test_a_callback_client_is_told_once_that_a_rejoin_is_late_and_joined_then(autojump_clock: MockClock) -> None:
    rooms = Rooms(0.0)
    told: list[str] = []

    class Mine(Client):
        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room:1")

        async def handle_join(self, channel: Channel, response: Any) -> None:
            told.append("joined")

        async def handle_topic_close(self, topic: str, reason: Exception) -> None:
            told.append(type(reason).__name__)

    async with rooms.server.run(), trio.open_nursery() as nursery:
        client = Mine()
        connector = rooms.server.connector()
        nursery.start_soon(lambda: run_client(client, URL, transport=connector, join_timeout=5))
        await until(lambda: told == ["joined"], 5)
        rooms._seconds = 12.0
        [connection] = await rooms.server.wait_connections()
        connection.drop()
        await until(lambda: told == ["joined", "JoinTimeout", "joined"], 20)
        assert rooms.joins == 2
        client.stop()


async def test_a_callback_client_is_told_of_a_join_that_is_given_up_after_a_later_one_was_answered(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[str, str, float]] = []

    class Mine(Client):
        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room:1")
            await self.join("room:2")

        async def handle_topic_close(self, topic: str, reason: Exception) -> None:
            told.append((topic, type(reason).__name__, trio.current_time()))

    async with FakeServer(answers={"connect", "leave"}) as server, trio.open_nursery() as nursery:
        client = Mine()
        nursery.start_soon(lambda: run_client(client, server.url, transport=server.connector(), join_timeout=5))
        connection = await server.accept()
        await connection.expect_join("room:1")
        later = await connection.expect_join("room:2")
        await trio.sleep(1)
        await later.reply_ok()
        await trio.sleep(6)
        client.stop()
    assert told == [("room:1", "JoinTimeout", 5)]


async def test_a_rejoin_that_is_overdue_halves_the_window(autojump_clock: MockClock) -> None:
    class Mine(Client):
        async def handle_connect(self, socket: Socket) -> None:
            for number in range(20):
                await self.join(f"room:{number}")

    async with FakeServer(answers={"connect", "leave", "heartbeat"}) as server, trio.open_nursery() as nursery:
        client = Mine()
        nursery.start_soon(lambda: run_client(client, server.url, transport=server.connector(), join_timeout=5))
        connection = await server.accept()
        joins = [await connection.expect_join(within=1) for _ in range(8)]
        await connection.refute_join(within=6)
        for join in joins[:2]:
            await join.reply_ok()
        await connection.refute_join(within=1)  # of 4 + 2 there are 6 that are not answered
        await joins[2].reply_ok()
        for _ in range(2):
            await connection.expect_join(within=1)
        await connection.refute_join(within=1)
        client.stop()


async def test_others_run_while_many_channels_are_told_of_a_loss(autojump_clock: MockClock) -> None:
    """At most 64 channels or pushes are settled in a step; pushes before channels."""
    rooms = Rooms()
    async with rooms.server.run(), connect(URL, transport=rooms.server.connector()) as socket:
        channels = [socket.channel(f"room:{number}") for number in range(150)]
        async with trio.open_nursery() as nursery:
            for channel in channels:
                nursery.start_soon(channel.join)
        async with trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            for number in range(130):
                done.start(number, channels[0].push, "no answer", timeout=None)
            await settle()
            for channel in channels[1:]:
                channel.leave_soon()
            rooms.server.connections[0].drop()
            told: list[int] = []
            while not told or told[-1] < len(channels) - 1:
                await trio.lowlevel.checkpoint()
                closed = sum(channel.status == "closed" for channel in channels)
                assert not closed or len(done.by) >= 64
                if socket.status != "connected":
                    told.append(closed)
        steps = [after - before for before, after in zip([0, *told], told, strict=False)]
        assert max(steps) <= 2 * 64  # Trio may run the task that tells of it twice between two looks
        assert {type(error) for error in done.by.values()} == {ConnectionLost}
        await trio.sleep(30)
        assert channels[0].status == "joined"


async def test_others_run_while_many_channels_end_with_their_socket(autojump_clock: MockClock) -> None:
    rooms = Rooms()
    async with rooms.server.run(), connect(URL, transport=rooms.server.connector()) as socket:
        channels = [socket.channel(f"room:{number}") for number in range(150)]
        async with trio.open_nursery() as nursery:
            for channel in channels:
                nursery.start_soon(channel.join)
        ended: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.disconnect)
            while not ended or ended[-1] < len(channels):
                await trio.lowlevel.checkpoint()
                ended.append(sum(channel.status == "closed" for channel in channels))
        assert max(after - before for before, after in zip([0, *ended], ended, strict=False)) <= 2 * 64


async def test_the_pace_is_lifted_while_the_connection_lasts(autojump_clock: MockClock) -> None:
    connector = Scripted({"phx_leave", "heartbeat"})
    async with connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket:
        async with trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            for number in range(2):
                done.start(number, socket.channel(f"lost:{number}").join)
            await settle()
            connector.answers = PHOENIX
            connector.peer.end()  # because of the joins, perhaps
        assert [type(error) for error in done.by.values()] == [ConnectionLost] * 2
        await socket.wait_connected()
        for seconds, wait in ((1, 1.75), (500, 0)):  # four a second, at first
            await trio.sleep(seconds)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(socket.channel(f"after {seconds}:{number}").join)
            assert trio.current_time() - began == pytest.approx(wait)


async def test_a_join_that_waits_for_a_slot_outlasts_the_limit_of_its_wait_for_a_connection(
    autojump_clock: MockClock,
) -> None:
    options: dict[str, Any] = {"join_window": 1, "join_timeout": 5, "reconnect": Backoff((1,), jitter=0)}
    connector = Scripted({"phx_leave"})
    async with (
        connect(URL, transport=connector, heartbeat_interval=None, **options) as socket,
        trio.open_nursery() as nursery,
    ):
        connector.peer.end()
        await settle()
        done = Outcomes(nursery)
        for topic, options in (("first", {"timeout": None}), ("second", {})):
            done.start(topic, socket.channel(topic).join, **options)
            await settle()
        await trio.sleep(10)
        assert done.by == {}
        for number in (1, 2):
            connector.peer.reply(await connector.peer.wait_sent("phx_join", number))
        await settle()
        assert done.at == {"first": 10, "second": 10}
