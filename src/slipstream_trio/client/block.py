"""Blocks: what is entered by `async with`, and says so where it is used in another way."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, final

import trio

T = TypeVar("T")
P = ParamSpec("P")


class Block(AbstractAsyncContextManager[T]):
    """An async context manager; what else is done with it raises an error that tells of `async with`."""

    __slots__ = ()

    @property
    @abstractmethod
    def _use(self) -> str:
        """The call, and a name for the result, such as "connect(…) as socket"."""

    def __repr__(self) -> str:
        return f"<{self._use.partition(' as ')[0]}, to be entered by `async with {self._use}:`>"

    if not TYPE_CHECKING:  # which should go on refusing all of this

        def _misused(self, *_: object) -> NoReturn:
            raise TypeError(_advice(self._use))

        __await__ = __enter__ = __exit__ = __iter__ = __aiter__ = __anext__ = _misused

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{name!r}: {_advice(self._use)}", name=name, obj=self)


def _advice(use: str) -> str:
    call, _, name = use.rpartition(" as ")
    return f"{call} is a block that was not entered: write `async with {use}:`, and use {name} in it"


@final
class MadeBlock(Block[T]):
    """A block around another context manager."""

    __slots__ = ("_manager", "_use")
    _use: str

    def __init__(self, use: str, manager: AbstractAsyncContextManager[T]) -> None:
        self._use = use
        self._manager = manager

    # Not async, so that they are in no traceback; an interrupt in them would leave the manager half entered, or left.

    @trio.lowlevel.enable_ki_protection
    def __aenter__(self) -> Coroutine[Any, Any, T]:
        return self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    def __aexit__(self, *error: Any) -> Coroutine[Any, Any, bool | None]:
        return self._manager.__aexit__(*error)


def block(use: str) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """Decorate as `asynccontextmanager` does, to return a `Block` that is used so."""

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        make = asynccontextmanager(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            return MadeBlock(use, make(*args, **kwargs))

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
