"""Where a URL leads: DNS, SNI and `Host` agree, for every kind of host."""

import math
import socket as sockets
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from tests.client.support import Lab
from tests.transport.support import RawServer
from trio.testing import MockClock

from slipstream_trio import ConnectError, connect
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.network import default_context, open_stream
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector
from slipstream_trio.transport.upgrade import upgrade

PATH = "/socket/websocket"


async def host_of(url: str, **options: Any) -> str:
    """Return the header `Host` of a request."""
    server = RawServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.accept)
        await upgrade(server.client, OpenRequest(url=url, **options), math.inf)
    return server.headers()["host"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://example.org", "example.org"),
        ("ws://Example.org:4000", "example.org:4000"),
        ("ws://example.org:80", "example.org"),
        ("wss://example.org:443", "example.org"),
        ("wss://example.org:80", "example.org:80"),
        ("ws://bücher.example", "xn--bcher-kva.example"),
        ("ws://BÜCHER.example:4000", "xn--bcher-kva.example:4000"),
        ("ws://straße.example", "xn--strae-oqa.example"),
        ("ws://bücher。example", "xn--bcher-kva.example"),
        ("ws://my_host.bücher.example", "my_host.xn--bcher-kva.example"),
        ("ws://my_host:4000", "my_host:4000"),
        ("ws://127.0.0.1:4000", "127.0.0.1:4000"),
        ("ws://[::1]", "[::1]"),
        ("ws://[::1]:4000", "[::1]:4000"),
        ("ws://[fe80::1%25lo]:4000", "[fe80::1]:4000"),
    ],
)
async def test_the_host_header_is_in_ascii(url: str, host: str, autojump_clock: MockClock) -> None:
    assert await host_of(url) == host
    assert await host_of(url, host="other.example:1") == "other.example:1"
    assert await host_of(url, host="bücher.example:1") == "xn--bcher-kva.example:1"


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "ü" * 70, "\u0378.example", "-ü.example"])
async def test_a_host_that_has_no_form_is_a_connect_error(host: str) -> None:
    with pytest.raises(ConnectError, match=f"no connection to {host}: "):
        async with connect(f"ws://{host}:4000{PATH}"):
            pytest.fail("the block must not be entered")


class Names(trio.abc.HostnameResolver):
    """Finds everything on loopback, and keeps the names."""

    def __init__(self) -> None:
        self.asked: list[bytes | str | None] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: object) -> Any:
        self.asked.append(host)
        return [(sockets.AF_INET, sockets.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, *_: object) -> Any:
        raise AssertionError


@pytest.mark.parametrize("options", [{}, {"server_hostname": "other.example"}])
async def test_dns_sni_and_host_agree(options: dict[str, Any]) -> None:
    names, seen = Names(), []
    trio.socket.set_custom_hostname_resolver(names)
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("xn--strae-oqa.example", "other.example").configure_cert(theirs)
    authority.configure_trust(ours)
    theirs.sni_callback = lambda _, name, __: seen.append(name)
    server = PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})})
    async with server.serve(ssl_context=theirs) as listening:
        url = f"wss://straße.example:{listening.port}{PATH}"
        async with connect(url, ssl_context=ours, **options) as socket:
            await socket.ping()
    assert [name.decode() if isinstance(name, bytes) else name for name in names.asked] == ["xn--strae-oqa.example"]
    assert seen == [options.get("server_hostname", "xn--strae-oqa.example")]


@pytest.mark.skipif(not hasattr(trio.socket, "AF_UNIX"), reason="there are no sockets in the file system")
async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    server = RawServer()
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()

    async def serve() -> None:
        accepted, _ = await listening.accept()
        server.stream = trio.SocketStream(accepted)  # type: ignore[assignment]
        await server.accept()

    with listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            request = OpenRequest(url="ws://bücher.example/x", unix=path, proxy="http://nobody:1")
            async with TrioWebSocketConnector().open(request, lambda: None):
                pass
            await server.stream.aclose()
    assert server.headers()["host"] == "xn--bcher-kva.example"
    path.unlink()
    with pytest.raises(ConnectError, match=r"no connection to .*No such file"):
        await open_stream(request)


def test_the_process_has_one_default_context() -> None:
    assert default_context() is default_context()
    assert default_context().verify_mode is ssl.CERT_REQUIRED
