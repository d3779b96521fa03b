"""A socket's status, and its changes."""

from collections import deque
from typing import Final, Literal, Self, final

import trio

from .result import Changes

__all__ = ["Status", "StatusChanges", "StatusLog"]

Status = Literal["connecting", "connected", "reconnecting", "closing", "closed"]

KEPT: Final = 64
"""The number of changes that are kept for a reader who is behind."""


class StatusLog:
    """The status of now, the latest ones before, and a place to wait for the next."""

    __slots__ = ("_changes", "_latest", "count", "now")

    def __init__(self) -> None:
        self.now: Status = "connecting"
        self.count: int = 1
        self._latest: list[Status] = [self.now]
        self._changes = Changes()

    def set(self, status: Status) -> None:
        """Change the status."""
        if status != self.now:
            self.now = status
            self.count += 1
            self._latest = [*self._latest[1 - KEPT :], status]
            self._changes.tell()

    def since(self, count: int) -> list[Status]:
        """Return the statuses after the first `count`, as far as they are kept."""
        missed = min(self.count - count, len(self._latest))
        return self._latest[len(self._latest) - missed :]

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changes.next()


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
            self._unread.extend(self._log.since(self._count))
            self._count = self._log.count
            if not self._unread:
                await self._log.changed()
        status = self._unread.popleft()
        self._over = status == "closed"
        return status
