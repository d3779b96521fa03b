"""A session at work: polls, and its end."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.transport.polls import URL, Answer, Asked, end_of, http, opened, said, serving
from trio.testing import MockClock

from slipstream_trio.transport import OpenRequest, TransportEnded, find_connector

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")

ASCII_ARRAY = "[" + "x" * 98 + "]"


def always(answer: Answer) -> Callable[[Asked], Awaitable[Answer]]:
    async def give(_: Asked) -> Answer:
        await trio.lowlevel.checkpoint()
        return answer

    return give


# Polls


async def test_messages_come_in_order_and_each_poll_has_the_last_token(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        server.feed("[1]", '["ü\\u2028\\n"]')
        assert await transport.receive() == ["[1]", '["ü\\u2028\\n"]']
        assert transport.heard == trio.current_time()
        server.feed("[2]")
        assert await transport.receive() == ["[2]"]
        assert [asked.token for asked in server.asked] == ["", "t0", "t2"]


async def test_polls_go_on_where_nothing_comes_and_nothing_was_heard(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        with trio.move_on_after(95):
            await transport.receive()
        assert len(server.asked) == 11
        assert transport.heard is None


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (said(410, [], "new"), 3410, "session_gone"),
        (said(403), 1008, "forbidden"),
        (http("no", 403), 1008, "forbidden"),
        (said(500), 1011, "binary"),
        (http("{}", 500), 1011, "binary"),
        (http("", 502), 1011, "status 502"),
        (http("", 302, Location="/"), 1011, "status 302"),
        (http("<html>"), 1011, "status 200, and not as Phoenix does"),
        (http('{"status": 200, "messages": [1]}'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "messages": ["[1]" "[2]"]}'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "messages": ["[1]", 2]}'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "messages": ["[1]"'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "more": {"messages": ["[1]"]}}'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "more": "' + "x" * 100_000 + '"}'), 1011, "not as Phoenix does"),
        (http('{"status": 200, "messages": ["\udc80"]}'.encode(errors="surrogateescape")), 1011, "not as Phoenix"),
        (http("[" * 100_000), 1011, "not as Phoenix does"),
        (said(418), 1011, "status 418"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_answers_are_the_server_s_end(
    method: str, answer: bytes, code: int, text: str, autojump_clock: MockClock
) -> None:
    async with serving() as server, opened(server) as transport:
        if method == "GET":
            server.on_poll = always(answer)
        elif b"messages" in answer and b"410" not in answer:
            return  # what a POST is answered with has none
        else:
            server.on_post = always(answer)
            with pytest.raises(TransportEnded) as raised:
                await transport.send(["[1]", "{}"])
            assert (raised.value.code, len(server.posts)) == (code, 1)
        ended = await end_of(transport)
        assert (ended.code, ended.ended_by, ended.reason) == (code, "server", None)
        assert text in ended.message
        with pytest.raises(TransportEnded):
            await transport.send(["[1]"])


@pytest.mark.parametrize("text", ['{"token": "\\"messages\\": [\\"no\\"]", %s, "status": 200}', '{ %s , "status":200}'])
@pytest.mark.parametrize("messages", ['"messages" : [ "[1]" ,\n"[2\\"\\\\]" ]', '"messages":["[1]","[2\\u0022\\\\]"]'])
async def test_a_response_is_json_in_any_form(text: str, messages: str, autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        server.on_poll = always(http(text % messages))
        assert await transport.receive() == ["[1]", '[2"\\]']


async def passes(counted: list[None]) -> None:
    while True:
        await trio.lowlevel.checkpoint()
        counted.append(None)


def in_chunks(content: bytes) -> bytes:
    """Return a response in chunks of three bytes."""
    content += b" " * (-len(content) % 3)
    chunks = b"".join(b"3\r\n" + content[at : at + 3] + b"\r\n" for at in range(0, len(content), 3))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("number", "size", "answer", "least"),
    [(20_000, 4, said, 200 + 200), (50, 60_000, said, 25 + 25), (600, 3, in_chunks, 40)],
)
async def test_a_long_response_lets_others_run(
    number: int, size: int, answer: Callable[..., bytes], least: int
) -> None:
    counted: list[None] = []
    frames = ["[" + "x" * size + "]"] * number
    whole = said(200, frames, "t") if answer is said else in_chunks(said(200, frames, "t").partition(b"\r\n\r\n")[2])
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:
        reads = len(whole) // (16 * 1024)
        server.on_poll = always(whole)
        nursery.start_soon(passes, counted)
        received: list[Any] = []
        while len(received) < number:
            batch = await transport.receive()
            assert len(batch) <= 100
            assert sum(map(len, batch)) <= 64 * 1024 + size
            received += batch
        assert received == frames
        assert len(counted) >= least + reads
        nursery.cancel_scope.cancel()


async def test_what_came_before_the_end_is_received(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        server.feed(*(f"[{number}]" for number in range(150)))
        assert len(await transport.receive()) == 100
        server.on_post = always(said(410))
        with pytest.raises(TransportEnded):
            await transport.send(["[1]"])
        assert await transport.receive() == [f"[{number}]" for number in range(100, 150)]
        assert (await end_of(transport)).code == 3410


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"SSH-2.0\r\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_breaks_is_the_network_s_end(
    method: str, answer: Answer, autojump_clock: MockClock
) -> None:
    async with serving() as server, opened(server) as transport:

        async def cut(asked: Asked) -> Answer:
            if answer is not None:
                await server.streams[-1].send_all(answer)
            return None

        setattr(server, "on_poll" if method == "GET" else "on_post", cut)
        if method == "POST":
            with pytest.raises(TransportEnded):
                await transport.send(["[1]"])
        ended = await end_of(transport)
        assert (ended.code, ended.ended_by) == (1006, "network")
        assert ended.__cause__ is not None


async def test_a_poll_that_stalls_is_given_up(autojump_clock: MockClock) -> None:
    async def hang(_: Asked) -> Answer:
        await trio.sleep_forever()

    async with serving() as server, opened(server) as transport:
        server.on_poll = hang
        started = trio.current_time()
        ended = await end_of(transport)
        assert (ended.code, ended.ended_by) == (1006, "network")
        assert "nothing came for 30" in ended.message
        assert trio.current_time() - started == 30


async def test_a_network_that_is_gone_ends_it_within_the_time_for_connecting(autojump_clock: MockClock) -> None:
    async with serving() as server:
        streams = 0

        async def open_once(request: Any) -> trio.abc.Stream:
            nonlocal streams
            streams += 1
            if streams > 2:
                await trio.sleep_forever()
            return await server.open_stream(request)

        server.on_post = always(http('{"status": 200}', Connection="close"))
        opening = find_connector("longpoll", open_once).open(OpenRequest(url=URL, connect_timeout=3), lambda: None)
        async with opening as transport, trio.open_nursery() as nursery:
            nursery.start_soon(end_of, transport)
            await trio.sleep(1)
            await transport.send(["[1]"])
            started = trio.current_time()
            with pytest.raises(TransportEnded, match="1006"):
                await transport.send(["[2]"])
            assert trio.current_time() - started == 3


async def test_a_message_above_the_limit_ends_it_and_those_before_come(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server, max_message_size=100) as transport:
        server.feed(ASCII_ARRAY, "ü" * 51, "[3]")
        assert await transport.receive() == [ASCII_ARRAY]
        ended = await end_of(transport)
        assert (ended.code, ended.ended_by, ended.reason) == (1009, "client", "message_too_big")
        assert "at least 102 bytes; max_message_size is 100" in ended.message


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_response_is_not_read_without_limit(method: str, autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server, max_message_size=100) as transport:
        setattr(server, "on_poll" if method == "GET" else "on_post", always(http("x" * 3_000_000)))
        if method == "POST":
            with pytest.raises(TransportEnded):
                await transport.send(["[1]"])
        ended = await end_of(transport)
        assert (ended.code, ended.reason) == (1009, "message_too_big")


async def test_what_is_still_coming_was_heard(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:
        body = said(200, ["x" * 20_000], "t")

        async def slowly(_: Asked) -> Answer:
            for start in range(0, len(body), 5_000):
                await server.streams[0].send_all(body[start : start + 5_000])
                await trio.sleep(20)
            return b""

        server.on_poll = slowly
        nursery.start_soon(transport.receive)
        await trio.sleep(50)
        assert transport.heard == trio.current_time() - 10
        nursery.cancel_scope.cancel()


async def test_progress_moves_with_bytes_and_until_all_is_received(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        before = transport.progress
        server.feed(*["[1]"] * 250)
        parts = [len(await transport.receive())]
        assert transport.progress > before
        while transport.progress != transport.progress:
            parts.append(len(await transport.receive()))
        assert parts == [100, 100, 50]


async def test_progress_moves_while_a_poll_is_decoded_though_a_post_is_answered(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:
        asked, posted, received = trio.Event(), trio.Event(), trio.Event()

        async def once_asked(_: Asked) -> Answer:
            await asked.wait()
            return said(200)

        async def post() -> None:
            await transport.send(["[1]"])
            posted.set()

        async def receive() -> None:
            await transport.receive()
            received.set()

        server.on_post = once_asked
        nursery.start_soon(post)
        nursery.start_soon(receive)
        server.feed(*["[1]"] * 50_000)
        while transport.progress == transport.progress:
            await trio.lowlevel.checkpoint()
        asked.set()
        await posted.wait()
        while not received.is_set():
            assert transport.progress != transport.progress
            await trio.lowlevel.checkpoint()


# The end


async def test_closing_ends_the_poll_under_way(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:

        async def close() -> None:
            await trio.sleep(3)
            await transport.close(1000, "reconnect")

        nursery.start_soon(close)
        started = trio.current_time()
        ended = await end_of(transport)
        assert (ended.code, ended.ended_by) == (1000, "client")
        assert trio.current_time() - started == 3
        assert len(server.asked) == 2


@pytest.mark.parametrize("doing", ["receive", "send"])
async def test_cancelling_closes_every_stream(doing: str, autojump_clock: MockClock) -> None:
    async def hang(_: Asked) -> Answer:
        await trio.sleep_forever()

    async with serving() as server:
        server.on_post = hang
        async with opened(server) as transport:
            with trio.move_on_after(1):
                await (transport.receive() if doing == "receive" else transport.send(["[1]"]))
        for stream in server.streams:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await stream.send_all(b"anybody there?")
