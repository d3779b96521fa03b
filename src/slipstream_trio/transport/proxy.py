"""Proxies: the choice for a server, and the tunnel through one.

python-socks speaks their protocols, over a stream that is opened here, as all others are. A proxy's own words are left
out of errors: a proxy likes to repeat what it was sent, and that has the credentials.
"""

import math
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import attrs
import trio
from attrs import frozen

from ..errors import ConnectError
from ..errors.base import lacks
from .base import Address, ascii_host

_KINDS: Final = {
    "http": ("HTTP", 80),
    "https": ("HTTP", 443),
    **dict.fromkeys(("socks4", "socks4a"), ("SOCKS4", 1080)),
    **dict.fromkeys(("socks5", "socks5h"), ("SOCKS5", 1080)),
}
"""By scheme, the protocol, and the port if the URL has none."""
_RESOLVES: Final = frozenset({"socks4a", "socks5", "socks5h"})  # they look names up; socks4 knows addresses only
_LONGEST_HEAD: Final = 8 * 1024  # bytes of an HTTP proxy's answer, which are read one at a time


@frozen
class ProxyServer:
    """A proxy, and the credentials for it."""

    scheme: str
    host: str
    port: int
    username: str = attrs.field(repr=False)
    password: str = attrs.field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the proxy {host}:{self.port}"


def parse_proxy(url: str) -> ProxyServer:
    """Return the proxy of a URL; raises `ValueError`, which shows nothing of the URL, as that holds a password."""
    server = None
    with suppress(ValueError, ConnectError):
        parts = urlsplit(url)
        host, port = ascii_host(parts.hostname or ""), parts.port
        if parts.scheme in _KINDS and host and port != 0:
            username, password = unquote(parts.username or ""), unquote(parts.password or "")
            server = ProxyServer(parts.scheme, host, port or _KINDS[parts.scheme][1], username, password)
    if server is None:
        schemes = ", ".join(_KINDS)
        raise ValueError(f"'env', or a URL such as 'http://user:password@host:3128'; its scheme is one of {schemes}")
    try:
        import python_socks  # noqa: F401
    except ImportError as error:
        raise ValueError(lacks("it", error, "proxy")) from None
    return server


def proxy_from_environment(address: Address) -> ProxyServer | None:
    """Return the proxy that the environment has for an address: HTTPS_PROXY, or ALL_PROXY, unless NO_PROXY lists it."""
    from urllib.request import getproxies_environment  # 20 ms, which few need

    known = getproxies_environment()
    # As RFC 6455 (4.1) prefers, HTTPS_PROXY is for ws as well, and HTTP_PROXY for ws alone, as a fallback.
    names = ("https", "all") if address.encrypted else ("https", "http", "all")
    name = next((name for name in names if known.get(name)), None)
    if name is None or _is_listed(address, known.get("no", "")):
        return None
    try:
        return parse_proxy(known[name] if "://" in known[name] else f"http://{known[name]}")
    except ValueError as error:
        raise ConnectError(f"no connection: {name.upper()}_PROXY of the environment: {error}") from None


def _is_listed(address: Address, no_proxy: str) -> bool:
    """Tell whether NO_PROXY lists an address: by its name or one above it, its network, each with its port, or by *."""
    named = {address.host, f"[{address.host}]"}
    named |= {f"{name}:{address.port}" for name in named}
    for entry in no_proxy.lower().replace(",", " ").split():
        with suppress(ValueError):
            if ip_address(address.host.partition("%")[0]) in ip_network(entry, strict=False):
                return True
        with suppress(ConnectError):
            entry = ascii_host(entry.removeprefix("*").removeprefix("."))  # noqa: PLW2901 - what it means
        if entry == "*" or any(f".{name}".endswith(f".{entry}") for name in named):
            return True
    return False


async def tunnel(stream: trio.abc.Stream, proxy: ProxyServer, host: str, port: int) -> None:
    """Let a proxy connect a stream to a server, whose host is in ASCII; the caller closes the stream if that fails."""
    from python_socks import ProxyError, ProxyType
    from python_socks.async_.trio.v2 import Proxy

    kind = _KINDS[proxy.scheme][0]
    at, rdns = (proxy.host, proxy.port, proxy.username, proxy.password), proxy.scheme in _RESOLVES
    speaking = Proxy(ProxyType[kind], *at, rdns=rdns, forward=cast(Any, _Opened(stream)))
    problem = f"no connection to {host} port {port}: {proxy}"
    target = f"[{host}]" if ":" in host and kind == "HTTP" else host
    try:
        await speaking.connect(target, port, timeout=math.inf)
    except ProxyError as error:
        raise ConnectError(f"{problem} {_refusal(error, kind)}") from None
    except trio.BrokenResourceError as error:
        raise ConnectError(f"{problem} hung up") from error
    except OSError as error:  # of looking the name up, for socks4
        raise ConnectError(f"no connection to {host} port {port}: {error}") from error
    except Exception as error:  # noqa: BLE001 - not its cause: it may show the password
        raise ConnectError(f"{problem} cannot be asked for it ({type(error).__name__})") from None


def _refusal(error: Any, kind: str) -> str:
    """Return a proxy's refusal, in words of our own or of python-socks."""
    hint = "; put its user name and password into the option proxy"
    if kind != "HTTP":
        return f"refused it: {error}{hint if 'authentication' in str(error).lower() else ''}"
    if error.error_code is None:
        return "gave an answer that is malformed HTTP; is it an HTTP proxy?"
    return f"refused it with HTTP status {error.error_code}{hint if error.error_code == 407 else ''}"


class _Opened:
    """Stands in for a proxy before the proxy, and for its stream: the connection is there already."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def connect(self, **_: object) -> "_Opened":
        await trio.lowlevel.checkpoint()
        return self

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read(self) -> bytes:
        """Return the head of an HTTP answer, to the byte: what comes behind it is the server's."""
        data = b""
        while not data.endswith((b"\n\r\n", b"\n\n")) and data[:5] == b"HTTP/"[: len(data)]:
            data += await self.read_exactly(1)
            if len(data) > _LONGEST_HEAD:
                break
        return data

    async def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self._stream.receive_some(size - len(data))
            if not more:
                raise trio.BrokenResourceError
            data += more
        return data

    async def close(self) -> None:
        """Leave it open: its opener closes it."""
