"""Replies of the server to a client's pushes, and a client's answers to calls."""

from enum import Enum
from typing import Any, Final, final

from attrs import frozen

from ..status import Result


class NoReply(Enum):
    """The type of `NO_REPLY`."""

    NO_REPLY = "no_reply"

    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = NoReply.NO_REPLY
"""The value that `handle_call` returns to answer later, with `caller.reply`."""


@frozen
class Reply:
    """The end of a push of a `Client`, with the server's reply or without one: an argument of `handle_reply`.

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
    """The task that awaits a `Client.call`. The first answer counts, the others change nothing."""

    def __init__(self) -> None:
        self._answer: Result[Any] = Result()

    @property
    def answered(self) -> bool:
        """Whether it has its answer."""
        return self._answer.settled

    def reply(self, value: Any = None) -> None:
        """Let `call` return `value`."""
        self._answer.succeed(value)

    def fail(self, error: BaseException) -> None:
        """Let `call` raise `error`."""
        self._answer.fail(error)

    async def wait(self) -> Any:
        """Return or raise the answer; for `Client.call` alone."""
        return await self._answer.wait()
