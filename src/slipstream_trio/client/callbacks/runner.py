"""What runs a callback client: one task that calls the callbacks, one at a time, in order."""

import logging
import math
from typing import Any, Final

import trio

from ...errors import (
    AlreadyJoined,
    CallTimeout,
    ChannelClosed,
    ClientBusy,
    ClientStopped,
    ConnectionLost,
    PushTimeout,
    SlowConsumer,
)
from ...telemetry import ClientCallbackStart, ClientCallbackStop
from ...telemetry.bus import SpanPoint
from ...telemetry.span import exception_record
from ..buffer import Gap
from ..channel import Channel
from ..configuration import Configuration
from ..connect import connected
from ..join import request_join
from ..leave import request_leave
from ..push import request_push
from ..result import only_cancelled
from ..socket import Socket
from .inbox import ChannelBacklog, Entry, Inbox, Latest
from .replies import NO_REPLY, Caller, Reply

__all__ = ["CALLBACKS", "Runner"]

logger: Final = logging.getLogger("slipstream_trio")

CALLBACKS: Final = (
    "handle_connect",
    "handle_disconnect",
    "handle_join",
    "handle_message",
    "handle_reply",
    "handle_topic_close",
    "handle_leave",
    "handle_gap",
    "handle_info",
    "handle_call",
    "handle_cast",
    "terminate",
)


