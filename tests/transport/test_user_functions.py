"""What a user's `open_stream`, resolver or stream raises: an attempt that failed, or the end of a connection."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.transport.support import (
    PING,
    REQUEST,
    TEXT,
    URL,
    RawServer,
    connector,
    frame,
    joined,
    opened,
    reading,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import ConnectError, ConnectionLost, connect
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest, TransportEnded

pytestmark = pytest.mark.usefixtures("each_transport")


class Mine(Exception):
    """An exception of the user's own."""


class Odd(trio.abc.Stream):
    """A stream to a server, one of whose methods raises from some moment on."""

    def __init__(self, server: RawServer, method: str, error: BaseException) -> None:
        self.server = server
        self.method = method
        self.error = error
        self.turned = trio.Event()  # from then on it raises, also what waits

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check("send_all")
        await self.server.client.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        async def turn() -> None:
            await self.turned.wait()
            if self.method == "receive_some":
                nursery.cancel_scope.cancel()

        data = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn)
            data = await self.server.client.receive_some(max_bytes)
            nursery.cancel_scope.cancel()
        self._check("receive_some")
        return data

    async def aclose(self) -> None:
        await self.server.client.aclose()
        self._check("aclose")

    def _check(self, method: str) -> None:
        if self.turned.is_set() and self.method == method:
            raise self.error


Opener = Callable[[OpenRequest], Awaitable[trio.abc.Stream]]


def raising(error: BaseException) -> Opener:
    async def open_stream(_: OpenRequest) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    return open_stream


def giving(stream: Any) -> Opener:
    async def open_stream(_: OpenRequest) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream  # type: ignore[no-any-return]

    return open_stream


async def error_of(open_stream: Any) -> ConnectError:
    """Return what connecting raises."""
    with pytest.raises(ConnectError) as raised:
        async with connect(URL, transport=connector(open_stream)):
            pytest.fail("the block must not be entered")
    return raised.value


# Opening


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Mine("no route"), "open_stream raised Mine: no route"),
        (Mine(), "open_stream raised Mine"),
        (KeyError("host"), "open_stream raised KeyError: 'host'"),
        (trio.BrokenResourceError(), "open_stream raised BrokenResourceError"),
        (trio.TooSlowError(), "open_stream raised TooSlowError"),
        (ExceptionGroup("both", [Mine(), OSError()]), "open_stream raised ExceptionGroup: both (2 sub-exceptions)"),
        (OSError("no network"), "no network"),
    ],
)
async def test_what_open_stream_raises_is_the_cause_of_a_connect_error(
    error: Exception, text: str, autojump_clock: MockClock
) -> None:
    raised = await error_of(raising(error))
    assert type(raised) is ConnectError
    assert str(raised) == f"no connection: {text}"
    assert raised.__cause__ is error


async def test_a_connect_error_of_open_stream_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    error = ConnectError("the proxy refused it")
    assert await error_of(raising(error)) is error


async def test_what_is_no_exception_passes_through_open_stream(autojump_clock: MockClock) -> None:
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as raised:
        async with connector(raising(error)).open(REQUEST, lambda: None):
            pytest.fail("the block must not be entered")
    assert raised.value is error


@pytest.mark.parametrize("open_stream", [lambda _: object(), lambda: None, giving(None), giving(object())])
async def test_an_open_stream_of_another_kind_is_a_connect_error(open_stream: Any, autojump_clock: MockClock) -> None:
    assert isinstance((await error_of(open_stream)).__cause__, TypeError | AttributeError)


async def test_an_attempt_whose_open_stream_raises_is_followed_by_the_next(autojump_clock: MockClock) -> None:
    server, count = PhoenixServer({"/socket": Mount()}), 0

    async def open_stream(_: OpenRequest) -> trio.abc.Stream:
        nonlocal count
        count += 1
        if count in (2, 3):
            raise Mine
        return await server.open_stream()

    async with server.run(), connect(URL, transport=connector(open_stream)) as socket:
        (connection,) = server.connections
        connection.drop()
        async for status in socket.status_changes():
            if status == "connected" and count == 4:
                break


class Resolver(trio.abc.HostnameResolver):
    """Has a bug."""

    async def getaddrinfo(self, *_: object) -> Any:
        raise Mine("of a resolver")

    async def getnameinfo(self, *_: object) -> Any:
        raise AssertionError


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_what_a_resolver_raises_is_the_cause_of_a_connect_error(scheme: str) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(ConnectError) as raised:
        async with connect(f"{scheme}://name.invalid:4000/socket/websocket"):
            pytest.fail("the block must not be entered")
    assert str(raised.value) == "no connection to name.invalid port 4000: Mine: of a resolver"
    assert isinstance(raised.value.__cause__, Mine)


# Streams


