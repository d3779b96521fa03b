"""What may be a function is asked again for every connection, and every join."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.recovery.support import connected_again, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import ChannelClosed, ConfigurationError, ConnectionLost, JoinError, JoinTimeout
from slipstream_trio.testing.server import Refuse


def counting(make: Callable[[int], Any], *, is_async: bool) -> Callable[[], Any]:
    """Return a function that gives another value each time."""
    count = 0

    def call() -> Any:
        nonlocal count
        count += 1
        return make(count)

    async def call_async() -> Any:
        await trio.sleep(0.1)
        return call()

    return call_async if is_async else call


@pytest.mark.parametrize("is_async", [False, True])
async def test_params_are_asked_again(is_async: bool, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(params=counting(lambda n: {"token": f"t{n}"}, is_async=is_async)) as socket:
            there.upgrades.append(Refuse(500))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert [request.params["token"] for _, request in there.requests] == ["t1", "t2", "t3"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_headers_are_asked_again(is_async: bool, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(headers=counting(lambda n: {"x-token": f"t{n}"}, is_async=is_async)) as socket:
            there.connection.close(1000)
            await connected_again(there, socket, 2)
    assert [request.header("x-token") for _, request in there.requests] == ["t1", "t2"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_auth_token_is_asked_again(is_async: bool, autojump_clock: MockClock) -> None:
    async with world(auth_token=True) as there:
        async with there.connect(auth_token=counting(lambda n: f"t{n}", is_async=is_async)) as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert [request.auth_token for _, request in there.requests] == ["t1", "t2"]


async def test_the_trace_parent_is_asked_again(autojump_clock: MockClock) -> None:
    parents = counting(lambda n: f"00-{n:032x}-{n:016x}-01", is_async=False)
    async with world() as there:
        async with there.connect(trace_parent=parents) as socket:
            assert socket.trace_id == f"{1:032x}"
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert socket.trace_id == f"{2:032x}"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_joins_payload_is_asked_again(is_async: bool, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            async with socket.join("room:1", counting(lambda n: {"token": f"t{n}"}, is_async=is_async)) as channel:
                assert channel.join_response == {"number": 1, "payload": {"token": "t1"}}
                there.connection.drop()
                await connected_again(there, socket, 2)
                await until(lambda: channel.status == "joined")
                assert channel.join_response == {"number": 2, "payload": {"token": "t2"}}
                await channel.send("crash")
                await until(lambda: channel.status == "errored")
                await until(lambda: channel.status == "joined")
    assert [payload["token"] for _, _, payload in there.asked] == ["t1", "t2", "t3"]


def failing(times: int, value: Any, error: Exception) -> Callable[[], Any]:
    """Return a function that gives a value once, then fails so many times."""
    calls = iter([value, *[error] * times])

    def call() -> Any:
        given = next(calls, value)
        if isinstance(given, Exception):
            raise given
        return given

    return call


@pytest.mark.parametrize("option", ["params", "headers", "auth_token", "trace_parent"])
async def test_an_option_that_raises_at_a_reconnect_is_asked_again_later(
    option: str, autojump_clock: MockClock
) -> None:
    good = {"params": {}, "headers": {}, "auth_token": "t", "trace_parent": f"00-{1:032x}-{1:016x}-01"}[option]
    given = {option: failing(2, good, LookupError("no token"))}
    async with world() as there:
        async with there.connect(**given) as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 7]
    assert there.told("reconnect_scheduled", "reason") == ["lost", "option_failed", "option_failed"]


async def test_an_option_that_returns_nonsense_at_a_reconnect_is_asked_again(autojump_clock: MockClock) -> None:
    values = iter([{}, 5, {}])
    async with world() as there:
        async with there.connect(params=lambda: next(values)) as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 3]


async def test_an_option_that_raises_at_first_raises(autojump_clock: MockClock) -> None:
    def broken() -> Any:
        raise LookupError("mine")

    async with world() as there:
        with pytest.raises(LookupError, match="mine"):
            async with there.connect(params=broken):
                pytest.fail("the body ran")
        with pytest.raises(ConfigurationError, match="params"):
            async with there.connect(params=lambda: 5):
                pytest.fail("the body ran")
    assert there.attempts == []


async def test_an_option_that_raises_at_first_is_retried_where_the_first_is(autojump_clock: MockClock) -> None:
    calls = iter([LookupError("mine"), LookupError("mine")])

    def params() -> Any:
        for error in calls:
            raise error
        return {}

    async with world() as there:
        async with there.connect(params=params, retry_first=True):
            pass
    assert there.attempts_at() == [3]


async def test_an_option_that_always_raises_ends_by_the_limit_with_what_it_raised(autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(LookupError, match="mine"):
            async with there.connect(params=failing(99, {}, LookupError("mine")), should_reconnect=_thrice()):
                there.connection.drop()
                await trio.sleep_forever()
    assert there.told("reconnect_scheduled", "reason") == ["lost", "option_failed", "option_failed"]


def _thrice() -> Callable[[Any], bool]:
    count = 0

    def decide(_: Any) -> bool:
        nonlocal count
        count += 1
        return count <= 3

    return decide


async def test_an_option_that_takes_forever_can_be_cancelled_and_disconnected(autojump_clock: MockClock) -> None:
    hang = False

    async def params() -> dict[str, str]:
        if hang:
            await trio.sleep_forever()
        return {}

    async with world() as there:
        async with there.connect(params=params) as socket:
            hang = True
            there.connection.drop()
            await trio.sleep(5)
            assert status_of(socket) == "reconnecting"
            await socket.disconnect()
            assert status_of(socket) == "closed"
        with trio.move_on_after(3) as waiting:
            async with there.connect(params=params):
                pytest.fail("the body ran")
        assert waiting.cancelled_caught


@pytest.mark.parametrize(
    "payload",
    [
        LookupError("mine"),
        # What another channel, or another socket, is asked for may fail as this one does.
        ChannelClosed("room:token", "not_joined"),
        ConnectionLost("lost"),
        JoinError("room:token", {}),
        JoinTimeout("room:token", 1),
        {1, 2},
    ],
)
async def test_a_payload_that_fails_at_a_rejoin_is_asked_again_by_the_backoff(
    payload: Any, autojump_clock: MockClock
) -> None:
    values = iter([{"n": 1}, payload, payload, {"n": 4}])

    def ask() -> Any:
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    async with world() as there:
        async with there.connect() as socket:
            async with socket.join("room:1", ask) as channel:
                there.connection.drop()
                await connected_again(there, socket, 2)
                assert status_of(channel) == "errored"
                await until(lambda: channel.status == "joined")
    assert [(round(at, 2), payload) for at, _, payload in there.asked] == [(0, {"n": 1}), (4, {"n": 4})]
    spans = there.records_of("client", "join", "exception")
    # What cannot be sent raised inside of the join's span; this is no balance of the trace's.
    assert len(spans) == (0 if isinstance(payload, Exception) else 2)


@pytest.mark.parametrize("error", [LookupError("mine"), JoinError("room:token", {})])
async def test_a_payload_that_fails_at_a_rejoin_for_good_ends_the_channel_with_that(
    error: Exception, autojump_clock: MockClock
) -> None:
    values = iter([{}, error])

    def ask() -> Any:
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    async with world() as there:
        async with there.connect(rejoin=None) as socket:
            channel = socket.channel("room:1", ask)
            await channel.join()
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert status_of(channel) == "closed"
            with pytest.raises(ChannelClosed) as caught:
                await anext(aiter(channel))
            assert caught.value.reason == "payload_failed"
            with pytest.raises(ChannelClosed):
                await channel.push("echo")


async def test_a_payload_that_raises_at_the_first_join_leaves_nothing(autojump_clock: MockClock) -> None:
    def broken() -> Any:
        raise LookupError("mine")

    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1", broken)
            with pytest.raises(LookupError, match="mine"):
                await channel.join()
            assert status_of(channel) == "closed"
            (failed,) = there.records_of("client", "join", "exception")
            assert failed.metadata["reason"] == "mine"
            span_id = failed.metadata["span_id"]
            there.records[:] = [record for record in there.records if record.metadata.get("span_id") != span_id]
            async with socket.join("room:1"):
                pass
