"""Calls, casts and infos of other tasks."""

import gc
import re
import weakref
from functools import partial
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from tests.client.support import URL, Scripted
from trio.testing import MockClock

from slipstream_trio import NO_REPLY, Caller, CallTimeout, Client, ClientBusy, ClientStopped, Socket, run_client


async def double(message: Any, caller: Caller) -> Any:
    return message * 2


async def hold_up(*_: Any) -> None:
    await trio.sleep(60)


async def test_what_a_call_returns_is_its_answer(autojump_clock: MockClock) -> None:
    client = Told(call=double)
    async with a_world() as world, running(world, client):
        assert await client.call(21) == 42
        client.stop()


async def test_none_is_an_answer_like_any_other(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        assert await client.call("?") is None
        client.stop()


async def test_a_call_made_before_the_client_runs_is_answered_when_it_does(autojump_clock: MockClock) -> None:
    client = Told(call=double)

    async def ask() -> None:
        assert await client.call("ab") == "abab"
        client.stop()

    async with a_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        await world.run_client(client)


async def test_a_call_can_be_answered_later(autojump_clock: MockClock) -> None:
    callers: list[Caller] = []

    async def later(_: Any, caller: Caller) -> Any:
        callers.append(caller)
        return NO_REPLY

    async def answer(value: Any) -> None:
        callers[0].reply(value)
        callers[0].reply("too late")
        callers[0].fail(KeyError("too late"))

    async def ask() -> None:
        answers.append(await client.call("?"))

    answers: list[Any] = []
    client = Told(call=later, cast=answer)
    async with a_world() as world, running(world, client), trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        client.cast(42)
        await trio.sleep(1)
        assert answers == [42]
        client.stop()
    assert repr(NO_REPLY) == "NO_REPLY"


async def test_a_call_answered_before_its_callback_returns_has_that_answer(autojump_clock: MockClock) -> None:
    async def soon(_: Any, caller: Caller) -> Any:
        caller.reply("soon")
        return "late"

    client = Told(call=soon)
    async with a_world() as world, running(world, client):
        assert await client.call("?") == "soon"
        client.stop()


async def test_calls_that_were_answered_are_forgotten(autojump_clock: MockClock) -> None:
    callers: list[weakref.ref[Caller]] = []

    async def answer(message: Any, caller: Caller) -> None:
        callers.append(weakref.ref(caller))

    client = Told(call=answer)
    async with a_world() as world:
        world.telemetry.detach("world")
        async with running(world, client):
            for message in range(3):
                await client.call(message)
            gc.collect()
            assert [caller() for caller in callers[:2]] == [None, None]
            client.stop()


async def test_a_call_can_be_answered_by_an_error(autojump_clock: MockClock) -> None:
    async def fail(_: Any, caller: Caller) -> Any:
        caller.fail(LookupError("no such thing"))
        return NO_REPLY

    client = Told(call=fail)
    async with a_world() as world, running(world, client):
        with pytest.raises(LookupError, match="no such thing"):
            await client.call("?")
        client.stop()


async def test_a_call_that_is_not_answered_times_out(autojump_clock: MockClock) -> None:
    async def never(_: Any, __: Caller) -> Any:
        return NO_REPLY

    client = Told(call=never)
    async with a_world() as world, running(world, client):
        with pytest.raises(CallTimeout, match=r"within 5\.0 s"):
            await client.call("?")
        assert trio.current_time() == 5
        with pytest.raises(CallTimeout):
            await client.call("?", timeout=2)
        assert trio.current_time() == 7
        client.stop()


async def test_a_call_given_up_before_it_is_handled_is_not_handled(autojump_clock: MockClock) -> None:
    client = Told(info=hold_up)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        client.info("hold up")
        await trio.sleep(1)
        with pytest.raises(CallTimeout):
            await client.call("timed out", timeout=2)
        with trio.move_on_after(2):
            await client.call("cancelled")
        assert await client.call("patient", timeout=None) is None
        client.stop()
    assert client.log == ["connect", ("info", "hold up"), ("call", "patient"), ("terminate", None)]


@pytest.mark.parametrize("answers_later", [True, False])
async def test_a_call_that_the_client_does_not_live_to_answer_raises(
    answers_later: bool, autojump_clock: MockClock
) -> None:
    async def stop(_: Any, __: Caller) -> Any:
        if not answers_later:
            raise ValueError("a bug")
        client.stop()
        return NO_REPLY

    client = Told(call=stop)
    async with a_world() as world, running(world, client) as run:
        with pytest.raises(ClientStopped):
            await client.call("?")
    assert isinstance(run.error, ValueError) is not answers_later


async def test_a_call_can_be_answered_while_the_client_terminates(autojump_clock: MockClock) -> None:
    callers: list[Caller] = []

    async def keep(_: Any, caller: Caller) -> Any:
        callers.append(caller)
        client.stop()
        return NO_REPLY

    async def answer(_: Any) -> None:
        callers[0].reply("good-bye")

    client = Told(call=keep, terminate=answer)
    async with a_world() as world, running(world, client):
        assert await client.call("?") == "good-bye"


async def test_after_the_end_nobody_is_reached(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        client.stop()
        with pytest.raises(ClientStopped):
            await client.call("?")
        with pytest.raises(ClientStopped):
            client.cast("?")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call("?")
        assert scope.cancelled_caught
    with pytest.raises(ClientStopped):
        client.info("?")
    with pytest.raises(ClientStopped, match="Told does not run"):
        await client.call("?")


async def test_a_callback_that_calls_its_own_client_is_told_so(autojump_clock: MockClock) -> None:
    async def call(_: Any) -> None:
        await client.call("?")

    client = Told(info=call)
    async with a_world() as world, running(world, client) as run:
        client.info("call")
    assert isinstance(run.error, RuntimeError)
    assert "wait for itself" in str(run.error)


async def test_a_callback_may_cast_to_its_own_client(autojump_clock: MockClock) -> None:
    async def cast(_: Any) -> None:
        client.cast("next")
        client.note("cast")

    client = Told(info=cast)
    async with a_world() as world, running(world, client):
        await client.until("connect")
        client.info("go")
        await client.until(("cast", "next"))
        client.stop()
    assert client.log[1:4] == [("info", "go"), "cast", ("cast", "next")]


async def test_no_more_casts_and_infos_wait_than_the_buffer_holds(autojump_clock: MockClock) -> None:
    client = Told(info=hold_up)
    async with a_world() as world, running(world, client, buffer=3):
        await client.until("connect")
        client.info("hold up")
        await trio.sleep(1)
        client.cast(1)
        client.info(2)
        client.cast(3)
        for post in (client.cast, client.info):
            with pytest.raises(ClientBusy) as caught:
                post(4)
            assert caught.value.waiting == 3
        await client.until(("cast", 1))
        await client.until(("info", 2))
        await trio.sleep(61)
        client.cast(5)
        await client.until(("cast", 5))
        client.stop()
    assert client.log[1:-1] == [("info", "hold up"), ("cast", 1), ("info", 2), ("cast", 3), ("cast", 5)]


async def test_before_a_client_runs_1024_casts_and_infos_may_wait() -> None:
    client = Client()
    for number in range(1023):
        client.cast(number)
    client.info(1023)
    with pytest.raises(ClientBusy) as caught:
        client.cast(1024)
    assert caught.value.waiting == 1024


async def test_other_threads_reach_the_client_through_trio(autojump_clock: MockClock) -> None:
    client = Told(call=double)

    def in_a_thread() -> Any:
        trio.from_thread.run_sync(client.cast, "from a thread")
        return trio.from_thread.run(client.call, 21)

    async with a_world() as world, running(world, client):
        await client.until("connect")
        assert await trio.to_thread.run_sync(in_a_thread) == 42
        client.stop()
    assert ("cast", "from a thread") in client.log


async def test_a_client_that_overrides_nothing_says_what_it_does_not_do(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(Client):
        pass

    client = Plain()
    async with a_world() as world, running(world, client):
        await trio.sleep(1)
        await client.join("room:1")
        with pytest.raises(NotImplementedError, match="Plain has no handle_call"):
            await client.call("?")
        client.cast("?")
        client.info("?")
        await trio.sleep(1)
        await client.push("room:1", "echo")
        await world.server.broadcast("room:1", "tick")
        await trio.sleep(1)
        world.connection.close(1012)
        await trio.sleep(5)
        await client.push("room:1", "crash")
        await trio.sleep(5)
        await client.leave("room:1")
        await trio.sleep(1)
        client.stop()
    told = [record.message for record in caplog.records if record.name == "slipstream_trio"]
    assert [re.sub("^socket [0-9a-f]{16}: ", "", message) for message in told] == [
        "Plain has no handle_cast: a str was dropped",
        "the connection was ended by the server: closed_by_server",
        "connected again, after 1 s without a connection",
    ]


async def test_a_client_may_have_private_methods_of_its_own_whatever_their_names(autojump_clock: MockClock) -> None:
    class Game(Client):
        async def _begin(self, level: int) -> None:  # type: ignore[override]
            begun.append(level)
            self.stop()

        async def handle_connect(self, _: Socket) -> None:
            await self._begin(3)

    begun: list[int] = []
    await run_client(Game(), URL, transport=Scripted())
    assert begun == [3]


async def test_a_caller_is_told_that_the_client_stops_before_its_topics_are_left(autojump_clock: MockClock) -> None:
    async def later(*_: Any) -> Any:
        return NO_REPLY

    async def stop_soon() -> None:
        await trio.sleep(0.5)
        client.stop()

    client = Told("room", call=later)
    async with trio.open_nursery() as nursery:
        run = partial(run_client, client, URL, transport=Scripted(()), close_timeout=10)
        nursery.start_soon(run)
        await client.until("connect")
        await trio.sleep(1)
        with trio.fail_after(1), pytest.raises(ClientStopped):
            nursery.start_soon(stop_soon)
            await client.call("?", timeout=None)
