"""A result that one task awaits, and other code settles."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

import trio

from ..errors import ConnectionLost

__all__ = ["Changes", "Flag", "Result", "again", "only_cancelled"]

T = TypeVar("T")


@final
class Result(Generic[T]):
    """The result of an operation: settled once, by a value or an error; later settlements change nothing.

    An Event with a place for a value would do the same; every push awaits one of these, and this is a tenth cheaper.

    Parameters:
        told: called with the result when it is settled, for operations whose end nobody awaits.

    Attributes:
        settled: whether the value or the error is known.
        given_up: whether the task that awaited it was cancelled; that task may not have run since.
        value: the value, once settled by one.
        error: the error, once settled by one.
    """

    __slots__ = ("_task", "_told", "error", "given_up", "settled", "value")

    def __init__(self, told: "Callable[[Result[T]], None] | None" = None) -> None:
        self.settled: bool = False
        self.given_up: bool = False
        self.value: T | None = None
        self.error: BaseException | None = None
        self._told = told
        self._task: trio.lowlevel.Task | None = None

    def succeed(self, value: T) -> None:
        """Let `wait` return `value`."""
        if not self.settled:
            self.value = value
            self._settle()

    def fail(self, error: BaseException) -> None:
        """Let `wait` raise `error`."""
        if not self.settled:
            self.error = error
            self._settle()

    async def wait(self) -> T:
        """Return the value, or raise the error."""
        if not self.settled:
            self._task = trio.lowlevel.current_task()
            self.given_up = False
            try:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            finally:
                self._task = None
        else:
            await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value] # it is settled by a value

    def _settle(self) -> None:
        self.settled = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        if self._told is not None:
            self._told(self)

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        self.given_up = True
        return trio.lowlevel.Abort.SUCCEEDED


@final
class Changes:
    """Changes that tasks wait for: a parking lot that is made when there is one, as most objects have none."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot: trio.lowlevel.ParkingLot | None = None

    async def next(self) -> None:
        """Wait for the next change."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def tell(self) -> None:
        """Wake those who wait."""
        if self._lot is not None:
            self._lot.unpark_all()


@final
class Flag:
    """An event that takes little memory.

    Attributes:
        is_set: whether it has happened.
    """

    __slots__ = ("_changes", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._changes = Changes()

    def set(self) -> None:
        """Wake those who wait, and let nobody wait any more."""
        self.is_set = True
        self._changes.tell()

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._changes.next()


def again(lost: ConnectionLost, *, sent: bool = False) -> ConnectionLost:
    """Return the same error anew, for another task to be raised."""
    return ConnectionLost(lost.reason, lost.code, lost.message, lost.ended_by, sent=sent)


def only_cancelled(error: BaseException) -> bool:
    """Tell whether an exception is a cancellation, or a nursery's group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
