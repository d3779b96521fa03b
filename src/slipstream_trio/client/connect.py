"""`connect`: a nursery that lives exactly as long as its block.

Who runs where: the body runs in the user's task, inside of `body`, a cancel scope that the end of the connection
cancels. Everything else runs under one supervisor task, in a shielded scope that only `connect` cancels, so that a
cancelled user never tears a frame. The supervisor raises nothing into the nursery, and is finished before the nursery
is left, so that the body's exception comes out as it went in.
"""

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Unpack, final

import trio
from attrs import evolve

from ..errors import ConnectionRejected, InternalError
from ..errors.base import leaves
from ..protocol import Disconnect, reconnect_delay
from ..protocol.backoff import retry_after
from ..protocol.state import Heartbeat, Identity, state_of
from ..protocol.topics import Topics, Turns
from ..telemetry import ClientGaveUp, ReconnectScheduled
from ..transport import Connector, OpenRequest, find_connector
from ..transport.cookies import Cookies
from .configuration import Configuration, ConnectOptions, configure, with_options
from .connection import GRACE_PERIOD, OPTION_FAILED, Connection
from .handshake import OrCallable, ask_in_time, ask_request, checked_parent
from .socket import Socket
from .status import Block, Tasks, check_trio
from .turn import finished

if TYPE_CHECKING:
    from .callbacks.runner import Runner

NO_FALLBACK: Final = frozenset({301, 302, 303, 307, 308, 401, 403, 429})
"""HTTP statuses of an upgrade that long-polling would be answered with, too."""

CLOSE_RESERVE: Final = 0.2
"""The part of `close_timeout` that is kept for the close frame and its answer, however long leaves take."""


@with_options
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
    shown = repr(url.partition("?")[0]) if isinstance(url, str) else "…"
    return Block(f"connect({shown}) as socket", connected(configure(url, options)))


@asynccontextmanager
async def connected(configuration: Configuration, runner: "Runner | None" = None) -> AsyncIterator[Socket]:
    """Connect for the time of a block; see `connect`.

    With a runner (of a callback client) the body begins before there is a connection, and is not cancelled when there
    is none any more: the runner is told of both.
    """
    check_trio()
    supervisor = Supervisor(configuration, runner)
    socket = supervisor.socket
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        supervisor.start(nursery)
        try:
            if runner is not None:
                yield socket
            else:
                if not await supervisor.opens():
                    raise socket._lifecycle.error or socket._lifecycle.lost()
                with supervisor.body:
                    yield socket
        except BaseException as raised:  # noqa: BLE001 - raised again below, outside of the nursery
            error = raised
        try:
            await supervisor.shut_down(graceful=error is None)
        except BaseException as raised:  # noqa: BLE001 - likewise: a KeyboardInterrupt
            error = raised if error is None or not isinstance(raised, Exception) else error
    final = socket._lifecycle.error
    interrupted = not isinstance(final, Exception | None)
    if error is not None and not (interrupted and isinstance(error, Exception | trio.Cancelled)):
        raise error
    # A bug, and a KeyboardInterrupt, are raised even if the body did not notice.
    if final is not None and (supervisor.body.cancelled_caught or interrupted or isinstance(final, InternalError)):
        raise final from final.__cause__  # not in the context of the body's cancellation


