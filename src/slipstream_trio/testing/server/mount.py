"""The socket at a path: `socket "/socket", UserSocket, websocket: […]` of a Phoenix endpoint."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from ...protocol.message import Message
from .channel import Channel
from .request import Accept, Request

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["ChannelFactory", "Connect", "Handler", "Mount"]

ChannelFactory = Callable[[], Channel]
"""Makes the channel for a join: a subclass of `Channel` as a rule."""

Connect = Callable[[Request], Accept | Awaitable[Accept | None] | None]
"""Decides about a connection, as `connect/3` does."""


class Handler(Protocol):
    """Handles the messages of one connection, in place of channels."""

    async def handle(self, message: Message, size: int) -> None:
        """Handle a message from the client; the next is read when this returns.

        Parameters:
            message: the message; every value but the payload may be any JSON value, as clients may send it.
            size: of its frame, in bytes.
        """
        ...

    def ended(self) -> None:
        """Called when the connection has ended."""
        ...


def _welcome(request: Request) -> None:
    """Let everyone in."""


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
        max_inflate_ratio: the largest ratio of a message's size to its compressed size, from 32 KiB on; beyond, Bandit
            closes the connection (1009).
        handler: makes the handler of a connection's messages, in place of channels; called when it opens.
        outbox_limit: how many bytes may wait for a client to read before its channels' sends wait too. At 16
            times that, which only broadcasts can reach, the connection is cut.
        websocket: whether clients may connect by WebSocket.
        longpoll: whether they may by long-polling.
        poll_window: for how long a poll waits for messages, in seconds; after one and a half times as long without a
            poll, a client counts as gone.
    """

    channels: Mapping[str, ChannelFactory] = attrs.field(factory=dict)
    connect: Connect = _welcome
    timeout: float | None = 60.0
    max_frame_size: int = 10_000_000
    max_channels: int | None = 100
    auth_token: bool = False
    compress: bool = False
    max_inflate_ratio: int = 25
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
