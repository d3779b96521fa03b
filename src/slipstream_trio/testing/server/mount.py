"""The socket at a path, `socket "/socket", UserSocket, websocket: […]` of a Phoenix endpoint, and requests to it."""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl

import attrs

from ...protocol.message import Message
from .channel import Channel

if TYPE_CHECKING:
    from .connection import Connection

_TOKEN_PREFIX: Final = "base64url.bearer.phx."  # noqa: S105 - the name of the subprotocol, not a token
_BRACKETS: Final = re.compile(r"\[([^\]]*)\]")


@attrs.frozen
class Request:
    """A client's request to open a WebSocket.

    Attributes:
        path: the path, as it was sent.
        uri: the whole URL, as Phoenix's `connect_info[:uri]` shows it (scheme http or https).
        params: the query, decoded as Plug does: `a[b]=1` is {"a": {"b": "1"}}, `l[]=1` is {"l": ["1"]}.
        headers: the headers in order, names in lower case.
        auth_token: the token sent as a subprotocol, where the mount has `auth_token=True`.
    """

    path: str
    uri: str
    params: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...]
    auth_token: str | None = attrs.field(default=None, repr=False)

    def header(self, name: str) -> str | None:
        """Return the first header of this name (in lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


@attrs.frozen
class Accept:
    """Returned by `Mount.connect` to let a client in, with an id for `PhoenixServer.disconnect`, and `assigns`.

    Each channel of the connection begins with a copy of these.
    """

    id: str | None = None
    assigns: Mapping[str, Any] = attrs.field(factory=dict)


class Refuse(Exception):
    """Raised by `Mount.connect` to refuse a client by an HTTP status, further headers, and a body."""

    def __init__(self, status: int = 403, headers: Sequence[tuple[str, str]] = (), body: str = "") -> None:
        super().__init__(status, tuple(headers), body)
        self.status = status
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)
        self.body = body


ChannelFactory = Callable[[], Channel]
"""Makes the channel for a join: a subclass of `Channel` as a rule."""

Connect = Callable[[Request], Accept | Awaitable[Accept | None] | None]
"""Decides about a connection, as `connect/3` does."""


class Handler(Protocol):
    """Handles the messages of one connection, in place of channels."""

    async def handle(self, message: Message) -> None:
        """Handle a message from the client; the next is read when this returns.

        Parameters:
            message: the message; every value but the payload may be any JSON value, as clients may send it.
        """
        ...

    def ended(self) -> None:
        """Called when the connection has ended."""
        ...


@attrs.frozen(kw_only=True)
class Mount:
    """One socket of the server, with its channels; clients connect to its path and `/websocket`, or `/longpoll`.

    Attributes:
        channels: channels by topic; a pattern that ends in `*` matches every topic that begins like it.
        connect: called with each client's `Request`, sync or async. It returns an `Accept`, or None for one
            without id and assigns, or raises `Refuse`; any other exception is answered with HTTP status 500.
            It is cancelled if the client hangs up first.
        timeout: how long a client may send nothing before it is disconnected, in seconds; None: for ever.
        max_frame_size: the most bytes of a frame from a client; a larger one closes the connection (1009).
            Bandit counts the header too; Cowboy limits by it also what a compressed message inflates to.
        max_channels: the most channels of a connection; None: any number.
        auth_token: whether a token is taken from the subprotocols, as phoenix.js sends its `authToken`; Phoenix 1.7
            takes any subprotocol, and sees no token.
        compress: whether permessage-deflate is negotiated with clients that offer it.
        handler: makes the handler of a connection's messages, in place of channels; called when it opens.
        outbox_limit: how many bytes may wait for a client to read before its channels' sends wait too. At 16
            times that, which only broadcasts can reach, the connection is cut.
        websocket: whether clients may connect by WebSocket.
        longpoll: whether they may by long-polling.
        poll_window: the seconds that a poll waits for messages; without a poll for 1.5 times as long, a client is gone.
    """

    channels: Mapping[str, ChannelFactory] = attrs.field(factory=dict)
    connect: Connect = lambda _: None  # lets everyone in
    timeout: float | None = 60.0
    max_frame_size: int = 10_000_000
    max_channels: int | None = 100
    auth_token: bool = False
    compress: bool = False
    handler: 'Callable[["Connection"], Handler] | None' = None
    outbox_limit: int = 1_048_576
    websocket: bool = True
    longpoll: bool = True
    poll_window: float = 10.0

    def channel_for(self, topic: str) -> ChannelFactory | None:
        """Return the factory of a topic's channel: the first pattern that matches decides."""
        for pattern, factory in self.channels.items():
            if topic == pattern or (pattern.endswith("*") and topic.startswith(pattern[:-1])):
                return factory
        return None


def parse_query(query: str) -> dict[str, Any]:
    """Return a query string's parameters, nested as Plug nests them; a key given twice has its last value."""
    params: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        head, bracket, _ = name.partition("[")
        keys = _BRACKETS.findall(name[len(head) :]) if bracket and name.endswith("]") else []
        _assign(params, [head, *keys] if keys else [name], value)
    return params


def _assign(container: dict[str, Any], keys: list[str], value: str) -> None:
    key, *rest = keys
    old = container.get(key)
    if not rest:
        container[key] = value
    elif rest == [""]:
        container[key] = [*(old if isinstance(old, list) else ()), value]
    else:
        container[key] = old if isinstance(old, dict) else {}
        _assign(container[key], rest, value)


def choose_subprotocol(offered: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the subprotocol and the token among those that a client offered; raises `Refuse`."""
    encoded = [name.removeprefix(_TOKEN_PREFIX) for name in offered if name.startswith(_TOKEN_PREFIX)]
    token = None
    if len(encoded) == 1:  # of several, Phoenix takes none
        try:  # in the standard alphabet, despite the prefix, without padding
            token = base64.b64decode(encoded[0] + "=" * (-len(encoded[0]) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refuse(500) from None
    if "phoenix" in offered:
        return "phoenix", token
    if token is None or len(offered) > 1:
        raise Refuse(403)
    return None, token
