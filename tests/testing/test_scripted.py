"""A server that follows a script, and a client that survives whatever script and network are drawn."""

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import example, given
from tests.drawing import examples
from trio.testing import MockClock

from slipstream_trio import Backoff, Channel, connect
from slipstream_trio.errors import ChannelClosed, ConnectError, JoinError, PushError, PushTimeout, SlipstreamError
from slipstream_trio.telemetry import Record
from slipstream_trio.testing import deterministic_telemetry
from slipstream_trio.testing.faults import AtByte, Faults, Rule, Vanish, faulty_network
from slipstream_trio.testing.scripted import Act, ServerScript, scripted_server
from slipstream_trio.testing.strategies import faults, server_scripts
from slipstream_trio.trace import verify
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

pytestmark = pytest.mark.once

URL = "ws://scripted/socket/websocket"


def connecting(server: Any, **options: Any) -> Any:
    return connect(URL, transport=TrioWebSocketConnector(lambda _: server.open_stream()), **options)


async def test_joins_and_pushes_have_the_fates_of_the_script(autojump_clock: MockClock) -> None:
    script = ServerScript(
        joins=["refuse", "accept"],
        pushes=[
            [Act("reply", ("ok", {"n": 1}))],
            [Act("reply", ("error", {"n": 2})), Act("reply", ("ok", {}))],
            [],
            [Act("push", ("news", {"n": 3})), Act("burst", 2), Act("broadcast", ("phx_close", {})), Act("ping")],
            [Act("sleep", 1.0), Act("raw", "no message"), Act("stop")],
        ],
    )
    server = scripted_server(script)
    async with server.run(), connecting(server) as socket:
        channel = socket.channel("any:topic")
        with pytest.raises(JoinError):
            await channel.join()
        await channel.join()
        assert await channel.push("a") == {"n": 1}
        with pytest.raises(PushError):
            await channel.push("a")
        with pytest.raises(PushTimeout):
            await channel.push("a", timeout=3)
        await channel.send("a")
        messages = aiter(channel)
        heard = [await anext(messages) for _ in range(4)]
        assert [message.event for message in heard] == ["news", "tick", "tick", "phx_close"]
        with pytest.raises(ChannelClosed):
            await channel.push("a")
        await channel.join()
        assert await channel.push("after", {"n": 4}) == {"event": "after", "payload": {"n": 4}}  # the script is over


async def test_upgrades_are_refused_and_connections_end_as_the_script_says(autojump_clock: MockClock) -> None:
    script = ServerScript(upgrades=[503, None, 500], pushes=[[Act("close", 1012)], [Act("drop")], [Act("crash")]])
    server = scripted_server(script)
    async with server.run():
        with pytest.raises(ConnectError):
            async with connecting(server):
                pass
        async with connecting(server) as socket, socket.join("room") as channel:
            for _ in range(3):
                with pytest.raises(SlipstreamError):
                    await channel.push("a")
                await socket.wait_connected()
            assert await channel.push("a", timeout=30) == {"event": "a", "payload": {}}
            assert socket.generation == 3


async def test_an_act_with_a_value_that_it_does_not_take_says_so(autojump_clock: MockClock) -> None:
    server = scripted_server(ServerScript(pushes=[[Act("reply", 5)]]))
    async with server.run(), connecting(server, rejoin=None) as socket, socket.join("room") as channel:
        with pytest.raises(ChannelClosed):
            await channel.push("a")
    assert any("see Act for what it takes" in str(error) for error in server.errors)
    with pytest.raises(ValueError, match="deed"):
        Act("dance")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ({"joins": ["reject"]}, r"joins' must be in \('accept', 'refuse', .*got 'reject'"),
        ({"joins": "accept"}, "joins' must be in .*got 'a'"),
        ({"upgrades": [7]}, r"upgrades' must be in range\(200, 600\) \(got 7"),
        ({"upgrades": ["503"]}, "upgrades' must be in .*got '503'"),
        ({"pushes": [["crash"]]}, "pushes' must be .*Act.*got 'crash'"),
    ],
)
def test_a_script_that_nobody_could_follow_is_refused(script: Any, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        ServerScript(**script)


async def use(channel: Channel) -> None:
    """Join, push and read, whatever comes."""
    for _ in range(6):
        try:
            if channel.status != "joined":
                await channel.join(timeout=3)
            await channel.push("do", {"n": 1}, timeout=2)
        except SlipstreamError:
            await trio.sleep(0.5)
    with trio.move_on_after(1), suppress(SlipstreamError):  # what ended the channel, if it is not joined
        async for _message in channel.stream():
            pass


async def survive(script: ServerScript, bad: Faults) -> list[Record]:
    """Use a scripted server over a bad network until both are good again; return the telemetry."""
    telemetry, records = deterministic_telemetry(), list[Record]()
    server = scripted_server(script)
    with telemetry.listen(records.append), trio.fail_after(3_000):
        async with faulty_network(bad) as network, server.run():
            connector = TrioWebSocketConnector(network.opener(lambda _: server.open_stream()))
            patient = Backoff((0.1, 1), jitter=0)
            async with connect(
                URL,
                transport=connector,
                telemetry=telemetry,
                connect_timeout=5,
                heartbeat_interval=5,
                retry_first=True,
                reconnect=patient,
                rejoin=patient,
                overflow="drop_oldest",
            ) as socket:
                async with trio.open_nursery() as nursery:
                    for topic in ("room:a", "room:b"):
                        nursery.start_soon(use, socket.channel(topic))
    return records


@examples(10)
@given(server_scripts(), faults())
@example(ServerScript(joins=["refuse"] * 20), Faults())  # in the end no topic is joined
@example(ServerScript(), Faults(rules=[Rule(Vanish(both=False), AtByte(250), connections=[1])]))  # or one of them
def test_a_client_survives_every_script_on_every_network(script: ServerScript, bad: Faults) -> None:
    assert verify(trio.run(survive, script, bad, clock=MockClock(autojump_threshold=0))) == []
