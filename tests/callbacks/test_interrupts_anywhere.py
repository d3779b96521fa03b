"""An interrupt at any moment of what another task asks of a client of callbacks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
from tests.client.interrupting import after_a_second, give, protected_by_code, strike_everywhere
from tests.client.support import URL, Recorder, Scripted
from tests.everywhere.strike import Strike
from tests.recovery.support import settle

from slipstream_trio import Caller, Client, Reply, Socket, run_client


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
async def beside(client: Client, **options: Any) -> AsyncIterator[None]:
    """Run a client that lets one of a kind wait, beside the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_client, client, URL, transport=Scripted(), buffer=1, **options))
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


def test_a_topic_that_a_client_was_asked_for_is_joined_or_free() -> None:
    async def program(strike: Strike) -> None:
        async with beside(client := Patient()):
            await give(strike, lambda: client.join("other"))
            await client.join("other")
            await trio.sleep(1)
            assert client.socket is not None
            assert client.socket._channels["other"].status == "joined"

    strike_everywhere(program, once=True)


@protected_by_code
def test_the_span_of_a_leave_that_a_client_asked_for_ends_if_it_has_begun() -> None:
    async def program(strike: Strike) -> None:
        recorder = Recorder()
        async with beside(client := Patient(), telemetry=recorder.bus):
            await give(strike, lambda: client.leave("room"))
            await trio.sleep(1)
            ends = [*recorder.named("leave", "stop"), *recorder.named("leave", "exception")]
            assert len(recorder.named("leave", "start")) == len(ends)

    strike_everywhere(program)


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
