"""A join that fails, and another one of its topic at the same moment: neither touches what is the other's."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from tests.client.support import PHOENIX, URL, Recorder, Scripted, scripted
from tests.recovery.support import Outcomes, settle, status_of, until
from tests.scheduling import in_any_order, play
from trio.testing import MockClock

from slipstream_trio import (
    AlreadyJoined,
    Backoff,
    Channel,
    ChannelClosed,
    Gap,
    JoinError,
    JoinTimeout,
    Message,
    Socket,
    connect,
)
from slipstream_trio.protocol import FrameReceived
from slipstream_trio.testing.kit import FakeConnection, FakeJoin, FakeServer

SECONDS = 5
"""Until a join times out."""

SENT: dict[str, type[Exception]] = {
    "refused": JoinError,
    "closed": ChannelClosed,
    "crashed": ChannelClosed,
    "timed out": JoinTimeout,
}
"""How a join fails that was sent, and with what."""

UNSENT: dict[str, type[Exception]] = {"left": ChannelClosed, "timed out": JoinTimeout, "cancelled": trio.TooSlowError}
"""How a join fails that waits for a connection."""


@asynccontextmanager
async def visited(**options: Any) -> AsyncIterator[tuple[Socket, FakeServer, FakeConnection]]:
    """Connect to a fake server."""
    given = {"heartbeat_interval": None, "rejoin": None, "reconnect": Backoff((10,), jitter=0), **options}
    async with FakeServer() as server:
        async with connect(server.url, transport=server.connector(), **given) as socket:
            yield socket, server, await server.accept()


async def fail(how: str, join: FakeJoin) -> None:
    """Let a join fail that was sent."""
    match how:
        case "refused":
            await join.reply_error({"reason": "no"})
        case "closed":
            await join.connection.push(join.topic, "phx_close", {}, join_ref=join.ref, ref=join.ref)
        case "crashed":
            await join.connection.push(join.topic, "phx_error", {}, join_ref=join.ref, ref=join.ref)


async def join_when_free(channel: Channel, since: float) -> Any:
    """Join as soon as the topic is free, at the very moment."""
    await trio.sleep_until(since)
    for _ in range(100):
        with suppress(AlreadyJoined):
            return await channel.join()
    raise AssertionError("the topic is held for ever")


async def is_usable(channel: Channel, connection: FakeConnection) -> None:
    """See that a channel is joined, on both sides."""
    assert status_of(channel) == "joined"
    assert connection.channel(channel.topic).join_ref == channel.join_ref
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.push, "echo")
        await (await connection.channel(channel.topic).expect_push("echo")).reply_ok()


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("how", SENT)
@in_any_order
def test_a_join_that_fails_leaves_nothing_that_was_joined_anew(how: str, same: bool, order: object) -> None:
    play(_fail_late, how, same)


async def _fail_late(how: str, same: bool) -> None:
    async with visited() as (socket, _, connection), trio.open_nursery() as nursery:
        old = socket.channel("room")
        new = old if same else socket.channel("room")
        done = Outcomes(nursery)
        done.start("old", old.join, timeout=SECONDS)
        join = await connection.expect_join("room")
        due = trio.current_time() + (SECONDS if how == "timed out" else 0)
        done.start("new", join_when_free, new, due)
        await fail(how, join)
        await (await connection.expect_join("room", within=2 * SECONDS)).reply_ok()
        await settle()
        assert type(done.by["old"]) is SENT[how]
        assert done.by["new"] == {}
        await is_usable(new, connection)
        assert connection.unexpected == []


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("how", UNSENT)
@in_any_order
def test_a_join_that_was_not_sent_leaves_nothing_that_was_joined_anew(how: str, same: bool, order: object) -> None:
    play(_fail_unsent, how, same)


async def _fail_unsent(how: str, same: bool) -> None:
    async with visited() as (socket, server, connection), trio.open_nursery() as nursery:
        await connection.drop()
        await until(lambda: socket.status == "reconnecting")
        old = socket.channel("room")
        new = old if same else socket.channel("room")
        done = Outcomes(nursery)
        due = trio.current_time() + SECONDS
        done.start("old", _join_until, how, old, due)
        await settle()
        done.start("new", join_when_free, new, due)
        await trio.sleep_until(due)
        old.leave_soon()
        await until(lambda: socket.status == "connected")
        again = await server.accept()
        await (await again.expect_join("room")).reply_ok()
        await settle()
        assert type(done.by["old"]) in (UNSENT[how], ChannelClosed)  # it may be left before
        assert done.by["new"] == {}
        await is_usable(new, again)
        assert again.unexpected == []


async def _join_until(how: str, channel: Channel, due: float) -> None:
    with trio.fail_at(due if how == "cancelled" else math.inf):
        await channel.join(timeout=SECONDS if how == "timed out" else None)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("leaves", ["confirmed", "timed out", "lost"])
@in_any_order
def test_of_joins_that_wait_for_a_leave_one_gets_the_topic(leaves: str, same: bool, order: object) -> None:
    play(_wait_for_a_leave, leaves, same)


async def _wait_for_a_leave(leaves: str, same: bool) -> None:
    async with visited(leave_timeout=SECONDS) as (socket, server, connection), trio.open_nursery() as nursery:
        server.answers -= {"leave"}
        left = socket.channel("room")
        done = Outcomes(nursery)
        done.start("left", left.join)
        await (await connection.expect_join("room")).reply_ok()
        await settle()
        left.leave_soon()
        leave = await connection.expect_leave("room")
        channels = [left] * 3 if same else [socket.channel("room") for _ in range(3)]
        for number, channel in enumerate(channels):
            done.start(number, channel.join, timeout=None)
        await settle()
        match leaves:
            case "confirmed":
                await leave.confirm()
            case "lost":
                await connection.drop()
                connection = await server.accept(within=20)  # noqa: PLW2901 - the client's next one
        join = await connection.expect_join("room", within=2 * SECONDS)
        await settle()
        assert [type(error) for error in done.by.values() if error != {}] == [AlreadyJoined] * 2
        await join.reply_ok()
        await settle()
        (winner,) = (number for number in range(3) if done.by[number] == {})
        await is_usable(channels[winner], connection)
        assert connection.unexpected == []
        server.answers |= {"leave"}


@in_any_order
def test_joins_that_wait_for_one_leave_after_the_other_all_get_the_topic(order: object) -> None:
    play(_wait_in_turn)


async def _wait_in_turn() -> None:
    async with visited() as (socket, server, connection):
        server.answers |= {"join"}

        async def join_and_leave(channel: Channel) -> None:
            await join_when_free(channel, 0)
            await channel.leave()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(join_and_leave, socket.channel("room"))
        events = [message.event for message in connection.messages]
        assert events == ["phx_join", "phx_leave"] * 4


@in_any_order
def test_a_join_that_was_left_and_made_anew_while_unsent_is_sent_once(order: object) -> None:
    play(_join_twice_unsent)


async def _join_twice_unsent() -> None:
    async with visited() as (socket, server, connection), trio.open_nursery() as nursery:
        await connection.drop()
        await until(lambda: socket.status == "reconnecting")
        channel = socket.channel("room")
        done = Outcomes(nursery)
        for number in range(5):
            done.start(number, channel.join, timeout=None)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if number < 4:
                channel.leave_soon()
        again = await server.accept(within=20)
        await (await again.expect_join("room")).reply_ok()
        await settle()
        failed = [error for error in done.by.values() if error != {}]
        assert len(failed) == 4
        assert {type(error) for error in failed} <= {ChannelClosed, AlreadyJoined}
        await is_usable(channel, again)
        assert again.unexpected == []


async def test_a_join_that_is_left_at_the_moment_when_it_may_be_sent_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for _ in range(10):  # Trio promises no order between the one who joins and the one who leaves
        async with (
            visited(reconnect=Backoff((1,), jitter=0)) as (socket, server, first),
            trio.open_nursery() as nursery,
        ):
            await first.drop()
            await until(lambda: socket.status == "reconnecting")
            channel, done = socket.channel("room:1"), Outcomes(nursery)

            async def leave_when_connected(channel: Channel = channel, socket: Socket = socket) -> None:
                await socket.wait_connected()
                channel.leave_soon()

            nursery.start_soon(leave_when_connected)
            done.start("join", channel.join)
            connection = await server.accept()
            await settle()
            assert isinstance(done.by["join"], ChannelClosed)
            assert [message.event for message in connection.messages] in ([], ["phx_join", "phx_leave"])


async def test_a_broadcast_before_the_answer_of_a_rejoin_is_not_delivered(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((1,), jitter=0)) as socket:
        channel = socket.channel("room")
        await channel.join()
        stream = channel.stream()
        connector.peer.message("room", "first")
        assert isinstance(await anext(stream), Message)
        connector.answers = frozenset()
        connector.peer.end()
        await trio.sleep(2)
        joined = await connector.peer.wait_sent("phx_join")
        connector.peer.message("room", "too early")
        await trio.sleep(1)
        connector.peer.reply(joined)
        connector.peer.message("room", "second")
        gap, message = await anext(stream), await anext(stream)
        assert isinstance(gap, Gap)
        assert isinstance(message, Message)
        assert (gap.reason, message.event) == ("reconnected", "second")


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("what", ["accepted", "refused", "crashed", "broadcast"])
async def test_what_still_comes_for_a_channel_left_as_its_connection_closes_is_not_for_the_next(
    what: str, same: bool, autojump_clock: MockClock
) -> None:
    """That the channel before it had crashed ended one that waited to be joined, and its `join` hung for ever."""
    connector = Scripted()
    async with (
        connect(URL, transport=connector, reconnect=Backoff((10,), jitter=0), heartbeat_interval=None) as socket,
        trio.open_nursery() as nursery,
    ):
        first = connector.peer
        first.answers.clear()
        first.answers_close = False
        outcomes, left = Outcomes(nursery), socket.channel("room")
        channel = left if same else socket.channel("room")
        outcomes.start("left", left.join)
        join = await first.wait_sent("phx_join")
        if what in ("crashed", "broadcast"):
            first.reply(join)
            await settle()
        socket.reconnect()
        left.leave_soon()
        outcomes.start("next", channel.join)
        await settle()
        match what:
            case "crashed":
                first.end_channel("room", "phx_error")
            case "broadcast":
                first.message("room", "event", "for the one before")
            case _:
                first.reply(join, {"of": "the one before"}, "ok" if what == "accepted" else "error")
        await settle()
        assert (status_of(channel), channel.join_ref, set(outcomes.by)) == ("joining", None, {"left"})
        assert same or status_of(left) == "closed"
        await until(lambda: "next" in outcomes.by)
        assert outcomes.by["next"] == {}
        connector.peer.message("room", "event", "for this one")
        assert (await channel.receive()).payload == "for this one"
    assert connector.peer.count("phx_join") == 1


@pytest.mark.parametrize("by_user", [True, False])
async def test_a_channel_left_by_a_handler_as_its_join_is_accepted_is_left(
    by_user: bool, autojump_clock: MockClock
) -> None:
    recorder, answers = Recorder(), PHOENIX - {"phx_leave"}
    options: dict[str, Any] = {"rejoin": Backoff((3,), jitter=0), "heartbeat_interval": None}

    def leave(record: Any) -> None:
        if isinstance(record.raw_message, FrameReceived):
            recorder.bus.detach("leaves")
            channel.leave_soon()

    async with (
        scripted(answers=answers, telemetry=recorder.bus, **options) as (socket, peer),
        trio.open_nursery() as nursery,
    ):
        outcomes, channel = Outcomes(nursery), socket.channel("room")
        if not by_user:
            await channel.join()
        peer.answers.remove("phx_join")
        if by_user:
            outcomes.start("join", channel.join)
        else:
            peer.end_channel("room", "phx_error")
        join = await peer.wait_sent("phx_join", 1 if by_user else 2)
        recorder.bus.attach("leaves", ("slipstream", "connection", "handle", "start"), leave)
        peer.reply(join)
        await peer.wait_sent("phx_leave")
        assert status_of(channel) == "leaving"
        with pytest.raises(ChannelClosed, match="left"):
            await channel.push("echo")
        outcomes.start("leave", channel.leave)
        await settle()
        assert "leave" not in outcomes.by
        peer.end_channel("room")
        await settle()
        assert (status_of(channel), outcomes.by["leave"]) == ("closed", None)
    assert (peer.count("phx_leave"), peer.count("echo")) == (1, 0)


async def test_a_stream_that_nobody_has_read_misses_nothing_between_two_joins(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        stream = channel.stream()
        for _ in range(2):
            await channel.join()
            await channel.leave()
        await channel.join()
        peer.message("room", "event", 1)
        message = await anext(stream)
        assert isinstance(message, Message)
        assert message.payload == 1
        assert channel.last_gap is None
