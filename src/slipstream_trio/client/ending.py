"""The ends of a socket's connections, and of the socket."""

import logging
from typing import Final, final

import trio

from ..errors import ConnectionLost
from .result import again

__all__ = ["Ending"]

logger: Final = logging.getLogger("slipstream_trio")


@final
class Ending:
    """The end of a socket, as far as it is known.

    Parameters:
        socket_id: the socket's id.

    Attributes:
        asked: "closed_by_client" or "disconnected", once the user has asked for the end.
        last: how the latest connection that was open has ended.
        error: why there will be no other connection, unless that was asked for; None until then.
    """

    __slots__ = ("_lost_at", "_socket_id", "asked", "error", "last")

    def __init__(self, socket_id: str) -> None:
        self.asked: str | None = None
        self.error: BaseException | None = None
        self._socket_id = socket_id
        self._lost_at: float | None = None
        self.last: ConnectionLost = ConnectionLost("connect_failed")

    @property
    def reason(self) -> str:
        """The reason of a close by the client."""
        return self.asked or "closed_by_client"

    def ask(self, reason: str) -> None:
        """Take note that the user wants the end; the first reason counts."""
        self.asked = self.asked or reason

    def connection_lost(self, lost: ConnectionLost) -> None:
        """Take note of how a connection ended, and warn of it, if the user has not asked for that."""
        self.last = lost
        if self.asked is None:
            self._lost_at = trio.current_time()
            by = "" if lost.ended_by is None else f" by the {lost.ended_by}"
            logger.warning("socket %s: the connection was ended%s: %s", self._socket_id, by, lost.reason)

    def connection_opened(self) -> None:
        """Take note of a connection; warn that there is one again, and for how long there was none."""
        if self._lost_at is not None:
            seconds, self._lost_at = trio.current_time() - self._lost_at, None
            logger.warning("socket %s: connected again, after %.3g s without a connection", self._socket_id, seconds)

    def fail(self, error: BaseException | None) -> None:
        """Take note of why there will be no other connection; the latest error counts, None changes nothing."""
        self.error = error or self.error

    def lost(self) -> ConnectionLost:
        """Return a new exception that tells how the connection ended."""
        if self.asked is not None:
            return ConnectionLost(self.asked, ended_by="client")
        return again(self.last)

    def of_streams(self) -> BaseException:
        """Return what a stream ends with that nothing else has ended: the loss, unless the end was asked for."""
        return StopAsyncIteration() if self.error is None else self.lost()
