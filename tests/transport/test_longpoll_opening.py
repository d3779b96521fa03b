"""The opening of a session: what is sent, and every way in which it fails, at once."""

import json
import sys
from typing import Any

import pytest
import trio
from tests.transport.polls import URL, Answer, Asked, http, opened, said, serving
from tests.transport.support import RawServer
from trio.testing import MockClock

from slipstream_trio import ConfigurationError, ConnectError, ConnectionRejected, ConnectTimeout, connect
from slipstream_trio.transport import OpenRequest, find_connector

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")

TOKEN_SUBPROTOCOLS = ("phoenix", "base64url.bearer.phx.czNjcjN0")


async def refused(answer: Answer, **request: Any) -> ConnectError:
    """Return what opening raises when the server answers like this."""

    async def refuse(_: Asked) -> Answer:
        return answer

    async with serving() as server:
        server.on_open = refuse
        with pytest.raises(ConnectError) as raised:
            async with opened(server, **request):
                pytest.fail("the block must not be entered")
        for stream in server.streams:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await stream.send_all(b"anybody there?")
    return raised.value


async def test_a_session_is_opened_beside_the_websocket_with_the_token_in_a_header(autojump_clock: MockClock) -> None:
    request = {"headers": (("x-user", "ü"), ("Accept", "text/html")), "subprotocols": TOKEN_SUBPROTOCOLS}
    async with serving() as server, opened(server, **request) as transport:
        assert dict(transport.response_headers)["content-length"].isdecimal()
        (asked,) = server.asked
    assert (asked.method, asked.target) == ("GET", "/socket/longpoll?vsn=2.0.0")
    assert asked.headers == {
        "host": "localhost:4000",
        "accept": "application/json",
        "x-phoenix-authtoken": "s3cr3t",
        "x-user": "ü",
    }


@pytest.mark.parametrize(
    ("url", "target"),
    [("ws://h/longpoll?a=1", "/longpoll?a=1"), ("http://h/websocket/x?a", "/websocket/x?a"), ("ws://h", "/?")],
)
async def test_another_path_is_taken_as_it_is(url: str, target: str, autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server, url=url):
        assert server.asked[0].target == target
        assert server.asked[0].headers["host"] == "h"


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 429, 500, 503])
async def test_another_status_is_a_rejection(status: int, autojump_clock: MockClock) -> None:
    error = await refused(http(b"no\xff!", status, Retry_After="7", Location="/there"))
    assert isinstance(error, ConnectionRejected)
    assert error.status == status
    assert {("retry-after", "7"), ("location", "/there")} <= set(error.headers)
    assert error.body == "no\ufffd!"


@pytest.mark.parametrize("status", [403, 500])
async def test_so_is_another_status_of_phoenix(status: int, autojump_clock: MockClock) -> None:
    error = await refused(said(status))
    assert isinstance(error, ConnectionRejected)
    assert error.status == status
    assert json.loads(error.body) == {"status": status}


@pytest.mark.parametrize(
    "page",
    ["<html>Please log in</html>", "", "[]", '{"status": "410"}', '{"status": 410}', '{"status": 410, "messages": 1}'],
)
async def test_a_page_in_place_of_a_session_is_a_rejection(page: str, autojump_clock: MockClock) -> None:
    error = await refused(http(page))
    assert isinstance(error, ConnectionRejected)
    assert error.body == page


