"""Who is told, as it happens, what a connection and its channels do: the callback client.

All of these are called by the receive loop and its like. They return at once, and raise nothing.
"""

from typing import TYPE_CHECKING, Any, Protocol

from ..protocol import Message
from .buffer import Crowd, Gap

if TYPE_CHECKING:
    from .session import Session

__all__ = ["ChannelTap", "SocketTap"]


class SocketTap(Protocol):
    """Who follows a socket's connections."""

    def attached(self, session: "Session") -> None:
        """This is the session that is followed; it has no connection yet."""
        ...

    def opened(self) -> None:
        """A connection is open."""
        ...

    def closed(self, reason: Exception) -> None:
        """The connection has ended, and all that it owed is settled; or an attempt to have one has failed."""
        ...

    def finished(self, error: BaseException | None) -> None:
        """There will be no other connection: because of `error`, or as the user has asked for it."""
        ...


class ChannelTap(Protocol):
    """Who follows a channel, and takes its messages."""

    def joined(self, response: Any) -> None:
        """The topic is joined, for the first time or again."""
        ...

    def message(self, message: Message) -> Crowd | None:
        """A message has come; returns what holds it, if that is more than half full."""
        ...

    def gap(self, gap: Gap) -> None:
        """Messages may be missing here."""
        ...

    def closed(self, reason: Exception) -> None:
        """The topic was not joined, or is not any more; it may be joined again."""
        ...

    def left(self) -> None:
        """The topic is left, as the user has asked for it."""
        ...
