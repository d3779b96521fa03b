"""The kit's fake server: what it is made with."""

import math
from typing import Any

import pytest
from tests.testing.support import watched
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectError, ConnectionRejected, connect
from slipstream_trio.testing.faults import AtFrame, Faults, Reset, Rule, faulty_network
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector


@pytest.mark.parametrize("path", ["/live", "live", "/live/"])
async def test_another_path_is_not_found(path: str, autojump_clock: MockClock) -> None:
    async with watched(path=path) as on, on.connect():
        assert on.server.url == "ws://fake/live/websocket"
        with pytest.raises(ConnectionRejected, match="404"):
            async with connect("ws://fake/socket/websocket", transport=on.server.connector()):
                pytest.fail("let in")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": None}, "timeout: a time in seconds, math.inf for no limit; not None"),
        ({"timeout": -1}, "timeout: a time in seconds"),
        ({"timeout": math.nan}, "timeout: a time in seconds"),
        ({"timeout": "5"}, "timeout: a time in seconds"),
        ({"flavour": "nginx"}, "flavour: one of bandit, cowboy; not 'nginx'"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FakeServer(**options)


async def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="answers: any of connect, join, push, leave, heartbeat; not 'join'"):
        FakeServer(answers="join")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"answers: any of .*; not \('joins',\)"):
        FakeServer(answers=("joins",))  # type: ignore[arg-type]
    async with FakeServer() as server:
        assert repr(server) == "<FakeServer: 0 connections>"
    with pytest.raises(RuntimeError, match="make another"):
        async with server:
            pytest.fail("entered")
    with pytest.raises(ConnectError, match="not running, or was stopped"):
        async with connect(server.url, transport=server.connector()):
            pytest.fail("let in")


async def test_its_streams_can_be_put_behind_a_bad_network(autojump_clock: MockClock) -> None:
    cut = Rule(Reset(), AtFrame(1), connections=[1])
    async with watched(answers={"connect", "leave"}) as on, faulty_network(Faults(rules=[cut])) as network:
        transport = TrioWebSocketConnector(network.opener(lambda _: on.server.open_stream()))
        async with on.connect(transport=transport, reconnect=Backoff((1,), jitter=0)) as socket:
            await (await on.server.accept()).push("room:1", "anything")
            connection = await on.server.accept()
            await socket.wait_connected()
            assert (connection.number, socket.generation) == (2, 2)
    with pytest.raises(ConnectionRefusedError, match="not running, or was stopped"):
        await on.server.open_stream()
