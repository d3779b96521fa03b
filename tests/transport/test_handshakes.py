"""The upgrade: what is sent, and every way in which it fails, at once."""

import re
from typing import Any

import pytest
import trio
from tests.transport.support import REQUEST, RawServer, opened
from trio.testing import MockClock

from slipstream_trio import ConnectError, ConnectionRejected, ConnectTimeout
from slipstream_trio.transport import OpenRequest, find_connector
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector


async def fail(response: bytes, *, then: str = "wait", request: OpenRequest = REQUEST) -> ConnectError:
    """Return what it raises when the server answers like this."""
    server = RawServer()
    started = trio.current_time()

    async def answer() -> None:
        await server.answer(response)
        if then == "close":
            await server.stream.aclose()
        elif then == "reset":
            server.stream.reset()
        elif then == "more":
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await server.stream.send_all(b"x" * 4096)
        elif then == "drip":
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await server.stream.send_all(b"x")
                    await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(ConnectError) as raised:
            async with TrioWebSocketConnector(server.open_stream).open(request, server.wake):
                pytest.fail("the block must not be entered")
    assert server.client.closed
    if then != "drip":
        assert trio.current_time() == started
    return raised.value


async def test_the_request_has_what_it_was_told(autojump_clock: MockClock) -> None:
    request: Any = {
        "headers": (("x-user", "me"), ("X-Other", "ü")),
        "subprotocols": ("phoenix", "base64url.bearer.phx.dG9rZW4"),
    }
    async with opened(**request) as (transport, server):
        assert transport.response_headers == (("x-server", "raw"),)
    assert server.request.startswith(b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n")
    headers = server.headers()
    assert headers["host"] == "localhost:4000"
    assert headers["x-user"] == "me"
    assert headers["sec-websocket-protocol"] == "phoenix, base64url.bearer.phx.dG9rZW4"
    assert headers["sec-websocket-version"] == "13"
    assert len(server.client.writes) == 1


async def test_a_path_that_is_left_out_is_the_root(autojump_clock: MockClock) -> None:
    server = RawServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        async with TrioWebSocketConnector(server.open_stream).open(OpenRequest(url="ws://h"), server.wake):
            pass
    assert server.request.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 101 Switch"])
async def test_a_server_that_hangs_up_is_a_connect_error_at_once(
    response: bytes, then: str, autojump_clock: MockClock
) -> None:
    error = await fail(response, then=then)
    assert not isinstance(error, ConnectionRejected)
    assert "hung up" in str(error) or "upgrade" in str(error)


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\x01\x02" * 100,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: bm9uc2Vuc2U=\r\n\r\n"
        ),
    ],
)
async def test_garbage_is_a_connect_error_at_once(response: bytes, autojump_clock: MockClock) -> None:
    error = await fail(response)
    assert not isinstance(error, ConnectionRejected)


@pytest.mark.parametrize("status", [200, 302, 400, 403, 503])
async def test_another_status_is_a_rejection(status: int, autojump_clock: MockClock) -> None:
    head = f"HTTP/1.1 {status} Odd\r\nContent-Length: 4\r\nRetry-After: 7\r\nX-Two: ä\r\n\r\n"
    error = await fail(head.encode("latin-1") + b"no\xff!")
    assert isinstance(error, ConnectionRejected)
    assert error.status == status
    assert ("retry-after", "7") in error.headers
    assert ("x-two", "ä") in error.headers
    assert error.body == "no\ufffd!"


async def test_the_body_of_a_rejection_may_look_like_frames(autojump_clock: MockClock) -> None:
    """Even like a message above the limit, or HTTP."""
    body = b"\x02\x7e\x7f\x7f HTTP/1.1 101 \r\n\r\n" + b"\x02\x7e\x7f\x7f"
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n"
    error = await fail(head.encode() + body, request=OpenRequest(url=REQUEST.url, max_message_size=10))
    assert isinstance(error, ConnectionRejected)
    assert error.body == body.decode()


