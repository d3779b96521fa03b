"""A URL may come from a function, which is asked at every attempt to connect."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted
from tests.recovery.support import connected_again, until, world
from trio.testing import MockClock

from slipstream_trio import Client, Configuration, ConfigurationError, ConnectionRejected, connect, run_client
from slipstream_trio.protocol import TransportFailed, TransportOpened
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.testing.server import Refuse

SECRET = "s3cr3t"


def sync_or_async(values: Iterator[Any], *, is_async: bool) -> Callable[[], Any | Awaitable[Any]]:
    """Return a function that gives one value after the other."""

    async def later() -> Any:
        await trio.sleep(0.1)
        return next(values)

    return later if is_async else lambda: next(values)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_url_is_asked_for_at_every_attempt(is_async: bool, autojump_clock: MockClock) -> None:
    urls = sync_or_async(iter([f"ws://node{number}/socket/websocket" for number in range(3)]), is_async=is_async)
    connector = Scripted()
    async with connect(urls, transport=connector, params={"a": 1}) as socket:
        connector.peer.end()
        await until(lambda: socket.generation == 2)
        connector.peer.end()
        await until(lambda: socket.generation == 3)
    assert [request.url for request in connector.requests] == [
        f"ws://node{number}/socket/websocket?vsn=2.0.0&a=1" for number in range(3)
    ]


async def test_a_callback_client_may_be_given_such_a_function(autojump_clock: MockClock) -> None:
    class Once(Client):
        async def handle_connect(self, socket: Any) -> None:
            self.stop()

    async with FakeServer() as server:
        await run_client(Once(), lambda: server.url, transport=server.connector())
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("returned", "option", "problem"),
    [
        (5, "url", "int"),
        (None, "url", "NoneType"),
        ("ftp://localhost/", "url", "scheme"),
        (f"ws://user:{SECRET}@localhost/", "url", "auth_token"),
        (f"ws://localhost/?token={SECRET} 1", "url", "percent-encode"),
        (f"{URL}?vsn=1.0.0", "vsn", "pass vsn='1.0.0'"),
    ],
)
async def test_a_returned_url_is_checked_as_a_given_one_is(
    returned: Any, option: str, problem: str, autojump_clock: MockClock
) -> None:
    connector = Scripted()
    with pytest.raises(ConfigurationError, match=problem) as raised:
        async with connect(lambda: returned, transport=connector):
            pytest.fail("the block must not be entered")
    assert raised.value.option == option
    assert SECRET not in str(raised.value)
    assert connector.requests == []


async def test_a_returned_url_that_cannot_be_used_is_a_failed_attempt_later(autojump_clock: MockClock) -> None:
    urls = iter([URL, "nonsense", URL])
    async with world() as there:
        async with connect(lambda: next(urls), transport=there.connector, telemetry=there.telemetry) as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.told("reconnect_scheduled", "reason") == ["lost", "option_failed"]


async def test_a_function_may_fail_over_to_another_host(autojump_clock: MockClock) -> None:
    async with world() as there:
        hosts = iter(["gone", "here"])
        there.upgrades.append(ConnectionRefusedError("nobody"))
        async with connect(lambda: f"ws://{next(hosts)}/socket/websocket", transport=there.connector, retry_first=True):
            assert dict(there.requests[0][1].headers)["host"] == "here"


async def test_the_options_have_no_url_then_and_the_opening_tells_it(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    url = f"{URL}?token={SECRET}"
    async with connect(lambda: url, transport=Scripted(), telemetry=recorder.bus) as socket:
        assert socket.state.options.url is None
    inputs = [record.raw_message for record in recorder.named("connection", "handle", "start")]
    (opened,) = (given for given in inputs if isinstance(given, TransportOpened))
    assert opened.url == URL
    (start,) = recorder.named("client", "connect", "start")
    assert start.configuration.url is None
    assert SECRET not in repr(recorder.records)


async def test_a_failure_tells_the_url_that_a_function_gave(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with world() as there:
        there.upgrades.extend([Refuse(500), ConnectionRefusedError("nobody"), Refuse(403)])
        with pytest.raises(ConnectionRejected):
            async with connect(
                lambda: f"{URL}?token={SECRET}", transport=there.connector, telemetry=recorder.bus, retry_first=True
            ):
                pytest.fail("the block must not be entered")
    inputs = [record.raw_message for record in recorder.named("connection", "handle", "start")]
    assert [given.url for given in inputs if isinstance(given, TransportFailed)] == [URL] * 3


async def test_a_given_url_is_told_by_the_options_alone(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with connect(URL, transport=Scripted(), telemetry=recorder.bus) as socket:
        assert socket.state.options.url == URL
    inputs = [record.raw_message for record in recorder.named("connection", "handle", "start")]
    (opened,) = (given for given in inputs if isinstance(given, TransportOpened))
    assert opened.url is None


def test_a_configuration_with_a_function_shows_that_there_is_one() -> None:
    assert "url=a function" in repr(Configuration(url=lambda: f"{URL}?token={SECRET}"))
