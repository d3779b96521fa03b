"""A socket's status, its changes, and its end."""

import logging
from collections import deque
from typing import Final, Literal, Self, final

import trio

from ..errors import ConnectionLost
from .result import Changes, again

__all__ = ["Ending", "Status", "StatusChanges", "StatusLog"]

logger: Final = logging.getLogger("slipstream_trio")

Status = Literal["connecting", "connected", "reconnecting", "closing", "closed"]

KEPT: Final = 64
"""The number of changes that are kept for a reader who is behind."""


class StatusLog:
    """The status of now, the latest ones before, and a place to wait for the next."""

    __slots__ = ("changes", "count", "latest", "now")

    def __init__(self) -> None:
        self.now: Status = "connecting"
        self.count: int = 1
        self.latest: list[Status] = [self.now]
        self.changes: Changes = Changes()

    def set(self, status: Status) -> None:
        """Change the status."""
        if status != self.now:
            self.now = status
            self.count += 1
            self.latest = [*self.latest[1 - KEPT :], status]
            self.changes.tell()


@final
class StatusChanges:
    """An async iterator over a socket's status: the one of now, then each that follows, up to "closed".

    One that is read rarely misses some of them, but never the last.
    """

    def __init__(self, log: StatusLog) -> None:
        self._log = log
        self._unread: deque[Status] = deque([log.now])
        self._count = log.count
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Status:
        """Return the next status."""
        await trio.lowlevel.checkpoint()
        while not self._unread:
            if self._over:
                raise StopAsyncIteration
            missed, self._count = self._log.count - self._count, self._log.count
            self._unread.extend(self._log.latest[-missed:] if missed else ())
            if not self._unread:
                await self._log.changes.next()
        status = self._unread.popleft()
        self._over = status == "closed"
        return status


@final
class Ending:
    """The ends of a socket's connections, and of the socket, as far as they are known."""

    __slots__ = ("_lost_at", "_socket_id", "asked", "error", "last")

    def __init__(self, socket_id: str) -> None:
        self.asked: str | None = None  # "closed_by_client" or "disconnected", once the user has asked for the end
        self.error: BaseException | None = None  # why there will be no other connection, unless that was asked for
        self._socket_id = socket_id
        self._lost_at: float | None = None
        self.last: ConnectionLost = ConnectionLost("connect_failed")  # the end of the latest that was open

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

    def fail(self, error: BaseException) -> None:
        """Take note of why there will be no other connection; the latest error counts."""
        self.error = error

    def lost(self) -> ConnectionLost:
        """Return a new exception that tells how the connection ended."""
        if self.asked is not None:
            return ConnectionLost(self.asked, ended_by="client")
        return again(self.last)

    def of_streams(self) -> BaseException:
        """Return what a stream ends with that nothing else has ended: the loss, unless the end was asked for."""
        return StopAsyncIteration() if self.error is None else self.lost()
