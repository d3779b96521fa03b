"""An interrupt at any moment of a command: nothing is lost or done by halves, and all goes on where it is caught."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, Final

import pytest
import trio
from tests.client.support import PHOENIX, URL, Recorder, Scripted, scripted
from tests.everywhere.strike import Strike
from tests.recovery.support import settle
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    Caller,
    Client,
    Reply,
    Socket,
    Subscription,
    connect,
    run_client,
)
from slipstream_trio.testing.simulation.determinism import deterministic

protected_by_code: Final = pytest.mark.skipif(
    hasattr(Socket.disconnect, "__wrapped__"),
    reason="Trio 0.27 protects a function by another one around it, which can be interrupted itself",
)

Program = Callable[[Strike], Awaitable[None]]


def strike_everywhere(program: Program, *, once: bool = False) -> None:
    """Run a program again and again, each time interrupted at the next of its moments; see `Strike`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for at in count(1):
            strike = Strike("interrupt in the library", "commands", at, once=once)
            with deterministic(0, float):
                trio.run(program, strike, clock=MockClock(autojump_threshold=0), instruments=[strike])
            if not strike.struck:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert at > 5


async def give(strike: Strike, command: Callable[[], Awaitable[object]]) -> bool:
    """Give a command that is interrupted; tell whether it was."""
    try:
        strike.begin()
        await command()
        strike.end()
        await trio.lowlevel.checkpoint()  # for an interrupt that came last
    except KeyboardInterrupt:
        strike.end()
        return True
    return False


async def after_a_second(action: Callable[[], object]) -> None:
    await trio.sleep(1)
    action()


# On a socket


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


def test_the_block_of_a_listener_ends_its_stream() -> None:
    async def read(messages: Subscription) -> None:
        async for _ in messages:
            pass

    async def program(strike: Strike) -> None:
        async with scripted() as (socket, _):
            block = socket.listen("news")
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


# A client of callbacks, from another task


class Patient(Client):
    """Takes its time, then writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def handle_connect(self, socket: Socket) -> None:
        await self.join("room")

    async def handle_reply(self, ref: str, reply: Reply) -> None:
        await self._tell(reply.response)

    async def handle_call(self, message: Any, caller: Caller) -> Any:
        await self._tell(message)
        return message

    async def handle_cast(self, message: Any) -> None:
        await self._tell(message)

    async def _tell(self, what: Any) -> None:
        await trio.sleep(2)
        self.told.append(what)


@asynccontextmanager
async def beside(client: Client) -> AsyncIterator[None]:
    """Run a client that lets one of a kind wait, beside the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_client, client, URL, transport=Scripted(), buffer=1))
        await settle()
        with trio.fail_after(100):
            yield
        client.stop()


def test_an_interrupted_push_of_a_client_makes_no_more_room_for_replies() -> None:
    async def program(strike: Strike) -> None:
        async with beside(client := Patient()):
            await give(strike, lambda: client.push("unknown", "echo"))
            client.cast("wakes it")
            await trio.sleep(9)
            await client.push("room", "echo", 1)
            await settle()  # its reply is being handled
            await client.push("room", "echo", 2)
            with trio.move_on_after(1) as scope:
                await client.push("room", "echo", 3)
            assert scope.cancelled_caught

    strike_everywhere(program, once=True)


def test_after_an_interrupted_cast_there_is_room_for_another() -> None:
    async def cast(client: Client) -> None:
        client.cast(1)

    async def program(strike: Strike) -> None:
        async with beside(client := Patient()):
            await give(strike, partial(cast, client))
            await trio.sleep(9)
            client.cast(2)
            await trio.sleep(9)
            assert client.told in ([1, 2], [2])

    strike_everywhere(program)


def test_an_interrupted_call_is_not_handled() -> None:
    async def program(strike: Strike) -> None:
        async with beside(client := Patient()), trio.open_nursery() as nursery:
            client.cast("before")
            await settle()
            nursery.start_soon(after_a_second, strike.end)
            interrupted = await give(strike, lambda: client.call("question"))
            await trio.sleep(9)
            assert client.told == ["before", *([] if interrupted else ["question"])]

    strike_everywhere(program)


def test_an_interrupted_stop_stops_or_does_nothing() -> None:
    async def stop(client: Client) -> None:
        client.stop()

    async def program(strike: Strike) -> None:
        async with beside(client := Patient()):
            await give(strike, partial(stop, client))
            await trio.sleep(9)
            assert client.socket is None or await client.call("question") == "question"

    strike_everywhere(program)


def test_a_client_that_ends_terminates_first() -> None:
    class Ending(Client):
        def __init__(self, strike: Strike) -> None:
            self._strike = strike

        async def handle_connect(self, socket: Socket) -> None:
            self.stop()
            self._strike.begin()

        async def terminate(self, reason: BaseException | None) -> None:
            self._strike.end()

    async def program(strike: Strike) -> None:
        recorder = Recorder()
        with suppress(KeyboardInterrupt):
            await run_client(Ending(strike), URL, transport=Scripted(), telemetry=recorder.bus)
            await trio.lowlevel.checkpoint()
        assert len(recorder.named("terminate", "start")) == 1  # where it is interrupted as it begins, it has begun

    strike_everywhere(program, once=True)