@pytest.mark.parametrize("error", [Mine("odd"), OSError("odd"), trio.TooSlowError("odd")], ids=repr)
@pytest.mark.parametrize("method", ["send_all", "receive_some"])
async def test_a_stream_that_raises_during_the_upgrade_is_a_connect_error(
    method: str, error: Exception, autojump_clock: MockClock
) -> None:
    server = RawServer()
    stream = Odd(server, method, error)
    stream.turned.set()
    raised = await error_of(giving(stream))
    assert type(raised) is ConnectError
    assert str(raised) == f"the upgrade failed: the stream raised {type(error).__name__}: odd"
    assert raised.__cause__ is error
    assert server.client.closed


@pytest.mark.parametrize("error", [Mine("secret"), OSError("secret"), ExceptionGroup("secret", [Mine()])], ids=repr)
async def test_a_stream_that_raises_in_reading_has_ended(error: Exception, autojump_clock: MockClock) -> None:
    server = RawServer()
    stream = Odd(server, "receive_some", error)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept, frame(TEXT, b"text"))
        async with (
            connector(giving(stream)).open(REQUEST, server.wake) as opening,
            reading(opening) as transport,
        ):
            assert await transport.receive() == ("text",)
            stream.turned.set()
            for operation in (transport.receive, lambda: transport.send(["text"])):
                with pytest.raises(TransportEnded) as raised:
                    await operation()
                end = raised.value
                assert (end.code, end.ended_by, end.reason) == (1006, "network", None)
                assert end.message == f"the stream raised {type(error).__name__}"
                assert end.__cause__ is error


async def test_what_a_stream_raises_first_is_the_cause_of_the_end(autojump_clock: MockClock) -> None:
    server, error = RawServer(), Mine("first")
    stream = Odd(server, "receive_some", error)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        async with (
            connector(giving(stream)).open(REQUEST, server.wake) as opening,
            reading(opening) as transport,
        ):
            await server.stream.send_all(frame(PING))
            await wait_all_tasks_blocked()
            stream.turned.set()
            await wait_all_tasks_blocked()
            stream.method, stream.error = "send_all", ValueError("second")
            for operation in (lambda: transport.send(["text"]), transport.receive):
                with pytest.raises(TransportEnded) as raised:
                    await operation()
                assert raised.value.__cause__ is error


@pytest.mark.parametrize("reason", [None, ConnectionResetError("by peer")])
async def test_a_stream_that_breaks_says_why_if_it_knows(reason: Exception | None, autojump_clock: MockClock) -> None:
    server, error = RawServer(), trio.BrokenResourceError()
    error.__cause__ = reason
    stream = Odd(server, "receive_some", error)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        async with (
            connector(giving(stream)).open(REQUEST, server.wake) as opening,
            reading(opening) as transport,
        ):
            stream.turned.set()
            with pytest.raises(TransportEnded) as raised:
                await transport.receive()
    assert raised.value.message == ""
    assert raised.value.__cause__ is (reason or error)


@pytest.mark.parametrize("nothing", [None, "text"])
async def test_a_stream_that_reads_no_bytes_has_ended(nothing: Any, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await wait_all_tasks_blocked()

        async def receive_some(_: int | None) -> Any:
            await trio.lowlevel.checkpoint()
            return nothing

        server.client.receive_some = receive_some  # type: ignore[assignment, method-assign]
        await server.stream.send_all(frame(PING))  # the last that is read as it should be
        with pytest.raises(TransportEnded) as raised:
            await transport.receive()
    assert (raised.value.code, raised.value.ended_by) == (1006, "network")
    assert isinstance(raised.value.__cause__, TypeError)


async def test_a_stream_that_raises_in_writing_has_ended(autojump_clock: MockClock) -> None:
    server, error = RawServer(), Mine("secret")
    stream = Odd(server, "send_all", error)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        async with (
            connector(giving(stream)).open(REQUEST, server.wake) as opening,
            reading(opening) as transport,
        ):
            stream.turned.set()
            with pytest.raises(TransportEnded) as raised:
                await transport.send(["text"])
    assert (raised.value.code, raised.value.ended_by) == (1006, "network")
    assert raised.value.message == "the stream raised Mine"
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("method", ["send_all", "receive_some"])
async def test_a_stream_that_raises_is_a_connection_lost(method: str, autojump_clock: MockClock) -> None:
    server = RawServer()
    stream = Odd(server, method, Mine())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        with pytest.raises(ConnectionLost) as raised:
            async with connect(URL, transport=connector(giving(stream)), reconnect=None) as socket:
                channel = await joined(socket, server)
                stream.turned.set()
                await channel.send("event")
                await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("lost", 1006)


async def test_a_stream_that_raises_when_it_is_closed_changes_nothing(autojump_clock: MockClock) -> None:
    server = RawServer()
    stream = Odd(server, "aclose", Mine())
    stream.turned.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        async with connect(URL, transport=connector(giving(stream)), close_timeout=1):
            await wait_all_tasks_blocked()
    assert server.client.closed
