"""Pushes and sends: replies, refs, payloads, timeouts."""

import gc
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
import trio
import trio.lowlevel
from tests.client.support import URL, Recorder, Scripted, living_tasks, running, scripted
from tests.held import blocks_held, objects_held
from tests.protocol import wire
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Backoff,
    Channel,
    ChannelClosed,
    ConnectionLost,
    PushError,
    PushTimeout,
    SerializationError,
    Socket,
    connect,
)
from slipstream_trio.protocol import Frame

QUIET = frozenset({"phx_join", "phx_leave", "heartbeat"})


@pytest.mark.parametrize("response", [{"a": 1}, [], "text", 5, None, True])
async def test_an_ok_reply_is_returned(response: Any, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:

        async def answer() -> None:
            push = await peer.wait_sent("event")
            payload = {"status": "ok", "response": response}
            peer.feed(wire.text(push.join_ref, push.ref, "room", "phx_reply", payload))

        nursery.start_soon(answer)
        assert await channel.push("event", {"b": 2}) == response
        push = await peer.wait_sent("event")
        assert push == (channel.join_ref, "2", "room", "event", {"b": 2})


@pytest.mark.parametrize("status", ["error", "odd", ""])
async def test_any_other_status_raises_push_error(status: str, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:

        async def answer() -> None:
            peer.reply(await peer.wait_sent("event"), {"reason": "no"}, status)

        nursery.start_soon(answer)
        with pytest.raises(PushError) as raised:
            await channel.push("event")
        error = raised.value
        assert (error.topic, error.event, error.status, error.response) == ("room", "event", status, {"reason": "no"})


async def test_a_reply_without_a_response_is_none(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:

        async def answer() -> None:
            push = await peer.wait_sent("event")
            peer.feed(wire.text(push.join_ref, push.ref, "room", "phx_reply", {"status": "ok"}))

        nursery.start_soon(answer)
        assert await channel.push("event") is None


async def test_a_payload_that_is_left_out_is_an_empty_object(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        await channel.push("echo")
        await channel.send("event")
        assert (await peer.wait_sent("echo")).payload == {}
        assert (await peer.wait_sent("event")).payload == {}


async def test_replies_may_come_in_any_order_and_twice(autojump_clock: MockClock) -> None:
    results: dict[int, Any] = {}

    async with scripted(answers=QUIET) as (socket, peer), socket.join("room") as channel:

        async def push(number: int) -> None:
            results[number] = await channel.push("event", number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(push, number)
            await peer.wait_sent("event", 5)
            for message in reversed([message for message in peer.sent if message.event == "event"]):
                peer.reply(message, {"was": message.payload})
                peer.reply(message, {"was": "something else"}, "error")
    assert results == {number: {"was": number} for number in range(5)}


@pytest.mark.once
async def test_a_thousand_pushes_in_flight_have_refs_in_wire_order(autojump_clock: MockClock) -> None:
    async with running() as server, connect(URL, transport=server.connector()) as socket:
        channels = [socket.channel(f"lab:{number}") for number in range(4)]
        for channel in channels:
            await channel.join()
        results: list[int] = []

        async def push(number: int) -> None:
            results.append(await channels[number % 4].push("echo", number))

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(push, number)
        assert sorted(results) == list(range(1000))
        refs = [int(message.ref or 0) for message in server.connections[0].received]
        assert refs == list(range(refs[0], refs[0] + len(refs)))


async def test_a_push_that_is_not_answered_times_out(autojump_clock: MockClock) -> None:
    async with scripted(push_timeout=3) as (socket, _peer), socket.join("room") as channel:
        for timeout, options in ((3, {}), (7, {"timeout": 7}), (0.5, {"timeout": 0.5})):
            started = trio.current_time()
            with pytest.raises(PushTimeout) as raised:
                await channel.push("event", **options)
            assert trio.current_time() - started == pytest.approx(timeout)
            error = raised.value
            assert (error.topic, error.event, error.timeout) == ("room", "event", timeout)


async def test_pushes_that_were_answered_are_forgotten_before_their_deadline(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
        ended: list[float] = []

        async def wait() -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=50)
            ended.append(trio.current_time())

        async def push(count: int) -> int:
            for number in range(count):
                await channel.push("echo", timeout=100 + number)
            peer.sent.clear()
            peer.batches.clear()
            return blocks_held()

        nursery.start_soon(wait)
        before = await push(100)
        # The deadlines of some dozens of answered pushes may wait to be swept.
        assert await push(500) - before < 1000
        await trio.sleep_until(60)
        assert ended == [50]


async def test_pushes_that_were_given_up_are_forgotten(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:

        async def give_up(count: int) -> int:
            for number in range(count):
                if number % 2:
                    with pytest.raises(PushTimeout):
                        await channel.push("event", timeout=1)
                else:
                    with trio.move_on_after(1):
                        await channel.push("event")
            peer.sent.clear()
            peer.batches.clear()
            return objects_held()

        before = await give_up(10)
        assert await give_up(100) <= before + 5


@pytest.mark.parametrize("options", [{"push_timeout": None}, {"push_timeout": 1}])
async def test_a_push_without_a_limit_waits(options: Any, autojump_clock: MockClock) -> None:
    async with scripted(**options) as (socket, _peer), socket.join("room") as channel:
        with trio.move_on_after(500) as scope:
            await channel.push("event", timeout=None)
        assert scope.cancelled_caught


async def test_each_of_many_pushes_has_its_own_deadline(autojump_clock: MockClock) -> None:
    ended: list[tuple[int, float]] = []
    async with scripted() as (socket, _peer), socket.join("room") as channel:
        started = trio.current_time()

        async def push(timeout: int) -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=timeout)
            ended.append((timeout, trio.current_time() - started))

        async with trio.open_nursery() as nursery:
            for timeout in (5, 1, 4, 2, 3):
                nursery.start_soon(push, timeout)
    assert [timeout for timeout, _ in ended] == [1, 2, 3, 4, 5]
    assert [after for _, after in ended] == pytest.approx([1, 2, 3, 4, 5])


async def test_a_push_made_while_joining_waits_for_the_join(autojump_clock: MockClock) -> None:
    async with scripted(answers={"echo"}) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        await peer.wait_sent("phx_join")
        results: list[Any] = []

        async def push() -> None:
            results.append(await channel.push("echo", 1))

        nursery.start_soon(push)
        nursery.start_soon(channel.send, "event")
        await trio.testing.wait_all_tasks_blocked()
        assert [message.event for message in peer.sent] == ["phx_join"]
        peer.reply(peer.sent[0])
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(message.event for message in peer.sent) == ["echo", "event", "phx_join"]
        assert results == [1]
        peer.answers.update(QUIET)


async def test_waiting_for_the_join_counts_towards_the_timeout(autojump_clock: MockClock) -> None:
    async with scripted(answers=()) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        await peer.wait_sent("phx_join")
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=2)
        assert trio.current_time() == pytest.approx(2)
        assert peer.count("event") == 0
        peer.reply(peer.sent[0])
        peer.answers.update(QUIET)


@pytest.mark.parametrize("how", ["refused", "timeout"])
async def test_a_push_that_waits_for_a_join_that_fails_is_told(how: str, autojump_clock: MockClock) -> None:
    async with scripted(answers=(), join_timeout=5) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")

        async def join() -> None:
            with pytest.raises(Exception, match="room"):
                await channel.join()

        nursery.start_soon(join)
        await peer.wait_sent("phx_join")

        async def refuse() -> None:
            await trio.sleep(1)
            if how == "refused":
                peer.reply(peer.sent[0], status="error")

        nursery.start_soon(refuse)
        with pytest.raises(ChannelClosed) as raised:
            await channel.push("event")
        assert raised.value.reason == f"join_{how}"
        peer.answers.update(QUIET)


async def test_a_push_on_a_channel_that_is_not_joined_raises_at_once(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        for operation in (channel.push, channel.send):
            with pytest.raises(ChannelClosed, match="not joined"):
                await operation("event")
        await channel.join()
        await channel.leave()
        for operation in (channel.push, channel.send):
            with pytest.raises(ChannelClosed, match="left"):
                await operation("event")
        assert peer.count("event") == 0


@pytest.mark.parametrize("event", ["phx_join", "phx_leave", "phx_reply", "phx_close", "phx_error"])
async def test_events_of_the_protocol_cannot_be_pushed(event: str, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        for operation in (channel.push, channel.send):
            with pytest.raises(ValueError, match=event):
                await operation(event)
        assert [message.event for message in peer.sent] == ["phx_join"]


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("event", object()),
        ("event", {1: 2}),
        ("event", float("nan")),
        ("event", (1, 2)),
        ("event", "\ud800"),
        ("\ud800", {}),
        ("event", [[b"nested"]]),
        ("e" * 256, b"data"),
    ],
)
async def test_what_cannot_be_sent_raises_before_anything_is(
    event: str, payload: Any, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        for operation in (channel.push, channel.send):
            before = socket.state
            with pytest.raises(SerializationError):
                await operation(event, payload)
            assert socket.state is before
        assert await channel.push("echo", 1) == 1
        assert (await peer.wait_sent("echo")).ref == "2"
    assert len(recorder.named("connection", "handle", "exception")) == 2
    assert len(recorder.named("client", "push", "exception")) == 1


async def test_bytes_are_sent_and_answered_as_binary_frames(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:

        async def answer() -> None:
            push = await peer.wait_sent("event")
            assert (push.join_ref, push.payload) == (channel.join_ref, b"\x00\xff")
            peer.feed(wire.binary_reply("", push.ref or "", "room", "ok", b"\xff\x00"))

        nursery.start_soon(answer)
        assert await channel.push("event", b"\x00\xff") == b"\xff\x00"
        peer.feed(wire.binary_broadcast("room", "blob", b""))
        message = await anext(aiter(channel))
        assert (message.event, message.payload) == ("blob", b"")


async def test_the_lengths_of_a_binary_push_are_those_of_a_byte(autojump_clock: MockClock) -> None:
    topic, event = "t" * 255, "é" * 127
    async with scripted() as (socket, peer), socket.join(topic) as channel:
        await channel.send(event, b"data")
        assert (await peer.wait_sent(event)).topic == topic
        await channel.send("e" * 300, {"text": "has no limit"})
    async with scripted() as (socket, peer), socket.join("t" * 256) as channel:
        with pytest.raises(SerializationError, match="255"):
            await channel.send("event", b"data")


async def test_a_send_returns_when_it_is_queued(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        peer.pause()
        await channel.send("event", 1)
        await channel.send("event", 2)
        assert peer.count("event") == 0
        peer.resume()
        await peer.wait_sent("event", 2)
        assert trio.current_time() == 0


async def test_a_push_is_told_whether_it_may_have_been_sent(autojump_clock: MockClock) -> None:
    sent: dict[str, bool] = {}
    async with trio.open_nursery() as outside:
        with pytest.raises(ConnectionLost) as lost:
            async with scripted() as (socket, peer):
                channel = socket.channel("room")
                await channel.join()

                async def push(event: str) -> None:
                    with pytest.raises(ConnectionLost) as raised:
                        await channel.push(event)
                    sent[event] = raised.value.sent

                outside.start_soon(push, "written")
                await peer.wait_sent("written")
                peer.pause()
                outside.start_soon(push, "being written")
                await trio.testing.wait_all_tasks_blocked()
                outside.start_soon(push, "queued")
                await trio.testing.wait_all_tasks_blocked()
                peer.end()
                await trio.sleep_forever()
    assert sent == {"written": True, "being written": True, "queued": False}
    assert lost.value.sent is False
    assert peer.count("queued") == 0


async def test_the_writer_is_woken_for_the_transport_once(autojump_clock: MockClock) -> None:
    async with scripted() as (_socket, peer):
        for _ in range(2):
            peer.wake()
            await wait_all_tasks_blocked()
        assert peer.batches == [(), ()]


async def test_a_deadline_of_another_socket_does_not_put_off_an_earlier_one(autojump_clock: MockClock) -> None:
    async def push(socket: Socket, timeout: float) -> None:
        channel = socket.channel("room")
        await channel.join()
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=timeout)
        ended.append(trio.current_time() - began)

    ended: list[float] = []
    began = trio.current_time()
    async with scripted() as (first, _), scripted() as (second, _), trio.open_nursery() as nursery:
        nursery.start_soon(push, first, 1)
        await trio.sleep(0.1)
        nursery.start_soon(push, second, 20)
    assert ended == pytest.approx([1, 20.1])


async def test_others_run_while_many_pushes_time_out(autojump_clock: MockClock) -> None:
    at_once: list[int] = []
    passes = 0

    async def push(channel: Channel) -> None:
        with pytest.raises(PushTimeout):
            await channel.push("event", timeout=1)
        at_once.append(passes)

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with scripted() as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        async with trio.open_nursery() as counting:
            async with trio.open_nursery() as pushing:
                for _ in range(1000):
                    pushing.start_soon(push, channel)
                await wait_all_tasks_blocked()
                counting.start_soon(count)
                autojump_clock.jump(1)
            counting.cancel_scope.cancel()
    assert max(Counter(at_once).values()) <= 2 * 128


async def test_a_push_that_times_out_while_there_is_no_connection_says_so(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((60,), jitter=0)) as socket:
        channel = socket.channel("room")
        await channel.join()
        connector.peer.end()
        await wait_all_tasks_blocked()
        with pytest.raises(PushTimeout) as caught:
            await channel.push("event", timeout=1)
        assert caught.value.awaited == "connection"


async def test_a_channel_whose_push_waited_is_forgotten_once_it_was_left(autojump_clock: MockClock) -> None:
    async def push(channel: Channel) -> None:
        assert await channel.push("echo", 1) == 1

    async with scripted() as (socket, _):
        channel: Channel | None = socket.channel("room")
        assert channel is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.join)
            while channel.status == "closed":
                await trio.lowlevel.checkpoint()
            assert channel.status == "joining"
            nursery.start_soon(push, channel)
        await channel.leave()
        known = ref(channel)
        channel = None
        await trio.sleep(60)  # until its deadlines are over
        gc.collect()
        assert known() is None


async def test_the_writer_does_not_run_in_the_context_of_who_pushes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def send(frames: Sequence[Frame]) -> None:
        seen.append(variable.get())
        await before(frames)

    variable = ContextVar("variable", default="outside")
    seen: list[str] = []
    variable.set("connect")
    async with scripted() as (socket, peer):
        before = peer.send
        monkeypatch.setattr(peer, "send", send)
        variable.set("push")
        channel = socket.channel("room")
        await channel.join()
        await trio.sleep(10)  # until the writer's task has ended
        assert await channel.push("echo", 1) == 1
    assert set(seen) == {"connect"}


async def test_the_writers_task_ends_each_time_it_has_nothing_to_do(autojump_clock: MockClock) -> None:
    async with scripted(heartbeat_interval=None) as (socket, _):
        channel = socket.channel("room")
        await channel.join()
        idle: list[int] = []
        for _ in range(3):
            await channel.push("echo", 1)
            await channel.push("echo", 1)
            await trio.sleep(3)
            idle.append(living_tasks())
        assert len(set(idle)) == 1


async def test_the_writers_task_ends_in_another_socket_of_the_run_too(autojump_clock: MockClock) -> None:
    idle: list[int] = []
    for _ in range(2):
        async with scripted(heartbeat_interval=None) as (socket, _):
            idle.append(living_tasks())
            async with socket.join("room") as channel:
                await channel.push("echo", 1)
                await trio.sleep(3)
                idle.append(living_tasks())
                await channel.push("echo", 1)
    assert len(set(idle)) == 1


@pytest.mark.parametrize(("busy", "answered"), [(15, True), (1000, False)])
async def test_a_push_is_not_overdue_while_the_program_is_busy_but_for_a_while(
    busy: int, answered: bool, autojump_clock: MockClock
) -> None:
    passes = 0

    async def work() -> None:
        nonlocal passes
        await trio.sleep(1)
        message = await peer.wait_sent("event")
        for passes in range(busy):  # noqa: B007 - looked at below
            autojump_clock.jump(0.05)
            await trio.lowlevel.checkpoint()
        peer.reply(message, "in time")

    async with scripted(answers=QUIET, heartbeat_interval=None) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            if answered:
                assert await channel.push("event", timeout=1) == "in time"
            else:
                with pytest.raises(PushTimeout):
                    await channel.push("event", timeout=1)
                assert 20 < passes < 100  # one counts for 10 ms, of 250, or for none, as tasks run in any order


async def test_sockets_that_have_ended_are_forgotten_while_another_one_lasts(autojump_clock: MockClock) -> None:
    async def ended() -> ref[Socket]:
        async with scripted(heartbeat_interval=1000) as (socket, _):
            return ref(socket)

    async with scripted():
        sockets = [await ended() for _ in range(100)]
        gc.collect()
        assert sum(socket() is not None for socket in sockets) < 50  # the times of some dozens may wait to be swept
