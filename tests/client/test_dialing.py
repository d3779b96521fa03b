"""What a connection is opened with: query, headers, subprotocols, trace; and that secrets stay where they belong."""

import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, running
from trio.testing import MockClock

from slipstream_trio import ConfigurationError, ConnectError, connect
from slipstream_trio.protocol import Options, V1Serializer, V2Serializer
from slipstream_trio.testing.server import Request
from slipstream_trio.transport import OpenRequest

SECRET = "s3cr3t"
OPTIONS: Any = dict
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACE_PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


async def request_of(url: str = URL, **options: Any) -> OpenRequest:
    """Return what a connector is asked for."""
    connector = Scripted()
    async with connect(url, transport=connector, **options):
        return connector.requests[0]


def sync_and_async(value: Any) -> list[Callable[[], Any | Awaitable[Any]]]:
    async def later() -> Any:
        await trio.lowlevel.checkpoint()
        return value

    return [lambda: value, later]


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({}, "vsn=2.0.0"),
        ({"a": 1, "b": "zwei"}, "vsn=2.0.0&a=1&b=zwei"),
        ({"a": {"b": {"c": "d"}}}, "vsn=2.0.0&a[b][c]=d"),
        ({"l": [1, 2], "t": ("x",)}, "vsn=2.0.0&l[]=1&l[]=2&t[]=x"),
        ({"l": [{"a": 1}, [2]]}, "vsn=2.0.0&l[][a]=1&l[][]=2"),
        ({"yes": True, "no": False, "none": None, "f": 1.5}, "vsn=2.0.0&yes=true&no=false&none=&f=1.5"),
        ({"empty": [], "also": {}, 5: "key"}, "vsn=2.0.0&5=key"),
        ({"a b": "c&d=e/?#ü"}, "vsn=2.0.0&a%20b=c%26d%3De%2F%3F%23%C3%BC"),
    ],
)
async def test_params_join_the_query(params: Any, query: str, autojump_clock: MockClock) -> None:
    request = await request_of(params=params)
    assert request.url == f"{URL}?{query}"


async def test_the_vsn_is_no_parameter_of_the_users(autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigurationError, match=r"^params: 'vsn' is an option of its own"):
        await request_of(params={"vsn": "1.0.0"})
    assert (await request_of(params={"a": {"vsn": 1}})).url == f"{URL}?vsn=2.0.0&a[vsn]=1"


async def test_the_server_is_told_the_vsn_of_the_serializer(autojump_clock: MockClock) -> None:
    class Third(V2Serializer):
        name = "third"
        vsn = "3.0.0"

    assert (await request_of(serializer=Third(), params={"a": 1})).url == f"{URL}?vsn=3.0.0&a=1"
    assert (await request_of(serializer=V1Serializer())).url == f"{URL}?vsn=1.0.0"


async def test_params_are_read_by_the_server_as_they_were_given(autojump_clock: MockClock) -> None:
    params = {"user": {"name": "Zoë & co", "tags": ["a", "b"]}, "x": "1+1=2", "l[]": "odd"}
    seen: list[Request] = []
    async with running(connect=seen.append) as server:
        async with connect(URL, transport=server.connector(), params=params):
            pass
    assert seen[0].params == {
        "vsn": "2.0.0",
        "user": {"name": "Zoë & co", "tags": ["a", "b"]},
        "x": "1+1=2",
        "l": ["odd"],
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://localhost", "ws://localhost/?vsn=2.0.0"),
        ("ws://localhost/a?b=c", "ws://localhost/a?b=c&vsn=2.0.0"),
        ("ws://localhost/a?vsn=2.0.0&b=c", "ws://localhost/a?vsn=2.0.0&b=c"),
        ("https://[::1]:4000/a", "https://[::1]:4000/a?vsn=2.0.0"),
    ],
)
async def test_the_url_is_kept_and_vsn_joins_its_query(url: str, expected: str, autojump_clock: MockClock) -> None:
    assert (await request_of(url)).url == expected


async def test_headers_may_be_a_mapping_or_pairs(autojump_clock: MockClock) -> None:
    for headers in ({"x-a": "1", "x-b": "zwei"}, [("x-a", "1"), ("x-b", "zwei")], (("x-a", "1"), ("x-b", "zwei"))):
        assert (await request_of(headers=headers)).headers == (("x-a", "1"), ("x-b", "zwei"))


async def test_headers_reach_the_server(autojump_clock: MockClock) -> None:
    seen: list[Request] = []
    async with running(connect=seen.append) as server:
        async with connect(URL, transport=server.connector(), headers={"x-user": "me"}):
            pass
    assert seen[0].header("x-user") == "me"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "1\r\nx-b: 2"},
        {"x-a": "1\n"},
        {"x-a": "\x00"},
        {"x-a\r\nx-b": "1"},
        {"x a": "1"},
        {"": "1"},
        {"x-a": "snow \u2603"},
        {"x-a": 5},
        {5: "x"},
        [("x-a",)],
        [("x-a", "1", "2")],
        ["ab", 5],
        [None],
    ],
)
async def test_headers_that_cannot_be_sent_are_refused(headers: Any, autojump_clock: MockClock) -> None:
    for given in (headers, lambda: headers):
        with pytest.raises(ConfigurationError) as raised:
            await request_of(headers=given)
        assert raised.value.option == "headers"


