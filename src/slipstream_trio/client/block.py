"""Blocks: what is entered by `async with`, and says so where it is used in another way; channels' blocks, and exits.

What a join and a leave mean for a channel is decided in `join`.
"""

import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, final

import trio

from .configuration import Timeout
from .join import join, leave, request_leave

if TYPE_CHECKING:
    from .channel import Channel
    from .socket import Socket

T = TypeVar("T")
P = ParamSpec("P")


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


def refused(advice: str) -> Callable[..., NoReturn]:
    """Return a method that raises `TypeError` with advice."""

    def method(*_: object) -> NoReturn:
        raise TypeError(advice)

    return method


def check_trio() -> None:
    """Raise `RuntimeError` where Trio does not run."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "slipstream_trio needs Trio, which does not run here: start the program with trio.run(main) in place of "
            "asyncio.run(main()), or run Trio as a guest of the other loop"
        ) from None


# Channels


@final
class Exits(trio.abc.Instrument):
    """The exits of a socket's channel blocks.

    Four nested blocks whose leaves are not answered cost one `leave_timeout`, not four. Exits belong together if no
    task ran between them: as an instrument of Trio, this notices when one does. It is attached between two exits only.
    """

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._deadline: float | None = None

    async def exit(self, channel: "Channel") -> None:
        """Leave a channel at the end of its block; wait until the deadline of the first exit of the row."""
        deadline = self._take_deadline()
        left = deadline - trio.current_time()
        if left > 0:
            await leave(channel, None if left == math.inf else left)
        else:
            await request_leave(channel)
        self._deadline = deadline
        trio.lowlevel.add_instrument(self)

    def final_limit(self, limit: float, grace: float) -> float:
        """Return until when to wait for leaves at the end of the socket's block.

        Where the block's end follows the exits of its channels, and these have left all there is, their deadline holds
        for it too, but for a short `grace` for the leaves that were sent after it. Otherwise it is `limit`.
        """
        deadline, channels = self._deadline, self._socket._channels.values()
        if deadline is None or any(channel.status != "leaving" for channel in channels):
            return limit
        return min(limit, max(deadline, trio.current_time() + grace))

    def end(self) -> None:
        """Let the next exit have a time limit of its own: the socket is used otherwise."""
        if self._deadline is not None:
            self._take_deadline()

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Take note that a task runs after the latest exit."""
        self._take_deadline()

    def _take_deadline(self) -> float:
        """Return the deadline of this row of exits, which is a new one unless another exit has just ended."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            trio.lowlevel.remove_instrument(self)
            return deadline
        timeout = self._socket._options.leave_timeout
        return math.inf if timeout is None else trio.current_time() + timeout


@final
class Joined(AbstractAsyncContextManager["Channel"]):
    """A joined channel, for the time of `Socket.join`'s block. A generator would take half a KiB more."""

    __slots__ = ("_channel", "_timeout")

    def __init__(self, channel: "Channel", timeout: Timeout) -> None:
        self._channel = channel
        self._timeout = timeout

    async def __aenter__(self) -> "Channel":
        await join(self._channel, self._timeout)
        return self._channel

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                await self._channel._socket._exits.exit(self._channel)
        except BaseException:
            self._channel.leave_soon()  # the leave was cancelled before it was sent, perhaps
            raise
        if error is not None:
            self._channel.leave_soon()
