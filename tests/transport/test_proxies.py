"""Proxies between: how they are asked, what their refusals say, and that their credentials stay secret."""

import ssl
import sys
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trustme
from tests.client.support import Lab
from tests.transport.proxies import CREDENTIALS, Proxy

from slipstream_trio import ConfigurationError, ConnectError, connect
from slipstream_trio.client.configuration import configure
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

python_socks = pytest.importorskip("python_socks", reason="python-socks, an extra, is not installed")

PATH = "/socket/websocket"
USER = f"{CREDENTIALS[0]}:{quote(CREDENTIALS[1], safe='')}@"


def make_server() -> PhoenixServer:
    return PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})})


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "WS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def echoed(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket, socket.join("lab:1") as channel:
        assert await channel.push("echo", "x" * 50_000) == "x" * 50_000


async def error_of(url: str = "ws://127.0.0.1:9/socket/websocket", **options: Any) -> str:
    """Connect, which fails, and return the sentence; nothing else that is told has the credentials either."""
    bus = Telemetry()
    told: list[Any] = []
    bus.attach("all", (), told.append, prefix=True)
    with pytest.raises(ConnectError) as raised:
        async with connect(url, telemetry=bus, **options):
            pytest.fail("the block must not be entered")
    error: BaseException | None = raised.value
    while error is not None:
        told.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    shown = "".join(f"{item!r}{item}{getattr(item, 'metadata', '')}" for item in told)
    for secret in (*CREDENTIALS[1:], quote(CREDENTIALS[1], safe=""), "cDpzcy93b3Jk", "dXNlcjpwOnNzL3dvcmQ="):
        assert secret not in shown
    return str(raised.value)


@pytest.mark.parametrize("step", [99, 1])
@pytest.mark.parametrize(
    ("scheme", "kind", "host"),
    [
        ("http", "http", "localhost"),
        ("socks4", "socks4", "127.0.0.1"),
        ("socks4a", "socks4", "localhost"),
        ("socks5", "socks5", "localhost"),
        ("socks5h", "socks5", "localhost"),
    ],
)
async def test_a_proxy_leads_to_the_server(scheme: str, kind: str, host: str, step: int) -> None:
    async with make_server().serve() as listening, Proxy(kind, step=step).listen() as proxy:
        url = f"ws://localhost:{listening.port}{PATH}"
        await echoed(url, proxy=f"{scheme}://127.0.0.1:{proxy.port}")
        assert proxy.asked == [(host, listening.port)]


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_gets_the_credentials_of_its_url(kind: str) -> None:
    async with make_server().serve() as listening, Proxy(kind, CREDENTIALS).listen() as proxy:
        url = f"ws://127.0.0.1:{listening.port}{PATH}"
        await echoed(url, proxy=f"{kind}://{USER}127.0.0.1:{proxy.port}")
        said = ""
        for user in ("", "user:wrong@"):
            said = await error_of(url, proxy=f"{kind}://{user}127.0.0.1:{proxy.port}")
            assert said.startswith(
                f"no connection to 127.0.0.1 port {listening.port}: the proxy 127.0.0.1:{proxy.port} refused it"
            )
            assert said.endswith("; put its user name and password into the option proxy")
        assert kind == "socks5" or "HTTP status 407" in said


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_tls_goes_through_a_proxy_and_to_it(kind: str) -> None:
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    async with make_server().serve(ssl_context=theirs) as listening:
        url = f"wss://localhost:{listening.port}{PATH}"
        async with Proxy(kind).listen() as proxy:
            await echoed(url, proxy=f"{kind}://127.0.0.1:{proxy.port}", ssl_context=ours)
        if kind == "http":
            async with Proxy(kind).listen(theirs) as proxy:
                await echoed(url, proxy=f"https://localhost:{proxy.port}", ssl_context=ours)
                said = await error_of(url, proxy=f"https://127.0.0.1:{proxy.port}", ssl_context=ours)
                assert said.startswith(f"TLS handshake with the proxy 127.0.0.1:{proxy.port} failed: ")


@pytest.mark.parametrize(
    ("kind", "answer", "sentence"),
    [
        ("http", b"HTTP/1.1 403 Forbidden by user:p:ss/word\r\n\r\n", "refused it with HTTP status 403"),
        ("http", b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "refused it with HTTP status 502"),
        ("http", b"SSH-2.0-x\r\n", "gave an answer that is malformed HTTP; is it an HTTP proxy?"),
        ("http", b"\x05\xff", "gave an answer that is malformed HTTP; is it an HTTP proxy?"),
        ("http", b"HTTP/1.1 " + b"x" * 10_000, "gave an answer that is malformed HTTP; is it an HTTP proxy?"),
        ("http", b"", "hung up"),
        ("http", b"HTTP/1.1 20", "hung up"),
        ("socks5", b"\x05\x05\0\x01", "refused it: Connection refused by destination host"),
        ("socks5", b"HTTP/1.1 400 Bad Request\r\n", "refused it: Unexpected SOCKS version number: 0X48"),
        ("socks4", b"\0\x5b" + bytes(6), "refused it: Request rejected or failed"),
        ("socks4", b"\0\x5a", "hung up"),
    ],
)
async def test_a_refusal_is_told_as_the_proxys(kind: str, answer: bytes, sentence: str) -> None:
    async with Proxy(kind, answer=answer).listen() as proxy:
        said = await error_of(proxy=f"{kind}://{USER}127.0.0.1:{proxy.port}")
    assert said == f"no connection to 127.0.0.1 port 9: the proxy 127.0.0.1:{proxy.port} {sentence}"


async def test_a_proxy_that_nobody_runs_is_told(free_tcp_port_of_mine: int) -> None:
    said = await error_of(proxy=f"socks5://{USER}127.0.0.1:{free_tcp_port_of_mine}")
    assert said.startswith(f"no connection to the proxy 127.0.0.1:{free_tcp_port_of_mine}: ")
    assert "refused" in said


