"""A socket's status and its end, what tasks enter and await, and tasks that come and go."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, ParamSpec, Self, TypeVar, final

import trio

from ..errors import ChannelClosed, ConnectionLost, JoinError
from ..errors.base import leaves

logger: Final = logging.getLogger("slipstream_trio")

T = TypeVar("T")
P = ParamSpec("P")

Status = Literal["connecting", "connected", "reconnecting", "closing", "closed"]

KEPT: Final = 64
"""The number of changes that are kept for a reader who is behind."""


@final
class Result(Generic[T]):
    """The result of an operation: settled once, by a value or an error; later settlements change nothing.

    An Event with a place for a value would do the same; every push awaits one of these, and this is a tenth cheaper.
    `told` is called with the result when it is settled, for operations whose end nobody awaits.
    """

    __slots__ = ("_task", "_told", "error", "given_up", "settled", "value")

    def __init__(self, told: "Callable[[Result[T]], None] | None" = None) -> None:
        self.settled: bool = False
        self.given_up: bool = False  # by a cancellation of its task, which may not have run since
        self.value: T | None = None
        self.error: BaseException | None = None
        self._told = told
        self._task: trio.lowlevel.Task | None = None

    def succeed(self, value: T) -> None:
        """Let `wait` return `value`."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Let `wait` raise `error`."""
        self._settle(None, error)

    async def wait(self) -> T:
        """Return the value, or raise the error.

        To be awaited under protection: an interrupt before its own await would leave a task behind that does not wait.
        """
        await self.settling()
        return self.get()

    def settling(self, abort: Callable[[Any], trio.lowlevel.Abort] | None = None) -> Awaitable[object]:
        """Return what is to be awaited, at once, before `get`; `abort` is called with a cancellation, and gives up."""
        if self.settled:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - by the caller
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(abort or self.give_up)  # noqa: ASYNC105 - as above

    def get(self) -> T:
        """Return the value, or raise the error; it has to be settled."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value] # it is settled by a value

    def give_up(self, _: object = None) -> trio.lowlevel.Abort:
        """Take note that its task is cancelled."""
        self._task = None
        self.given_up = True
        return trio.lowlevel.Abort.SUCCEEDED

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if self.settled:
            return
        self.settled, self.value, self.error = True, value, error
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        if self._told is not None:
            self._told(self)


@final
class Changes:
    """Changes that tasks wait for.

    A parking lot has three times as many objects for each task that waits, and 10,000 channels may be left at once.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[trio.lowlevel.Task, None] | None = None  # made when there is one: most objects have none

    @trio.lowlevel.enable_ki_protection  # an interrupt before the await would leave a task behind that waits no more
    async def next(self) -> None:
        """Wait for the next change."""
        if self._tasks is None:
            self._tasks = {}
        task = trio.lowlevel.current_task()
        self._tasks[task] = None
        await trio.lowlevel.wait_task_rescheduled(partial(_give_up, self._tasks, task))

    def tell(self) -> None:
        """Wake those who wait."""
        tasks, self._tasks = self._tasks, None
        for task in tasks or ():
            trio.lowlevel.reschedule(task)


