"""Functions among the options are asked within `connect_timeout`, together with the attempt that they are for."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted
from tests.recovery.support import connected_again, world
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import (
    Client,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    Disconnect,
    PushTimeout,
    connect,
    run_client,
)

OPTIONS: Any = dict
FUNCTIONS = ["url", "params", "headers", "auth_token", "trace_parent"]
GOOD: dict[str, Any] = {
    "url": URL,
    "params": {},
    "headers": {},
    "auth_token": "token",
    "trace_parent": f"00-{1:032x}-{1:016x}-01",
}


def taking(seconds: float, value: Any) -> Callable[[], Awaitable[Any]]:
    """Return a function that takes its time."""

    async def later() -> Any:
        await trio.sleep(seconds)
        return value

    return later


def hanging_from(number: int, value: Any) -> Callable[[], Awaitable[Any]]:
    """Return a function that never returns from the nth call on."""
    calls = 0

    async def call() -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            await trio.sleep_forever()
        return value

    return call


def in_turn(*functions: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a function that calls another one each time."""
    calls = iter(functions)

    async def call() -> Any:
        return await next(calls)()

    return call


def given(option: str, function: Any) -> dict[str, Any]:
    """Return the arguments of `connect` where one is a function."""
    return {"url": URL, option: function}


@pytest.mark.parametrize("option", FUNCTIONS)
async def test_a_function_that_hangs_at_first_raises_after_connect_timeout(
    option: str, autojump_clock: MockClock
) -> None:
    connector = Scripted()
    with pytest.raises(ConnectTimeout) as raised:
        async with connect(**given(option, trio.sleep_forever), transport=connector, connect_timeout=3):
            pytest.fail("the block must not be entered")
    assert trio.current_time() == 3
    assert (raised.value.timeout, raised.value.option) == (3, option)
    assert connector.requests == []


