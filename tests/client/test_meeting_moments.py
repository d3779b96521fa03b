"""Moments in which two things meet, and nothing else comes to the rescue: nobody watches, nothing is sent, no tick."""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final

import pytest
import trio
from tests.client.support import PHOENIX, URL, Recorder, Scripted, scripted
from tests.recovery.support import Outcomes, settle, status_of
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, Client, ConnectionLost, Socket, connect, run_client
from slipstream_trio.protocol import Frame, FrameReceived, LeaveTopic, TransportOpened
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import FakeConnection, FakeServer
from slipstream_trio.transport import TransportEnded

QUIET: Final[dict[str, Any]] = {"heartbeat_interval": None}
"""Options without heartbeats: no input is handled that the test does not bring about."""

CLIENT: Final = ("slipstream", "client")


# A channel that is left at the moment when its rejoin is refused


@pytest.mark.parametrize("moment", ["before", "while it is handled", "behind"])
async def test_a_channel_left_as_its_rejoin_is_refused_is_not_joined_again(
    moment: str, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    async with (
        FakeServer(answers={"connect", "leave"}) as server,
        connect(
            server.url, transport=server.connector(), telemetry=recorder.bus, rejoin=Backoff((3,), jitter=0), **QUIET
        ) as socket,
    ):
        connection = await server.accept()
        channel = socket.channel("room")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.join)
            await (await connection.expect_join("room")).reply_ok()
        await connection.channel("room").crash()
        rejoin = await connection.expect_join("room", within=10)
        scheduled = len(recorder.named("rejoin_scheduled"))

        def leave(record: Any) -> None:
            if type(record.raw_message) is FrameReceived:
                recorder.bus.detach("leaves")
                channel.leave_soon()

        match moment:
            case "before":
                channel.leave_soon()
            case "while it is handled":
                recorder.bus.attach("leaves", ("slipstream", "connection", "handle", "start"), leave)
        await rejoin.reply_error({"reason": "no"})
        if moment == "behind":
            await settle()
            assert len(recorder.named("rejoin_scheduled")) == scheduled + 1
            channel.leave_soon()
            scheduled += 1
        await trio.sleep(60)
        assert status_of(channel) == "closed"
        assert len(recorder.named("rejoin_scheduled")) == scheduled
        assert [message.event for message in connection.messages].count("phx_join") == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.join)
            await (await connection.expect_join("room")).reply_ok()
        assert status_of(channel) == "joined"


# A handler of the client's events that leaves, while nobody listens to the handling of inputs


async def _overflow(channel: Channel, connection: FakeConnection) -> None:
    for number in range(2):
        await connection.channel("room").push("tick", number)


async def _gap(channel: Channel, connection: FakeConnection) -> None:
    await connection.channel("room").crash()
    await (await connection.expect_join("room", within=10)).reply_ok()


async def _rejoin_scheduled(channel: Channel, connection: FakeConnection) -> None:
    await connection.channel("room").crash()


async def _message_dropped(channel: Channel, connection: FakeConnection) -> None:
    await connection.push("elsewhere", "tick")


async def _reply_orphaned(channel: Channel, connection: FakeConnection) -> None:
    with trio.move_on_after(1):
        await channel.push("event")
    await (await connection.expect_push("room", "event")).reply_ok()


CAUSES: dict[str, Callable[[Channel, FakeConnection], Any]] = {
    "overflow": _overflow,
    "gap": _gap,
    "rejoin_scheduled": _rejoin_scheduled,
    "message_dropped": _message_dropped,
    "reply_orphaned": _reply_orphaned,
}


