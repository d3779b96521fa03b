"""What is said in a call is checked as the options are, and the error names the argument."""

import math
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import pytest
import trio
from tests.client.support import scripted
from trio.testing import MockClock

from slipstream_trio import Channel, Client, ConfigurationError, SerializationError, Socket

NO_TIMEOUTS = (0, 0.0, -1, math.inf, math.nan, True, "5", [1])

Operation = Callable[[Socket, Channel, Any], Awaitable[Any]]


async def join_block(socket: Socket, _: Channel, timeout: Any) -> None:
    async with socket.join("other", timeout=timeout):
        pytest.fail("not to be joined")


OPERATIONS: dict[str, Operation] = {
    "socket.join": join_block,
    "channel.join": lambda socket, _, timeout: socket.channel("other").join(timeout=timeout),
    "channel.push": lambda _, channel, timeout: channel.push("echo", timeout=timeout),
    "channel.leave": lambda _, channel, timeout: channel.leave(timeout=timeout),
    "client.call": lambda _socket, _channel, timeout: Client().call("what", timeout=timeout),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("timeout", NO_TIMEOUTS)
async def test_a_timeout_that_is_none_is_refused(operation: str, timeout: Any, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel:
        with pytest.raises(ConfigurationError, match=r"^timeout: a number of seconds above 0, or None for no limit"):
            await OPERATIONS[operation](socket, channel, timeout)
        assert [message.event for message in peer.sent] == ["phx_join"]
        assert channel.status == "joined"


@pytest.mark.parametrize("timeout", [1, 0.5, None])
async def test_a_timeout_may_be_a_number_or_none(timeout: Any, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        channel = socket.channel("room")
        await channel.join(timeout=timeout)
        assert await channel.push("echo", 1, timeout=timeout) == 1
        await channel.leave(timeout=timeout)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"buffer": 0}, "buffer: a whole number of at least 1, not 0"),
        ({"buffer": 1.5}, "buffer: a whole number of at least 1, not 1.5"),
        ({"overflow": "drop"}, "overflow: one of 'raise', 'drop_oldest', 'drop_newest'; not 'drop'"),
    ],
)
async def test_what_a_subscription_is_given_is_checked(arguments: Any, problem: str, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        channel = socket.channel("room")
        with pytest.raises(ConfigurationError) as raised:
            async with channel.subscribe("tick", **arguments):
                pytest.fail("not to be subscribed to")
        assert str(raised.value) == problem


@pytest.mark.parametrize("name", [None, 5, True, b"room", ["room"], {"room": 1}])
async def test_a_topic_or_event_that_is_no_string_is_refused_before_anything_is_sent(
    name: Any, autojump_clock: MockClock
) -> None:
    said = f"is a string, not {type(name).__name__}$"
    async with scripted() as (socket, peer), socket.join("room") as channel:
        with pytest.raises(SerializationError, match=f"^a topic {said}"):
            socket.channel(name)
        with pytest.raises(SerializationError, match=f"^a topic {said}"):
            async with socket.join(name):
                pytest.fail("not to be joined")
        for operation in (channel.push, channel.send):
            with pytest.raises(SerializationError, match=f"^an event {said}"):
                await operation(name)
        with pytest.raises(ConfigurationError, match=f"^events: names, each a string; not {type(name).__name__}$"):
            async with channel.subscribe("tick", name):
                pytest.fail("not to be subscribed to")
        assert [message.event for message in peer.sent] == ["phx_join"]


class Room(StrEnum):
    LOBBY = "lobby"


async def test_the_way_out_for_a_name_in_an_enumeration_is_told(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _), socket.join("room") as channel:
        with pytest.raises(SerializationError, match=r"^a topic is a string, not Room: use its value$"):
            socket.channel(Room.LOBBY)
        with pytest.raises(SerializationError, match=r"^an event is a string, not Room: use its value$"):
            await channel.push(Room.LOBBY)


@pytest.mark.parametrize("name", [None, 5, ["room"]])
async def test_a_client_refuses_them_too(name: Any) -> None:
    with pytest.raises(SerializationError, match=r"^a topic is a string"):
        await Client().join(name)
    with pytest.raises(SerializationError, match=r"^an event is a string"):
        await Client().push("room", name)


async def test_the_buffer_of_presence_is_checked(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        with pytest.raises(ConfigurationError, match=r"^buffer: "):
            async with socket.channel("room").presence(buffer=0):
                await trio.sleep_forever()
