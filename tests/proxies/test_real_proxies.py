"""Proxies that the world runs, on loopback: `nox -s proxies`; those that are missing are skipped."""

import shutil
import socket as sockets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio
from tests.client.support import Lab

from slipstream_trio import ConnectError, connect
from slipstream_trio.testing.server import Mount, PhoenixServer

USER, PASSWORD = "user", "secret"
PATH = "/socket/websocket"


def tinyproxy(port: int, folder: Path) -> list[str]:
    conf = folder / "tinyproxy.conf"
    conf.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 9\nBasicAuth {USER} {PASSWORD}\n")
    return ["tinyproxy", "-d", "-c", str(conf)]


def proxy_py(port: int, _: Path) -> list[str]:
    options = ["--hostname", "127.0.0.1", "--num-workers", "1", "--num-acceptors", "1", "--log-level", "e"]
    return [sys.executable, "-m", "proxy", "--port", str(port), "--basic-auth", f"{USER}:{PASSWORD}", *options]


def microsocks(port: int, _: Path) -> list[str]:
    return ["microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD]


def dante(port: int, folder: Path) -> list[str]:
    conf = folder / "danted.conf"
    everybody = "from: 0.0.0.0/0 to: 0.0.0.0/0"
    conf.write_text(
        f"logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nsocksmethod: none\nclientmethod: none\n"
        f"client pass {{ {everybody} }}\nsocks pass {{ {everybody} }}\n"
    )
    return [shutil.which("danted") or "sockd", "-f", str(conf)]


HAS_DANTE = shutil.which("danted") is not None or shutil.which("sockd") is not None
PROXIES = [
    pytest.param(tinyproxy, "http", True, id="tinyproxy", marks=pytest.mark.skipif(
        shutil.which("tinyproxy") is None, reason="no tinyproxy: apt-get install tinyproxy")),
    pytest.param(proxy_py, "http", True, id="proxy.py", marks=pytest.mark.skipif(
        find_spec("proxy") is None, reason="no proxy.py: pip install proxy.py")),
    pytest.param(microsocks, "socks5", True, id="microsocks", marks=pytest.mark.skipif(
        shutil.which("microsocks") is None, reason="no microsocks: apt-get install microsocks")),
    *(pytest.param(dante, scheme, False, id=f"dante, {scheme}", marks=pytest.mark.skipif(
        not HAS_DANTE, reason="no dante: apt-get install dante-server")) for scheme in ("socks4", "socks5")),
]  # fmt: skip


@asynccontextmanager
async def running(command: Callable[[int, Path], list[str]], folder: Path) -> AsyncIterator[int]:
    """Run a proxy on a free port, and give the port."""
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    async with trio.open_nursery() as nursery:
        quiet = partial(trio.run_process, check=False, capture_stdout=True, capture_stderr=True)
        nursery.start_soon(quiet, command(port, folder))
        with trio.fail_after(20):
            await until_somebody_listens(port)
        yield port
        nursery.cancel_scope.cancel()


async def until_somebody_listens(port: int) -> None:
    while True:
        try:
            return await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", port))
        except OSError:
            await trio.sleep(0.05)


@pytest.mark.parametrize(("command", "scheme", "asks"), PROXIES)
async def test_a_real_proxy(command: Callable[[int, Path], list[str]], scheme: str, asks: bool, tmp_path: Path) -> None:
    server = PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})})
    async with server.serve() as listening, running(command, tmp_path) as port:
        url, user = f"ws://localhost:{listening.port}{PATH}", f"{USER}:{PASSWORD}@" if asks else ""
        async with connect(url, proxy=f"{scheme}://{user}127.0.0.1:{port}") as socket:
            async with socket.join("lab:1") as channel:
                assert await channel.push("echo", "x" * 500_000) == "x" * 500_000
        for wrong in ("", f"{USER}:wrong@") if asks else ():
            with pytest.raises(ConnectError) as raised:
                async with connect(url, proxy=f"{scheme}://{wrong}127.0.0.1:{port}"):
                    pytest.fail("the block must not be entered")
            assert f"the proxy 127.0.0.1:{port} refused it" in str(raised.value)


@pytest.mark.parametrize(("command", "scheme", "asks"), PROXIES)
async def test_a_server_that_is_not_there_is_told_as_the_proxys_word(
    command: Callable[[int, Path], list[str]], scheme: str, asks: bool, tmp_path: Path
) -> None:
    async with running(command, tmp_path) as port:
        user = f"{USER}:{PASSWORD}@" if asks else ""
        with pytest.raises(ConnectError) as raised:
            async with connect(f"ws://127.0.0.1:9{PATH}", proxy=f"{scheme}://{user}127.0.0.1:{port}"):
                pytest.fail("the block must not be entered")
    assert f"the proxy 127.0.0.1:{port}" in str(raised.value)