async def test_a_rejection_may_have_no_body(autojump_clock: MockClock) -> None:
    error = await fail(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(error, ConnectionRejected)
    assert error.body == ""


async def test_a_rejection_may_be_chunked_or_end_with_the_connection(autojump_clock: MockClock) -> None:
    chunked = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n3\r\noop\r\n1\r\ns\r\n0\r\n\r\n"
    error = await fail(chunked)
    assert isinstance(error, ConnectionRejected)
    assert error.body == "oops"


async def test_a_body_that_does_not_end_is_cut_off(autojump_clock: MockClock) -> None:
    head = b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n"
    error = await fail(head, then="more")
    assert isinstance(error, ConnectionRejected)
    assert 4096 <= len(error.body) < 16_384


async def test_headers_that_do_not_end_are_cut_off(autojump_clock: MockClock) -> None:
    await fail(b"HTTP/1.1 500 Oops\r\nX-Long: ", then="more")


async def test_a_head_that_drips_is_cut_off_by_the_timeout(autojump_clock: MockClock) -> None:
    head = b"HTTP/1.1 500 Oops\r\nX-Long: "
    error = await fail(head, then="drip", request=OpenRequest(url="ws://h", connect_timeout=3))
    words = r"not connected within 3 s, waiting for the rest of the server's answer \(3\d bytes had come\); see .*"
    assert re.fullmatch(words, str(error))
    assert trio.current_time() == pytest.approx(3, abs=1.1)


@pytest.mark.parametrize(("timeout", "waited"), [(3, 1), (0.5, 0.5), (None, 1)])
async def test_a_body_that_drips_is_cut_off_after_a_second(
    timeout: float | None, waited: float, autojump_clock: MockClock
) -> None:
    head = b"HTTP/1.1 500 Oops\r\nContent-Length: 9999\r\n\r\n"
    error = await fail(head, then="drip", request=OpenRequest(url="ws://h", connect_timeout=timeout))
    assert isinstance(error, ConnectionRejected)
    assert (error.status, error.body.strip("x")) == (500, "")
    assert trio.current_time() == pytest.approx(waited, abs=1.1)


@pytest.mark.parametrize("stage", ["open", "upgrade"])
async def test_the_timeout_is_for_everything_together(stage: str, autojump_clock: MockClock) -> None:
    server = RawServer()

    async def open_slowly(request: OpenRequest) -> trio.abc.Stream:
        await trio.sleep(2 if stage == "upgrade" else 100)
        return await server.open_stream(request)

    with pytest.raises(ConnectTimeout, match="connect_timeout"):
        async with TrioWebSocketConnector(open_slowly).open(OpenRequest(url="ws://h", connect_timeout=3), server.wake):
            pytest.fail("the block must not be entered")
    assert trio.current_time() == pytest.approx(3)
    assert server.client.closed == (stage == "upgrade")


async def test_without_a_timeout_it_waits(autojump_clock: MockClock) -> None:
    server = RawServer()
    with trio.move_on_after(1000) as scope:
        async with TrioWebSocketConnector(server.open_stream).open(
            OpenRequest(url="ws://h", connect_timeout=None), server.wake
        ):
            pytest.fail("the block must not be entered")
    assert scope.cancelled_caught
    assert server.client.closed


async def test_a_stream_that_is_broken_already_is_a_connect_error(autojump_clock: MockClock) -> None:
    server = RawServer()
    server.stream.reset()
    with pytest.raises(ConnectError):
        async with TrioWebSocketConnector(server.open_stream).open(REQUEST, server.wake):
            pytest.fail("the block must not be entered")


@pytest.mark.parametrize("url", ["ws://h/p\u00e4th", "ws://h/a b", "ws://h/?q=\u00e4"])
async def test_a_url_that_cannot_be_requested_is_a_connect_error(url: str, autojump_clock: MockClock) -> None:
    server = RawServer()
    with pytest.raises(ConnectError):
        async with TrioWebSocketConnector(server.open_stream).open(OpenRequest(url=url), server.wake):
            pytest.fail("the block must not be entered")


async def test_an_exception_of_the_block_leaves_it_unchanged_and_closes(autojump_clock: MockClock) -> None:
    error = ExceptionGroup("mine", [KeyError()])
    with pytest.raises(ExceptionGroup) as raised:
        async with opened() as (_, server):
            raise error
    assert raised.value is error
    assert server.client.closed


def test_connectors_are_found_by_the_names_of_modules() -> None:
    assert isinstance(find_connector("trio_websocket"), TrioWebSocketConnector)
    for name in ("nothing", "base", "", ".."):
        with pytest.raises(LookupError, match="unknown transport"):
            find_connector(name)
