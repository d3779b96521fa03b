"""A function that gives the payload of a join: what it returns, and when it is too late."""

from itertools import count
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.peers import unbalanced
from trio.testing import MockClock

from slipstream_trio import Backoff, Client, JoinTimeout, connect, run_client
from slipstream_trio.testing.kit import Answer, FakeServer

ANSWERS: frozenset[Answer] = frozenset({"connect", "join", "leave", "heartbeat"})


class Late:
    """Takes 20 s when it is called for a join of the given number, and lets itself not be cancelled."""

    def __init__(self, clock: MockClock, number: int, how: str) -> None:
        self._clock = clock
        self._number = number
        self._how = how
        self._calls = 0

    async def __call__(self) -> Any:
        self._calls += 1
        if self._calls == self._number and self._how == "blocks":
            self._clock.jump(20)
        elif self._calls == self._number:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
        return {"call": self._calls}


@pytest.mark.parametrize("how", ["blocks", "is shielded"])
async def test_a_function_that_returns_too_late_fails_the_join(how: str, autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector()) as socket,
    ):
        connection = await server.accept()
        channel = socket.channel("room:1", Late(autojump_clock, 1, how))
        with pytest.raises(JoinTimeout, match="the function for its payload took too long"):
            await channel.join()
        assert not [message for message in connection.messages if message.event == "phx_join"]
        await channel.join()
        assert (await connection.expect_join()).payload == {"call": 2}


@pytest.mark.parametrize("how", ["blocks", "is shielded"])
async def test_a_function_that_returns_too_late_fails_a_rejoin(how: str, autojump_clock: MockClock) -> None:
    reasons: list[type[Exception]] = []

    class Lobby(Client):
        async def handle_topic_close(self, topic: str, reason: Exception) -> None:
            reasons.append(type(reason))

    client = Lobby()
    options: Any = {"reconnect": Backoff((1,), jitter=0), "rejoin": Backoff((3,), jitter=0)}
    async with FakeServer(answers=ANSWERS) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_client(client, server.url, transport=server.connector(), **options))
        connection = await server.accept()
        await client.join("room:1", Late(autojump_clock, 2, how))
        assert (await connection.expect_join()).payload == {"call": 1}
        await connection.drop()
        connection = await server.accept()
        assert (await connection.expect_join(within=100)).payload == {"call": 3}
        await trio.sleep(1)
        assert reasons == [JoinTimeout]
        client.stop()


async def test_a_function_that_returns_none_joins_with_an_empty_object(autojump_clock: MockClock) -> None:
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector()) as socket,
        socket.join("room:1", lambda: None),
    ):
        connection = await server.accept()
        assert (await connection.expect_join()).payload == {}


async def test_a_topic_that_is_left_while_a_deaf_function_is_asked_again_is_not_joined(
    autojump_clock: MockClock,
) -> None:
    recorder, calls = Recorder(), count()

    async def deaf() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2 * next(calls))

    options: dict[str, Any] = {"rejoin": Backoff((1,), jitter=0), "heartbeat_interval": None}
    async with scripted(telemetry=recorder.bus, **options) as (socket, peer):
        channel = socket.channel("room", deaf)
        await channel.join()
        peer.end_channel("room", "phx_error")
        await trio.sleep(2)
        channel.leave_soon()
        await trio.sleep(5)
        assert (next(calls), peer.count("phx_join")) == (2, 1)
    assert unbalanced(recorder.records) == []


async def test_it_is_asked_anew_once_where_the_connection_was_lost_meanwhile(autojump_clock: MockClock) -> None:
    asked: list[float] = []

    async def slow() -> None:
        asked.append(trio.current_time())
        await trio.sleep(2)

    connector, reconnect = Scripted(), Backoff((10,), jitter=0)
    async with connect(URL, transport=connector, reconnect=reconnect, join_timeout=60) as socket:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.channel("room", slow).join)
            await trio.sleep(1)
            connector.peer.end()
        assert asked == [0, 11]


async def test_telemetry_does_not_show_it(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with scripted(telemetry=recorder.bus) as (socket, _):
        await socket.channel("room", dict).join()
        await socket.channel("other", {"a": 1}).join()
    assert [start.params for start in recorder.named("client", "join", "start")] == [None, {"a": 1}]