@pytest.mark.parametrize("option", FUNCTIONS)
async def test_one_that_hangs_later_is_a_failed_attempt(option: str, autojump_clock: MockClock) -> None:
    asked: list[Disconnect] = []

    def once(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return len(asked) < 3

    async with world() as there:
        options = {"transport": there.connector, "telemetry": there.telemetry, "connect_timeout": 3}
        with pytest.raises(ConnectTimeout) as raised:
            async with connect(
                **given(option, hanging_from(2, GOOD[option])), **OPTIONS(options), should_reconnect=once
            ):
                there.connection.drop()
                await trio.sleep_forever()
    assert [disconnect.reason for disconnect in asked] == ["lost", "option_failed", "option_failed"]
    assert [type(disconnect.error) for disconnect in asked] == [type(None), ConnectTimeout, ConnectTimeout]
    assert [disconnect.ended_by for disconnect in asked[1:]] == ["client", "client"]
    assert raised.value is asked[-1].error
    assert raised.value.option == option


async def test_all_functions_share_one_limit(autojump_clock: MockClock) -> None:
    slow = {"params": taking(4, {}), "headers": taking(4, {}), "auth_token": taking(4, None)}
    with pytest.raises(ConnectTimeout) as raised:
        async with connect(URL, transport=Scripted(), connect_timeout=10, **OPTIONS(slow)):
            pytest.fail("the block must not be entered")
    assert trio.current_time() == 10
    assert raised.value.option == "auth_token"


@pytest.mark.parametrize("option", FUNCTIONS)
async def test_the_transport_gets_the_time_that_is_left_and_the_error_has_all_of_it(
    option: str, autojump_clock: MockClock
) -> None:
    async with world() as there:
        there.upgrades.append("hang")
        options = {"transport": there.connector, "telemetry": there.telemetry, "connect_timeout": 10}
        with pytest.raises(ConnectTimeout) as raised:
            async with connect(**given(option, taking(6, GOOD[option])), **OPTIONS(options)):
                pytest.fail("the block must not be entered")
        assert trio.current_time() == 10
    assert (raised.value.timeout, raised.value.option) == (10, None)


async def test_a_timeout_of_a_transport_of_ones_own_is_left_as_it_is(autojump_clock: MockClock) -> None:
    async def impatient(_: Any) -> None:
        await trio.sleep(1)
        raise ConnectTimeout(1)

    with pytest.raises(ConnectTimeout) as raised:
        async with connect(URL, transport=Scripted(opening=impatient)):
            pytest.fail("the block must not be entered")
    assert raised.value.timeout == 1


@pytest.mark.parametrize("seconds", [10, 20])
async def test_a_function_that_blocks_the_program_is_late_too(seconds: float, autojump_clock: MockClock) -> None:
    def block() -> dict[str, str]:
        autojump_clock.jump(seconds)
        return {}

    connector = Scripted()
    with pytest.raises(ConnectTimeout) as raised:
        async with connect(URL, transport=connector, params=block):
            pytest.fail("the block must not be entered")
    assert raised.value.option == "params"
    assert connector.requests == []


async def test_without_a_limit_a_function_may_take_as_long_as_it_likes(autojump_clock: MockClock) -> None:
    connector = Scripted()
    async with connect(URL, transport=connector, params=taking(1000, {}), connect_timeout=None):
        assert trio.current_time() == 1000
        assert connector.requests[0].connect_timeout is None


@pytest.mark.parametrize("error", [trio.TooSlowError(), ConnectTimeout(1), TimeoutError("mine")])
async def test_a_timeout_of_the_functions_own_is_raised_unchanged(error: Exception, autojump_clock: MockClock) -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise error

    with pytest.raises(type(error)) as raised:
        async with connect(URL, transport=Scripted(), **OPTIONS({"params": fail})):
            pytest.fail("the block must not be entered")
    assert raised.value is error


@pytest.mark.parametrize("option", FUNCTIONS)
async def test_a_disconnect_has_what_a_function_raised(option: str, autojump_clock: MockClock) -> None:
    errors = [LookupError("first"), ConnectError("second")]
    calls = iter([GOOD[option], *errors])
    asked: list[Disconnect] = []

    def call() -> Any:
        value = next(calls)
        if isinstance(value, Exception):
            raise value
        return value

    def decide(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return disconnect.error is not errors[1]

    async with world() as there:
        options = {"transport": there.connector, "telemetry": there.telemetry, "should_reconnect": decide}
        with pytest.raises(ConnectError) as raised:
            async with connect(**given(option, call), **OPTIONS(options)):
                there.connection.drop()
                await trio.sleep_forever()
    assert raised.value is errors[1]
    assert [(disconnect.reason, disconnect.error) for disconnect in asked] == [
        ("lost", None),
        ("option_failed", errors[0]),
        ("option_failed", errors[1]),
    ]


async def test_telemetry_tells_a_function_that_hangs_from_one_that_raises(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        raise LookupError("mine")

    params = in_turn(trio.sleep_forever, fail, taking(0, {}))
    recorder = Recorder()
    async with connect(URL, transport=Scripted(), params=params, retry_first=True, telemetry=recorder.bus):
        pass
    ends = [record for record in recorder.records if record.name[:3] == ("slipstream", "client", "connect")]
    assert [record.name[-1] for record in ends] == ["start", "stop", "start", "exception", "start", "stop"]
    assert [record.metadata["outcome"] for record in ends if record.name[-1] == "stop"] == ["timeout", "ok"]


async def test_a_callback_client_is_told_of_a_function_that_hangs(autojump_clock: MockClock) -> None:
    class Told(Client):
        reasons: list[Exception]

        async def handle_disconnect(self, reason: Exception) -> None:
            self.reasons.append(reason)

        async def handle_connect(self, socket: Any) -> None:
            self.stop()

    told = Told()
    told.reasons = []
    params = in_turn(trio.sleep_forever, taking(0, {}))
    async with world() as there:
        options = {"transport": there.connector, "telemetry": there.telemetry, "connect_timeout": 3}
        await run_client(told, URL, **OPTIONS(options), params=params)
    assert [(type(reason), getattr(reason, "option", None)) for reason in told.reasons] == [(ConnectTimeout, "params")]


async def test_a_connection_is_there_again_once_the_function_returns(autojump_clock: MockClock) -> None:
    params = in_turn(taking(0, {}), trio.sleep_forever, trio.sleep_forever, taking(0, {}))
    async with world() as there:
        async with there.connect(params=params, connect_timeout=3) as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    # Attempts of 3 s each that end where the function hangs, and the back-off between them.
    assert there.attempts_at() == [0, 1 + 3 + 2 + 3 + 4]


async def test_a_timeout_that_a_function_raises_itself_is_its_exception(autojump_clock: MockClock) -> None:
    def from_elsewhere() -> str:
        raise ConnectTimeout(3)

    recorder = Recorder()
    with pytest.raises(ConnectTimeout, match="within 3 s"):
        async with connect(from_elsewhere, transport=Scripted(), telemetry=recorder.bus):
            pass
    assert len(recorder.named("client", "connect", "exception")) == 1


async def test_what_is_asked_of_a_client_before_its_trace_parent_is_known_has_its_time(
    autojump_clock: MockClock,
) -> None:
    client, ended = Client(), trio.Event()

    async def run() -> None:
        await run_client(client, URL, transport=Scripted(), trace_parent=trio.sleep_forever, connect_timeout=None)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        socket = client.socket
        assert socket is not None
        with pytest.raises(ConnectionLost, match="connect_failed"):
            await socket.ping()
        await client.join("room")
        with pytest.raises(PushTimeout):
            await client.push("room", "event", timeout=2)
        assert trio.current_time() == 2
        client.stop()
        await ended.wait()
        assert trio.current_time() == 2


async def test_a_block_that_is_cancelled_before_its_trace_parent_is_known_is_left_at_once(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(1) as scope:
        async with connect(URL, transport=Scripted(), trace_parent=trio.sleep_forever):
            pytest.fail("the block must not be entered")
    assert scope.cancelled_caught
    assert trio.current_time() == 1
