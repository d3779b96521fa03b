"""From a WebSocket that does not open to long-polling: when, and for how long it is remembered."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.client.support import ONE_CONNECTION, URL, Lab, Recorder, Scripted
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionRejected, ConnectTimeout, Socket, connect
from slipstream_trio.testing.server import Mount, PhoenixServer, Refuse, Request
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")

HANG, SLOW = "hang", "slow"


class World:
    """A server, and what stands before it.

    Attributes:
        upgrades: how each upgrade is answered: a status, `HANG`, `SLOW` (after 4 s) or, by default, as the server does.
        polls: likewise, the opening of each session.
    """

    def __init__(self, server: PhoenixServer, upgrades: Sequence[Any], polls: Sequence[Any]) -> None:
        self.server = server
        self.upgrades, self.polls = iter(upgrades), iter(polls)
        self.recorder = Recorder()

    async def connect(self, request: Request) -> None:
        by = self.polls if request.path.endswith("longpoll") else self.upgrades
        answer = next(by, None)
        if answer == HANG:
            await trio.sleep_forever()
        if answer == SLOW:
            await trio.sleep(4)
        elif answer is not None:
            raise Refuse(answer)

    @property
    def transports(self) -> list[str]:
        """The transports of all attempts."""
        return [start.state.options.transport for start in self.recorder.named("connection", "connect", "start")]

    @property
    def delays(self) -> list[float]:
        """What was waited before each attempt but the first."""
        return [record.metadata["delay"] for record in self.recorder.named("reconnect_scheduled")]


@asynccontextmanager
async def world(upgrades: Sequence[Any] = (), polls: Sequence[Any] = ()) -> AsyncIterator[World]:
    worlds: list[World] = []

    async def ask(request: Request) -> None:
        await worlds[0].connect(request)

    server = PhoenixServer({"/socket": Mount(channels={"lab:*": Lab}, connect=ask)})
    worlds.append(World(server, upgrades, polls))
    async with server.run():
        yield worlds[0]


@asynccontextmanager
async def visiting(world: World, **options: Any) -> AsyncIterator[Socket]:
    given = {"longpoll_fallback": 2.5, "telemetry": world.recorder.bus, **options}
    async with connect(URL, transport=world.server.connector("trio_websocket"), **given) as socket:
        yield socket


async def lose(world: World, socket: Socket) -> None:
    """Let the connection be lost, and another one be there."""
    generation = socket.generation
    world.server.connections[-1].drop()
    while socket.generation == generation or socket.status != "connected":  # noqa: ASYNC110
        await trio.sleep(0.1)


@pytest.mark.parametrize("answer", [400, 404, 500, 503])
@pytest.mark.parametrize("options", [{}, ONE_CONNECTION])
async def test_an_upgrade_that_fails_is_followed_at_once(
    answer: int, options: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with world([answer]) as on, visiting(on, **options) as socket:
        assert on.transports == ["trio_websocket", "longpoll"]
        assert on.delays == [0.0]
        assert socket.state.options.transport == "longpoll"
        ids = [start.origin for start in on.recorder.named("connection", "connect", "start")]
        assert len({origin.connection_id for origin in ids}) == len({origin.trace_id for origin in ids}) == 2
        assert socket.generation == 1
        async with socket.join("lab:1") as channel:
            assert await channel.push("echo", 1) == 1


@pytest.mark.parametrize(("timeout", "seconds"), [(10, 2.5), (None, 2.5), (1, 1)])
async def test_so_is_one_that_takes_longer(timeout: float | None, seconds: float, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with world([HANG]) as on, visiting(on, connect_timeout=timeout):
        assert trio.current_time() - started == seconds
        assert on.transports == ["trio_websocket", "longpoll"]
        (scheduled,) = on.recorder.named("reconnect_scheduled")
        limit = "connect_timeout" if timeout == seconds else "longpoll_fallback"
        assert scheduled.metadata["reason"] == f"not connected within {seconds} s; see {limit}"


async def test_what_was_awaited_for_so_long_is_told(autojump_clock: MockClock) -> None:
    async def hang(request: OpenRequest) -> None:
        assert request.connect_timeout is not None
        await trio.sleep(request.connect_timeout)
        raise ConnectTimeout(request.connect_timeout, awaited="the rest of the answer")

    class WebSocket(Scripted):
        async def open_stream(self, _: OpenRequest) -> trio.abc.Stream:
            return await on.server.open_stream()

    async with world() as on:
        bus = on.recorder.bus
        async with connect(URL, transport=WebSocket(opening=hang), longpoll_fallback=2.5, telemetry=bus):
            (scheduled,) = on.recorder.named("reconnect_scheduled")
    reason = "not connected within 2.5 s, waiting for the rest of the answer; see longpoll_fallback"
    assert scheduled.metadata["reason"] == reason


async def test_the_fallback_has_the_whole_time(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with world([404], [SLOW]) as on, visiting(on):
        assert trio.current_time() - started >= 4
        assert on.transports == ["trio_websocket", "longpoll"]


@pytest.mark.parametrize("answer", [401, 403, 429, 301, 302, 303, 307, 308])
async def test_what_long_polling_would_be_told_too_is_final(answer: int, autojump_clock: MockClock) -> None:
    async with world([answer] * 2) as on:
        with pytest.raises(ConnectionRejected) as raised:
            async with visiting(on):
                pass
        assert raised.value.status == answer
        assert on.transports == ["trio_websocket"]


async def test_where_both_fail_the_second_is_raised(autojump_clock: MockClock) -> None:
    async with world([404], [403]) as on:
        with pytest.raises(ConnectionRejected) as raised:
            async with visiting(on):
                pass
        assert raised.value.status == 403
        assert on.transports == ["trio_websocket", "longpoll"]


@pytest.mark.parametrize("answer", [403, HANG])
async def test_where_both_are_retried_they_take_turns_until_one_works(answer: Any, autojump_clock: MockClock) -> None:
    patient = {"retry_first": True, "should_reconnect": lambda _: True, "reconnect": Backoff((1, 2), jitter=0)}
    async with world([404, HANG], [answer]) as on, visiting(on, **patient):
        assert on.transports == ["trio_websocket", "longpoll"] * 2
        assert on.delays == [0, 1, 0]


async def test_it_is_remembered_where_no_websocket_ever_worked(autojump_clock: MockClock) -> None:
    async with world([404]) as on, visiting(on) as socket:
        await lose(on, socket)
        await lose(on, socket)
        assert on.transports == ["trio_websocket", "longpoll", "longpoll", "longpoll"]


async def test_where_one_did_it_is_tried_again(autojump_clock: MockClock) -> None:
    async with world([None, 503]) as on, visiting(on) as socket:
        await lose(on, socket)
        await lose(on, socket)
        assert on.transports == ["trio_websocket", "trio_websocket", "longpoll", "trio_websocket"]


async def test_an_option_that_fails_is_no_reason(autojump_clock: MockClock) -> None:
    def params() -> dict[str, str]:
        raise LookupError("mine")

    async with world() as on:
        with pytest.raises(LookupError, match="mine"):
            async with visiting(on, params=params):
                pass
        assert on.transports == ["trio_websocket"]


async def test_a_websocket_that_opens_stays(autojump_clock: MockClock) -> None:
    async with world() as on, visiting(on) as socket:
        await trio.sleep(60)
        await lose(on, socket)
        assert on.transports == ["trio_websocket"] * 2


async def test_a_client_that_polls_has_nothing_to_fall_back_to(autojump_clock: MockClock) -> None:
    async with world([], [500]) as on:
        polling = on.server.connector("longpoll")
        with pytest.raises(ConnectionRejected):
            async with connect(URL, transport=polling, longpoll_fallback=1, telemetry=on.recorder.bus):
                pass
        assert on.transports == ["longpoll"]


async def test_the_fallback_s_streams_are_opened_as_the_websocket_s_are(autojump_clock: MockClock) -> None:
    asked: list[OpenRequest] = []
    async with world([404]) as on:

        async def open_stream(request: OpenRequest) -> trio.abc.Stream:
            asked.append(request)
            return await on.server.open_stream()

        async with connect(URL, transport=TrioWebSocketConnector(open_stream), longpoll_fallback=1):
            assert len(asked) >= 2
