"""Handlers of telemetry, and other code that is called in the middle of something, may leave topics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from tests.client.support import PHOENIX, URL, Peer, Recorder, Scripted, scripted
from tests.peers import unbalanced
from tests.recovery.support import Outcomes
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, ChannelClosed, Client, ConnectionLost, SerializationError, run_client
from slipstream_trio.protocol import FrameReceived, JoinTopic, LeaveTopic, PushMessage, TransportClosed
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.trace import verify

START = ("slipstream", "connection", "handle", "start")
STOP = ("slipstream", "connection", "handle", "stop")
EXCEPTION = ("slipstream", "connection", "handle", "exception")


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record everything, and look at the trace in the end."""
    recorder = Recorder()
    yield recorder
    assert recorder.named("handler", "failure") == []
    assert verify(recorder.records) == []
    assert unbalanced(recorder.records) == []


def when(bus: Telemetry, name: tuple[str, ...], kind: type, act: Callable[[], None]) -> None:
    """Act at the first record of a handle span whose input is of a kind."""

    def handler(record: Any) -> None:
        given = getattr(record, "raw_message", None) or record.start.raw_message
        if type(given) is kind:
            bus.detach("acts")
            act()

    bus.attach("acts", name, handler)


def sent(peer: Peer) -> list[str]:
    return [message.event for message in peer.sent]