@pytest.mark.parametrize("event", CAUSES)
async def test_a_leave_asked_for_by_a_handler_is_sent_at_once(event: str, autojump_clock: MockClock) -> None:
    bus = Telemetry()
    async with (
        FakeServer(answers={"connect"}) as server,
        connect(
            server.url,
            transport=server.connector(),
            telemetry=bus,
            buffer=1,
            overflow="drop_oldest",
            rejoin=Backoff((3,), jitter=0),
            **QUIET,
        ) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel, left = socket.channel("room"), socket.channel("left")
        for joined in (channel, left):
            nursery.start_soon(joined.join)
            await (await connection.expect_join(joined.topic)).reply_ok()
        await settle()
        told: list[float] = []

        def leave(_: Any) -> None:
            told.append(trio.current_time())
            left.leave_soon()

        bus.attach("leaves", (*CLIENT, event), leave)
        await CAUSES[event](channel, connection)
        leave_of = await connection.expect_leave("left")
        assert told[0] == trio.current_time()
        await leave_of.confirm()
        server.answers |= {"leave"}


# The reason of an end that is cut short


async def _leave(socket: Socket) -> None:
    await trio.lowlevel.checkpoint()


async def _disconnect(socket: Socket) -> None:
    await socket.disconnect()


@pytest.mark.parametrize("end", [_leave, _disconnect])
async def test_an_end_that_runs_out_of_time_is_the_clients(
    end: Callable[[Socket], Any], autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, close_timeout=3) as (socket, peer):
        peer.answers_close = False
        peer.pause()
        await end(socket)
    (stop,) = recorder.named("connection", "connect", "stop")
    reason = "disconnected" if end is _disconnect else "closed_by_client"
    assert stop.termination_reason == reason
    assert socket.state.close_reason == reason


@pytest.mark.parametrize("why", ["out of time", "interrupted"])
async def test_an_end_that_never_comes_to_the_close_is_the_clients(why: str, autojump_clock: MockClock) -> None:
    """The leaves of many channels take all the time there is, or one of them is interrupted."""
    recorder = Recorder()

    def strike(record: Any) -> None:
        if type(record.start.raw_message) is LeaveTopic:
            recorder.bus.detach("strikes")
            if why == "interrupted":
                raise KeyboardInterrupt
            autojump_clock.jump(10)

    with pytest.raises(KeyboardInterrupt) if why == "interrupted" else nullcontext():
        async with scripted(telemetry=recorder.bus, close_timeout=3) as (socket, peer):
            for number in range(100):
                await socket.channel(f"room:{number}").join()
            recorder.bus.attach("strikes", ("slipstream", "connection", "handle", "stop"), strike)
    assert peer.count("phx_leave") < 100  # it ended among the leaves
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.termination_reason == "closed_by_client"
    assert socket.state.close_reason == "closed_by_client"


# A close that is asked for while the opening is told


async def test_a_connection_that_is_replaced_while_its_opening_is_told_is_closed_properly(
    autojump_clock: MockClock,
) -> None:
    bus, connector = Telemetry(), Scripted()
    async with connect(URL, transport=connector, telemetry=bus, reconnect=Backoff((10,), jitter=0), **QUIET) as socket:

        def replace(record: Any) -> None:
            if type(record.start.raw_message) is TransportOpened:
                bus.detach("replaces")
                socket.reconnect()

        bus.attach("replaces", ("slipstream", "connection", "handle", "stop"), replace)
        connector.peer.end()
        await trio.sleep(10.1)
        assert connector.peers[1].closed_with == (1000, "")
        assert (len(connector.peers), socket.status, socket.generation) == (3, "connected", 3)


# What is owed to a connection that is over


async def test_a_push_given_up_on_a_former_connection_is_no_orphan_of_this_one(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"reconnect": Backoff((1,), jitter=0), **QUIET}
    async with (
        FakeServer(answers={"connect", "join", "leave"}) as server,
        connect(server.url, transport=server.connector(), telemetry=recorder.bus, **options) as socket,
        socket.join("room") as channel,
    ):
        connection = await server.accept()
        with trio.move_on_after(1):
            await channel.push("event")
        push = (await connection.expect_push("room", "event")).message
        await connection.drop()
        connection = await server.accept(within=2)
        await settle()
        await connection.reply(push, "ok")  # of the same ref, by chance
        await settle()
        assert recorder.named("reply_orphaned") == []


async def test_a_leave_that_our_own_close_overtakes_went_well(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(answers={"phx_join"}, telemetry=recorder.bus) as (socket, _), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        await channel.join()
        nursery.start_soon(channel.leave)
        await settle()
        await socket.disconnect()
    assert [stop.outcome for stop in recorder.named("client", "leave", "stop")] == ["ok"]


async def test_a_connection_that_cannot_be_written_to_is_lost_though_nothing_is_received(
    autojump_clock: MockClock,
) -> None:
    async def broken(_: Sequence[Frame]) -> None:
        await trio.lowlevel.checkpoint()
        raise TransportEnded(1006, "")

    began = math.inf
    with pytest.raises(ConnectionLost):
        async with scripted(**QUIET) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            peer.send = broken  # type: ignore[method-assign, assignment] # the receive loop hears nothing of it
            began = trio.current_time()
            await channel.send("event")
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(1)  # in which a close frame might have come


# Pings


async def test_a_ping_that_is_outstanding_at_a_loss_is_told_of_it_at_once(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers={"connect"}) as server,
        connect(server.url, transport=server.connector(), reconnect=Backoff((10,), jitter=0), **QUIET) as socket,
        trio.open_nursery() as nursery,
    ):
        connection, done = await server.accept(), Outcomes(nursery)
        done.start("ping", socket.ping)
        await connection.expect_message(event="heartbeat")
        await connection.drop()
        await settle()
        assert done.at == {"ping": round(trio.current_time(), 2)}
        assert isinstance(done.by["ping"], ConnectionLost)


# The body, and callbacks


async def test_the_body_runs_on_after_a_disconnect(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        await socket.disconnect()
        await trio.sleep(10)
        assert socket.status == "closed"
        return
    pytest.fail("the body was cancelled")


async def test_a_client_is_told_once_of_a_rejoin_that_is_late_and_then_passed_over(autojump_clock: MockClock) -> None:
    class Late(Client):
        def __init__(self) -> None:
            self.told: list[float] = []

        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room")

        async def handle_topic_close(self, topic: str, reason: Exception) -> None:
            self.told.append(trio.current_time())

    client = Late()
    options: dict[str, Any] = {"reconnect": Backoff((1,), jitter=0), "rejoin": Backoff((50,), jitter=0)}
    async with FakeServer(answers={"connect", "join", "leave", "heartbeat"}) as server, trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(run_client, client, server.url, transport=server.connector(), join_timeout=5, **options)
        )
        connection = await server.accept()
        await settle()
        server.answers -= {"join"}
        await connection.drop()
        connection = await server.accept(within=2)
        await trio.sleep(40)  # in which a heartbeat is answered
        assert client.told == [pytest.approx(6)]
        client.stop()


# Those who wait for the writer, when the connection is cut off


@pytest.mark.parametrize("replaced", [True, False])
async def test_those_who_wait_for_room_are_told_when_the_connection_is_cut_off(
    replaced: bool, autojump_clock: MockClock
) -> None:
    """The peer reads nothing, and answers nothing: no frame and no write wakes anybody."""
    ends: list[float] = []
    reconnect = Backoff((10,), jitter=0) if replaced else None
    connector = Scripted(PHOENIX - {"heartbeat"})
    with nullcontext() if replaced else pytest.raises(ConnectionLost, match="heartbeat"):
        async with (
            connect(URL, transport=connector, heartbeat_interval=5, heartbeat_timeout=5, reconnect=reconnect) as socket,
            trio.open_nursery() as nursery,
        ):
            channel, peer = socket.channel("room"), connector.peer
            await channel.join()
            peer.pause()
            peer.answers_close = False
            await channel.send("taken", 0)
            await settle()
            for _ in range(256):
                await channel.send("fill", 0)

            async def wait(operation: Callable[[], Awaitable[Any]]) -> None:
                with trio.CancelScope(shield=True), suppress(ConnectionLost):
                    await operation()
                ends.append(trio.current_time() - began)

            began = trio.current_time()
            nursery.start_soon(wait, partial(channel.push, "echo", timeout=None))
            nursery.start_soon(wait, partial(socket.channel("other").join, timeout=None))
            await trio.sleep(40 if replaced else math.inf)
    # A heartbeat after 5 s, 5 s for its answer, and 1 s for that of the close frame; 10 s to the next connection.
    assert ends == [21.0 if replaced else 11.0] * 2


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_connection_that_ends_while_nothing_is_to_be_written_is_left_at_once(
    replaced: bool, autojump_clock: MockClock
) -> None:
    connector, began = Scripted(), math.inf
    reconnect = Backoff((10,), jitter=0) if replaced else None
    with nullcontext() if replaced else pytest.raises(ConnectionLost):
        async with connect(URL, transport=connector, reconnect=reconnect, **QUIET) as socket:
            began = trio.current_time()
            connector.peer.end()
            await settle()
            await socket.wait_connected()
    assert connector.peers[0].left
    assert trio.current_time() - began == (10 if replaced else 0)
