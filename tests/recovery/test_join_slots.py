"""The slots of joins: each that becomes free goes to the next join at once."""

from contextlib import suppress
from typing import Any

import pytest
import trio
from tests.client.support import URL, Scripted, scripted
from tests.recovery.support import Outcomes, settle, status_of
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, ConnectionLost, JoinError, JoinTimeout, connect
from slipstream_trio.testing.kit import FakeServer


async def test_each_answer_makes_room_for_the_next_rejoin_at_once(autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"join_window": 1, "heartbeat_interval": None, "reconnect": Backoff((1,), jitter=0)}
    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), rejoin=Backoff((50,), jitter=0), **options) as socket,
    ):
        for number in range(4):
            await socket.channel(f"room:{number}").join()
        server.answers -= {"join"}
        await (await server.accept()).drop()
        connection = await server.accept(within=2)
        began = trio.current_time()
        for number in range(4):
            join = await connection.expect_join(within=0.01)
            assert trio.current_time() == pytest.approx(began + number, abs=0.01)
            await connection.refute_join(within=1)
            await (join.reply_error({}) if number == 1 else join.reply_ok())
        server.answers |= {"join"}


async def test_all_the_room_that_one_answer_makes_is_used_at_once(autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"join_window": 150, "heartbeat_interval": None, "reconnect": Backoff((1,), jitter=0)}
    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), rejoin=Backoff((50,), jitter=0), **options) as socket,
    ):
        for number in range(300):
            await socket.channel(f"room:{number}").join()
        server.answers -= {"join"}
        await (await server.accept()).drop()
        connection = await server.accept(within=2)
        joins = [await connection.expect_join(within=0.1) for _ in range(150)]
        await connection.refute_join(within=0.1)
        await joins[-1].reply_ok()  # so the server has passed over the ones before
        await trio.sleep(0.1)
        assert len(connection.messages) == 300


async def test_a_users_join_that_is_never_sent_gives_its_slot_back(autojump_clock: MockClock) -> None:
    async def never() -> None:
        await trio.sleep_forever()

    async def cancelled(channel: Channel) -> None:
        with trio.move_on_after(1):
            await channel.join()

    def fails() -> None:
        raise ValueError("mine")

    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), join_window=1) as socket,
    ):
        with pytest.raises(ValueError, match="mine"):
            await socket.channel("room:1", fails).join()
        with trio.move_on_after(1):
            await socket.channel("room:2", never).join()
        with pytest.raises(JoinTimeout):
            await socket.channel("room:3", never).join(timeout=1)
        async with trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            done.start("first", cancelled, socket.channel("room:4", never))
            await settle()
            done.start("next", socket.channel("room:5").join)
        assert done.at == {"first": 3, "next": 3}


async def test_a_join_that_was_cancelled_as_it_waited_takes_no_slot(autojump_clock: MockClock) -> None:
    async with (
        scripted(answers={"phx_leave"}, join_window=1, heartbeat_interval=None) as (socket, peer),
        trio.open_nursery() as nursery,
    ):
        done = Outcomes(nursery)
        done.start("first", socket.channel("room:1").join)
        await settle()
        with trio.move_on_after(1):
            await socket.channel("room:2").join()
        done.start("third", socket.channel("room:3").join)
        await settle()
        with trio.fail_after(5):
            for number in (1, 2):
                peer.reply(await peer.wait_sent("phx_join", number))
                await settle()
        assert done.at == {"first": 1, "third": 1}
        assert [message.topic for message in peer.sent] == ["room:1", "room:3"]


async def test_a_users_join_whose_connection_ends_while_its_payload_is_asked_has_its_slot_anew(
    autojump_clock: MockClock,
) -> None:
    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), join_window=1, reconnect=Backoff((1,), jitter=0)) as socket,
    ):
        connection = await server.accept()

        async def payload() -> None:
            if socket.generation == 1:
                await connection.drop()
                await trio.sleep(0.5)

        await socket.channel("room:1", payload).join(timeout=2)
        assert socket.generation == 2


async def test_a_join_that_had_its_slot_goes_before_those_that_wait(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), join_window=1, reconnect=Backoff((1,), jitter=0)) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()

        async def payload() -> None:
            if socket.generation == 1:
                await connection.drop()
                await trio.sleep(0.5)

        for channel in (socket.channel("room:1", payload), socket.channel("room:2")):
            nursery.start_soon(channel.join)
            await settle()
        connection = await server.accept(within=5)
        assert [(await connection.expect_join(within=1)).topic for _ in range(2)] == ["room:1", "room:2"]


async def test_a_first_join_that_waited_over_a_reconnect_has_missed_nothing(autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"join_window": 1, "heartbeat_interval": None, "reconnect": Backoff((1,), jitter=0)}
    async with (
        FakeServer(answers={"connect", "leave"}) as server,
        connect(server.url, transport=server.connector(), **options) as socket,
        trio.open_nursery() as nursery,
    ):
        connection, done, channel = await server.accept(), Outcomes(nursery), socket.channel("room:2")
        done.start("lost", socket.channel("room:1").join)
        await settle()
        done.start("waits", channel.join)
        await settle()
        await connection.drop()
        await settle()
        assert status_of(channel) == "joining"
        join = await (await server.accept(within=5)).expect_join(within=1)
        await join.reply_ok({"room": 2})
        await settle()
        assert (type(done.by["lost"]), done.by["waits"]) == (ConnectionLost, {"room": 2})
        assert channel.last_gap is None