@pytest.mark.parametrize("name", ["Host", "upgrade", "Connection", "Sec-WebSocket-Key", "sec-websocket-protocol"])
async def test_headers_of_the_upgrade_itself_are_refused(name: str, autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigurationError, match=f"^headers: '{name}' is the upgrade's own"):
        await request_of(headers={"x-a": "1", name: "hush"})
    assert ("x-websocket-key", "1") in (await request_of(headers={"x-websocket-key": "1"})).headers


async def test_a_function_that_returns_no_headers_at_all_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigurationError, match="mapping"):
        await request_of(headers=lambda: 5)


@pytest.mark.parametrize("which", [0, 1])
async def test_what_may_be_a_function_may_be_sync_or_async(which: int, autojump_clock: MockClock) -> None:
    request = await request_of(
        params=sync_and_async({"a": 1})[which],
        headers=sync_and_async({"x-a": "1"})[which],
        auth_token=sync_and_async("token")[which],
    )
    assert request.url.endswith("&a=1")
    assert request.headers == (("x-a", "1"),)
    assert request.subprotocols[0] == "phoenix"


@pytest.mark.parametrize("option", ["params", "headers", "auth_token", "trace_parent"])
@pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("mine", [KeyError()]), ConnectError("mine")])
async def test_what_such_a_function_raises_leaves_connect_unchanged(
    option: str, error: Exception, autojump_clock: MockClock
) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(type(error)) as raised:
        await request_of(**OPTIONS({option: fail}))
    assert raised.value is error


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("params", [("a", "b")]),
        ("params", None),
        ("params", {"a": object()}),
        ("params", {"a": [b"bytes"]}),
        ("params", {"a": "\ud800"}),
        ("params", {"\ud800": "a"}),
        ("auth_token", b"token"),
        ("auth_token", f"{SECRET}\ud800"),
        ("trace_parent", "nonsense"),
        ("trace_parent", f"00-{'0' * 32}-b7ad6b7169203331-01"),
        ("trace_parent", f"00-{TRACE}-{'0' * 16}-01"),
        ("trace_parent", 5),
    ],
)
async def test_what_such_a_function_returns_is_checked(option: str, value: Any, autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await request_of(**OPTIONS({option: lambda: value}))
    assert raised.value.option == option
    assert SECRET not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


async def test_a_slow_function_can_be_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await request_of(params=trio.sleep_forever)
    assert scope.cancelled_caught


async def test_the_token_is_a_subprotocol_and_no_part_of_the_url(autojump_clock: MockClock) -> None:
    request = await request_of(auth_token="who>>>")  # whose base64 differs by its alphabet
    assert request.subprotocols == ("phoenix", "base64url.bearer.phx.d2hvPj4+")
    assert (await request_of()).subprotocols == ()


async def test_the_token_reaches_the_server(autojump_clock: MockClock) -> None:
    seen: list[Request] = []
    async with running(connect=seen.append, auth_token=True) as server:
        async with connect(URL, transport=server.connector(), auth_token="tök?n/"):
            pass
    assert seen[0].auth_token == "tök?n/"


async def test_no_secret_is_in_telemetry_state_reprs_or_logs(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="slipstream_trio")
    recorder = Recorder()
    secrets: Any = {
        "params": {"token": SECRET},
        "headers": {"authorization": SECRET},
        "auth_token": SECRET,
        "telemetry": recorder.bus,
    }
    encoded = base64.b64encode(SECRET.encode()).decode().rstrip("=")
    async with running(auth_token=True) as server:
        async with connect(f"{URL}?key={SECRET}", transport=server.connector(), **secrets) as socket:
            async with socket.join("lab:1") as channel:
                await channel.push("echo")
            shown = [socket, socket.state, channel]
    with pytest.raises(ConnectError) as refused:
        async with connect(f"{URL}?key={SECRET}", transport=server.connector(), **secrets):
            pass
    texts = [repr(thing) for thing in (*shown, refused.value, refused.value.args)]
    texts += [repr((record, record.metadata)) for record in recorder.records]
    texts.append(caplog.text)
    for text in texts:
        assert SECRET not in text
        assert encoded not in text


async def test_the_configuration_in_telemetry_is_the_options(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    await request_of(f"{URL}?a=b", telemetry=recorder.bus)
    (start,) = recorder.named("client", "connect", "start")
    assert isinstance(start.configuration, Options)
    assert start.configuration.url == URL


async def test_connections_with_one_trace_parent_share_its_trace(autojump_clock: MockClock) -> None:
    given: list[Any] = [TRACE_PARENT, *sync_and_async(TRACE_PARENT)]
    for trace_parent in given:
        async with connect(URL, transport=Scripted(), trace_parent=trace_parent) as socket:
            assert socket.trace_id == TRACE
            assert socket.connection_id != TRACE_PARENT.split("-")[2]


async def test_a_time_limit_and_a_size_reach_the_transport(autojump_clock: MockClock) -> None:
    request = await request_of(connect_timeout=3, max_message_size=99)
    assert (request.connect_timeout, request.max_message_size) == (3, 99)
    assert (await request_of(connect_timeout=None)).connect_timeout is None
