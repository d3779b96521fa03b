"""One task waits, another settles."""

from typing import Any

import outcome
import trio

__all__ = ["Waiter"]


class Waiter:
    """What one task awaits, and some other code settles, once; later settlements change nothing.

    An Event with a place for a result would do the same; every push awaits one of these, and this is a tenth cheaper.

    Attributes:
        given_up: whether the task that waited was cancelled; it may not have run since.
    """

    __slots__ = ("_outcome", "_task", "given_up")

    def __init__(self) -> None:
        self.given_up: bool = False
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[Any] | None = None

    @property
    def settled(self) -> bool:
        """Whether the result is known."""
        return self._outcome is not None

    def succeed(self, value: Any = None) -> None:
        """Let `wait` return `value`."""
        self._settle(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """Let `wait` raise `error`."""
        self._settle(outcome.Error(error))

    async def wait(self) -> Any:
        """Return or raise what it is settled with."""
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()
            self.given_up = False
            try:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            finally:
                self._task = None
        else:
            await trio.lowlevel.checkpoint()
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _settle(self, result: outcome.Outcome[Any]) -> None:
        if self._outcome is None:
            self._outcome = result
            if self._task is not None:
                trio.lowlevel.reschedule(self._task)
                self._task = None

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        self.given_up = True
        return trio.lowlevel.Abort.SUCCEEDED
