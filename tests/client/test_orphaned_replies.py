"""Pushes that are given up: whose replies come late, and are orphaned."""

from typing import Any

import pytest
import trio
from tests.client.support import Recorder, scripted
from tests.protocol import wire
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Message,
    PushTimeout,
)
from slipstream_trio.trace import verify


async def test_a_push_cancelled_before_it_is_queued_is_never_sent(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        for operation in (channel.push, channel.send):
            with trio.CancelScope() as scope:
                scope.cancel()
                await operation("event")
            assert scope.cancelled_caught
        await channel.push("echo")
        assert peer.count("event") == 0


@pytest.mark.parametrize("why", ["cancelled", "timeout"])
async def test_the_late_reply_of_a_push_that_was_given_up_is_orphaned(why: str, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        try:
            with trio.move_on_after(1 if why == "cancelled" else 9):
                await channel.push("event", timeout=5)
        except PushTimeout:
            pass
        push = await peer.wait_sent("event")
        peer.reply(push, {"late": True})
        peer.reply(push, {"late": "again"})
        assert await channel.push("echo", "next") == "next"
    (record,) = recorder.named("client", "reply_orphaned")
    assert (record.topic, record.ref, record.status, record.reason) == ("room", push.ref, "ok", why)
    assert record.response == {"late": True}


@pytest.mark.parametrize("status", ["ok", "error"])
async def test_a_reply_between_a_cancellation_and_its_task_is_orphaned(status: str, autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.push, "event")
            push = await peer.wait_sent("event")
            await wait_all_tasks_blocked()
            peer.handing_over = nursery.cancel_scope.cancel  # its task has no chance to run before the reply is there
            peer.reply(push, {"late": 1}, status)
        peer.reply(push, {"late": "again"}, status)
        assert await channel.push("echo", "next") == "next"
    (record,) = recorder.named("client", "reply_orphaned")
    assert (record.ref, record.status, record.reason) == (push.ref, status, "cancelled")
    assert record.response == {"late": 1}
    outcomes = [stop.outcome for stop in recorder.named("client", "push", "stop")]
    assert outcomes == ["cancelled", "ok"]
    first = recorder.named("client", "push", "stop")[0]
    assert recorder.records.index(record) < recorder.records.index(first)
    assert verify(recorder.records) == []


async def test_a_push_that_is_cancelled_after_its_reply_and_before_its_task_is_answered(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        responses: list[Any] = []

        def cancel(record: Any) -> None:
            if isinstance(record.transition.message, Message) and record.transition.message.event == "cancel":
                nursery.cancel_scope.cancel()

        async def push_event() -> None:
            responses.append(await channel.push("event"))

        recorder.bus.attach("cancel", ("slipstream", "connection", "handle", "stop"), cancel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push_event)
            push = await peer.wait_sent("event")
            await wait_all_tasks_blocked()
            peer.feed(
                wire.text(push.join_ref, push.ref, "room", "phx_reply", {"status": "ok", "response": "in time"}),
                wire.text(None, None, "room", "cancel", {}),
            )
        assert responses == ["in time"]
    assert [stop.outcome for stop in recorder.named("client", "push", "stop")] == ["ok"]
    assert recorder.named("client", "reply_orphaned") == []


async def test_of_many_pushes_that_were_given_up_the_latest_are_remembered(autojump_clock: MockClock) -> None:
    remembered = 1024
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, peer), socket.join("room") as channel:
        recorder.bus.detach("recorder")

        async def push(number: int) -> None:
            with pytest.raises(PushTimeout):
                await channel.push("event", number, timeout=1 + number / 1000)

        async with trio.open_nursery() as nursery:
            for number in range(remembered + 10):
                nursery.start_soon(push, number)
        pushed = sorted((message for message in peer.sent if message.event == "event"), key=lambda sent: sent.payload)
        recorder.bus.attach("recorder", ("slipstream", "client", "reply_orphaned"), recorder.records.append)
        for message in pushed:
            peer.reply(message)
        await wait_all_tasks_blocked()
    orphaned = recorder.named("client", "reply_orphaned")
    assert [record.ref for record in orphaned] == [message.ref for message in pushed[10:]]
