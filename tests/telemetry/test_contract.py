"""The fields by which an incident is told apart: how a connection ended, and why an operation did not succeed."""

import logging
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, living_tasks, scripted
from tests.telemetry.support import taken_for_real
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    AlreadyJoined,
    Backoff,
    ChannelClosed,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    InternalError,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
    connect,
)
from slipstream_trio.telemetry import ClientPushStop, ClientSendStop, Telemetry
from slipstream_trio.transport import OpenRequest

AGAIN = Backoff((1,), jitter=0)


def stops(recorder: Recorder, *name: str) -> list[Any]:
    return recorder.named(*name, "stop")


async def test_an_end_tells_its_side_code_text_and_the_last_message(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with pytest.raises(ConnectionLost):
        async with scripted(telemetry=recorder.bus) as (_, peer):
            await trio.sleep(2)
            peer.message("room", "event")
            await trio.sleep(3)
            peer.end(1012, "deploying")
            await trio.sleep_forever()
    (stop,) = stops(recorder, "connection", "connect")
    assert (stop.termination_reason, stop.ended_by, stop.code) == ("closed_by_server", "server", 1012)
    assert (stop.message, stop.received, stop.heard) == ("deploying", 2, None)  # a transport that does not tell


async def test_a_connection_that_never_was_tells_whose_part_that_is(autojump_clock: MockClock) -> None:
    async def refuse(_: OpenRequest) -> None:
        raise ConnectionRejected(403, (), "no")

    async def fail(_: OpenRequest) -> None:
        raise ConnectError("no route")

    async def never(_: OpenRequest) -> None:
        await trio.sleep_forever()

    recorder = Recorder()
    for opening, options in (
        (refuse, {}),
        (fail, {}),
        (never, {"connect_timeout": 1}),
        (never, {"params": lambda: 1 / 0, "connect_timeout": None}),
    ):
        with pytest.raises((ConnectError, trio.TooSlowError, ZeroDivisionError)), trio.fail_after(20):
            async with connect(URL, transport=Scripted(opening=opening), telemetry=recorder.bus, **options):
                pytest.fail("not to be entered")
    ends = [(each.termination_reason, each.ended_by, each.code) for each in stops(recorder, "connection", "connect")]
    assert ends[:2] == [("connect_failed", "server", None), ("connect_failed", "network", None)]
    assert ends[-1] == ("option_failed", "client", None)
    assert {each.received for each in stops(recorder, "connection", "connect")} == {None}


async def test_giving_up_is_told_with_the_attempts_and_a_hint(autojump_clock: MockClock) -> None:
    async def refuse(_: OpenRequest) -> None:
        if connector.peers:
            raise ConnectionRejected(404)

    recorder, connector = Recorder(), Scripted(opening=refuse)
    with pytest.raises(ConnectionRejected):
        async with connect(URL, transport=connector, telemetry=recorder.bus, reconnect=AGAIN):
            connector.peer.end(1001)
            await trio.sleep_forever()
    (told,) = recorder.named("client", "gave_up")
    assert (told.reason, told.attempts, told.status) == ("rejected", 1, 404)
    assert "/websocket" in told.hint
    async with scripted(telemetry=recorder.bus):
        pass
    assert len(recorder.named("client", "gave_up")) == 1
    with pytest.raises(ConnectionLost) as lost:
        async with scripted(telemetry=recorder.bus) as (_, peer):
            peer.end(1001)
            await trio.sleep_forever()
    assert recorder.named("client", "gave_up")[1].hint == str(lost.value)


async def test_a_join_tells_why_it_failed_and_how_long_it_waited(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    answers = ("heartbeat", "phx_leave")
    async with scripted(telemetry=recorder.bus, answers=answers, join_window=1) as (socket, peer):
        held = socket.channel("room")
        with pytest.raises(JoinTimeout), trio.fail_after(20):
            await held.join(timeout=3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.join)
            await wait_all_tasks_blocked()
            with pytest.raises(AlreadyJoined):
                await socket.channel("room").join()
            with trio.move_on_after(2):
                await socket.channel("other").join()
            peer.reply(await peer.wait_sent("phx_join", 2))
        refused = await peer.wait_sent("phx_join", 3) if peer.count("phx_join") > 2 else None
        assert refused is None
    told = [(each.outcome, each.reason, each.waited) for each in stops(recorder, "client", "join")]
    assert told == [
        ("timeout", "timeout", 0),
        ("error", "already_joined", 0),
        ("cancelled", "cancelled", 2 * 10**9),
        ("ok", None, 0),
    ]


async def test_a_refused_join_and_leaves_that_are_not_confirmed_tell_why(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus, answers=("heartbeat",), leave_timeout=2) as (socket, peer):
        async with trio.open_nursery() as nursery:
            channel = socket.channel("room")
            nursery.start_soon(channel.join)
            peer.reply(await peer.wait_sent("phx_join"))
        await channel.leave()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(JoinError):
                    await socket.channel("room").join()

            peer.reply(await peer.wait_sent("phx_join", 2), {"reason": "full"}, status="error")
    (left,) = stops(recorder, "client", "leave")
    assert (left.outcome, left.reason, left.waited) == ("timeout", "leave_timeout", 0)
    joined, refused = stops(recorder, "client", "join")
    assert (joined.reason, refused.reason, refused.response) == (None, "refused", {"reason": "full"})


async def test_a_push_tells_whether_it_was_sent_how_long_it_waited_and_why_it_failed(
    autojump_clock: MockClock,
) -> None:
    bus, told = Telemetry(), list[ClientPushStop]()
    bus.attach(ClientPushStop, told.append)
    async with scripted(telemetry=bus, answers=("phx_join", "echo")) as (socket, peer):
        channel = socket.channel("room")
        with pytest.raises(ChannelClosed):
            await channel.push("event")
        await channel.join()
        await channel.push("echo")
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=2)
        with trio.move_on_after(1):
            await channel.push("event")
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(PushError):
                    await channel.push("fail")

            nursery.start_soon(fail)
            peer.reply(await peer.wait_sent("fail"), status="error")
        peer.pause()
        for _ in range(2):  # one is written, and the other fills the queue
            await channel.send("large", b"x" * 2**21)
            await trio.sleep(0.1)
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=3)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(ConnectionLost):
                    await channel.push("event")

            await trio.sleep(1)
            peer.end(1006)
    assert [(each.outcome, each.reason, each.sent, each.waited) for each in told] == [
        ("lost", "not_joined", False, 0),
        ("ok", None, True, 0),
        ("timeout", "timeout", True, 0),
        ("cancelled", "cancelled", True, 0),
        ("error", None, True, 0),
        ("timeout", "timeout", False, 3 * 10**9),
        ("lost", "lost", False, 10**9),
    ]