def _give_up(tasks: dict[trio.lowlevel.Task, None], task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
    del tasks[task]
    return trio.lowlevel.Abort.SUCCEEDED


@final
class Tasks:
    """The tasks of one owner in a nursery that others share; no exception of theirs enters it.

    Most of the time there are none, so they do without a nursery of their own, which takes more than 1 KiB. The end of
    the `async with` block cancels and awaits them, and raises a group if any has failed.
    Each runs in a shielded scope; when one fails, the scope of the owner's work is cancelled.
    """

    __slots__ = ("_context", "_ended", "_errors", "_nursery", "_owner", "_scopes")

    def __init__(self, nursery: trio.Nursery, owner: trio.CancelScope) -> None:
        self._nursery = nursery
        self._context = copy_context()  # of now: the task that makes this may set its variables anew
        self._owner = owner
        self._scopes: tuple[trio.CancelScope, ...] = ()
        self._ended: trio.Event | None = None
        self._errors: tuple[BaseException, ...] = ()

    def start(self, task: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Start one."""
        scope = trio.CancelScope(shield=True)
        self._scopes = (*self._scopes, scope)
        self._nursery.start_soon(self._run, scope, task, arguments)

    def start_own(self, task: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Start one in the context in which this was made, whoever calls."""
        self._context.run(self.start, task, *arguments)

    @trio.lowlevel.enable_ki_protection
    async def _run(
        self, scope: trio.CancelScope, task: Callable[..., Awaitable[object]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            with scope:
                await task(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised at the end
            self._errors = (*self._errors, error)
            self._owner.cancel()
        finally:
            self._scopes = tuple(each for each in self._scopes if each is not scope)
            if self._ended is not None and not self._scopes:
                self._ended.set()

    async def wait(self) -> None:
        """Wait until all have ended."""
        while self._scopes:
            self._ended = trio.Event()
            await self._ended.wait()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        for scope in self._scopes:
            scope.cancel()
        with trio.CancelScope(shield=True):
            await self.wait()
        if self._errors:
            errors = self._errors if error is None else (error, *self._errors)
            raise BaseExceptionGroup("tasks of a connection", errors)


@final
class Block(AbstractAsyncContextManager[T]):
    """A block around another context manager, entered once by `async with`; any other use raises an error that says so.

    `use` is the call, and a name for the result, such as "connect(…) as socket".
    """

    __slots__ = ("_entered", "_manager", "_use")

    def __init__(self, use: str, manager: AbstractAsyncContextManager[T]) -> None:
        self._use = use
        self._manager = manager
        self._entered = False

    def __repr__(self) -> str:
        return f"<{self._use.partition(' as ')[0]}, to be entered by `async with {self._use}:`>"

    # Not async, so that they are in no traceback; an interrupt in them would leave the manager half entered, or left.

    @trio.lowlevel.enable_ki_protection
    def __aenter__(self) -> Coroutine[Any, Any, T]:
        if self._entered:
            call = self._use.rpartition(" as ")[0]
            raise RuntimeError(f"{call} is a block that was entered already: make another one for each `async with`")
        self._entered = True
        return self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    def __aexit__(self, *error: Any) -> Coroutine[Any, Any, bool | None]:
        return self._manager.__aexit__(*error)

    if not TYPE_CHECKING:  # which should go on refusing all of this

        def _misused(self, *_: object) -> NoReturn:
            raise TypeError(self._advice())

        __call__ = __await__ = __enter__ = __exit__ = __iter__ = __aiter__ = __anext__ = _misused

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{name!r}: {self._advice()}", name=name, obj=self)

    def _advice(self) -> str:
        call, _, name = self._use.rpartition(" as ")
        return f"{call} is a block that was not entered: write `async with {self._use}:`, and use {name} in it"


def block(use: str) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """Decorate as `asynccontextmanager` does, to return a `Block` that is used so."""

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        make = asynccontextmanager(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            return Block(use, make(*args, **kwargs))

        return call

    return decorate


def check_trio() -> None:
    """Raise `RuntimeError` where Trio does not run."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "slipstream_trio needs Trio, which does not run here: start the program with trio.run(main) in place of "
            "asyncio.run(main()), or run Trio as a guest of the other loop"
        ) from None


@final
class Lifecycle:
    """The status of a socket, the latest ones before it, and how the socket and its connections have ended."""

    __slots__ = ("_lost_at", "_socket_id", "asked", "changes", "count", "error", "last", "latest", "status")

    def __init__(self, socket_id: str) -> None:
        self.status: Status = "connecting"
        self.count: int = 1  # of all statuses so far
        self.latest: list[Status] = [self.status]
        self.changes: Changes = Changes()
        self.asked: str | None = None  # "closed_by_client" or "disconnected", once the user has asked for the end
        self.error: BaseException | None = None  # why there will be no other connection, unless that was asked for
        self._socket_id = socket_id
        self._lost_at: float | None = None
        self.last: ConnectionLost = ConnectionLost("connect_failed")  # the end of the latest that was open

    def become(self, status: Status) -> None:
        """Change the status."""
        if status != self.status:
            self.status = status
            self.count += 1
            self.latest = [*self.latest[1 - KEPT :], status]
            self.changes.tell()

    def ask_to_end(self, reason: str) -> None:
        """Take note that the user wants the end; the first reason counts."""
        self.asked = self.asked or reason
        self.become("closing")

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

    def of_channel(self, topic: str, reason: str, error: Exception | None) -> Callable[[], BaseException]:
        """Return what makes the end of the streams of a channel that has ended for a reason."""
        if reason == "join_refused" and isinstance(error, JoinError):  # a payload that failed may raise one, too
            return lambda: JoinError(error.topic, error.response)
        if reason in ("crashed", "join_timeout", "payload_failed"):
            return lambda: ChannelClosed(topic, reason)
        return self.lost if reason == "lost" else StopAsyncIteration

    def of_streams(self) -> BaseException:
        """Return what a stream ends with that nothing else has ended: the loss, unless the end was asked for."""
        return StopAsyncIteration() if self.error is None else self.lost()


@final
class StatusChanges:
    """An async iterator over a socket's status: the one of now, then each that follows, up to "closed".

    One that is read rarely misses some of them, but never the last.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._read = lifecycle.count
        self._first: Status | None = lifecycle.status  # which is told also if it is kept no longer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Status:
        """Return the next status."""
        await trio.lowlevel.checkpoint()
        first, self._first = self._first, None
        if first is not None:
            return first
        lifecycle = self._lifecycle
        while self._read == lifecycle.count:
            if lifecycle.status == "closed":
                raise StopAsyncIteration
            await lifecycle.changes.next()
        self._read = max(self._read, lifecycle.count - len(lifecycle.latest)) + 1
        return lifecycle.latest[self._read - lifecycle.count - 1]


def only_cancelled(error: BaseException) -> bool:
    """Tell whether an exception is a cancellation, or a nursery's group of nothing else."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def again(lost: ConnectionLost, *, sent: bool = False) -> ConnectionLost:
    """Return the same error anew, for another task to be raised."""
    return ConnectionLost(lost.reason, lost.code, lost.message, lost.ended_by, sent=sent)
