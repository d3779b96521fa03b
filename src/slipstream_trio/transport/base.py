"""What a transport is: frames in, frames out. It knows nothing of Phoenix, and nothing of the client."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from ssl import SSLContext
from typing import Protocol

import attrs
from attrs import frozen

__all__ = ["Connector", "Frame", "OpenRequest", "Transport", "TransportEnded", "find_connector"]

Frame = str | bytes
"""A WebSocket message: `str` is text, `bytes` is binary."""


@frozen(kw_only=True)
class OpenRequest:
    """What to open. Its `repr` shows neither the query nor headers nor subprotocols, as these hold secrets.

    Attributes:
        url: the whole URL, query included.
        headers: to be sent with the upgrade.
        subprotocols: to be offered, in this order.
        connect_timeout: for everything until the upgrade has succeeded, in seconds; None: no limit.
        max_message_size: a longer message from the server ends the connection with 1009; in bytes.
        ssl_context: for wss and https; None: the system's defaults.
    """

    url: str = attrs.field(repr=lambda url: url.partition("?")[0])
    headers: Sequence[tuple[str, str]] = attrs.field(default=(), repr=False)
    subprotocols: Sequence[str] = attrs.field(default=(), repr=False)
    connect_timeout: float | None = 10.0
    max_message_size: int = 16 * 2**20
    ssl_context: SSLContext | None = None


class TransportEnded(Exception):
    """The transport has ended; nothing can be sent or received any more.

    Attributes:
        code: the close code received; 1006 if there was none.
        message: the text that came with it.
    """

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Transport(ABC):
    """An open transport. One task receives, one sends, one closes; they may be three."""

    response_headers: tuple[tuple[str, str], ...] = ()
    """Headers of the response to the upgrade, names in lower case."""

    @abstractmethod
    async def receive(self) -> Sequence[Frame]:
        """Return the next frame or frames, at least one; raises `TransportEnded`."""

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
    """Opens transports of one kind: what the option `transport` of `connect` takes."""

    name: str
    """What `State.options` shows."""

    def open(self, request: OpenRequest, wake: Callable[[], None]) -> AbstractAsyncContextManager[Transport]:
        """Open a transport, for the time of an `async with` block; leaving the block aborts what is not closed.

        Parameters:
            request: what to open.
            wake: called by the transport when it has control frames to be written, so that the writer calls `send`.

        Raises:
            ConnectError: on entering; the server could not be reached, or is no WebSocket server.
            ConnectTimeout: on entering; that took longer than `request.connect_timeout`.
            ConnectionRejected: on entering; the server answered with an HTTP status other than 101.
        """
        ...


def find_connector(name: str) -> Connector:
    """Return the connector of a name: that of the module of this name beside this file.

    Raises:
        LookupError: there is none, or what it needs is not installed.
    """
    try:
        module = importlib.import_module(f".{name}", __package__)
        connector: Connector = module.connector()
    except (ImportError, AttributeError) as error:
        raise LookupError(f"there is no transport {name!r}: {error}") from error
    return connector
