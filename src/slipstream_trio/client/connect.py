"""`connect`: a nursery that lives exactly as long as its block.

Who runs where: the body runs in the user's task, inside of `body`, a cancel scope that the end of the connection
cancels. Everything else runs under one supervisor task, in a shielded scope that only `connect` cancels, so that a
cancelled user never tears a frame. The supervisor raises nothing into the nursery, and is finished before the nursery
is left, so that the body's exception comes out as it went in.
"""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Unpack

import trio

from ..errors import InternalError
from .configuration import Configuration, ConnectOptions, configure
from .dial import dial
from .session import Session
from .socket import Socket

__all__ = ["connect"]


def connect(url: str, **options: Unpack[ConnectOptions]) -> AbstractAsyncContextManager[Socket]:
    """Connect to a Phoenix server, for the time of an `async with` block.

    ```
    async with connect("ws://localhost:4000/socket/websocket") as socket:
        async with socket.join("room:lobby") as channel:
            await channel.push("new_msg", {"body": "hi"})
    ```

    Leaving the block leaves the channels and closes the connection, within `close_timeout`. If the connection ends
    before that, the body is cancelled, and `ConnectionLost` is raised.

    Parameters:
        url: ws, wss, http or https; with Phoenix it ends in /websocket.
        options: the fields of `Configuration`.

    Raises:
        ConfigurationError: at the call, an option cannot be used; or on entering, what a function returned cannot.
        ConnectError: on entering, the server could not be reached.
        ConnectionRejected: on entering, the server refused the upgrade.
        ConnectionLost: on leaving, the connection ended and the body was cancelled for it.
        InternalError: a bug.
    """
    return _connected(configure(url, options))


@asynccontextmanager
async def _connected(configuration: Configuration) -> AsyncIterator[Socket]:
    supervisor = _Supervisor(Session(configuration))
    session = supervisor.session
    body = trio.CancelScope()
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        try:
            await session.opened.wait()
            if (failure := supervisor.failure or supervisor.bug) is not None:
                raise failure
            with body:
                session.on_end = body.cancel
                yield Socket(session)
        except BaseException as raised:  # noqa: BLE001 - raised again below, outside of the nursery
            error = raised
        try:
            await supervisor.shut_down(graceful=error is None)
        except BaseException as raised:  # noqa: BLE001 - likewise: a KeyboardInterrupt
            error = raised if error is None or not isinstance(raised, Exception) else error
    if error is not None:
        raise error
    if supervisor.bug is not None:
        raise supervisor.bug
    if body.cancelled_caught and session.error is not None:
        raise session.error


class _Supervisor:
    """Opens the connection, and sees to its end."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.failure: BaseException | None = None
        self.bug: BaseException | None = None
        self._scope = trio.CancelScope(shield=True)
        self._finished = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        session = self.session
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.timer.run)
                    await self._connect_and_serve()
                    nursery.cancel_scope.cancel()
        except BaseException as error:  # noqa: BLE001 - `connect` raises it
            self.bug = _bug(error)
            session.fail(error)
        finally:
            session.end()
            self._finished.set()

    async def _connect_and_serve(self) -> None:
        session = self.session
        try:
            dialed = await dial(session.configuration)
        except Exception as error:  # noqa: BLE001 - what the user's functions raise is the user's
            self.failure = error
            return
        connection = session.begin(dialed.trace_id, attempt=1, generation=1)
        await connection.run(session.connector, dialed.request)
        self.failure = connection.failure

    async def shut_down(self, *, graceful: bool) -> None:
        """Leave all topics and close the connection, or abort what is not closed in time."""
        session = self.session
        timeout = session.options.close_timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                if session.connection is None or session.connection.state.status == "opening":
                    self._scope.cancel()
                elif session.status != "closed":
                    await session.leave_all(wait=graceful)
                    session.connection.close(1000, "closed_by_client", deadline)
                await self._finished.wait()
        finally:
            self._scope.cancel()
            if session.connection is not None:
                # If that cut it off: the client wanted the end, though no close frame tells of it.
                session.connection.close(1000, "closed_by_client", trio.current_time())
            with trio.CancelScope(shield=True):
                await self._finished.wait()


def _bug(error: BaseException) -> BaseException:
    """Return what to raise for an exception that should not have happened; a KeyboardInterrupt is itself."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if not isinstance(leaf, Exception):
            return leaf
    cause = leaves[0] if len(leaves) == 1 else error
    bug = InternalError(f"a bug in slipstream_trio, please report it: {cause!r}")
    bug.__cause__ = cause
    return bug


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