@pytest.mark.parametrize("name", [START, STOP])
async def test_a_topic_may_be_left_while_its_join_is_being_handled(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room")
            when(recorder.bus, name, JoinTopic, channel.leave_soon)
            with pytest.raises(ChannelClosed, match="left"):
                await channel.join()
            await trio.testing.wait_all_tasks_blocked()
            assert sent(peer) == ["phx_join", "phx_leave"]
            assert socket.state.joins == {}
            await channel.join()
            assert channel.status == "joined"


@pytest.mark.parametrize("name", [START, STOP])
async def test_a_topic_may_be_left_while_a_push_is_being_handled(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            when(recorder.bus, name, PushMessage, channel.leave_soon)
            assert await channel.push("echo", {"x": 1}) == {"x": 1}
            await trio.testing.wait_all_tasks_blocked()
            assert sent(peer) == ["phx_join", "echo", "phx_leave"]
            assert channel.status == "closed"


async def test_a_topic_may_be_left_where_a_push_has_failed(autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            recorder.bus.attach("acts", EXCEPTION, lambda _: channel.leave_soon())
            with pytest.raises(SerializationError):
                await channel.push("echo", {1, 2})
            await trio.testing.wait_all_tasks_blocked()
            assert sent(peer) == ["phx_join", "phx_leave"]


async def test_a_topic_may_be_left_where_its_join_cannot_be_sent(autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room", {"no": {1, 2}})
            when(recorder.bus, START, JoinTopic, channel.leave_soon)
            with pytest.raises(SerializationError):
                await channel.join()
            assert channel.status == "closed"
            assert peer.sent == []
            again = socket.channel("room")
            await again.join()


@pytest.mark.parametrize("name", [START, STOP])
async def test_a_topic_may_be_left_while_its_end_is_being_handled(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    """The leave comes too late to be sent, and so it ends at once."""
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            when(recorder.bus, name, FrameReceived, channel.leave_soon)
            peer.end_channel("room", "phx_error")
            await trio.testing.wait_all_tasks_blocked()
            assert sent(peer) == ["phx_join"]
            assert channel.status in ("closed", "errored")
            await socket.channel("room").join()


@pytest.mark.parametrize("name", [START, STOP])
async def test_a_topic_that_is_left_while_its_crash_is_being_handled_is_not_joined_again(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus, rejoin=Backoff((1,), jitter=0)) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            when(recorder.bus, name, FrameReceived, channel.leave_soon)
            peer.end_channel("room", "phx_error")
            await trio.sleep(5)
            assert sent(peer) == ["phx_join"]
            assert channel.status == "closed"


@pytest.mark.parametrize("name", [START, STOP])
async def test_a_topic_may_be_left_while_the_end_of_the_connection_is_being_handled(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    with recorded() as recorder:
        with pytest.raises(ConnectionLost):
            async with scripted(telemetry=recorder.bus) as (socket, peer):
                channel = socket.channel("room")
                await channel.join()
                when(recorder.bus, name, TransportClosed, channel.leave_soon)
                peer.end(1012)
                await trio.sleep_forever()
        assert channel.status == "closed"
        assert sent(peer) == ["phx_join"]


async def test_a_handler_that_leaves_at_every_record_ends(autojump_clock: MockClock) -> None:
    """Each topic is left once, and what is sent is in the order of the refs."""
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channels = [socket.channel(f"room:{number}") for number in range(3)]
            for channel in channels:
                await channel.join()

            def leave_all(_: Record) -> None:
                for channel in channels:
                    channel.leave_soon()

            with recorder.bus.listen(leave_all):
                await socket.ping()
                await trio.testing.wait_all_tasks_blocked()
            refs = [int(message.ref or 0) for message in peer.sent]
            assert refs == sorted(refs)
            assert sent(peer).count("phx_leave") == 3
            assert {channel.status for channel in channels} == {"closed"}


@pytest.mark.once
async def test_hundreds_of_topics_may_be_left_one_in_the_handling_of_the_other(autojump_clock: MockClock) -> None:
    """They wait in a queue, not on the stack."""
    count = 300
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus) as (socket, peer):
            channels = [socket.channel(f"room:{number}") for number in range(count)]
            async with trio.open_nursery() as nursery:
                for channel in channels:
                    nursery.start_soon(channel.join)
            left = iter(channels)

            def leave_next(record: Any) -> None:
                if isinstance(record.raw_message, LeaveTopic):
                    channel = next(left, None)
                    if channel is not None:
                        channel.leave_soon()

            recorder.bus.attach("acts", START, leave_next)
            next(left).leave_soon()
            await trio.testing.wait_all_tasks_blocked()
            assert sent(peer).count("phx_leave") == count
            assert socket.state.joins == {}


@pytest.mark.parametrize("watched", [True, False])
async def test_a_callback_of_presence_may_leave(watched: bool, autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        bus = recorder.bus if watched else Telemetry()
        async with scripted(telemetry=bus) as (socket, peer):
            channel = socket.channel("room")
            async with channel.presence() as presence:
                presence.on_join(lambda _: channel.leave_soon())
                await channel.join()
                peer.message("room", "presence_state", {"u": {"metas": [{"phx_ref": "1"}]}})
                peer.message("room", "tick", {"n": 1})
                await trio.testing.wait_all_tasks_blocked()
                assert sent(peer) == ["phx_join", "phx_leave"]
                assert [message.event async for message in channel] == ["presence_state", "tick"]


async def test_a_handler_told_of_an_overflow_may_leave(autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus, buffer=1, overflow="drop_oldest") as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            recorder.bus.attach("acts", ("slipstream", "client", "overflow"), lambda _: channel.leave_soon())
            for number in range(3):
                peer.message("room", "tick", {"n": number})
            await trio.testing.wait_all_tasks_blocked()
            assert channel.status == "closed"
            assert [message.payload async for message in channel] == [{"n": 2}]


async def test_a_handler_told_of_lost_pushes_may_leave_their_topics(autojump_clock: MockClock) -> None:
    """Those of a callback client end while the table of all of them is gone through."""

    class Pushing(Client):
        async def handle_connect(self, socket: Any) -> None:
            for topic in ("a", "b"):
                await self.join(topic)

        async def handle_join(self, channel: Channel, response: Any) -> None:
            for _ in range(2):
                await self.push(channel.topic, "unanswered")
            joined.append(channel)

        async def handle_disconnect(self, reason: Exception) -> None:
            self.stop()

    joined: list[Channel] = []
    ended: list[Any] = []
    bus = Telemetry()

    def push_ended(record: Any) -> None:
        ended.append((record.start.topic, record.outcome))
        for channel in joined:
            channel.leave_soon()

    bus.attach("acts", ("slipstream", "client", "push", "stop"), push_ended)
    connector = Scripted(PHOENIX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, Pushing(), URL, transport=connector, telemetry=bus))
        await trio.testing.wait_all_tasks_blocked()
        assert len(joined) == 2
        connector.peer.end(1006)
    assert sorted(topic for topic, _ in ended) == ["a", "a", "b", "b"]
    assert {outcome for _, outcome in ended} == {"lost"}
    assert bus.list_handlers(("slipstream", "client", "push", "stop"))  # it has not failed


async def test_a_topic_that_is_left_where_its_crash_has_ended_a_push_is_not_joined_again(
    autojump_clock: MockClock,
) -> None:
    class Pushing(Client):
        async def handle_connect(self, socket: Any) -> None:
            await self.join("room")

        async def handle_join(self, channel: Channel, response: Any) -> None:
            bus.attach("acts", ("slipstream", "client", "push", "stop"), lambda _: channel.leave_soon())
            await self.push(channel.topic, "unanswered")

        async def handle_leave(self, topic: str) -> None:
            left.append(topic)

    left, bus, connector = list[str](), Telemetry(), Scripted(PHOENIX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_client, Pushing(), URL, transport=connector, telemetry=bus))
        await trio.testing.wait_all_tasks_blocked()
        connector.peer.end_channel("room", "phx_error")
        await trio.sleep(60)
        assert (left, connector.peer.count("phx_join")) == (["room"], 1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", [START, STOP])
async def test_an_exit_that_a_handler_raises_leaves_the_connection_as_its_state_says(
    name: tuple[str, ...], autojump_clock: MockClock
) -> None:
    """An `Exception` would detach the handler; this one is meant for whoever pushes."""
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()

        def leave_the_program() -> None:
            channel.leave_soon()
            raise SystemExit

        when(recorder.bus, name, PushMessage, leave_the_program)
        with pytest.raises(SystemExit):
            await channel.push("echo", {"x": 1})
        await trio.testing.wait_all_tasks_blocked()
        assert sent(peer) == ["phx_join", *(["echo"] if name is STOP else []), "phx_leave"]
        assert socket.state.joins == {}
        await channel.join()
        assert await channel.push("echo", {"x": 2}) == {"x": 2}
    ends = [record for record in recorder.named("push", "exception") if record.kind == "SystemExit"]
    assert len(ends) == 1
    assert verify(recorder.records) == []


def driven_by_hand(channel: Channel) -> Callable[[Record], None]:
    """Return a handler that pushes, as far as that goes without waiting."""

    def drive(_: Record) -> None:
        pushing = channel.push("echo", {})
        try:
            pushing.send(None)
        finally:
            pushing.close()

    return drive


async def test_a_handler_that_drives_a_push_by_hand_is_stopped(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        recorder.bus.attach("acts", START, driven_by_hand(channel))
        assert await channel.push("echo", {"x": 1}) == {"x": 1}
        (failure,) = recorder.named("handler", "failure")
        assert "may not wait" in failure.reason
        assert sent(peer) == ["phx_join", "echo"]
    assert verify(recorder.records) == []


async def test_so_it_is_where_nobody_watches_what_is_handled(autojump_clock: MockClock) -> None:
    bus, failures = Telemetry(), list[Any]()
    bus.attach("failures", ("slipstream", "telemetry", "handler", "failure"), failures.append)
    async with scripted(telemetry=bus) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        bus.attach("acts", ("slipstream", "client", "message_dropped"), driven_by_hand(channel))
        peer.message("other", "event")
        assert await channel.push("echo", {"x": 1}) == {"x": 1}
        assert ["may not wait" in failure.reason for failure in failures] == [True]
        assert sent(peer) == ["phx_join", "echo"]


async def test_a_handler_may_leave_a_topic_whose_join_waits_for_a_slot(autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        async with (
            scripted(telemetry=recorder.bus, join_window=1, answers=PHOENIX - {"phx_join"}) as (socket, peer),
            trio.open_nursery() as nursery,
        ):
            done, waits, seen = Outcomes(nursery), socket.channel("waits"), list[str]()

            def leave() -> None:
                waits.leave_soon()
                seen.append(waits.status)

            done.start("first", socket.channel("first").join)
            await trio.testing.wait_all_tasks_blocked()
            done.start("waits", waits.join)
            await trio.testing.wait_all_tasks_blocked()
            when(recorder.bus, START, FrameReceived, leave)
            peer.reply(await peer.wait_sent("phx_join"))
            await trio.testing.wait_all_tasks_blocked()
            assert (seen, done.by["first"], type(done.by["waits"])) == (["closed"], {}, ChannelClosed)
            assert sent(peer) == ["phx_join"]


async def test_a_handler_told_that_a_rejoin_begins_may_leave_the_topic(autojump_clock: MockClock) -> None:
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus, rejoin=Backoff((1,), jitter=0)) as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            recorder.bus.attach("acts", ("slipstream", "client", "join", "start"), lambda _: channel.leave_soon())
            peer.end_channel("room", "phx_error")
            await trio.sleep(5)
            assert channel.status == "closed"
            assert sent(peer) == ["phx_join"]
        handled = [type(record.raw_message) for record in recorder.named("handle", "start")]
        assert LeaveTopic not in handled  # there is nothing to leave


async def test_the_slot_of_a_rejoin_that_is_left_as_it_begins_goes_to_the_next(autojump_clock: MockClock) -> None:
    options: Any = {"join_window": 1, "heartbeat_interval": None, "rejoin": Backoff((1,), jitter=0)}
    with recorded() as recorder:
        async with scripted(telemetry=recorder.bus, **options) as (socket, peer):
            left, kept = (socket.channel(topic, dict) for topic in ("left", "kept"))
            await left.join()
            await kept.join()
            for channel in (left, kept):
                peer.end_channel(channel.topic, "phx_error")

            def leave(record: Any) -> None:
                if record.topic == "left":
                    left.leave_soon()

            recorder.bus.attach("acts", ("slipstream", "client", "join", "start"), leave)
            await trio.sleep(2)
            assert (left.status, kept.status) == ("closed", "joined")
