"""Tasks that come and go: a nursery that several owners share."""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, final

import trio

__all__ = ["Tasks"]


@final
class Tasks:
    """The tasks of one owner in a nursery that others share; no exception of theirs enters it.

    Most of the time there are none, so they do without a nursery of their own, which takes more than 1 KiB. The end of
    the `async with` block cancels and awaits them, and raises a group if any has failed.

    Parameters:
        nursery: where they run, each in a shielded scope.
        owner: the scope of the owner's work, cancelled when one fails.
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
            errors = self._errors if error is None or isinstance(error, trio.Cancelled) else (error, *self._errors)
            raise BaseExceptionGroup("tasks of a connection", errors)
