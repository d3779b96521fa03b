"""The interface of transports: frames in, frames out, independent of Phoenix and of the client."""

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from os import PathLike
from ssl import SSLContext
from typing import Final, Protocol
from urllib.parse import urlsplit

import attrs
import idna
import trio
from attrs import frozen

from ..errors import ConnectError, EndedBy
from ..errors.base import did_you_mean, lacks

Frame = str | bytes
"""A WebSocket message: `str` is text, `bytes` is binary."""

ABNORMAL_CLOSURE: Final = 1006  # the close code of an end without a close frame
_LABELS: Final = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*\.?", re.DOTALL)


@frozen(kw_only=True)
class OpenRequest:
    """A request to open a connection; its `repr` hides the query, headers, subprotocols and proxy: they hold secrets.

    The fields that are not listed are the options of `connect` of these names.

    Attributes:
        url: the whole URL, query included.
        headers: to be sent with the upgrade.
        subprotocols: to be offered, in this order.
        connect_timeout: for everything until the upgrade has succeeded, in seconds; None: no limit.
        max_message_size: a longer message from the server ends the connection with 1009; in bytes.
        extensions: to be offered, each with its parameters.
        compression: whether to offer permessage-deflate; only for connectors that have `compresses = True`.
        cookies: whether those that the opening sets come with a transport's further requests, if it makes any.
    """

    url: str = attrs.field(repr=lambda url: url.partition("?")[0])
    headers: Sequence[tuple[str, str]] = attrs.field(default=(), repr=False)
    subprotocols: Sequence[str] = attrs.field(default=(), repr=False)
    connect_timeout: float | None = 10.0
    max_message_size: int = 16 * 2**20
    ssl_context: SSLContext | None = None
    extensions: Sequence[str] = ()
    compression: bool = False
    max_header_size: int = 64 * 2**10
    cookies: bool = False
    proxy: str | None = attrs.field(default=None, repr=False)
    unix: str | PathLike[str] | None = None
    server_hostname: str | None = None
    host: str | None = None


StreamOpener = Callable[[OpenRequest], Awaitable[trio.abc.Stream]]
"""Opens the stream that a transport runs over: TCP, TLS, or a stream in memory.

What it raises is the cause of a `ConnectError`, what the stream raises is the cause of the transport's end.
"""


