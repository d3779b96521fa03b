"""`reconnect()`: the user knows that the network has changed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted
from tests.recovery.support import settle
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, Client, ConnectError, ConnectionLost, Gap, connect, run_client
from slipstream_trio.protocol import Disconnect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import Answer, FakeServer
from slipstream_trio.transport import OpenRequest, Transport

ANSWERS: Final[frozenset[Answer]] = frozenset({"connect", "join", "leave", "heartbeat"})
SLOW = Backoff((50,), jitter=0)


async def test_a_connection_is_replaced_at_once_and_its_channels_are_joined_again(autojump_clock: MockClock) -> None:
    asked: list[Disconnect] = []

    def should(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return False

    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), reconnect=SLOW, should_reconnect=should) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        async with socket.join("room:1") as channel:
            lost: list[ConnectionLost] = []

            async def push() -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await channel.push("event")
                lost.append(caught.value)

            nursery.start_soon(push)
            await connection.expect_push()
            before = socket.connection_id
            began = trio.current_time()
            socket.reconnect()
            ended = await connection.expect_disconnect(1000)
            assert ended.by == "client"
            connection = await server.accept()
            await connection.expect_join("room:1")
            assert trio.current_time() == began
            await trio.sleep(0.1)
            assert (socket.generation, socket.status, channel.status) == (2, "connected", "joined")
            assert socket.connection_id != before
            assert isinstance(channel.last_gap, Gap)
            assert [(error.reason, error.sent) for error in lost] == [("reconnect", True)]
    assert asked == []


async def test_it_does_not_wait_for_a_server_that_is_gone(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), close_timeout=5) as socket,
    ):
        connection = await server.accept()
        connection.partition()
        began = trio.current_time()
        socket.reconnect()
        await server.accept(within=5)
        assert trio.current_time() - began <= 1
        connection.heal()


async def test_a_wait_for_the_next_attempt_is_ended_and_the_backoff_begins_anew(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(
            server.url, transport=server.connector(), reconnect=Backoff((10, 100), jitter=0, reset_after=1000)
        ) as socket,
    ):
        connection = await server.accept()
        await connection.drop()
        connection = await server.accept(within=11)
        await connection.drop()
        await trio.sleep(1)  # of 100 seconds
        began = trio.current_time()
        socket.reconnect()
        connection = await server.accept()
        assert trio.current_time() == began
        await connection.drop()
        await server.accept(within=11)
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)


async def test_an_attempt_that_is_under_way_goes_on(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server, connect(server.url, transport=server.connector()) as socket:
        connection = await server.accept()
        server.answers -= {"connect"}
        await connection.drop()
        await trio.sleep(1)
        socket.reconnect()
        await server.accept(within=3)
        await trio.sleep(10)
        assert socket.generation == 2


async def test_a_telemetry_handler_may_ask_for_it(autojump_clock: MockClock) -> None:
    from slipstream_trio.telemetry import Telemetry

    bus = Telemetry()
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), telemetry=bus) as socket,
    ):
        connection = await server.accept()

        def handler(_: object) -> None:
            bus.detach("once")
            socket.reconnect()

        bus.attach("once", ("slipstream", "connection", "handle", "stop"), handler)
        await connection.send_raw('[null, null, "room:1", "event", {}]')
        await server.accept()
        assert [handler.handler_id for handler in bus.list_handlers(())] == []


async def test_a_socket_that_cannot_reconnect_says_so(autojump_clock: MockClock) -> None:
    async with FakeServer(answers=ANSWERS) as server:
        async with connect(server.url, transport=server.connector(), reconnect=None) as socket:
            with pytest.raises(ConnectionLost):
                socket.reconnect()
            assert socket.status == "connected"
        with pytest.raises(ConnectionLost):
            socket.reconnect()
        async with connect(server.url, transport=server.connector()) as socket:
            await socket.disconnect()
            with pytest.raises(ConnectionLost):
                socket.reconnect()


async def test_before_the_first_attempt_it_changes_nothing(autojump_clock: MockClock) -> None:
    async def trace_parent() -> None:
        await trio.sleep(1)  # which the first attempt waits for

    client, connector = Client(), Scripted()
    run = partial(run_client, client, URL, transport=connector, trace_parent=trace_parent)
    async with trio.open_nursery() as nursery:
        socket = await nursery.start(run)
        await wait_all_tasks_blocked()
        socket.reconnect()
        await trio.sleep(1)
        await settle()
        assert (socket.status, socket.generation, len(connector.peers)) == ("connected", 1, 1)
        client.stop()


async def test_asked_for_during_an_attempt_it_does_not_hurry_the_next_one(autojump_clock: MockClock) -> None:
    async def opening(_: object) -> None:
        times.append(trio.current_time())
        if 1 < len(times) < 4:
            await trio.sleep(2)
            raise ConnectError("refused")

    times: list[float] = []
    connector = Scripted(opening=opening)
    async with connect(URL, transport=connector, reconnect=Backoff((10,), jitter=0)) as socket:
        connector.peer.end()
        await trio.sleep(11)
        socket.reconnect()
        await trio.sleep(100)
    first, *others = times
    assert [time - first for time in others] == pytest.approx([10, 22, 34])


@pytest.mark.parametrize("watched", [True, False])
async def test_what_comes_before_the_answer_to_the_close_frame_is_delivered(
    watched: bool, autojump_clock: MockClock
) -> None:
    bus = Recorder().bus if watched else Telemetry()
    connector = Scripted()
    async with connect(URL, transport=connector, telemetry=bus) as socket, socket.join("room") as channel:
        peer = connector.peer
        peer.answers_close = False
        socket.reconnect()
        await settle()
        assert peer.closed_with is not None
        peer.message("room", "late")
        await settle()
        peer.end(1000)
        with trio.fail_after(1):
            assert (await channel.receive()).event == "late"


async def test_the_closing_of_a_transport_does_not_count_as_the_life_of_its_connection(
    autojump_clock: MockClock,
) -> None:
    class Slow(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as transport:
                yield transport
            await trio.sleep(60)

    def ended(disconnect: Disconnect) -> bool:
        lived.append(disconnect.lived)
        return False

    lived: list[float | None] = []
    connector = Slow()
    with pytest.raises(ConnectionLost):
        async with connect(URL, transport=connector, should_reconnect=ended):
            await trio.sleep(2)
            connector.peer.end()
            await trio.sleep_forever()
    assert lived == [2]