async def test_each_join_that_is_accepted_makes_room_for_one_more(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers={"connect", "leave"}) as server,
        connect(server.url, transport=server.connector()) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        for number in range(40):
            nursery.start_soon(socket.channel(f"room:{number}").join)
        for room in (8, 16):  # of the second, eight are in the place of those that were answered
            joins = [await connection.expect_join(within=1) for _ in range(room)]
            await connection.refute_join(within=1)
            for join in joins:
                await join.reply_ok()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("how", "room"), [("refused", 8), ("not answered", 4)])
async def test_joins_that_are_refused_make_no_room_for_more_and_late_ones_halve_it(
    how: str, room: int, autojump_clock: MockClock
) -> None:
    async def ask(topic: str) -> None:
        with suppress(JoinError, JoinTimeout):
            await socket.channel(topic).join()

    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), join_timeout=5) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        for number in range(40):
            nursery.start_soon(ask, f"room:{number}")
        for join in [await connection.expect_join(within=1) for _ in range(8)]:
            if how == "refused":
                await join.reply_error({})
        if how == "not answered":
            await connection.refute_join(within=4)
        for _ in range(room):
            await connection.expect_join(within=2)
        await connection.refute_join(within=1)
        nursery.cancel_scope.cancel()


async def test_a_channel_behind_many_that_wait_for_their_backoff_is_joined_again_at_once(
    autojump_clock: MockClock,
) -> None:
    again: dict[str, Any] = {"reconnect": Backoff((1,), jitter=0), "rejoin": Backoff((50,), jitter=0)}
    connector = Scripted()
    async with connect(URL, transport=connector, heartbeat_interval=None, **again) as socket:
        channels = [socket.channel(f"room:{number}") for number in range(70)]
        for channel in channels:
            await channel.join()
        for channel in channels[:-1]:
            connector.peer.end_channel(channel.topic, "phx_error")
        await settle()
        connector.peer.end()
        await trio.sleep(2)
        assert [message.topic for message in connector.peer.sent] == ["room:69"]


async def test_channels_are_joined_again_in_the_order_in_which_they_were_joined(autojump_clock: MockClock) -> None:
    connector, topics = Scripted(), [f"room:{number}" for number in range(8)]
    async with connect(URL, transport=connector, heartbeat_interval=None, reconnect=Backoff((1,), jitter=0)) as socket:
        channels = [socket.channel(topic) for topic in topics]
        for channel in channels:
            await channel.join()
        connector.peer.end()
        await trio.sleep(2)
        assert [message.topic for message in connector.peer.sent] == topics


async def test_a_push_that_waits_for_a_join_does_not_hold_it_up(autojump_clock: MockClock) -> None:
    connector, again = Scripted(), Backoff((1,), jitter=0)
    async with (
        connect(URL, transport=connector, heartbeat_interval=None, reconnect=again) as socket,
        trio.open_nursery() as nursery,
    ):
        connector.peer.end()
        await settle()
        done, channel = Outcomes(nursery), socket.channel("room")
        done.start("join", channel.join)
        await settle()
        done.start("push", channel.push, "echo", 5)
        await trio.sleep(5)
        assert (done.by, done.at) == ({"join": {}, "push": 5}, {"join": 1, "push": 1})
        channel.leave_soon()


async def test_a_function_for_the_payload_has_the_time_limit_of_the_join(autojump_clock: MockClock) -> None:
    async def slow() -> None:
        await trio.sleep(20)

    async with scripted(join_timeout=5, heartbeat_interval=None) as (socket, peer):
        with pytest.raises(JoinTimeout) as raised:
            await socket.channel("room", slow).join()
        assert (raised.value.sent, trio.current_time(), peer.sent) == (False, 5, [])
        await socket.channel("room", slow).join(timeout=None)
        assert trio.current_time() == 25


async def test_a_join_whose_function_ends_after_its_time_limit_is_not_sent(autojump_clock: MockClock) -> None:
    async def deaf() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(6)

    async with scripted(heartbeat_interval=None) as (socket, peer):
        with pytest.raises(JoinTimeout):
            await socket.channel("room", deaf).join(timeout=5)
        await settle()
        assert (trio.current_time(), peer.sent, dict(socket.state.joins)) == (6, [], {})


async def test_an_explicit_timeout_runs_from_the_call_though_a_function_for_the_payload_takes_time(
    autojump_clock: MockClock,
) -> None:
    async def slow() -> None:
        await trio.sleep(3)

    async with scripted(answers={"phx_leave"}, heartbeat_interval=None) as (socket, peer):
        with pytest.raises(JoinTimeout) as raised:
            await socket.channel("room", slow).join(timeout=5)
        assert (raised.value.sent, trio.current_time(), peer.count("phx_join")) == (True, 5, 1)