async def test_a_body_that_does_not_end_is_cut_off(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    stalled = http(b"x", 503).replace(b"content-length: 1", b"content-length: 99")
    error = await refused(stalled, connect_timeout=60)
    assert isinstance(error, ConnectionRejected)
    assert error.body == "x"
    endless = await refused(http(b"y" * 3_000_000, 429))
    assert isinstance(endless, ConnectionRejected)
    assert 4096 <= len(endless.body) < 16_384
    assert trio.current_time() - started < 3


@pytest.mark.parametrize("answer", [None, b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 2", b"X" * 200_000])
async def test_other_answers_are_connect_errors(answer: Answer, autojump_clock: MockClock) -> None:
    error = await refused(answer, connect_timeout=5)
    assert not isinstance(error, ConnectionRejected)


async def test_no_answer_is_a_timeout(autojump_clock: MockClock) -> None:
    async def hang(_: Asked) -> Answer:
        await trio.sleep_forever()

    async with serving() as server:
        server.on_open = hang
        started = trio.current_time()
        with pytest.raises(ConnectTimeout):
            async with opened(server, connect_timeout=3):
                pass
    assert trio.current_time() - started == 3


@pytest.mark.parametrize("raised", [OSError("no route"), ValueError("of the user's"), ConnectError("their own")])
async def test_what_opens_streams_may_fail(raised: Exception, autojump_clock: MockClock) -> None:
    async def fail(_: OpenRequest) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise raised

    connector = find_connector("longpoll", fail)
    with pytest.raises(ConnectError, match=str(raised)):
        async with connector.open(OpenRequest(url=URL), lambda: None):
            pass


async def test_a_stream_that_raises_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with serving() as server:

        async def open_stream(request: OpenRequest) -> trio.abc.Stream:
            stream = await server.open_stream(request)
            monkeypatch.setattr(stream, "send_all", fail)
            return stream

        async def fail(_: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError("not mine")

        with pytest.raises(ConnectError, match="ValueError: not mine"):
            async with find_connector("longpoll", open_stream).open(OpenRequest(url=URL), lambda: None):
                pass


@pytest.mark.parametrize(
    "request_", [{"headers": [("x", "s3cr3t\n")]}, {"subprotocols": [f"{TOKEN_SUBPROTOCOLS[1]}Cg"]}]
)
async def test_what_no_header_can_have_is_refused_without_showing_it(
    request_: dict[str, Any], autojump_clock: MockClock
) -> None:
    error = await refused(None, **request_)
    assert "s3cr3t" not in str(error)
    assert error.__cause__ is None
    assert "no HTTP request can have" in str(error)


async def test_the_stream_of_the_opening_is_used_on(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        server.feed("[1]")
        assert await transport.receive() == ["[1]"]
        assert len(server.streams) == 1
        await transport.send(["[2]"])
        assert len(server.streams) <= 2


@pytest.mark.parametrize(("kept", "cookie"), [(True, "a=1; node=7"), (False, "a=1; node=old")])
async def test_cookies_that_are_set_come_with_what_follows(kept: bool, cookie: str, autojump_clock: MockClock) -> None:
    async with serving() as server:

        async def open_(_: Asked) -> Answer:
            return http('{"status": 410, "token": "t", "messages": []}', Set_Cookie="node=7; Path=/; HttpOnly")

        server.on_open = open_
        async with opened(server, cookies=kept, headers=[("cookie", "a=1; node=old")]) as transport:
            await transport.send(["[]"])
            server.feed("[]")
            await transport.receive()
        assert [asked.headers["cookie"] for asked in server.asked] == ["a=1; node=old", cookie, cookie]


async def test_a_poll_may_set_them_anew(autojump_clock: MockClock) -> None:
    async with serving() as server:
        set_to = ["node=2; Path=/", "node=3; Path=/elsewhere", "node=4; Secure", "node=5; Path=/; Max-Age=0"]

        async def poll(_: Asked) -> Answer:
            more: Any = {"Set_Cookie": set_to.pop(0)} if set_to else {}
            return http('{"status": 200, "token": "t", "messages": ["[]"]}', **more)

        server.on_poll = poll
        async with opened(server, cookies=True) as transport:
            for _ in range(6):
                await transport.receive()
        assert [asked.headers.get("cookie") for asked in server.asked[1:]] == [None, *["node=2"] * 3, None, None]


async def test_one_that_is_to_be_closed_is_not(autojump_clock: MockClock) -> None:
    async with serving() as server:
        body = '{"status": 410, "token": "t", "messages": []}'

        async def close(_: Asked) -> Answer:
            return http(body, Connection="close")

        server.on_open = close
        async with opened(server) as transport:
            server.feed("[1]")
            assert await transport.receive() == ["[1]"]
            assert len(server.streams) == 2


async def test_cancelling_leaves_nothing_open(autojump_clock: MockClock) -> None:
    server = RawServer()
    with trio.move_on_after(1):
        async with find_connector("longpoll", server.open_stream).open(OpenRequest(url=URL), server.wake):
            pass
    assert server.client.closed


def test_without_httpcore_the_option_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpcore", None)
    monkeypatch.delitem(sys.modules, "slipstream_trio.transport.longpoll", raising=False)
    with pytest.raises(ConfigurationError, match=r"^transport: .*slipstream-trio\[longpoll\]"):
        connect(URL, transport="longpoll")
    with pytest.raises(ConfigurationError, match=r"^longpoll_fallback: .*slipstream-trio\[longpoll\]"):
        connect(URL, longpoll_fallback=1)