@pytest.fixture
def free_tcp_port_of_mine() -> Any:
    from socket import socket

    with socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]


@pytest.mark.parametrize("transport", ["trio_websocket", "longpoll"])
async def test_a_silent_proxy_is_named_by_the_timeout(transport: str) -> None:
    if transport == "longpoll":
        pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")

    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
        port = listener.socket.getsockname()[1]
        said = await error_of(proxy=f"http://{USER}127.0.0.1:{port}", connect_timeout=0.05, transport=transport)
        nursery.cancel_scope.cancel()
    assert said == (
        f"not connected within 0.05 s, waiting for the proxy 127.0.0.1:{port}, or the server behind it; "
        "see connect_timeout"
    )


async def test_credentials_that_a_proxy_cannot_be_told_stay_secret() -> None:
    async with Proxy("socks5", ("user", "x")).listen() as proxy:
        said = await error_of(proxy=f"socks5://user:p%3Ass%2Fword%E2%82%AC@127.0.0.1:{proxy.port}")
    assert said.endswith("cannot be asked for it (UnicodeEncodeError)")


# The environment


@pytest.mark.parametrize(
    ("environment", "scheme", "used"),
    [
        ({"HTTPS_PROXY": "{}"}, "ws", True),
        ({"https_proxy": "{}"}, "ws", True),
        ({"HTTP_PROXY": "{}"}, "ws", True),
        ({"HTTPS_PROXY": "{}", "HTTP_PROXY": "http://127.0.0.1:9"}, "ws", True),
        ({"ALL_PROXY": "{}"}, "ws", True),
        ({"ALL_PROXY": "{}", "NO_PROXY": "example.org,.internal"}, "ws", True),
        ({"ALL_PROXY": "{}", "NO_PROXY": "*"}, "ws", False),
        ({"ALL_PROXY": "{}", "NO_PROXY": "example.org, 127.0.0.1"}, "ws", False),
        ({"ALL_PROXY": "{}", "NO_PROXY": "127.0.0.1:{port}"}, "ws", False),
        ({"ALL_PROXY": "{}", "NO_PROXY": "127.0.0.1:9"}, "ws", True),
        ({}, "ws", False),
    ],
)
@pytest.mark.parametrize("kind", ["http://", "socks5://", ""])
async def test_the_environment_chooses_a_proxy(
    environment: dict[str, str], scheme: str, used: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_server().serve() as listening, Proxy(kind[:-3] or "http").listen() as proxy:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(f"{kind}127.0.0.1:{proxy.port}", port=listening.port))
        await echoed(f"{scheme}://127.0.0.1:{listening.port}{PATH}", proxy="env")
        assert (len(proxy.asked) > 0) == used


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("example.org", "a.example.org"),
        (".example.org", "a.example.org"),
        ("*.example.org", "a.example.org"),
        ("x,  Example.ORG:9 y", "A.example.org"),
        ("bücher.example", "a.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("*", "example.org"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("::1", "[::1]"),
        ("[::1]:9", "[::1]"),
        ("fd00::/8", "[fd00::7]"),
    ],
)
async def test_no_proxy_knows_suffixes_and_addresses(no_proxy: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from slipstream_trio.transport.network import proxy_for

    monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}proxy.example:3128")
    assert str(proxy_for(OpenRequest(url=f"wss://{host}:9/", proxy="env"))) == "the proxy proxy.example:3128"
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(OpenRequest(url=f"wss://{host}:9/", proxy="env")) is None


@pytest.mark.parametrize(
    "no_proxy", ["", "other.org", "ample.org", "example.org:8", "a.example.org", "10.0.0.0/8", "10.0.0.0/99", "."]
)
async def test_no_proxy_lists_nothing_else(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from slipstream_trio.transport.network import proxy_for

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(OpenRequest(url="wss://example.org:9/", proxy="env")) is not None


async def test_http_proxy_is_not_for_wss(monkeypatch: pytest.MonkeyPatch) -> None:
    from slipstream_trio.transport.network import proxy_for

    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert proxy_for(OpenRequest(url="wss://example.org/", proxy="env")) is None


async def test_an_environment_that_cannot_be_used_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://{USER}proxy:1")
    assert (await error_of(proxy="env")).startswith("no connection: HTTPS_PROXY of the environment: ")


# Options


def test_without_the_extra_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ConfigurationError) as raised:
        connect("ws://h", proxy=f"http://{USER}h:1")
    assert str(raised.value) == "proxy: it needs python_socks: pip install 'slipstream-trio[proxy]'"


def test_no_repr_shows_credentials() -> None:
    configuration = configure("ws://h", {"proxy": f"http://{USER}h:1"})
    request = OpenRequest(url="ws://h", proxy=f"http://{USER}h:1")
    for shown in (configuration, configuration.options(), request):
        assert CREDENTIALS[1] not in repr(shown)
        assert quote(CREDENTIALS[1], safe="") not in repr(shown)


def test_a_proxy_leads_to_no_socket_in_the_file_system() -> None:
    with pytest.raises(ConfigurationError, match="leave it out, or unix"):
        connect("ws://h", proxy="http://h:1", unix="/run/x.sock")


async def test_bytes_that_come_with_a_proxys_consent_are_the_servers() -> None:
    consent = b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-behind\r\n"
    async with Proxy("http", answer=consent).listen() as proxy:
        with pytest.raises(ConnectError, match=r"SSH-2\.0-behind"):
            async with TrioWebSocketConnector().open(
                OpenRequest(url="ws://h", proxy=f"http://127.0.0.1:{proxy.port}"), lambda: None
            ):
                pass