class TransportEnded(Exception):
    """The transport has ended; nothing can be sent or received any more.

    A close frame that crosses another changes nothing: who closes first has ended the transport.

    Attributes:
        code: the code of the close frame received, or of the one sent where none was received; 1006 without either.
        message: the text of that frame, or one that says more of the end.
        ended_by: "client" (it closed, or what came broke a limit or the protocol), "server" (its close frame) or
            "network" (neither closed). Left out, it is "network" for 1006, else "server".
        reason: "protocol_error" (1002, 1007) or "message_too_big" (1009) where the client ended it because of what
            came; else None.
    """

    def __init__(
        self, code: int, message: str = "", *, ended_by: EndedBy | None = None, reason: str | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.ended_by: EndedBy = ended_by or ("network" if code == ABNORMAL_CLOSURE else "server")
        self.reason = reason


class Transport(ABC):
    """An open transport. One task receives, one sends, one closes; they may be three.

    The connection judges by `progress`, `heard` and `write_blocked_since` whether the transport is alive. They are
    there at any moment, also while `receive` and `send` wait; a transport that leaves them as they are works, too.
    """

    response_headers: tuple[tuple[str, str], ...] = ()
    """Headers of the response to the upgrade, names in lower case."""

    progress: int = 0
    """Bytes read from the network so far, control frames and all; stays 0 where they are not counted.

    While it moves, an answer may be on its way. So it also moves, whenever it is looked at, while messages that were
    read already are being handled: until `receive` is called again, and finds none.
    """

    heard: float | None = None
    """`trio.current_time()` at which the last byte of a data message came, of whole ones and of those still coming.

    Control frames do not count: a proxy may send those for a server that is gone. None until data came, or where the
    transport does not know: then the time counts at which `receive` returned.
    """

    write_blocked_since: float | None = None
    """`trio.current_time()` since which the write under way has made no progress; None while nothing is written."""

    @abstractmethod
    async def receive(self) -> Sequence[Frame]:
        """Return the messages that have come, in order, at least one; raises `TransportEnded`.

        It is called all the time: control frames, too, may be read and answered meanwhile only.
        """

    @abstractmethod
    async def send(self, frames: Sequence[Frame]) -> None:
        """Write the frames, and control frames that the transport has waiting, joined; raises `TransportEnded`.

        To be called with no frames after `wake` was called. If it is cancelled, a frame may be half written, and the
        transport is of no use any more.
        """

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """Send a close frame through `send`, and wait for the peer's.

        `receive` raises `TransportEnded` after that.
        """


class Connector(Protocol):
    """Opens transports of one kind; a value for the option `transport` of `connect`."""

    name: str
    """The name in `State.options`."""

    def open(self, request: OpenRequest, wake: Callable[[], None]) -> AbstractAsyncContextManager[Transport]:
        """Open a transport, for the time of an `async with` block; leaving the block aborts it unless closed.

        Parameters:
            request: the connection to open.
            wake: called by the transport when it has control frames to be written, so that the writer calls `send`.

        Raises:
            ConnectError: on entering; the server could not be reached, or is not a WebSocket server.
            ConnectTimeout: on entering; that took longer than `request.connect_timeout`.
            ConnectionRejected: on entering; the server answered with an HTTP status other than 101.
        """
        ...


def find_connector(name: str, open_stream: StreamOpener | None = None) -> Connector:
    """Return the connector of a name: that of the module of this name beside this file.

    Parameters:
        name: "auto" is "websockets" where that package, from 17 on, and msgspec can be imported, else "trio_websocket".
        open_stream: opens the stream to run over; by default over the network.

    Raises:
        LookupError: unknown, or its packages are not installed.
    """
    if name == "auto":
        name = "trio_websocket"
        with suppress(ImportError):
            importlib.import_module("msgspec")
            version: str = importlib.import_module("websockets.version").version
            name = "websockets" if int(version.partition(".")[0]) >= 17 else name
    try:
        make = importlib.import_module(f".{name}", __package__).connector
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImportError) and error.name not in (None, f"{__package__}.{name}"):
            raise LookupError(lacks(repr(name), error, "longpoll" if name == "longpoll" else "fast")) from None
        names = ("auto", "longpoll", "trio_websocket", "websockets")
        near = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
        raise LookupError(f"unknown transport {name!r}{near}") from None
    connector: Connector = make() if open_stream is None else make(open_stream)
    return connector


# The address of a URL: the host in the one form that DNS, SNI and the `Host` header share


@frozen
class Address:
    """The address of a URL and the options beside it; `host`, for DNS and proxies, has an IPv6 address as it is."""

    host: str
    port: int
    encrypted: bool
    server_hostname: str
    host_header: str
    target: str


def address_of(request: OpenRequest) -> Address:
    """Return where a request leads; raises `ConnectError` for a host that has no form in DNS."""
    parts = urlsplit(request.url)
    encrypted = parts.scheme in ("wss", "https")
    host = ascii_host(parts.hostname or "")
    default = 443 if encrypted else 80
    named = host.partition("%")[0]  # the zone of an IPv6 address means nothing on another machine
    in_url = f"[{named}]" if ":" in named else named
    port, name = parts.port or default, request.server_hostname
    host_header = request.host or (in_url if port == default else f"{in_url}:{port}")
    if not host_header.isascii():
        given, colon, its_port = host_header.partition(":")
        host_header = f"{ascii_host(given)}{colon}{its_port}"
    return Address(
        host=host,
        port=port,
        encrypted=encrypted,
        server_hostname=(ascii_host(name) if name else named).rstrip("."),  # SNI has no dot at its end
        host_header=host_header,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def ascii_host(host: str) -> str:
    """Return a host in ASCII, by IDNA 2008: what the standard library does, IDNA 2003, names other hosts (ß, ς).

    Labels that are ASCII stay as they are, as names of machines may have what domain names have not (_). Raises
    `ConnectError` for a host that has no such form.
    """
    if ":" in host:
        return host.replace("%25", "%", 1)  # RFC 6874: how a URL writes the zone of an IPv6 address
    try:
        labels = [host] if host.isascii() else idna.uts46_remap(host, std3_rules=False).split(".")
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels) or host
        if not _LABELS.fullmatch(name):
            raise ConnectError(f"no connection to {host}: a part of its name is empty, or above 63 characters")
    except idna.IDNAError as error:
        raise ConnectError(f"no connection to {host}: IDNA has no form for its name ({error})") from error
    return name
