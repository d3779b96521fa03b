"""Answers to the upgrade that are something else: each is told in words that name the cause and the way out."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.transport.support import REQUEST, RawServer
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import ConnectError, ConnectionRejected, connect
from slipstream_trio.testing.server import MemoryStream
from slipstream_trio.transport import OpenRequest, find_connector
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector
from slipstream_trio.transport.upgrade import Answer as Upgraded, accept_token, upgrade

INVALID = "the server's 101 is an invalid upgrade: "
MALFORMED = INVALID + "it is malformed HTTP"
LOOKS = "the server's answer looks like "
CHECK = "check the URL's host and port"

Answer = bytes | Callable[[bytes], bytes]
"""What the server says, or what it makes of a valid 101."""


async def answered(answer: Answer, *, then: str = "wait", step: int = 0, **request: Any) -> Upgraded | ConnectError:
    """Return what asking a server comes to that answers so, in pieces of `step` bytes if that is not 0."""
    server = RawServer()
    asked = OpenRequest(**{"url": REQUEST.url, **request})

    async def serve() -> None:
        valid = await server.acceptance()
        data = answer if isinstance(answer, bytes) else answer(valid)
        pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
        for piece in pieces:
            await server.stream.send_all(piece)
        await wait_all_tasks_blocked()
        if then == "close":
            await server.stream.aclose()
        elif then == "reset":
            server.stream.reset()

    result: Upgraded | ConnectError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            result = await upgrade(server.client, asked, trio.current_time() + 10)
        except ConnectError as error:
            result = error
        nursery.cancel_scope.cancel()
    return result


def with_header(line: bytes) -> Callable[[bytes], bytes]:
    return lambda valid: valid.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


def without(name: bytes, value: bytes | None = None) -> Callable[[bytes], bytes]:
    """Take a header out of a valid 101, or give it another value."""

    def change(valid: bytes) -> bytes:
        lines = [line for line in valid.split(b"\r\n") if not line.startswith(name + b":")]
        return b"\r\n".join([lines[0], *([name + b": " + value] if value is not None else []), *lines[1:]])

    return change


def line(status: bytes) -> Callable[[bytes], bytes]:
    return lambda valid: status + valid[valid.index(b"\r\n") :]


SWITCHED: dict[str, Answer] = {
    "plain": lambda valid: valid,
    "no reason": line(b"HTTP/1.1 101"),
    "bare line feeds": lambda valid: valid.replace(b"\r\n", b"\n"),
    "other case": lambda valid: valid.replace(b"Upgrade: websocket", b"UPGRADE: WebSocket"),
    "several tokens": without(b"Connection", b"keep-alive, upgrade"),
    "two connection headers": with_header(b"Connection: keep-alive"),
    "no body": with_header(b"Content-Length: 0"),
    "chunked": with_header(b"Transfer-Encoding: chunked"),
    "latin-1 and a tab": with_header(b"X-Name: J\xfcrgen\tx"),
    "folded": with_header(b"X-Name: a\r\n b"),
    "a header without value": with_header(b"X-Name:"),
    "no extension": with_header(b"Sec-WebSocket-Extensions:"),
    "100": lambda valid: b"HTTP/1.1 100 Continue\r\n\r\n" + valid,
    "102, 103": lambda valid: (
        b"HTTP/1.1 102 Processing\r\nX Y\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + valid
    ),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("answer", SWITCHED.values(), ids=SWITCHED)
async def test_a_valid_101_is_a_success_however_it_comes(answer: Answer, step: int, autojump_clock: MockClock) -> None:
    data = b"\x81\x02hi"
    result = await answered(lambda valid: changed(answer, valid) + data, step=step)
    assert isinstance(result, Upgraded)
    assert data.startswith(bytes(result.buffer))
    assert ("x-server", "raw") in result.headers
    assert result.values("sec-websocket-protocol") == result.values("sec-websocket-extensions") == []


def changed(answer: Answer, valid: bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer(valid)


NO_UPGRADES: list[tuple[str, Answer, str]] = [
    ("1.0", line(b"HTTP/1.0 101 Switching"), INVALID + "it is HTTP/1.0, which has none; let the proxy between speak "),
    ("2", line(b"HTTP/2 101"), INVALID + "it is HTTP/2, which has none; "),
    ("no Upgrade", without(b"Upgrade"), INVALID + "its Upgrade header is missing; let the proxy between pass it on"),
    ("Upgrade: h2c", without(b"Upgrade", b"h2c"), INVALID + "its Upgrade header has another value; let the proxy "),
    ("no Connection", without(b"Connection"), INVALID + "its Connection header is missing; let the proxy between "),
    ("close", without(b"Connection", b"close"), INVALID + "its Connection header has another value; let the proxy "),
    ("no accept", without(b"Sec-WebSocket-Accept"), INVALID + "its Sec-WebSocket-Accept header is missing; is that "),
    (
        "another accept",
        without(b"Sec-WebSocket-Accept", b"AAAA"),
        INVALID + "its Sec-WebSocket-Accept header does not fit our key; a proxy may have answered from ",
    ),
    ("two accepts", with_header(b"Sec-WebSocket-Accept: x"), INVALID + "its Sec-WebSocket-Accept header does not fit"),
    (
        "an extension",
        with_header(b"Sec-WebSocket-Extensions: x-mux, permessage-deflate"),
        INVALID + "it chose the extension 'x-mux', which was not offered; turn that off on the server",
    ),
    (
        "a subprotocol",
        with_header(b"Sec-WebSocket-Protocol: mqtt"),
        INVALID + "it chose the subprotocol 'mqtt', which was not offered; is that the URL of Phoenix's socket?",
    ),
    ("NUL", with_header(b"X-Name: a\0b"), MALFORMED + " (header line 5 cannot be read); a proxy may have"),
    ("a space", with_header(b"X Name: ab"), MALFORMED + " (header line 5 cannot be read); "),
    ("no colon", with_header(b"nonsense"), MALFORMED + " (header line 5 cannot be read); "),
    ("a fold first", line(b"HTTP/1.1 101 X\r\n Folded: x"), MALFORMED + " (header line 1 cannot be read); "),
    ("two lengths", with_header(b"Content-Length: 1\r\nContent-Length: 2"), MALFORMED + " (conflicting Content-Length"),
    ("two spaces", line(b"HTTP/1.1  101 Switching"), MALFORMED + " (illegal status line"),
    ("no digits", b"HTTP/1.1 OK\r\n", "the status line of the server's answer is malformed ('HTTP/1.1 OK'); " + CHECK),
    (
        "four digits",
        b"HTTP/1.1 1010 OK\r\n",
        "the status line of the server's answer is malformed ('HTTP/1.1 1010",
    ),
    ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", LOOKS + f"SSH rather than HTTP ('SSH-2.0-OpenSSH_9.6'): {CHECK}"),
    ("SMTP", b"220 mail ESMTP\r\n", LOOKS + f"SMTP or FTP rather than HTTP ('220 mail ESMTP'): {CHECK}"),
    ("IMAP", b"* OK IMAP4rev1 ready\r\n", LOOKS + "IMAP rather"),
    ("POP3", b"+OK ready\r\n", LOOKS + "POP3 rather"),
    ("Redis", b"-ERR unknown command\r\n", LOOKS + "Redis rather"),
    ("VNC", b"RFB 003.008\n", LOOKS + "VNC rather"),
    ("AMQP", b"AMQP\0\0\x09\x01", LOOKS + "AMQP rather"),
    ("RTSP", b"RTSP/1.0 400 Bad Request\r\n", LOOKS + "a media protocol rather"),
    ("MySQL", b"\x4a\0\0\0\x0a8.0.36\0", LOOKS + "MySQL rather"),
    ("PostgreSQL", b"E\0\0\0\x8cSFATAL\0", LOOKS + "PostgreSQL rather"),
    ("MQTT", b"\x20\x02\x00\x01", LOOKS + "MQTT rather"),
    ("memcached", b"ERROR\r\n", LOOKS + "memcached rather"),
    ("SOCKS", b"\x05\xff", LOOKS + "SOCKS rather than HTTP: pass the address of a proxy as the option proxy"),
    ("HTML", b"<html>hello</html>\r\n", LOOKS + "a bare HTML page rather than HTTP ('<html>hello</html>')"),
    ("frames", b"\x81\x05hello", LOOKS + "WebSocket frames rather than HTTP: let the server answer the upgrade first"),
    (
        "an echo",
        b"GET /socket/websocket?token=s3cr3t HTTP/1.1\r\n",
        LOOKS + "an echo of our request rather than HTTP: ",
    ),
    ("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", LOOKS + "HTTP/2 rather than HTTP: let the server, or the "),
    ("GOAWAY", b"\0\0\x08\x07\0\0\0\0\0" + bytes(8), LOOKS + "HTTP/2 rather"),
    ("a preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", LOOKS + "HTTP/2 rather"),
    ("TLS", b"\x15\x03\x01\0\x02\x02\x46", LOOKS + "TLS rather than HTTP: the URL should begin with wss:// rather "),
    ("text", b"hello\r\n\r\n", LOOKS + f"an unknown protocol rather than HTTP ('hello'): {CHECK}"),
    ("a blank line", b"\r\nHTTP/1.1 101 X\r\n", LOOKS + "an unknown protocol rather than HTTP: "),
    ("lower case", b"http/1.1 101 X\r\n", LOOKS + "an unknown protocol rather than HTTP ('http/1.1 101 X')"),
    ("binary", bytes(range(128, 256)), LOOKS + "an unknown protocol rather than HTTP: "),
    (
        "large headers",
        with_header(b"X-Large: " + b"x" * 66_000),
        "the headers of the server's answer exceed 65536 bytes ('HTTP/1.1 101 Switching Protocols'); see max_header",
    ),
    ("endless 1xx", b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, "the headers of the server's answer exceed 65536 bytes"),
]


@pytest.mark.parametrize(("name", "answer", "sentence"), NO_UPGRADES, ids=[name for name, _, _ in NO_UPGRADES])
async def test_each_answer_that_is_no_upgrade_has_its_sentence(
    name: str, answer: Answer, sentence: str, autojump_clock: MockClock
) -> None:
    for step in (0,) if name in ("large headers", "endless 1xx") else (0, 1, 7):
        started = trio.current_time()
        error = await answered(answer, step=step)
        assert type(error) is ConnectError
        assert str(error).startswith(sentence)
        assert "s3cr3t" not in str(error)
        assert trio.current_time() == started  # at once


def test_the_sentences_are_different() -> None:
    assert len({sentence for _, _, sentence in NO_UPGRADES}) > 35


HUNG = "the server hung up during the upgrade, "
HUNG_UP: list[tuple[bytes, str, str, str]] = [
    (
        b"",
        "ws",
        "close",
        HUNG + "without an answer: it speaks another protocol there, ",
    ),
    (
        b"",
        "wss",
        "close",
        HUNG + "without an answer: it speaks another protocol there; ",
    ),
    (
        b"",
        "ws",
        "reset",
        "the connection broke during the upgrade, without an answer: it speaks",
    ),
    (
        b"HTTP/1.1 403 Forbidden\r\nX-",
        "ws",
        "close",
        HUNG + "26 bytes into its answer ('HTTP/1.1 403 Forbidden'); its log, or that ",
    ),
    (
        b"HT",
        "ws",
        "reset",
        "the connection broke during the upgrade, 2 bytes into its answer ('HT'); its log",
    ),
]


@pytest.mark.parametrize(("data", "scheme", "then", "sentence"), HUNG_UP)
async def test_hanging_up_says_when(
    data: bytes, scheme: str, then: str, sentence: str, autojump_clock: MockClock
) -> None:
    error = await answered(data, then=then, url=f"{scheme}://localhost:4000/socket/websocket")
    assert type(error) is ConnectError
    assert str(error).startswith(sentence)


HEAD = b"HTTP/1.1 403 Forbidden\r\nX-One: 1\r\n"
REFUSALS: dict[str, tuple[bytes, str, str, float]] = {
    "HTTP/1.0": (b"HTTP/1.0 403 No\r\nX-One: 1\r\n\r\nno", "close", "no", 0),
    "Connection: close": (HEAD + b"Connection: close\r\n\r\nno", "close", "no", 0),
    "no body": (HEAD + b"Connection: close\r\n\r\n", "close", "", 0),
    "a length": (HEAD + b"Content-Length: 2\r\n\r\nno way", "wait", "no", 0),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "wait", "no", 0),
    "bad chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\nzz\r\n", "wait", "no", 0),
    "another coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\nno", "close", "no", 0),
    "no length, open": (HEAD + b"\r\nno", "wait", "no", 1),
    "stalled": (HEAD + b"Content-Length: 99\r\n\r\nno", "wait", "no", 1),
    "cut": (HEAD + b"Content-Length: 99\r\n\r\nno", "close", "no", 0),
    "reset": (HEAD + b"Content-Length: 99\r\n\r\nno", "reset", "no", 0),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nno", "close", "no", 0),
    "a length that is none": (HEAD + b"Content-Length: x\r\n\r\nno", "close", "no", 0),
    "a header that is none": (HEAD + b"X Y\r\n\r\nno", "close", "no", 0),
    "two spaces": (HEAD.replace(b" 403", b"  403") + b"\r\nno", "close", "no", 0),
    "HTTP/2": (HEAD.replace(b"1.1", b"2", 1) + b"\r\nno", "close", "no", 0),
    "100 before": (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\nno", "close", "no", 0),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("data", "then", "body", "waited"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusals_status_and_headers_count_however_it_ends(
    data: bytes, then: str, body: str, waited: float, step: int, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    error = await answered(data, then=then, step=step)
    assert isinstance(error, ConnectionRejected)
    assert (error.status, dict(error.headers)["x-one"]) == (403, "1")
    assert error.body == body
    assert trio.current_time() - started == waited


async def test_a_body_of_3_mb_is_cut(autojump_clock: MockClock) -> None:
    error = await answered(HEAD + b"\r\n" + b"x" * 3_000_000)
    assert isinstance(error, ConnectionRejected)
    assert 4096 <= len(error.body) < 16_384


async def test_a_server_that_answers_and_closes_before_it_has_read_is_heard(autojump_clock: MockClock) -> None:
    server = RawServer()
    await server.stream.send_all(HEAD + b"Content-Length: 0\r\n\r\n")
    server.client.broken = True
    with pytest.raises(ConnectionRejected):
        await upgrade(server.client, REQUEST, math.inf)


async def test_a_secret_across_the_end_of_a_body_is_taken_out(autojump_clock: MockClock) -> None:
    server = RawServer()
    secret = "a-secret-of-some-length"

    async def serve() -> None:
        await server.answer(HEAD + b"\r\n" + b"you said " + secret[:12].encode())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ConnectionRejected) as raised:
            async with connect(
                REQUEST.url, params={"token": secret}, transport=TrioWebSocketConnector(server.open_stream)
            ):
                pytest.fail("the block must not be entered")
    assert raised.value.body == "you said [redacted]"


HINTS: list[tuple[bytes, str]] = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "; that is an ordinary page: check the URL's path"),
    (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", "; the request was not understood as an upgrade"),
    (
        b"HTTP/1.1 400 Bad\r\nContent-Length: 51\r\n\r\nThe plain HTTP request was sent to HTTPS port nginx",
        "; that port expects TLS: the URL should begin with wss://",
    ),
    (b"HTTP/1.1 404 Not\r\nContent-Length: 0\r\n\r\n", "; does the URL's path end in /websocket"),
    (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "; a proxy requires credentials"),
    (b"HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n", "; it requires another protocol, or TLS (wss://)"),
    (b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n", "; its answer lacks a Location"),
    (b"HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "; it redirects to '/x': connect to that URL"),
]


@pytest.mark.parametrize(("data", "hint"), HINTS)
async def test_a_status_hints_at_the_way_out(data: bytes, hint: str, autojump_clock: MockClock) -> None:
    assert hint in str(await answered(data))


async def test_what_was_offered_may_be_chosen(autojump_clock: MockClock) -> None:
    chosen = with_header(
        b"Sec-WebSocket-Protocol: phoenix\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15"
    )
    offered: Any = {
        "subprotocols": ("phoenix", "token"),
        "extensions": ("permessage-deflate; client_max_window_bits",),
    }
    result = await answered(chosen, **offered)
    assert isinstance(result, Upgraded)
    assert result.values("sec-websocket-protocol") == ["phoenix"]
    assert result.values("sec-websocket-extensions") == ["permessage-deflate; client_max_window_bits=15"]
    assert isinstance(await answered(chosen, extensions=offered["extensions"]), ConnectError)


async def test_the_limit_of_headers_is_an_option(autojump_clock: MockClock) -> None:
    assert isinstance(await answered(with_header(b"X-Large: " + b"x" * 60_000)), Upgraded)
    large = with_header(b"X-Large: " + b"x" * 100_000)
    assert isinstance(await answered(large, max_header_size=200_000), Upgraded)
    assert "exceed 100 bytes" in str(await answered(large, max_header_size=100))


def test_the_accept_token_is_that_of_the_rfc() -> None:
    assert accept_token(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("name", ["trio_websocket", "auto"])
async def test_every_transport_tells_it(name: str, autojump_clock: MockClock) -> None:
    server = RawServer()
    connector: Any = type(find_connector(name))(server.open_stream)  # type: ignore[call-arg]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.answer, b"SSH-2.0-x\r\n")
        with pytest.raises(ConnectError, match="looks like SSH"):
            async with connect(REQUEST.url, transport=connector):
                pytest.fail("the block must not be entered")
    assert isinstance(server.stream, MemoryStream)
