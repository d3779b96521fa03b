"""Real sockets on loopback: TCP, TLS, and what goes wrong before a byte of HTTP."""

import socket as sockets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme
from tests.client.support import Lab

from slipstream_trio import ConnectError, ConnectionLost, connect
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.network import open_stream

PATH = "/socket/websocket"


def make_server() -> PhoenixServer:
    return PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})})


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_large_echo_over_tcp(scheme: str) -> None:
    server = make_server()
    async with server.serve() as listening:
        url = f"{scheme}://{listening.host}:{listening.port}{PATH}"
        async with connect(url) as socket, socket.join("lab:1") as channel:
            assert await channel.push("echo", "x" * 200_000) == "x" * 200_000
            (connection,) = server.connections
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_large_echo_over_tls(scheme: str, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    server = make_server()
    async with server.serve(ssl_context=server_context) as listening:
        url = f"{scheme}://localhost:{listening.port}{PATH}"
        async with connect(url, ssl_context=client_context) as socket, socket.join("lab:1") as channel:
            assert await channel.push("echo", "x" * 200_000) == "x" * 200_000
            (connection,) = server.connections
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


async def test_a_port_that_nobody_listens_on_is_a_connect_error() -> None:
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(ConnectError, match=rf"port {port}: .*refused"):
            async with connect(f"ws://127.0.0.1:{port}{PATH}"):
                pytest.fail("the block must not be entered")


class NoNames(trio.abc.HostnameResolver):
    """Finds nothing, and asks nobody."""

    async def getaddrinfo(self, *_: object) -> Any:
        raise sockets.gaierror(-2, "Name or service not known")

    async def getnameinfo(self, *_: object) -> Any:
        raise AssertionError


async def test_a_host_that_cannot_be_found_is_a_connect_error() -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(ConnectError, match=r"no connection to name\.invalid port 4000: .*not known"):
        async with connect(f"ws://name.invalid:4000{PATH}"):
            pytest.fail("the block must not be entered")


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
async def test_a_host_that_cannot_be_looked_up_is_a_connect_error(host: str) -> None:
    with pytest.raises(ConnectError, match="no connection to"):
        async with connect(f"ws://{host}:4000{PATH}"):
            pytest.fail("the block must not be entered")


async def test_a_server_that_is_not_trusted_is_a_connect_error(server_context: ssl.SSLContext) -> None:
    async with make_server().serve(ssl_context=server_context) as listening:
        with pytest.raises(ConnectError, match=r"TLS handshake.*certificate"):
            async with connect(f"wss://localhost:{listening.port}{PATH}"):
                pytest.fail("the block must not be entered")


async def test_a_server_of_another_name_is_a_connect_error(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with make_server().serve(ssl_context=server_context) as listening:
        with pytest.raises(ConnectError, match=r"TLS handshake.*certificate"):
            async with connect(f"wss://127.0.0.1:{listening.port}{PATH}", ssl_context=client_context):
                pytest.fail("the block must not be entered")


async def test_tls_with_a_server_that_speaks_none_is_a_connect_error(client_context: ssl.SSLContext) -> None:
    async with make_server().serve() as listening:
        with pytest.raises(ConnectError, match="TLS handshake"):
            async with connect(f"wss://localhost:{listening.port}{PATH}", ssl_context=client_context):
                pytest.fail("the block must not be entered")


async def test_a_server_that_hangs_up_during_tls_is_a_connect_error(client_context: ssl.SSLContext) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await _listen(nursery, hang_up)
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectError, match=r"TLS handshake"):
            await open_stream(OpenRequest(url=f"wss://127.0.0.1:{port}", ssl_context=client_context))
        nursery.cancel_scope.cancel()


async def test_no_tls_without_tls_is_a_connect_error(server_context: ssl.SSLContext) -> None:
    async with make_server().serve(ssl_context=server_context) as listening:
        with pytest.raises(ConnectError):
            async with connect(f"ws://127.0.0.1:{listening.port}{PATH}"):
                pytest.fail("the block must not be entered")


async def test_a_tls_handshake_that_is_cancelled_closes_its_socket() -> None:
    ended = trio.Event()
    connecting = trio.CancelScope()

    async def say_nothing(stream: trio.SocketStream) -> None:
        assert await stream.receive_some()  # the client's part of the handshake
        connecting.cancel()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        ended.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await _listen(nursery, say_nothing)
        port = listener.socket.getsockname()[1]
        with connecting:
            async with connect(f"wss://127.0.0.1:{port}", connect_timeout=None):
                pytest.fail("the block must not be entered")
        assert connecting.cancelled_caught
        await ended.wait()
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_killed_ends_the_connection() -> None:
    server = make_server()
    async with server.serve() as listening:
        with pytest.raises(ConnectionLost) as raised:
            async with connect(listening.url(PATH), reconnect=None) as socket, socket.join("lab:1"):
                await server.kill()
                await trio.sleep_forever()
    assert (raised.value.reason, raised.value.code) == ("lost", 1006)


async def _listen(
    nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]
) -> list[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handler, listeners)
    return list(listeners)
