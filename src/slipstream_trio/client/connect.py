"""`connect`: a nursery that lives exactly as long as its block.

Who runs where: the body runs in the user's task, inside of `body`, a cancel scope that the end of the connection
cancels. Everything else runs under one supervisor task, in a shielded scope that only `connect` cancels, so that a
cancelled user never tears a frame. The supervisor raises nothing into the nursery, and is finished before the nursery
is left, so that the body's exception comes out as it went in.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, NoReturn, Unpack

import trio
from attrs import evolve

from ..errors import ConnectionRejected, InternalError
from ..protocol import Disconnect, reconnect_delay
from ..protocol.backoff import retry_after
from ..transport import OpenRequest
from .configuration import Configuration, ConnectOptions, configure
from .connection import OPTION_FAILED, Connection
from .handshake import OrCallable, ask_request, ask_trace_parent, attempt_deadline
from .operations import leave_soon
from .session import Session
from .socket import Socket
from .tap import SocketTap

__all__ = ["connect", "connected"]

FAREWELL: Final = 0.2
"""The part of `close_timeout` that is kept for the close frame and its answer, however long leaves take."""


def connect(url: OrCallable[str], **options: Unpack[ConnectOptions]) -> AbstractAsyncContextManager[Socket]:
    """Connect to a Phoenix server, for the time of an `async with` block.

    ```
    async with connect("ws://localhost:4000/socket/websocket") as socket:
        async with socket.join("room:lobby") as channel:
            await channel.push("new_msg", {"body": "hi"})
    ```

    A connection that ends is replaced, as `reconnect` says, and its channels are joined again. When that is given up,
    the body is cancelled, and `ConnectionLost`, or what the last attempt failed with, is raised. Leaving the block
    leaves the channels and closes the connection, within `close_timeout`.

    Parameters:
        url: ws, wss, http or https; with Phoenix it ends in /websocket.
        options: the fields of `Configuration`.

    Raises:
        ConfigurationError: at the call, an option cannot be used; or on entering, what a function returned cannot.
        ConnectError: on entering, the server could not be reached.
        ConnectTimeout: on entering, the connection was not open within `connect_timeout`.
        ConnectionRejected: on entering, the server refused the upgrade.
        ConnectionLost: on leaving, the connection ended for good and the body was cancelled for it.
        InternalError: a bug.
    """
    return connected(configure(url, options))


@asynccontextmanager
async def connected(configuration: Configuration, tap: SocketTap | None = None) -> AsyncIterator[Socket]:
    """Connect for the time of a block; see `connect`.

    With a tap the body begins before there is a connection, and is not cancelled when there is none any more: the tap
    is told of both.
    """
    session = Session(configuration, tap)
    supervisor = _Supervisor(session)
    body = trio.CancelScope()
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        try:
            if tap is not None:
                tap.attached(session)
                yield Socket(session)
            else:
                await session.opened.wait()
                if session.shown is None:
                    raise session.error or session.lost()
                with body:
                    session.on_end = body.cancel
                    if session.status == "closed":
                        body.cancel()
                    yield Socket(session)
        except BaseException as raised:  # noqa: BLE001 - raised again below, outside of the nursery
            error = raised
        try:
            await supervisor.shut_down(graceful=error is None)
        except BaseException as raised:  # noqa: BLE001 - likewise: a KeyboardInterrupt
            error = raised if error is None or not isinstance(raised, Exception) else error
    if error is not None:
        raise error
    if session.error is not None and (body.cancelled_caught or _is_loud(session.error)):
        raise session.error


class _Supervisor:
    """Opens connections, one after the other, and sees to the end."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._scope = trio.CancelScope(shield=True)
        session.abort = self._scope.cancel

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        session = self.session
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    session.nursery = nursery
                    nursery.start_soon(session.timer.run)
                    await self._keep_connected()
                    nursery.cancel_scope.cancel()
        except BaseException as error:  # noqa: BLE001 - `connect` raises it
            session.error = _bug(error)
            session.fail(error)
        finally:
            session.settle()
            # Those who waited run first, and the body is cancelled after them.
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            session.end()

    async def _keep_connected(self) -> None:
        """Connect, and connect again, until that is of no use, or the user has asked to end."""
        session, configuration = self.session, self.session.configuration
        step, attempt, generation = 0, 1, 1
        while True:
            error, disconnect = await self._one_connection(attempt, generation, step)
            if session.asked_to_end is not None:
                return
            if disconnect.lived is not None:
                generation, attempt = generation + 1, 0
            first = generation == 1 and not configuration.retry_first
            if configuration.reconnect is not None:
                step = configuration.reconnect.step_after(step, disconnect.lived)
            delay = None if first else self._delay(evolve(disconnect, step=step))
            if delay is None:
                session.error = session.error or error
                return
            step, attempt = step + 1, attempt + 1
            session.reconnect_scheduled(disconnect, delay, attempt)
            await trio.sleep(delay)

    async def _one_connection(self, attempt: int, generation: int, step: int) -> tuple[Exception, Disconnect]:
        """Connect once, and serve that to its end; returns what to raise for it, and what it was."""
        session = self.session
        connection, ask = await self._begin(attempt, generation)
        await connection.run(session.connector, ask)
        if connection.option_error is not None:
            error = connection.option_error
            return error, Disconnect(OPTION_FAILED, step=step, error=error, ended_by="client")
        failure = connection.failure
        if failure is None:
            lost = session.lost()
            return lost, Disconnect(lost.reason, code=lost.code, lived=connection.lived, step=step)
        if isinstance(failure, ConnectionRejected):
            limit = session.configuration.retry_after_limit
            wait = retry_after(failure.headers, session.utc_now().timestamp(), limit)
            return failure, Disconnect(
                "rejected", status=failure.status, retry_after=wait, step=step, error=failure, ended_by="server"
            )
        return failure, Disconnect(failure.reason, step=step, error=failure, ended_by="network")

    async def _begin(self, attempt: int, generation: int) -> tuple[Connection, Callable[[], Awaitable[OpenRequest]]]:
        """Begin a connection; returns what asks for all that it is opened with.

        The trace is asked for before, as the connection is in it. If that fails, so does the connection.
        """
        configuration = self.session.configuration
        deadline = attempt_deadline(configuration)
        try:
            trace_parent = await ask_trace_parent(configuration, deadline)
        except Exception as error:  # noqa: BLE001 - what the user's functions raise is the user's
            return self.session.begin(None, attempt, generation), partial(_fail_with, error)
        return self.session.begin(trace_parent, attempt, generation), partial(ask_request, configuration, deadline)

    def _delay(self, disconnect: Disconnect) -> float | None:
        configuration = self.session.configuration
        try:
            return reconnect_delay(
                disconnect, configuration.reconnect, configuration.should_reconnect, self.session.draw()
            )
        except Exception as error:  # noqa: BLE001 - the user's function; `connect` raises it
            self.session.error = error
            return None

    async def shut_down(self, *, graceful: bool) -> None:
        """Leave all topics and close the connection, or abort what is not closed in time."""
        session = self.session
        deadline = session.deadline()
        if session.status != "closed":
            session.asked_to_end = session.asked_to_end or "closed_by_client"
            session.statuses.set("closing")
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                _leave_all(session)
                if graceful:
                    with trio.move_on_at(deadline - FAREWELL * (session.options.close_timeout or 0.0)):
                        await _until_all_are_left(session)
                session.close_connection(deadline)
                await session.finished.wait()
        finally:
            if session.connection is not None:
                # Out of time, perhaps: that the client wanted the end is known, though no close frame tells of it.
                session.connection.close(1000, session.asked_to_end or "closed_by_client", trio.current_time())
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await session.finished.wait()


async def _fail_with(error: Exception) -> NoReturn:
    raise error


def _leave_all(session: Session) -> None:
    for membership in list(session.memberships.values()):
        leave_soon(membership, session.options.leave_timeout)


async def _until_all_are_left(session: Session) -> None:
    memberships = session.memberships
    while memberships:
        await next(iter(memberships.values())).changed()


def _is_loud(error: BaseException) -> bool:
    """Tell whether an error is raised even if the body did not notice it: a bug, or a KeyboardInterrupt."""
    return isinstance(error, InternalError) or not isinstance(error, Exception)


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
