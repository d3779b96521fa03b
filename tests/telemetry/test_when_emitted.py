"""When records are emitted, in what order and context; and that nothing is, and nothing made, when nobody listens."""

from contextvars import ContextVar
from typing import Any

import pytest
import trio
from tests.client.support import Recorder, scripted
from tests.telemetry.support import CountingBus
from trio.testing import MockClock

from slipstream_trio import trace
from slipstream_trio.protocol import FrameReceived, JoinTopic, LeaveTopic, Message, PushMessage, TimerTicked
from slipstream_trio.telemetry import Telemetry

WHERE: ContextVar[str] = ContextVar("WHERE")


async def test_nothing_is_made_when_nobody_listens(autojump_clock: MockClock) -> None:
    counting = CountingBus()
    async with scripted(telemetry=counting.bus) as (socket, peer):
        assert counting.ids.asked == 3  # of the socket, the connection, the trace
        async with socket.join("room") as channel:
            for number in range(100):
                peer.message("room", "event", number)
                assert await channel.push("echo", number) == number
                await channel.send("event")
            with trio.move_on_after(1):
                await channel.push("event")
            peer.reply(await peer.wait_sent("event", 101))
            peer.message("elsewhere", "event")
            peer.feed("nonsense")
            await socket.ping()
            await trio.sleep(100)
    assert counting.ids.asked == 3
    assert counting.times == 0


async def test_nothing_is_made_for_those_who_listen_to_something_else(autojump_clock: MockClock) -> None:
    counting = CountingBus()
    counting.bus.attach("one", ("slipstream", "client", "gap"), print)
    async with scripted(telemetry=counting.bus) as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event")
        await channel.push("echo")
    assert (counting.ids.asked, counting.times) == (3, 0)


async def test_a_message_costs_one_id_and_three_times(autojump_clock: MockClock) -> None:
    counting = CountingBus()
    counting.bus.attach("one", ("slipstream", "connection", "handle", "stop"), lambda _: None)
    async with scripted(telemetry=counting.bus) as (socket, peer), socket.join("room"):
        before = (counting.ids.asked, counting.times)
        for number in range(10):
            peer.message("room", "event", number)
        await trio.testing.wait_all_tasks_blocked()
        assert (counting.ids.asked - before[0], counting.times - before[1]) == (10, 30)


async def test_a_span_that_nobody_observed_at_its_start_has_no_stop(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.detach("recorder")
    async with scripted(telemetry=recorder.bus) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        await channel.join()
        nursery.start_soon(channel.push, "event")
        push = await peer.wait_sent("event")
        recorder.bus.attach("recorder", (), recorder.records.append, prefix=True)
        peer.reply(push)
        await trio.testing.wait_all_tasks_blocked()
        await channel.leave()
    assert not recorder.named("push", "stop")
    assert not recorder.named("connect", "stop")
    assert len(recorder.named("leave", "stop")) == 1
    assert recorder.named("handle", "start")[0].state.current_ref == 2


@pytest.mark.parametrize("last", ["start", "stop"])
async def test_a_span_of_which_one_end_is_observed_shows_that(last: str, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.detach("recorder")
    for span in ("connect", "push"):
        recorder.bus.attach(span, ("slipstream", "client", span, last), recorder.records.append)
    async with scripted(telemetry=recorder.bus) as (socket, _), socket.join("room") as channel:
        await channel.push("echo")
    assert [record.name[2:] for record in recorder.records] == [("connect", last), ("push", last)]


async def test_a_handler_that_is_detached_in_between_costs_nothing(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, _), socket.join("room") as channel:
        recorder.bus.detach("recorder")
        assert await channel.push("echo", 1) == 1
    assert not recorder.named("connection", "connect", "stop")


async def test_a_handles_stop_comes_before_delivery_and_writing(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    checked: list[str] = []
    async with scripted(telemetry=bus, buffer=1) as (socket, peer), socket.join("room") as channel:

        def check(record: Any) -> None:
            message = record.transition.message
            if isinstance(message, Message) and message.event == "event":
                assert channel.dropped == 0
                checked.append("delivery")
            elif isinstance(message, PushMessage):
                assert peer.count("echo") == 0
                checked.append("writing")
            elif isinstance(message, LeaveTopic):
                assert peer.count("phx_leave") == 0
                checked.append("leaving")

        peer.message("room", "before")
        await trio.testing.wait_all_tasks_blocked()
        with bus.listen(check, ("slipstream", "connection", "handle", "stop")) as handler:
            peer.message("room", "event")
            await trio.testing.wait_all_tasks_blocked()
            assert channel.dropped == 1  # the one before, as there is room for one
            await channel.push("echo")
            await channel.leave()
            assert [attached.handler_id for attached in bus.list_handlers()] == [handler]
    assert checked == ["delivery", "writing", "leaving"]


async def test_commands_and_client_spans_run_in_the_callers_context_and_the_rest_in_that_of_connect(
    autojump_clock: MockClock,
) -> None:
    bus = Telemetry()
    seen: set[tuple[str, str]] = set()

    def look(record: Any) -> None:
        name = " ".join(record.name[1:])
        if name == "connection handle start":
            name = type(record.raw_message).__name__
        if name != "connection handle stop":
            seen.add((name, WHERE.get()))

    bus.attach("look", (), look, prefix=True)
    WHERE.set("connect")
    async with scripted(telemetry=bus, heartbeat_interval=1) as (socket, _):
        WHERE.set("body")
        channel = socket.channel("room")

        async def use() -> None:
            WHERE.set("task")
            await channel.join()
            await channel.push("echo")
            await channel.leave()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
        await trio.sleep(1.5)
    everything = dict(seen)
    assert len(everything) == len(seen)
    callers = {f"client {span} {last}" for span in ("join", "push", "leave") for last in ("start", "stop")}
    callers |= {kind.__name__ for kind in (JoinTopic, PushMessage, LeaveTopic)}
    connects = {f"{whose} connect {last}" for whose in ("client", "connection") for last in ("start", "stop")}
    connects |= {"TransportOpened", "TransportClosed", FrameReceived.__name__, TimerTicked.__name__}
    assert {name for name, where in seen if where == "task"} == callers
    assert {name for name, where in seen if where == "connect"} == connects
    assert {name for name, where in seen if where == "body"} == {"CloseConnection"}


async def test_a_failing_handler_changes_nothing_for_the_connection(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    for number, last in enumerate(("start", "stop", "exception")):
        recorder.bus.attach(f"broken {number}", ("slipstream", "connection", "handle", last), lambda _: 1 / 0)
    recorder.bus.attach("broken", (), lambda _: 1 / 0, prefix=True)
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        peer.message("room", "event", 5)
        assert (await anext(aiter(channel))).payload == 5
        assert await channel.push("echo", 1) == 1
    failures = recorder.named("handler", "failure")
    assert [failure.handler_id for failure in failures] == ["broken", "broken 0", "broken 1"]
    assert trace.verify(recorder.records) == []


async def test_a_whole_life_breaks_no_invariant(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    for _ in range(3):
        async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
            peer.message("room", "event")
            peer.feed("nonsense")
            assert await channel.push("echo", 1) == 1
            await socket.ping()
    assert trace.verify(recorder.records) == []
