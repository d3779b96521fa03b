"""The runner of a callback client, one task that calls the callbacks, one at a time, in order; replies and answers."""

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from inspect import unwrap
from itertools import count
from types import TracebackType
from typing import Any, Final, final

import trio
from attrs import frozen

from ... import errors
from ...protocol import Message
from ...telemetry import ClientCallbackStart, ClientCallbackStop, Outcome
from ..configuration import Configuration
from ..connect import connected
from ..join_request import request_leave
from ..push import request_push
from ..socket import Socket
from ..spans import First, Span
from ..status import Result, only_cancelled
from .inbox import POSTS, ChannelBacklog, Entry, Inbox

logger: Final = logging.getLogger("slipstream_trio")


class NoReply(Enum):
    """The type of `NO_REPLY`."""

    NO_REPLY = "no_reply"

    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = NoReply.NO_REPLY
"""The value that `handle_call` returns to answer later, with `caller.reply`."""


@frozen
class Reply:
    """The end of a push of a `Client`, with the server's reply or without one: an argument of `handle_reply`.

    Attributes:
        topic: the push's topic.
        event: the push's event.
        response: the response of the server's reply; None if there was none.
        error: None if the reply is "ok"; otherwise what an awaited push would have raised: `PushError` (with the
            status), `PushTimeout`, `ChannelClosed` or `ConnectionLost`.
    """

    topic: str
    event: str
    response: Any
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the server replied, and with the status "ok"."""
        return self.error is None


@final
class Caller:
    """The task that awaits a `Client.call`. The first answer counts, the others change nothing."""

    def __init__(self) -> None:
        self._answer: Result[Any] = Result()

    def reply(self, value: Any = None) -> None:
        """Let `call` return `value`."""
        self._answer.succeed(value)

    def fail(self, error: BaseException) -> None:
        """Let `call` raise `error`."""
        self._answer.fail(error)


class Runner:
    """One run of a client: its task calls what the inbox says, and its socket tells it of connections."""

    def __init__(self, client: object) -> None:
        self.socket: Socket | None = None
        self.ended: bool = False
        self._client = client
        self._name = type(client).__name__
        self._inbox = Inbox()
        self._task: trio.lowlevel.Task | None = None
        self._callers: set[Caller] = set()
        self._unsent = count()
        self._loss: BaseException | None = None  # why there will be no other connection
        self._cause: BaseException | None = None  # what has ended the client

    # What others ask

    @trio.lowlevel.enable_ki_protection
    def stop(self) -> None:
        """Call nothing any more but `terminate`."""
        self._inbox.close()
        if self._task is None:
            self._end_calls()  # nobody knows whether it will ever run

    @trio.lowlevel.enable_ki_protection
    def post(self, callback: str, message: Any) -> None:
        """Let a cast or an info be handled."""
        if self._inbox.closed:
            raise self._stopped()
        if len(self._inbox.waiting(POSTS)) >= self._inbox.limit:
            raise errors.ClientBusy(self._name, self._inbox.limit)
        self._inbox.put(Entry(callback, (message,), POSTS))

    @trio.lowlevel.enable_ki_protection
    async def call(self, message: Any, timeout: float | None) -> Any:
        """Let a call be handled, and wait for the answer."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._inbox.closed:
            raise self._stopped()
        if trio.lowlevel.current_task() is self._task:
            raise RuntimeError(f"call() from its own callback would deadlock: {self._name} would wait for itself")
        caller = Caller()
        number = self._inbox.put(Entry("handle_call", (message, caller)))
        self._callers.add(caller)
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                return await caller._answer.wait()
        finally:
            self._callers.discard(caller)
            self._inbox.remove(number)
        raise errors.CallTimeout(self._name, timeout or 0.0, runs=self._task is not None)

    async def join(self, topic: str, payload: Any) -> None:
        """Ask for a topic, unless it is held."""
        socket = self.running_socket()
        channel = socket.channel(topic, payload)
        channel._tell(ChannelBacklog(self._inbox, channel))
        with suppress(errors.AlreadyJoined):
            await socket._joins.request(channel)

    async def leave(self, topic: str) -> None:
        """Give up a topic, if it is held."""
        channel = self.running_socket()._channels.get(topic)
        if channel is None:
            await trio.lowlevel.checkpoint()
        else:
            await request_leave(channel)

    @trio.lowlevel.enable_ki_protection
    async def push(self, topic: str, event: str, payload: Any, timeout: float | None) -> str:
        """Push, and return the ref when that is queued, or has failed where `handle_reply` tells of it."""
        by_callback = trio.lowlevel.current_task() is self._task
        if not by_callback and not self._inbox.has_room_for_reply:  # a callback would wait for itself
            kept = self.running_socket()._kept(topic, event, payload)
            deadline = math.inf if timeout is None else trio.current_time() + timeout
            with trio.move_on_at(deadline) as scope:
                await self._inbox.room_for_reply()
            if scope.cancelled_caught:
                raise errors.PushTimeout(topic, event, timeout or 0.0, sent=False, waited=timeout)
            timeout = deadline - trio.current_time()
            payload = kept.value()
        self._inbox.expect_reply()
        try:
            ref = await self._queue(topic, event, payload, timeout, by_callback=by_callback)
        except BaseException as error:
            self._inbox.forget_reply()
            if isinstance(error, errors.SerializationError):
                error.with_traceback(None)  # as elsewhere
            raise
        if by_callback:
            # Another task must have its ref before the end is told, so nothing may run in between. It waits for others
            # when the queue is full.
            await trio.lowlevel.cancel_shielded_checkpoint()
        return ref

    async def _queue(self, topic: str, event: str, payload: Any, timeout: float | None, *, by_callback: bool) -> str:
        """Queue a push, and return its ref; or end it, where that is a reply like any other."""
        socket = self.running_socket()
        if not by_callback:
            socket._check_usable()
        channel = socket._channels.get(topic) or socket.channel(topic)
        is_refused = channel.status in ("closed", "leaving")
        if is_refused:
            socket._serializer.encode(Message("0", "0", topic, event, payload))  # a mistake raises as it does elsewhere

        def tell(ref: str, response: Any, error: Exception | None) -> None:
            self._inbox.put(Entry("handle_reply", (ref, Reply(topic, event, response, error))))

        try:
            return await request_push(channel, event, payload, timeout, tell)
        except (errors.ChannelClosed, errors.ConnectionLost, errors.PushTimeout) as error:
            if not is_refused and not by_callback:
                raise
            ref = f"unsent-{next(self._unsent)}"
            tell(ref, None, error)
            return ref

    def running_socket(self) -> Socket:
        """Return the socket; raises `ClientStopped` if the client does not run."""
        if self.socket is None or self.ended:
            raise self._stopped()
        return self.socket

    def _stopped(self) -> errors.ClientStopped:
        """Return a new exception, for those whom nobody will answer: its cause is what has ended the client."""
        stopped = errors.ClientStopped(self._name)
        stopped.__cause__ = self._cause
        return stopped

    def _end_calls(self) -> None:
        for caller in self._callers:
            caller.fail(self._stopped())

    # What the socket tells

    def opened(self) -> None:
        """Take note that a connection is open."""
        self._inbox.put(Entry("handle_connect", (self.socket,), "connects"))

    def closed(self, reason: Exception) -> None:
        """Take note that a connection has ended, all that it owed settled; or that an attempt to have one failed."""
        self._inbox.remove_all("connects")  # it came and went before anybody was told
        self._inbox.put(Entry("handle_disconnect", (reason,), "disconnects"), most=1)

    def finished(self, error: BaseException | None) -> None:
        """Take note that there will be no other connection: because of `error`, or as the user has asked for it."""
        self._loss = error
        self._inbox.finish()

    # The task

    @trio.lowlevel.enable_ki_protection
    async def run(self, configuration: Configuration, task_status: trio.TaskStatus[Socket]) -> None:
        """Connect, and call callbacks until the end."""
        if self._task is not None:
            raise RuntimeError(f"this {self._name} is running already")
        self._task = trio.lowlevel.current_task()
        self._inbox.bound(configuration.buffer)
        try:
            async with connected(configuration, self) as self.socket:
                task_status.started(self.socket)
                try:
                    await self._call_callbacks()
                except BaseException as error:
                    self._cause = error
                    raise
                finally:
                    self._inbox.close()
                    await self._terminate(self._cause)
                    self._end_calls()
        except BaseException as error:
            self._cause = error
            raise
        finally:
            self.ended = True
            self._end_calls()

    async def _call_callbacks(self) -> None:
        socket = self.running_socket()
        while (entry := await self._inbox.get()) is not None:
            try:
                await self._handle(entry)
            except errors.ConnectionLost as lost:
                # As there will be no connection any more, the end is near, and tells why itself.
                if socket.status not in ("closing", "closed"):
                    raise
                logger.debug("%s: %s was interrupted: %s", self._name, entry.callback, lost)
        if self._loss is not None:
            raise self._loss

    async def _handle(self, entry: Entry) -> None:
        if entry.callback == "handle_gap":
            channel, gap = entry.arguments
            if gap.dropped:
                channel._streams.emit(gap)
                if channel._socket._configuration.overflow == "raise":
                    raise errors.SlowConsumer(channel.topic, gap.dropped)
        value = await self._invoke(entry.callback, *entry.arguments)
        if entry.callback == "handle_call" and value is not NO_REPLY:
            entry.arguments[1].reply(value)

    async def _terminate(self, reason: BaseException | None) -> None:
        deadline = self.running_socket()._supervisor.close_deadline()
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            try:
                await self._invoke("terminate", reason)
            except Exception:
                if reason is None or only_cancelled(reason):
                    raise
                logger.exception("%s.terminate raised, while something else is being raised", self._name)
        if scope.cancelled_caught:
            logger.warning("%s.terminate took longer than close_timeout, and was cancelled", self._name)

    async def _invoke(self, name: str, *arguments: Any) -> Any:
        callback, emitter = getattr(self._client, name), self.running_socket()._emitter
        point = emitter.telemetry.span(("slipstream", "client", name))
        if not point.active:
            return await _call(callback, *arguments)

        def stop(first: First, result: Any, _: object) -> ClientCallbackStop:
            return ClientCallbackStop(*first, result)

        def judge(error: BaseException) -> Outcome | None:
            return "cancelled" if only_cancelled(error) else None  # whatever else leaves a callback ends the client

        span = Span(emitter, point, stop, ClientCallbackStart, self._name, name, arguments, judge=judge)
        return await span.around(partial(_call, callback, *arguments))


@trio.lowlevel.disable_ki_protection
async def _call(callback: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Call a callback, which a KeyboardInterrupt may end; in the rest of a run it waits for a checkpoint."""
    return await callback(*arguments)


def of_callback(traceback: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in a callback, if there is one: the way there helps no user."""
    step, code = traceback, unwrap(_call).__code__  # Trio 0.27 wraps it
    while step is not None and step.tb_frame.f_code is not code:
        step = step.tb_next
    return traceback if step is None else step.tb_next