@final
class Supervisor:
    """Opens connections, one after the other, and sees to the end of a socket."""

    def __init__(self, configuration: Configuration, runner: "Runner | None") -> None:
        self.socket: Socket = Socket(configuration, self)
        self.runner: Runner | None = runner
        # The user's block, cancelled at an end that the user did not ask for.
        self.body: trio.CancelScope = trio.CancelScope()
        self.is_finished: bool = False  # told as a change of the socket's status
        self.cookies: Cookies = Cookies(keeps=configuration.cookies)
        self._primary = self._connector = configuration.chosen_connector()
        self._fallback: Connector | None = None
        if configuration.longpoll_fallback is not None:
            fallback = find_connector("longpoll", getattr(configuration.transport, "open_stream", None))
            self._fallback = None if fallback.name == self._primary.name else fallback
        self._primary_worked = False
        self._scope = trio.CancelScope(shield=True)
        self._at_once = False
        self._waiting: trio.CancelScope | None = None

    @trio.lowlevel.enable_ki_protection
    def start(self, nursery: trio.Nursery) -> None:
        """Begin; whoever does has to call `shut_down`, also if an interrupt came meanwhile."""
        self.nursery: trio.Nursery = nursery
        self.tasks: Tasks = Tasks(nursery, self._scope)  # those that no connection has started
        nursery.start_soon(self.run)

    @trio.lowlevel.enable_ki_protection  # or it might be closed without a deadline
    def reconnect(self) -> None:
        """Replace the connection at once, or do not wait any longer for the next attempt."""
        connection = self.socket._connection
        if connection is not None and connection.is_open:
            self._at_once = True
            # Not `close_timeout`: where the network has changed, no answer to the close frame will come.
            deadline = min(self.close_deadline(), trio.current_time() + GRACE_PERIOD)
            connection.afterwards(partial(connection.close, 1000, "reconnect", deadline))
        elif self._waiting is not None:
            self._at_once = True
            self._waiting.cancel()

    def close_deadline(self) -> float:
        """Return by when everything has to be closed that is being closed from now on."""
        timeout = self.socket._options.close_timeout
        return math.inf if timeout is None else trio.current_time() + timeout

    def close(self, deadline: float) -> None:
        """Close the connection, or stop trying to have one."""
        connection = self.socket._connection
        if connection is not None and connection.state.status in ("open", "closing"):
            connection.close(1000, self.socket._lifecycle.asked or "closed_by_client", deadline)
        else:
            self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Keep the socket connected until the end."""
        socket = self.socket
        try:
            async with self.tasks:
                try:
                    with self._scope:
                        socket._timer.start()
                        await self._keep_connected()
                finally:
                    socket._timer.stop()
        except BaseException as error:  # noqa: BLE001 - `connect` raises it
            socket._failed(_bug(error))
        finally:
            await socket._ended()
            # Those who waited run first, and the body is cancelled after them.
            await trio.lowlevel.cancel_shielded_checkpoint()
            self.is_finished = True
            socket._lifecycle.changes.tell()
            if socket._lifecycle.asked is None:
                self.body.cancel()
            if self.runner is not None:
                self.runner.finished(socket._lifecycle.error)

    def interrupted(self, error: BaseException) -> None:
        """End with a KeyboardInterrupt, or a SystemExit, that a function of the user's raised in a task of ours."""
        self.socket._lifecycle.ask_to_end("closed_by_client")
        self.socket._lifecycle.fail(error)
        self.body.cancel()
        self.close(self.close_deadline())

    async def _keep_connected(self) -> None:
        """Connect, and connect again, until that is of no use, or the user has asked to end."""
        socket, configuration = self.socket, self.socket._configuration
        step, attempt, generation = 0, 1, 1
        while True:
            connection, ask = await self._begin(attempt, generation)
            lived = await connection.run(self._connector, ask)
            await finished(socket._unsettled)  # where many wait for the end of a connection, it takes a while to tell
            error, disconnect = self._end_of(connection, lived)
            if socket._lifecycle.asked is not None:
                return
            if disconnect.lived is not None:
                generation, attempt = generation + 1, 0
            first = generation == 1 and not configuration.retry_first
            if configuration.reconnect is not None:
                step = configuration.reconnect.step_after(step, disconnect.lived)
            falls_back = self._falls_back(disconnect)
            at_once = falls_back or (self._at_once and not first)
            delay = 0.0 if at_once else None if first else self._delay(evolve(disconnect, step=step))
            if delay is None:
                socket._lifecycle.fail(socket._lifecycle.error or error)
                hint = str(error) if socket._emitter.is_heard(ClientGaveUp) else ""
                socket._emitter.emit(ClientGaveUp, disconnect.reason, attempt, disconnect.status, hint)
                return
            attempt += 1
            await self._wait(delay, attempt, disconnect)
            step = 0 if self._at_once else step if falls_back else step + 1
            self._at_once = False

    async def _wait(self, delay: float, attempt: int, ended: Disconnect) -> None:
        """Wait for an attempt, until its time has come or the user asks for it at once."""
        self.socket._emitter.emit(ReconnectScheduled, delay, attempt, ended.reason, ended.code, ended.status)
        with trio.CancelScope() as self._waiting:
            await trio.sleep(delay)
        self._waiting = None

    def _end_of(self, connection: Connection, lived: float | None) -> tuple[Exception, Disconnect]:
        """Return what to raise for a connection that has ended, and what its end was."""
        socket, mistake, failure = self.socket, connection.option_error, connection.failure
        if mistake is not None:
            return mistake, Disconnect(OPTION_FAILED, error=mistake, ended_by="client")
        if failure is None:
            lost = socket._lifecycle.lost()
            told = partial(Disconnect, lost.reason, code=lost.code, message=lost.message, ended_by=lost.ended_by)
            return lost, told(lived=lived)
        if not isinstance(failure, ConnectionRejected):
            return failure, Disconnect(failure.reason, error=failure, ended_by="network")
        limit = socket._configuration.retry_after_limit
        wait = retry_after(failure.headers, socket._emitter.utc_now().timestamp(), limit)
        told = partial(Disconnect, "rejected", status=failure.status, retry_after=wait)
        return failure, told(error=failure, ended_by="server")

    def _falls_back(self, disconnect: Disconnect) -> bool:
        """Choose the transport of the next attempt; returns whether that is the fallback, which follows at once.

        A fallback that worked where the WebSocket never did is remembered: the WebSocket is not tried any more.
        """
        opened = disconnect.lived is not None
        if self._connector is self._fallback:
            if opened and not self._primary_worked:
                self._primary, self._fallback = self._fallback, None
            self._connector = self._primary
            return False
        self._primary_worked = self._primary_worked or opened
        if self._fallback is None or opened or disconnect.reason == OPTION_FAILED or disconnect.status in NO_FALLBACK:
            return False
        self._connector = self._fallback
        return True

    async def _begin(self, attempt: int, generation: int) -> tuple[Connection, Callable[[], Awaitable[OpenRequest]]]:
        """Begin a connection; returns what asks for all that it is opened with.

        The trace is asked for before, as the connection is in it. If that fails, so does the connection.
        """
        configuration = self.socket._configuration
        timeout = configuration.connect_timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        falls_back = self._fallback not in (None, self._connector)
        limit = configuration.longpoll_fallback if falls_back else None
        trace_parent: str | None = None
        failed: Exception | None = None
        try:
            trace_parent = await ask_in_time(configuration, "trace_parent", deadline, checked_parent)
        except Exception as error:  # noqa: BLE001 - what the user's functions raise is the user's
            failed = error
        before = self.socket._connection
        ids, options, transport = self.socket._emitter.telemetry.ids, self.socket._options, self._connector.name
        identity = Identity(
            connection_id=ids.span_id(),
            trace_id=ids.trace_id() if trace_parent is None else trace_parent[3:35],
            socket_id=self.socket.socket_id,
            generation=generation,
            options=options if options.transport == transport else evolve(options, transport=transport),
            trace_parent=trace_parent,
        )
        current_ref = 0 if before is None else before.state.current_ref  # so what is told late is of no other
        state = state_of(identity, "opening", Topics(), Turns(), Heartbeat(), current_ref, None)
        return self.socket._begin(state, attempt), partial(ask_request, configuration, deadline, limit, failed)

    def _delay(self, disconnect: Disconnect) -> float | None:
        configuration = self.socket._configuration
        try:
            draw = random.random()  # noqa: S311 - for jitter
            return reconnect_delay(disconnect, configuration.reconnect, configuration.should_reconnect, draw)
        except Exception as error:  # noqa: BLE001 - the user's function; `connect` raises it
            self.socket._lifecycle.fail(error)
            return None

    async def opens(self) -> bool:
        """Wait for the first connection; tells whether there was one."""
        while self.socket._shown is None and not self.is_finished:
            await self.socket._lifecycle.changes.next()
        return self.socket._shown is not None

    async def until_finished(self) -> None:
        """Wait until everything has ended."""
        while not self.is_finished:
            await self.socket._lifecycle.changes.next()

    @trio.lowlevel.enable_ki_protection
    async def shut_down(self, *, graceful: bool) -> None:
        """Leave all topics and close the connection, or abort what is not closed in time."""
        socket = self.socket
        deadline = self.close_deadline()
        if socket.status != "closed":
            socket._lifecycle.ask_to_end("closed_by_client")
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                reserve = CLOSE_RESERVE * (socket._options.close_timeout or 0.0)
                limit = socket._exits.final_limit(deadline - reserve, reserve / 2)
                await socket._joins.leave_all()
                if graceful:
                    with trio.move_on_at(limit):
                        while socket._channels:
                            await next(iter(socket._channels.values()))._changed.next()
                self.close(deadline)
                await self.until_finished()
        finally:
            # Out of time, perhaps: that the client wanted the end is known, though no close frame tells of it.
            self.close(trio.current_time())
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self.until_finished()


def _bug(error: BaseException) -> BaseException:
    """Return what to raise for an exception that should not have happened; a KeyboardInterrupt is itself."""
    causes = leaves(error)
    for leaf in causes:
        if not isinstance(leaf, Exception):
            return leaf
    cause = causes[0] if len(causes) == 1 else error
    bug = InternalError(f"a bug in slipstream_trio, please report it: {cause!r}")
    bug.__cause__ = cause
    return bug