async def test_a_send_is_a_span_also_where_it_is_refused(autojump_clock: MockClock) -> None:
    bus, told = Telemetry(), list[ClientSendStop]()
    bus.attach(ClientSendStop, told.append)
    async with scripted(telemetry=bus) as (socket, peer):
        channel = socket.channel("room")
        with pytest.raises(ChannelClosed):
            await channel.send("event", {"a": 1})
        async with channel._socket.join("room") as joined:
            await joined.send("event", {"a": 1})
            await trio.sleep(0.1)
            peer.pause()
            for _ in range(2):  # one is written, and the other fills the queue
                await joined.send("large", b"x" * 2**21)
                await trio.sleep(0.1)
            with trio.move_on_after(2):
                await joined.send("event")
            peer.resume()
    assert [(each.outcome, each.reason, each.ref, each.waited) for each in told] == [
        ("lost", "not_joined", None, 0),
        ("ok", None, "2", 0),
        ("ok", None, "3", 0),
        ("ok", None, "4", 0),
        ("cancelled", "cancelled", None, 2 * 10**9),
    ]
    assert (told[0].start.topic, told[0].start.event, told[0].start.params) == ("room", "event", {"a": 1})
    assert {type(each) for each in told} == {ClientSendStop}


async def test_a_malformed_frame_is_told_and_cut(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (_, peer):
        peer.feed("[" * 1000, b"\xff")
        peer.message("elsewhere", "event")
        await wait_all_tasks_blocked()
    frames = [record.frame for record in recorder.named("client", "message_dropped")]
    assert frames == ["[" * 256, b"\xff", None]


async def test_the_configuration_tells_how_secrets_are_given_and_never_what(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"params": {"token": "hidden"}, "headers": lambda: {"x-key": "hidden"}}
    async with scripted(telemetry=recorder.bus, **options):
        pass
    (start,) = recorder.named("client", "connect", "start")
    configuration = start.metadata["configuration"]
    assert (configuration.params, configuration.headers, configuration.auth_token) == ("value", "function", "absent")
    assert "hidden" not in repr(configuration)


@pytest.mark.parametrize("watched", [True, False])
def test_an_event_loop_that_stands_still_is_told_to_those_who_ask(watched: bool) -> None:
    bus, told = Telemetry(), list[Any]()
    if watched:
        bus.attach("stalls", ("slipstream", "client", "stalled"), told.append)

    async def stand_still() -> None:
        clock: Any = trio.lowlevel.current_clock()
        async with scripted(telemetry=bus, heartbeat_interval=None):
            await trio.sleep(1.1)
            clock.jump(0.2)
            await trio.sleep(1)
            assert not told
            clock.jump(5)
            await trio.sleep(1)

    with taken_for_real() as clock:
        trio.run(stand_still, clock=clock)
    assert [4.7 < record.seconds <= 5 for record in told] == [True] * watched


async def test_a_lost_connection_is_logged_and_when_there_is_one_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_late(_: OpenRequest) -> None:
        await trio.sleep(2 if connector.peers else 0)

    connector = Scripted(opening=open_late)
    async with connect(URL, transport=connector, reconnect=AGAIN) as socket:
        connector.peer.end(1006)
        await trio.sleep(10)
    told = [(record.levelno, record.message) for record in caplog.records if record.name == "slipstream_trio"]
    assert told == [
        (logging.WARNING, f"socket {socket.socket_id}: the connection was ended by the network: lost"),
        (logging.WARNING, f"socket {socket.socket_id}: connected again, after 3 s without a connection"),
    ]


async def test_a_connection_that_a_bug_has_ended_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InternalError):
        async with scripted() as (socket, peer):
            peer.break_down(ZeroDivisionError("a bug"))
            await trio.sleep_forever()
    told = [record.message for record in caplog.records if record.name == "slipstream_trio"]
    assert told == [f"socket {socket.socket_id}: the connection was ended: internal_error"]