class Runner:
    """One run of a client: its task calls what the inbox says, and its socket tells it of connections.

    Parameters:
        client: whose callbacks are called: an object that has all of `CALLBACKS`.

    Attributes:
        socket: what the client runs on, None before it does.
        ended: whether the run is over.
    """

    def __init__(self, client: object) -> None:
        self.socket: Socket | None = None
        self.ended: bool = False
        self._client = client
        self._name = type(client).__name__
        self._inbox = Inbox()
        self._connects = Latest(self._inbox)
        self._disconnects = Latest(self._inbox)
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None
        self._callers: set[Caller] = set()
        self._spans: dict[str, SpanPoint] = {}

    @property
    def is_running(self) -> bool:
        """Whether somebody runs it."""
        return self._task is not None and not self.ended

    # What others ask

    def stop(self) -> None:
        """Call nothing any more but `terminate`."""
        self._inbox.close()

    def post(self, callback: str, message: Any) -> None:
        """Let a cast or an info be handled."""
        if self._inbox.closed:
            raise ClientStopped(self._name)
        if not self._inbox.has_room:
            raise ClientBusy(self._name, self._inbox.limit)
        self._inbox.put(Entry(callback, (message,)))

    async def call(self, message: Any, timeout: float | None) -> Any:
        """Let a call be handled, and wait for the answer."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._inbox.closed:
            raise ClientStopped(self._name)
        if trio.lowlevel.current_task() is self._task:
            raise RuntimeError(f"a callback of {self._name} called its own client, and would wait for itself")
        caller = Caller()
        number = self._inbox.put(Entry("handle_call", (message, caller)))
        self._callers.add(caller)
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                return await caller.wait()
        finally:
            self._callers.discard(caller)
            self._inbox.remove(number)
        raise CallTimeout(self._name, timeout or 0.0)

    async def join(self, topic: str, payload: Any) -> None:
        """Ask for a topic, unless it is held."""
        socket = self.running_socket()
        held = socket._channels.get(topic)
        if held is not None and held.status != "leaving":
            await trio.lowlevel.checkpoint()
            return
        channel = socket.channel(topic, payload)
        channel._tell(ChannelBacklog(self._inbox, channel))
        try:
            await request_join(channel)
        except AlreadyJoined:
            return  # somebody else was waiting for the leave, too

    async def leave(self, topic: str) -> None:
        """Give up a topic, if it is held."""
        channel = self.running_socket()._channels.get(topic)
        if channel is None:
            await trio.lowlevel.checkpoint()
        else:
            await request_leave(channel)

    async def push(self, topic: str, event: str, payload: Any, timeout: float | None) -> str:
        """Push, and return the ref when that is queued."""
        channel = self.running_socket()._channels.get(topic)
        if channel is None:
            await trio.lowlevel.checkpoint()
            raise ChannelClosed(topic, "not_joined")

        def tell(ref: str, response: Any, error: Exception | None) -> None:
            self._inbox.put(Entry("handle_reply", (ref, Reply(topic, event, response, error))))

        left = await self._until_room(topic, event, timeout)
        ref = await request_push(channel, event, payload, left, tell)
        self._inbox.expect_reply()
        return ref

    async def _until_room(self, topic: str, event: str, timeout: float | None) -> float | None:
        """Let a task that pushes wait while too many replies are not handled; returns what is left of `timeout`."""
        if self._inbox.has_room_for_reply or trio.lowlevel.current_task() is self._task:  # which would wait for itself
            return timeout
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        try:
            with trio.fail_at(deadline):
                await self._inbox.room_for_reply()
        except trio.TooSlowError:
            raise PushTimeout(topic, event, timeout or 0.0) from None
        return None if timeout is None else deadline - trio.current_time()

    def running_socket(self) -> Socket:
        """Return the socket; raises `ClientStopped` if the client does not run."""
        if self.socket is None or self.ended:
            raise ClientStopped(self._name)
        return self.socket

    # What the socket tells

    def opened(self) -> None:
        """Take note that a connection is open."""
        self._connects.put(Entry("handle_connect", (self.socket,)))

    def closed(self, reason: Exception) -> None:
        """Take note that a connection has ended, all that it owed settled; or that an attempt to have one failed."""
        self._connects.drop()  # it came and went before anybody was told
        self._disconnects.put(Entry("handle_disconnect", (reason,)))

    def finished(self, error: BaseException | None) -> None:
        """Take note that there will be no other connection: because of `error`, or as the user has asked for it."""
        self._error = error
        self._inbox.finish()

    # The task

    async def run(self, configuration: Configuration) -> None:
        """Connect, and call callbacks until the end."""
        self._task = trio.lowlevel.current_task()
        self._inbox.bound(configuration.buffer)
        self._spans = {name: configuration.telemetry.span(("slipstream", "client", name)) for name in CALLBACKS}
        try:
            async with connected(configuration, self) as self.socket:
                await self._serve()
        finally:
            self.ended = True
            self._end_calls()

    async def _serve(self) -> None:
        reason: BaseException | None = None
        try:
            await self._call_callbacks()
        except BaseException as error:
            reason = error
            raise
        finally:
            self._inbox.close()
            await self._terminate(reason)
            self._end_calls()

    async def _call_callbacks(self) -> None:
        socket = self.running_socket()
        while (entry := await self._inbox.get()) is not None:
            try:
                await self._handle(entry)
            except ConnectionLost as lost:
                # As there will be no connection any more, the end is near, and tells why itself.
                if socket.status not in ("closing", "closed"):
                    raise
                logger.debug("%s: %s was interrupted: %s", self._name, entry.callback, lost)
        if self._error is not None:
            raise self._error

    async def _handle(self, entry: Entry) -> None:
        if entry.callback == "handle_call":
            await self._answer(*entry.arguments)
        elif entry.callback == "handle_gap":
            await self._tell_gap(*entry.arguments)
        else:
            await self._invoke(entry.callback, *entry.arguments)

    async def _answer(self, message: Any, caller: Caller) -> None:
        value = await self._invoke("handle_call", message, caller)
        if value is not NO_REPLY:
            caller.reply(value)

    async def _tell_gap(self, channel: Channel, gap: Gap) -> None:
        if gap.dropped and self.running_socket()._configuration.overflow == "raise":
            raise SlowConsumer(channel.topic, gap.dropped)
        await self._invoke("handle_gap", channel, gap)

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

    def _end_calls(self) -> None:
        for caller in self._callers:
            caller.fail(ClientStopped(self._name))

    # Calling one

    async def _invoke(self, name: str, *arguments: Any) -> Any:
        callback = getattr(self._client, name)
        point = self._spans[name]
        if not point.active:
            return await callback(*arguments)
        socket = self.running_socket()
        emitter = socket._emitter
        start = ClientCallbackStart(*emitter.opening(), self._name, name, arguments)
        emitter.begin_span(point, start)
        try:
            result = await callback(*arguments)
        except BaseException as error:
            self._end_span(socket, point, start, error=error)
            raise
        self._end_span(socket, point, start, result=result)
        return result

    @staticmethod
    @trio.lowlevel.enable_ki_protection
    def _end_span(
        socket: Socket,
        point: SpanPoint,
        start: ClientCallbackStart,
        *,
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        emitter = socket._emitter
        if error is None or only_cancelled(error):
            now = emitter.telemetry.monotonic_ns()
            point.stop.emit(
                ClientCallbackStop(start, emitter.origin, now, "ok" if error is None else "cancelled", result)
            )
        else:
            point.exception.emit(exception_record(emitter.telemetry, start, emitter.origin, error))
