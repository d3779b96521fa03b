"""Joins and leaves that were asked for: what a channel knows of its own, and what tasks of users call."""

import math
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, final

import trio
from attrs import define, field

from ..errors import JoinTimeout
from ..protocol import Backoff
from ..protocol.serializer import KeptPayload
from ..telemetry import ClientJoinStart, ClientJoinStop, ClientLeaveStart, ClientLeaveStop, Outcome, Record
from .configuration import DEFAULT, Timeout, chosen
from .handshake import ask
from .spans import First, Span, reason_of
from .status import Result

if TYPE_CHECKING:
    from .channel import Channel

Departure = Literal["left", "leave_timeout", "leave_lost"]


@final
@define(eq=False, repr=False)
class Request:
    """A join that was asked for.

    One `by_user` is awaited by a task; others are repeated, as `rejoin` says, until they succeed. `timeout` is for the
    server's answer; at `deadline` a user's join fails, if that is infinity, `timeout` runs from its turn at the server.
    """

    channel: "Channel"
    timeout: float | None
    deadline: float = math.inf
    by_user: bool = field(kw_only=True)
    slot: Result[None] = field(factory=Result, init=False)  # settled when it may be sent
    answer: Result[Any] = field(factory=Result, init=False)
    sent: bool = field(default=False, init=False)
    number: int = field(default=0, init=False)  # of the joins of the socket, once it may be sent
    reported: bool = field(default=False, init=False)  # that it takes too long
    _asking: trio.CancelScope = field(factory=trio.CancelScope, init=False)  # in which the payload's function runs
    _began: float = field(factory=trio.current_time, init=False)
    _sent_at: float | None = field(default=None, init=False)

    @property
    def over(self) -> bool:
        """Whether it need not be sent any more: it was, or has ended."""
        return self.sent or self.answer.settled

    def expire(self) -> None:
        """Give up, as it could not be sent in time; one of the library may be sent now, as its back-off is over.

        Without a deadline, only the wait for a connection is limited.
        """
        if not self.by_user:
            self.channel._socket._joins.put(self)
        elif self.deadline < math.inf or not self.channel._socket._is_connected:
            self.fail(self.timed_out(sent=False))

    def timed_out(self, *, sent: bool) -> JoinTimeout:
        """Return the error of one that took too long."""
        return JoinTimeout(self.channel.topic, self.timeout or 0.0, sent=sent)

    def fail(self, error: Exception) -> None:
        """End, sent or not."""
        self.answer.fail(error)
        self.slot.fail(error)
        self._asking.cancel()

    def grant(self, number: int) -> None:
        """Let it be sent, as the socket's join of this number."""
        self.number = number
        self.slot.succeed(None)

    def wait_again(self) -> None:
        """Wait for another slot, as the connection ended before this one could be used."""
        self.slot = Result()

    def sending(self, params: Any) -> None:
        """Take note that it is sent now; one that no task awaits begins its telemetry span."""
        self.sent = True
        self._sent_at = trio.current_time()
        if not self.by_user:
            span = self.span(params)
            self.answer = Result(lambda answer: span.end(answer.value, answer.error))
            span.begin()

    def report(self) -> None:
        """Take note that it was reported to take too long."""
        self.reported = True

    async def params(self) -> Any:
        """Return the payload to join with; raises what the user's function does, or why it is not wanted any more."""
        payload = self.channel._payload
        if not self.over:
            if isinstance(payload, KeptPayload):
                return payload.value()
            limit = math.inf if self.timeout is None else trio.current_time() + self.timeout
            with trio.CancelScope(deadline=limit) as self._asking:
                asked = await _ask(payload)
                if trio.current_time() < limit:  # a function that blocks is late, though no cancellation reaches it
                    return {} if asked is None else asked
            if not self.answer.settled:
                raise self.timed_out(sent=False)
        return await self.answer.wait()  # it was left after it had its slot

    def span(self, params: Any) -> Span:
        """Return its telemetry span."""
        emitter = self.channel._socket._emitter
        return Span(emitter, emitter.join, self._stop, ClientJoinStart, self.channel.topic, params)

    def _stop(self, first: First, response: Any, error: BaseException | None) -> Record:
        waited = 0.0  # by the library's: their spans begin when they are sent
        if self.by_user:
            waited = (trio.current_time() if self._sent_at is None else self._sent_at) - self._began
        response = getattr(error, "response", response)
        return ClientJoinStop(*first, response, reason_of(error), round(waited * 1e9))


