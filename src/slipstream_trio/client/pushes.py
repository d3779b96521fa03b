"""Pushes whose reply is awaited: the table of one connection, and the heap of their deadlines."""

import heapq
import math
from collections import OrderedDict
from typing import Any, Final, Literal, Protocol

from attrs import define

from ..errors import ChannelClosed, ConnectionLost, PushError, PushTimeout

__all__ = ["Abandoned", "PendingPush", "PushTable", "Settlement"]

REMEMBERED: Final = 1024
"""How many abandoned pushes are remembered, so that their late replies can be told from others."""

SWEEP_ABOVE: Final = 64

Abandoned = Literal["cancelled", "timeout"]


class Settlement(Protocol):
    """Where the end of a push goes, such as a `Waiter`. What comes after the first changes nothing."""

    @property
    def settled(self) -> bool:
        """Whether it came."""
        ...

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def succeed(self, value: Any = None) -> None:
        """The reply's response, of a reply that is "ok"."""
        ...

    def fail(self, error: Exception) -> None:
        """Any other end."""
        ...


@define(eq=False)
class PendingPush:
    """A push on its way; `number` is that of its frame in the outbox."""

    topic: str
    event: str
    ref: str
    number: int
    timeout: float | None
    waiter: Settlement


class PushTable:
    """The pushes in flight on one connection."""

    def __init__(self) -> None:
        self._pending: dict[str, PendingPush] = {}
        self._deadlines: list[tuple[float, int, PendingPush]] = []
        self._abandoned: OrderedDict[str, Abandoned] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, push: PendingPush, deadline: float) -> None:
        """Take in a push that is due at `deadline` (infinity: never)."""
        self._pending[push.ref] = push
        if deadline < math.inf:
            heapq.heappush(self._deadlines, (deadline, push.number, push))
            self._sweep()

    def settle(self, ref: str, status: str, response: Any) -> bool:
        """Give a push its reply; returns False if none of this ref waits."""
        push = self._pending.get(ref)
        if push is None:
            return False
        if push.waiter.given_up:
            self.abandon(push, "cancelled")  # its task will not run before this reply is told of
            return False
        del self._pending[ref]
        if status == "ok":
            push.waiter.succeed(response)
        else:
            push.waiter.fail(PushError(push.topic, push.event, status, response))
        return True

    def abandon(self, push: PendingPush, why: Abandoned) -> None:
        """Forget a push that is given up; its reply will be recognised."""
        if self._pending.pop(push.ref, None) is None:
            return  # settled, or given up, after the cancellation and before its task ran again
        push.waiter.succeed()  # nobody waits any more; its deadline can be swept
        self._abandoned[push.ref] = why
        if len(self._abandoned) > REMEMBERED:
            self._abandoned.popitem(last=False)

    def was_abandoned(self, ref: str) -> Abandoned | None:
        """Return why the push of this ref was given up, once; None if it was not."""
        return self._abandoned.pop(ref, None)

    def expire(self, now: float) -> float:
        """Fail the pushes that are due; returns when the next is (infinity: none is)."""
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][2].waiter.settled):
            push = heapq.heappop(heap)[2]
            if not push.waiter.settled and push.timeout is not None:
                push.waiter.fail(PushTimeout(push.topic, push.event, push.timeout))
                self.abandon(push, "timeout")
        return heap[0][0] if heap else math.inf

    def fail_topic(self, topic: str, reason: str) -> None:
        """Fail the pushes of a channel that has ended."""
        # Out of the table first: whoever is told may end other topics.
        for push in [self._pending.pop(push.ref) for push in list(self._pending.values()) if push.topic == topic]:
            push.waiter.fail(ChannelClosed(topic, reason))

    def fail_all(self, reason: str, code: int | None, taken: int) -> None:
        """Fail all pushes, as the connection has ended; `taken` frames of it may have been sent."""
        pending = list(self._pending.values())
        self._pending.clear()
        self._deadlines.clear()
        for push in pending:
            push.waiter.fail(ConnectionLost(reason, code, sent=push.number <= taken))

    def _sweep(self) -> None:
        """Drop settled deadlines when they outnumber live ones, so that the heap does not grow with the traffic."""
        if len(self._deadlines) > 2 * len(self._pending) + SWEEP_ABOVE:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].waiter.settled]
            heapq.heapify(self._deadlines)