async def test_a_handler_that_raised_is_logged_with_its_traceback(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Telemetry()
    bus.attach("mine", ("slipstream", "client", "connect", "stop"), lambda _: 1 / 0)
    async with scripted(telemetry=bus):
        pass
    (record,) = [record for record in caplog.records if record.name == "slipstream_trio"]
    assert record.levelno == logging.ERROR
    assert record.message == "telemetry handler 'mine' raised at slipstream client connect stop, and is detached"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_a_socket_that_has_ended_tells_of_no_stall() -> None:
    bus, told = Telemetry(), list[Any]()
    bus.attach("stalls", ("slipstream", "client", "stalled"), told.append)

    async def stand_still() -> None:
        clock: Any = trio.lowlevel.current_clock()
        async with scripted(telemetry=bus, heartbeat_interval=None):
            async with scripted(telemetry=bus, heartbeat_interval=None):
                await trio.sleep(1.1)
            clock.jump(5)
            await trio.sleep(1)

    with taken_for_real() as clock:
        trio.run(stand_still, clock=clock)
    assert len(told) == 1


def test_nobody_looks_for_stalls_once_nobody_asks() -> None:
    bus, living = Telemetry(), list[int]()
    bus.attach("stalls", ("slipstream", "client", "stalled"), lambda _: None)

    async def ask_no_more() -> None:
        async with scripted(telemetry=bus, heartbeat_interval=None):
            await trio.sleep(1.1)
            living.append(living_tasks())
            bus.detach("stalls")
            await trio.sleep(1)
            living.append(living_tasks())

    with taken_for_real() as clock:
        trio.run(ask_no_more, clock=clock)
    assert living[0] - living[1] == 1
