"""An interrupt at any moment of a command: nothing is lost or done by halves, and all goes on where it is caught."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.interrupting import after_a_second, give, protected_by_code, strike_everywhere
from tests.client.support import PHOENIX, URL, Recorder, Scripted, scripted
from tests.everywhere.strike import Strike
from tests.recovery.support import settle

from slipstream_trio import Backoff, Channel, Socket, connect


def test_a_reader_whose_messages_wait_loses_none() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer), socket.join("room") as channel:
            peer.message("room", "first")
            peer.message("room", "second")
            await settle()
            read: list[str] = []

            async def receive() -> None:
                read.append((await anext(channel)).event)

            await give(strike, receive)
            with trio.fail_after(1):
                while len(read) < 2:
                    await receive()
            assert read == ["first", "second"]

    strike_everywhere(program)


def test_a_reader_who_waited_is_not_woken() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:
            nursery.start_soon(after_a_second, strike.end)
            nursery.start_soon(after_a_second, partial(peer.message, "room", "event"))
            if await give(strike, lambda: anext(channel)):
                await trio.sleep(2)
                assert trio.current_time() == 2
                assert (await anext(channel)).event == "event"

    strike_everywhere(program)


def test_a_task_that_waited_for_a_connection_is_not_woken() -> None:
    async def program(strike: Strike) -> None:
        async with scripted(reconnect=Backoff((1,), jitter=0)) as (socket, peer), trio.open_nursery() as nursery:
            peer.end()
            await settle()
            assert socket.status == "reconnecting"
            nursery.start_soon(after_a_second, strike.end)
            if await give(strike, socket.wait_connected):
                await trio.sleep(2)
                assert trio.current_time() == 2
            await socket.wait_connected()

    strike_everywhere(program)


def test_a_send_that_waits_is_not_sent() -> None:
    async def program(strike: Strike) -> None:
        async with scripted(answers=PHOENIX - {"phx_join"}) as (socket, peer), trio.open_nursery() as nursery:
            channel = socket.channel("room")
            nursery.start_soon(channel.join)
            join = await peer.wait_sent("phx_join")
            nursery.start_soon(after_a_second, strike.end)
            nursery.start_soon(after_a_second, partial(peer.reply, join))
            interrupted = await give(strike, partial(channel.send, "event"))
            await channel.push("echo")
            assert peer.count("event") == (not interrupted)

    strike_everywhere(program)


def test_a_reader_of_presences_loses_no_change() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer), socket.join("room") as channel, channel.presence() as presence:
            peer.message("room", "presence_state", {"me": {"metas": [{"phx_ref": "1"}]}})
            peer.message("room", "presence_diff", {"joins": {"you": {"metas": [{"phx_ref": "2"}]}}, "leaves": {}})
            await settle()
            read: list[str] = []

            async def follow() -> None:
                read.append((await anext(presence)).key)

            await give(strike, follow)
            with trio.fail_after(1):
                while len(read) < 2:
                    await follow()
            assert read == ["me", "you"]

    strike_everywhere(program)


def test_the_block_of_a_join_leaves() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer):
            block = socket.join("room")
            await block.__aenter__()
            await give(strike, lambda: block.__aexit__(None, None, None))
            await settle()
            assert peer.count("phx_leave") == 1

    strike_everywhere(program, once=True)


@protected_by_code
def test_the_block_of_a_socket_ends_it() -> None:
    async def program(strike: Strike) -> None:
        connector = Scripted()
        with trio.fail_after(10):
            block = connect(URL, transport=connector)
            socket = await block.__aenter__()
            await give(strike, lambda: block.__aexit__(None, None, None))
            assert socket.status == "closed"
            assert connector.peer.left

    strike_everywhere(program, once=True)


def test_an_interrupted_join_holds_no_topic() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer):
            channel = socket.channel("room")
            await give(strike, channel.join)
            await settle()
            if channel.status != "joined":  # it came before the answer
                with trio.fail_after(10):
                    await socket.channel("room").join()
            assert peer.count("phx_join") - peer.count("phx_leave") == 1

    strike_everywhere(program)


def test_an_interrupted_push_is_not_woken_by_its_reply() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer), socket.join("room") as channel, trio.open_nursery() as nursery:

            def answer() -> None:
                strike.end()
                for push in peer.sent:
                    if push.event == "event":
                        peer.reply(push)

            nursery.start_soon(after_a_second, answer)
            if await give(strike, partial(channel.push, "event")):
                await trio.sleep(2)
                assert trio.current_time() == 2
            assert await channel.push("echo", 5) == 5

    strike_everywhere(program)


def test_a_leave_that_is_not_waited_for_is_asked_for_or_not() -> None:
    async def leave(channel: Channel) -> None:
        channel.leave_soon()

    async def program(strike: Strike) -> None:
        async with scripted() as (socket, peer):
            channel = socket.channel("room")
            await channel.join()
            await give(strike, partial(leave, channel))
            channel.leave_soon()
            await settle()
            assert (channel.status, peer.count("phx_leave")) == ("closed", 1)

    strike_everywhere(program)


def test_a_disconnect_is_complete_or_not_begun() -> None:
    async def program(strike: Strike) -> None:
        async with scripted() as (socket, _):
            await give(strike, socket.disconnect)
            with trio.fail_after(10):
                await socket.disconnect()
            assert socket.status == "closed"

    strike_everywhere(program)


@protected_by_code
def test_the_span_of_a_leave_ends_if_it_has_begun() -> None:
    async def program(strike: Strike) -> None:
        recorder = Recorder()
        async with scripted(telemetry=recorder.bus) as (socket, _):
            channel = socket.channel("room")
            await channel.join()
            await give(strike, channel.leave)
            await settle()
            ends = [*recorder.named("leave", "stop"), *recorder.named("leave", "exception")]
            assert len(recorder.named("leave", "start")) == len(ends)

    strike_everywhere(program)


@pytest.mark.parametrize(
    "open_block",
    [
        lambda socket: socket.listen("news"),
        lambda socket: socket.channel("room").subscribe("event"),
    ],
    ids=["listen", "subscribe"],
)
def test_the_block_of_a_stream_ends_it(open_block: Callable[[Socket], AbstractAsyncContextManager[Any]]) -> None:
    async def read(stream: AsyncIterator[object]) -> None:
        async for _ in stream:
            pass

    async def program(strike: Strike) -> None:
        async with scripted() as (socket, _):
            block = open_block(socket)
            with trio.fail_after(1):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, await block.__aenter__())
                    await settle()
                    await give(strike, lambda: block.__aexit__(None, None, None))

    strike_everywhere(program)


def test_a_reconnect_is_done_or_not() -> None:
    async def reconnect(socket: Socket) -> None:
        socket.reconnect()

    async def program(strike: Strike) -> None:
        connector = Scripted()
        async with connect(URL, transport=connector, heartbeat_interval=None) as socket:
            connector.peer.answers_close = False
            await give(strike, partial(reconnect, socket))
            with trio.fail_after(100):
                async with socket.join("room"):
                    pass

    strike_everywhere(program)
