"""What goes back and forth between a callback client and others: replies of the server, and answers to calls."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, final

from attrs import frozen

from .waiter import Waiter

__all__ = ["NO_REPLY", "Caller", "NoReply", "Reply", "Teller"]


class NoReply(Enum):
    """The type of `NO_REPLY`."""

    NO_REPLY = "no_reply"

    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = NoReply.NO_REPLY
"""What `handle_call` returns to answer later, with `caller.reply`."""


@frozen
class Reply:
    """How a push of a `Client` ended: what `handle_reply` is given.

    Attributes:
        topic: the push's topic.
        event: the push's event.
        response: the response of the server's reply; None if there was none.
        error: None if the reply is "ok"; otherwise what an awaited push would have raised: `PushError` (with the
            status), `PushTimeout`, `ChannelClosed` or `ConnectionLost`.
    """

    topic: str
    event: str
    response: Any
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the server replied, and with the status "ok"."""
        return self.error is None

    def unwrap(self) -> Any:
        """Return the response; raises `error` if there is one."""
        if self.error is not None:
            raise self.error
        return self.response


@final
class Caller:
    """Who waits for the answer to a `Client.call`. The first answer counts, the others change nothing."""

    def __init__(self) -> None:
        self._waiter = Waiter()

    @property
    def answered(self) -> bool:
        """Whether it has its answer."""
        return self._waiter.settled

    def reply(self, value: Any = None) -> None:
        """Let `call` return `value`."""
        self._waiter.succeed(value)

    def fail(self, error: BaseException) -> None:
        """Let `call` raise `error`."""
        self._waiter.fail(error)

    async def wait(self) -> Any:
        """Return or raise the answer; for `Client.call` alone."""
        return await self._waiter.wait()


class Teller:
    """Where the end of a push goes that nobody awaits: it is told at once.

    Parameters:
        tell: called with the response and the error, one of which is None.
    """

    def __init__(self, tell: Callable[[Any, Exception | None], None]) -> None:
        self._tell = tell
        self.settled: bool = False
        self.given_up: bool = False

    def succeed(self, value: Any = None) -> None:
        """The reply is "ok"."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """It is not, or there will be none."""
        self._settle(getattr(error, "response", None), error)

    def _settle(self, response: Any, error: Exception | None) -> None:
        if not self.settled:
            self.settled = True
            self._tell(response, error)
