"""How a socket's connections ended, and the socket itself."""

from typing import final

from ..errors import ConnectionLost
from .result import again

__all__ = ["Ending"]


@final
class Ending:
    """What is known of the end of a socket.

    Attributes:
        asked: "closed_by_client" or "disconnected", once the user has asked for the end.
        error: why there will be no other connection, unless that was asked for; None until then.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self.error: BaseException | None = None
        self._last: ConnectionLost | None = None

    @property
    def reason(self) -> str:
        """Why the client closes the connection."""
        return self.asked or "closed_by_client"

    def ask(self, reason: str) -> None:
        """Take note that the user wants the end; the first reason counts."""
        self.asked = self.asked or reason

    def connection_lost(self, lost: ConnectionLost) -> None:
        """Take note of how a connection ended."""
        self._last = lost

    def fail(self, error: BaseException | None) -> None:
        """Take note of why there will be no other connection; the latest error counts, None changes nothing."""
        self.error = error or self.error

    def lost(self) -> ConnectionLost:
        """Return a new exception that tells how the connection ended."""
        if self.asked is not None:
            return ConnectionLost(self.asked, ended_by="client")
        return ConnectionLost("connect_failed") if self._last is None else again(self._last)

    def of_streams(self) -> BaseException:
        """Return what a stream ends with that nothing else has ended: the loss, unless the end was asked for."""
        return StopAsyncIteration() if self.error is None else self.lost()