@trio.lowlevel.disable_ki_protection
async def _ask(payload: Any) -> Any:
    """Call a function of the user's, which a KeyboardInterrupt may end."""
    return await ask(payload)


@final
class Joining:
    """The history of one channel's joins and leaves."""

    __slots__ = ("_ended_at", "begun", "request", "step")

    def __init__(self) -> None:
        self.request: Request | None = None  # that is under way, or waits to be repeated
        self.begun: int = 0  # joins; the latest holds the topic
        self.step: int = 0  # repetitions since a join last went well
        self._ended_at = 0.0  # when the latest join was answered, or given up

    def begin(self, request: Request, step: int) -> None:
        """Take note of a join that takes the topic, now or when its back-off is over."""
        self.request, self.step = request, step
        self.begun += 1

    def finish(self) -> Request | None:
        """Forget the join that is under way, or waits to be repeated, and return it."""
        request, self.request = self.request, None
        self._ended_at = trio.current_time()
        return request

    def lasted(self, backoff: Backoff | None) -> None:
        """Take note that the channel is joined no longer: if it was for long enough, the back-off begins anew."""
        if backoff is not None:
            self.step = backoff.step_after(self.step, trio.current_time() - self._ended_at)


def join(channel: "Channel", timeout: Timeout) -> Coroutine[Any, Any, Any]:
    """Join for the first time; see `Channel.join`. To be awaited at once."""
    socket = channel._socket
    seconds = chosen(timeout, socket._options.join_timeout)
    # An explicit limit runs from the call, the option's from the turn of the join at the server.
    deadline = math.inf if timeout is DEFAULT or seconds is None else trio.current_time() + seconds
    request = Request(channel, seconds, deadline, by_user=True)
    if not socket._emitter.join.active:
        return socket._joins.join(request)  # without the span's lines in a traceback
    params = None if callable(channel._given_payload) else channel._given_payload  # a function is asked later
    return request.span(params).around(partial(socket._joins.join, request))


def leave(channel: "Channel", timeout: float | None) -> Coroutine[Any, Any, Departure]:
    """Leave, and wait until that is confirmed or given up; returns how it ended. To be awaited at once."""
    if not channel._socket._emitter.leave.active:
        return _leave(channel, timeout)  # without the span's coroutines, as many may be left at once
    return _span(channel).around(partial(_leave, channel, timeout))


async def _leave(channel: "Channel", timeout: float | None) -> Departure:
    await trio.lowlevel.checkpoint()
    channel._socket._joins.leave_soon(channel, timeout)
    return await _until_left(channel)


async def _until_left(channel: "Channel") -> Departure:
    """Wait until a leave that was asked for is complete, or given up; returns how it ended."""
    waited = False
    while channel.status == "leaving":
        waited = True
        await channel._changed.next()
    return channel._left_by if waited else "left"


@trio.lowlevel.enable_ki_protection
async def request_leave(channel: "Channel") -> None:
    """Leave, and return when that is asked for."""
    await trio.lowlevel.checkpoint()
    span = _span(channel)
    span.begin()
    channel.leave_soon()
    if channel.status != "leaving":
        span.end("left")
    elif span.is_open:
        channel._socket._supervisor.tasks.start(span.around, partial(_until_left, channel))


def _span(channel: "Channel") -> Span:
    emitter = channel._socket._emitter
    return Span(emitter, emitter.leave, _leave_stop, ClientLeaveStart, channel.topic, {})


def _leave_stop(first: First, how: str | None, error: BaseException | None) -> Record:
    start, origin, now, outcome = first
    outcomes: dict[str | None, Outcome] = {"leave_timeout": "timeout", "leave_lost": "lost"}
    reason = how if how in outcomes else reason_of(error)
    return ClientLeaveStop(start, origin, now, outcomes.get(how, outcome), None, reason)


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

    @trio.lowlevel.enable_ki_protection  # or an interrupt might keep the topic
    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:  # leave, and wait until the deadline of the first exit of the row
                exits = self._channel._socket._exits
                deadline = exits.take_deadline()
                left = deadline - trio.current_time()
                if left > 0:
                    await leave(self._channel, None if left == math.inf else left)
                else:
                    await request_leave(self._channel)
                exits.ended(deadline)
        except BaseException:
            self._channel.leave_soon()  # the leave was cancelled before it was sent, perhaps
            raise
        if error is not None:
            self._channel.leave_soon()
