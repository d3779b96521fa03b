"""Pushes and sends: replies, refs, payloads, and what they wait for."""

import gc
from typing import Any
from weakref import ref

import pytest
import trio
import trio.lowlevel
from tests.client.support import URL, Recorder, running, scripted
from tests.protocol import wire
from trio.testing import MockClock

from slipstream_trio import (
    Channel,
    ChannelClosed,
    ConnectionLost,
    PushError,
    SerializationError,
    connect,
)

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
