"""The joins of one channel: the one that is under way, the one that waits for its time, and how the last ones went."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

import trio

from ..errors import JoinError, JoinTimeout
from ..protocol import Backoff
from .result import Result

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ["Departure", "Joining", "Request", "Retry"]

Departure = Literal["left", "leave_timeout", "leave_lost"]


@final
class Request:
    """A join that was asked for.

    Parameters:
        channel: the channel.
        timeout: seconds for the server's answer, None for ever.
        deadline: when a user's join fails at the latest; infinity: `timeout` runs from its turn at the server.
        by_user: whether a task awaits it; otherwise it is repeated, as `rejoin` says, until it succeeds.

    Attributes:
        slot: settled when it may be sent.
        answer: the server's, or why there is none.
        sent: whether it was sent.
        number: which of the socket's joins it is, once it may be sent.
        reported: whether it was reported that it takes too long.
        asking: the scope in which the payload's function runs.
    """

    __slots__ = (
        *("answer", "asking", "by_user", "channel", "deadline", "number", "reported", "sent", "slot", "timeout"),
        *("_began", "_sent_at", "__weakref__"),
    )

    def __init__(self, channel: "Channel", timeout: float | None, deadline: float = math.inf, *, by_user: bool) -> None:
        self.channel: Channel = channel
        self.timeout: float | None = timeout
        self.deadline: float = deadline
        self.by_user: bool = by_user
        self.slot: Result[None] = Result()
        self.answer: Result[Any] = Result()
        self.sent: bool = False
        self.number: int = 0
        self.reported: bool = False
        self.asking: trio.CancelScope = trio.CancelScope()
        self._began = trio.current_time()
        self._sent_at: float | None = None

    @property
    def waited(self) -> float:
        """The seconds until it was sent, or that it has waited by now."""
        return (trio.current_time() if self._sent_at is None else self._sent_at) - self._began

    @property
    def over(self) -> bool:
        """Whether it need not be sent any more: it was, or has ended."""
        return self.sent or self.answer.settled

    def expire(self) -> None:
        """Give up, as it could not be sent in time; without a deadline, only the wait for a connection is limited."""
        if self.deadline < math.inf or not self.channel._socket._is_connected:
            self.fail(JoinTimeout(self.channel.topic, self.timeout or 0.0, sent=False))

    def fail(self, error: Exception) -> None:
        """End, sent or not."""
        self.answer.fail(error)
        self.slot.fail(error)
        self.asking.cancel()

    def granted(self, number: int) -> None:
        """Take note that it may be sent, as the socket's join of this number."""
        self.number = number

    def ask(self) -> trio.CancelScope:
        """Return the scope to ask the payload's function in."""
        limit = math.inf if self.timeout is None else trio.current_time() + self.timeout
        self.asking = trio.CancelScope(deadline=min(limit, self.deadline))
        return self.asking

    def wait_again(self) -> None:
        """Wait for another slot, as the connection ended before this one could be used."""
        self.slot = Result()

    def sending(self, answered: Callable[[Result[Any]], None] | None = None) -> None:
        """Take note that it is sent now.

        Parameters:
            answered: called with the answer, for joins that no task awaits.
        """
        self.sent = True
        self._sent_at = trio.current_time()
        if answered is not None:
            self.answer = Result(answered)

    def report(self) -> None:
        """Take note that it was reported to take too long."""
        self.reported = True


@final
class Retry:
    """A join that is repeated after a while.

    Parameters:
        channel: the channel.

    Attributes:
        over: whether it was begun, or is not wanted any more.
    """

    __slots__ = ("_channel", "over")

    def __init__(self, channel: "Channel") -> None:
        self.over: bool = False
        self._channel = channel

    def expire(self) -> None:
        """Begin it."""
        self.over = True
        self._channel._joining.repeat()
        self._channel._socket._joins.rejoin(self._channel)

    def cancel(self) -> None:
        """Do without it."""
        self.over = True


@final
class Joining:
    """The history of one channel's joins and leaves.

    Attributes:
        request: the join that is under way, None if there is none.
        claim: the join that holds the topic, until its task knows that it has succeeded.
        left_by: how the latest leave ended; the task that awaited it may run after the next join has begun.
        retry: the repetition that waits for its time, None if there is none.
        step: how many repetitions there were since a join last went well.
        refusal: the latest refusal, None if there was none.
    """

    __slots__ = ("_joined_at", "claim", "left_by", "refusal", "request", "retry", "step")

    def __init__(self) -> None:
        self.request: Request | None = None
        self.claim: Request | None = None
        self.left_by: Departure = "left"
        self.retry: Retry | None = None
        self.step: int = 0
        self.refusal: JoinError | None = None
        self._joined_at = 0.0

    @property
    def idle(self) -> bool:
        """Whether no join is under way, and none waits for its time."""
        return self.request is None and self.retry is None

    def claimed(self, request: Request) -> None:
        """Begin anew, by a user's join."""
        self.step = 0
        self.begin(request)

    def begin(self, request: Request) -> None:
        """Take note of a join."""
        self.request = self.claim = request

    def joined(self, request: Request) -> None:
        """Take note that the task of a user's join knows of its success."""
        self.claim = None if self.claim is request else self.claim

    def finish(self) -> Request | None:
        """Forget the join that is under way, and a repetition that waits; returns the former."""
        request, self.request = self.request, None
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        return request

    def refused(self, error: JoinError) -> None:
        """Take note of a refusal."""
        self.refusal = error

    def succeeded(self, now: float) -> None:
        """Take note of the time of an answer."""
        self._joined_at = now

    def lasted(self, backoff: Backoff | None, now: float) -> None:
        """Take note that the channel is joined no longer: if it was for long enough, the back-off begins anew."""
        if backoff is not None:
            self.step = backoff.step_after(self.step, now - self._joined_at)

    def repeat_after(self, retry: Retry) -> None:
        """Take note that a join is to be repeated."""
        self.retry = retry

    def repeat(self) -> None:
        """Take note that it is repeated."""
        self.retry = None
        self.step += 1

    def left(self, by: Departure) -> None:
        """Take note of how a leave ended."""
        self.left_by = by
