"""Telemetry of what a client does: spans around its operations, and the single events of a socket."""

import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

import trio

from ..errors import (
    AlreadyJoined,
    ChannelClosed,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
)
from ..protocol import Disconnect, Frame, Message, Options, ReplyReceived
from ..telemetry import (
    BufferOverflowed,
    ClientConnectStart,
    ClientConnectStop,
    ClientGaveUp,
    ClientJoinStart,
    ClientJoinStop,
    ClientLeaveStart,
    ClientLeaveStop,
    ClientPushStart,
    ClientSendStart,
    ClientSendStop,
    GapOpened,
    LoopStalled,
    MessageDiscarded,
    Origin,
    Outcome,
    ReconnectScheduled,
    Record,
    RejoinScheduled,
    ReplyOrphaned,
    SpanStart,
    Telemetry,
)
from ..telemetry.bus import SpanPoint
from ..telemetry.span import exception_record, push_end

if TYPE_CHECKING:
    from .buffer import Consumer, Gap, Overflow
    from .join_queue import Request
    from .push import Call

__all__ = ["Attempt", "Emitter", "Episode", "Stop", "join_stop", "leave_stop", "outcome_of", "push_stop", "send_stop"]

FRAME_SHOWN: Final = 256
"""Characters or bytes of a malformed frame that telemetry shows."""

OVERFLOW_INTERVAL: Final = 10.0
"""Seconds between two records of an overflow that lasts."""

logger: Final = logging.getLogger("slipstream_trio")

T = TypeVar("T")

Operation = Callable[[], Awaitable[T]]

Phase = Literal["began", "lasts", "ended"]

Stop = Callable[[Origin, int, Outcome, Any, BaseException | None], Record]
"""Makes the record that ends a span, of the ids then, the monotonic time, the outcome, the result and the error."""

Judge = Callable[[BaseException], Outcome | None]
"""Tells how an operation ended by what it raised; None if code failed."""

_OUTCOMES: dict[type[BaseException], tuple[Outcome, str | None]] = {
    AlreadyJoined: ("error", "already_joined"),
    JoinError: ("error", "refused"),
    PushError: ("error", None),  # its status tells
    ConnectTimeout: ("timeout", "timeout"),
    ConnectError: ("error", "connect_failed"),
    JoinTimeout: ("timeout", "timeout"),
    PushTimeout: ("timeout", "timeout"),
    ConnectionLost: ("lost", "lost"),  # with a reason of its own
    ChannelClosed: ("lost", "lost"),
    trio.Cancelled: ("cancelled", "cancelled"),
}


def outcome_of(error: BaseException) -> Outcome | None:
    """Return how an operation ended that raised `error`; None if code of the user's or ours failed."""
    return next((outcome for kind, (outcome, _) in _OUTCOMES.items() if isinstance(error, kind)), None)


def _reason_of(error: BaseException | None) -> str | None:
    """Return why an operation did not succeed, in a word."""
    if error is None:
        return None
    if isinstance(error, ConnectionLost | ChannelClosed):
        return error.reason
    return next((reason for kind, (_, reason) in _OUTCOMES.items() if isinstance(error, kind)), None)


@final
class Emitter:
    """Emits what a socket and its channels do, under the ids of the connection of the moment."""

    def __init__(self, telemetry: Telemetry, socket_id: str) -> None:
        self.telemetry: Telemetry = telemetry
        self.origin: Origin = Origin(None, None, socket_id, 0)  # the socket's id alone, before a connection
        self.connect: SpanPoint = telemetry.span(ClientConnectStart.name[:-1])
        self.join: SpanPoint = telemetry.span(ClientJoinStart.name[:-1])
        self.leave: SpanPoint = telemetry.span(ClientLeaveStart.name[:-1])
        self.push: SpanPoint = telemetry.span(ClientPushStart.name[:-1])
        self.send: SpanPoint = telemetry.span(ClientSendStart.name[:-1])
        self._gap = telemetry.point(GapOpened.name)
        self._overflow = telemetry.point(BufferOverflowed.name)
        self._discarded = telemetry.point(MessageDiscarded.name)
        self._orphaned = telemetry.point(ReplyOrphaned.name)
        self._reconnect = telemetry.point(ReconnectScheduled.name)
        self._rejoin = telemetry.point(RejoinScheduled.name)
        self._gave_up = telemetry.point(ClientGaveUp.name)
        self._stalled = telemetry.point(LoopStalled.name)
        self._rejected = 0  # frames that are not logged
        self._log_at = -math.inf

    @property
    def watches_loop(self) -> bool:
        """Whether somebody wants to know when the event loop does not run."""
        return bool(self._stalled.handlers)

    def utc_now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(self.telemetry.time_ns() / 1e9, UTC)

    def attempt(self, origin: Origin, options: Options, number: int) -> "Attempt":
        """Follow a new connection, and begin the span of the attempt to open it."""
        self.origin = origin
        start = None
        if self.connect.active:
            start = ClientConnectStart(*self.opening(), options, number)
            self.connect.start.emit(start)
        return Attempt(self, start)

    # Single events

    def gap(self, topic: str, gap: "Gap") -> None:
        """Emit where messages may be missing, or how many are."""
        if self._gap.handlers:
            self._gap.emit(GapOpened(*self._moment(), topic, gap.reason, gap.since, gap.until, gap.dropped))

    def overflow(  # noqa: PLR0917 - the record's own fields
        self, topic: str, policy: "Overflow", size: int, consumer: "Consumer", phase: Phase, dropped: int
    ) -> None:
        """Emit that a consumer's buffer of `size` messages loses some, or does so no longer."""
        if self._overflow.handlers:
            self._overflow.emit(BufferOverflowed(*self._moment(), topic, policy, size, consumer, phase, dropped))

    def dropped(
        self, direction: Literal["in", "out"], message: Message | None, reason: str, frame: Frame | None = None
    ) -> None:
        """Emit that a message, or a malformed frame (then there is none), is dropped."""
        if self._discarded.handlers:
            _, ref, topic, event, _ = message or (None, None, None, None, None)
            cut = None if frame is None else frame[:FRAME_SHOWN]
            self._discarded.emit(MessageDiscarded(*self._moment(), direction, topic, event, ref, reason, cut))

    def stalled(self, seconds: float) -> None:
        """Emit that the event loop did not run for so long."""
        if self._stalled.handlers:
            self._stalled.emit(LoopStalled(*self._moment(), seconds))

    def gave_up(self, disconnect: Disconnect, attempts: int, error: BaseException | None) -> None:
        """Emit that there will be no other connection, after so many attempts to have one."""
        if self._gave_up.handlers:
            hint = str(disconnect.error or error or "")
            self._gave_up.emit(ClientGaveUp(*self._moment(), disconnect.reason, attempts, disconnect.status, hint))

    def rejected(self, reason: str, frame: Frame | None) -> None:
        """Tell that a frame, or its payload, is malformed; log it at most once a second, as there may be a flood."""
        self.dropped("in", None, reason, frame)
        self._rejected += 1
        if trio.current_time() >= self._log_at:
            self.log_rejected(reason)

    def log_rejected(self, reason: str = "see message_dropped in telemetry") -> None:
        """Log the frames that were rejected since this was done last, if there are any."""
        if self._rejected:
            number = "a frame was" if self._rejected == 1 else f"{self._rejected} frames were"
            logger.warning("connection %s: %s rejected: %s", self.origin.connection_id, number, reason)
            self._rejected, self._log_at = 0, trio.current_time() + 1

    def orphaned(self, reply: ReplyReceived, why: Literal["cancelled", "timeout"]) -> None:
        """Emit that the reply to a push came after the push was given up."""
        if self._orphaned.handlers:
            self._orphaned.emit(
                ReplyOrphaned(*self._moment(), reply.topic, reply.ref, reply.status, reply.response, why)
            )

    def reconnect_scheduled(self, disconnect: Disconnect, delay: float, attempt: int) -> None:
        """Emit that another attempt to connect follows in `delay` seconds."""
        if self._reconnect.handlers:
            ended = (disconnect.reason, disconnect.code, disconnect.status)
            self._reconnect.emit(ReconnectScheduled(*self._moment(), delay, attempt, *ended))

    def rejoin_scheduled(self, topic: str, delay: float, attempt: int, ending: str) -> None:
        """Emit that a channel is joined again in `delay` seconds."""
        if self._rejoin.handlers:
            self._rejoin.emit(RejoinScheduled(*self._moment(), topic, delay, attempt, ending))

    # Spans

    def opening(self) -> tuple[Origin, str, int, int]:
        """Return how the record of a span's start begins: ids, a new span id, system time, monotonic time."""
        telemetry = self.telemetry
        return self.origin, telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns()

    async def observed(
        self, point: SpanPoint, start: SpanStart, operation: Operation[T], stop: Stop, judge: Judge = outcome_of
    ) -> T:
        """Call and await `operation` inside of a span; `stop` makes the record to end with, of what `judge` says."""
        self.begin_span(point, start)
        try:
            result = await operation()
        except BaseException as error:
            self.end_span(point, start, stop, error=error, judge=judge)
            raise
        self.end_span(point, start, stop, result=result)
        return result

    # An interrupt between two handlers, or between a span's end and its record, would leave a span that never ends.

    @trio.lowlevel.enable_ki_protection
    def begin_span(self, point: SpanPoint, start: SpanStart) -> None:
        """Emit the start of a span, which has to be ended by `end_span`."""
        point.start.emit(start)

    @trio.lowlevel.enable_ki_protection
    def end_span(
        self,
        point: SpanPoint,
        start: SpanStart,
        stop: Stop,
        *,
        result: Any = None,
        error: BaseException | None = None,
        judge: Judge = outcome_of,
    ) -> None:
        """Emit the end of a span, a stop or an exception, for what its operation returned or raised."""
        outcome = "ok" if error is None else judge(error)
        if outcome is not None:
            point.stop.emit(stop(self.origin, self.telemetry.monotonic_ns(), outcome, result, error))
        elif error is not None:
            point.exception.emit(exception_record(self.telemetry, start, self.origin, error))

    def _moment(self) -> tuple[Origin, int, int]:
        """Return how the record of a single event begins: ids, system time, monotonic time."""
        return self.origin, self.telemetry.time_ns(), self.telemetry.monotonic_ns()


@final
class Attempt:
    """The span of an attempt to connect; it ends once."""

    def __init__(self, emitter: Emitter, start: ClientConnectStart | None) -> None:
        self._emitter = emitter
        self._start = start

    def ended(self, outcome: Outcome, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Emit how it ended."""
        if self._start is not None:
            start, self._start, emitter = self._start, None, self._emitter
            now = emitter.telemetry.monotonic_ns()
            emitter.connect.stop.emit(ClientConnectStop(start, emitter.origin, now, outcome, headers))

    def failed(self, error: BaseException) -> None:
        """Emit that code raised an error."""
        if self._start is not None:
            start, self._start, emitter = self._start, None, self._emitter
            emitter.connect.exception.emit(exception_record(emitter.telemetry, start, emitter.origin, error))


@final
class Episode:
    """The times in which a consumer's buffer loses messages: told when one begins, now and then, and when it ends."""

    __slots__ = ("_dropped", "_tell", "_told_at")

    def __init__(self, emitter: Emitter, topic: str, policy: "Overflow", size: int, consumer: "Consumer") -> None:
        self._tell = partial(emitter.overflow, topic, policy, size, consumer)
        self._dropped = 0
        self._told_at = 0.0

    def drop(self) -> None:
        """Take note of a message that is dropped."""
        self._dropped += 1
        now = trio.current_time()
        if self._dropped == 1 or now - self._told_at >= OVERFLOW_INTERVAL:
            self._told_at = now
            self._tell("began" if self._dropped == 1 else "lasts", self._dropped)

    def end(self) -> None:
        """Take note that the consumer has caught up, or that its stream has ended."""
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._tell("ended", dropped)


# The records that end spans


def join_stop(start: ClientJoinStart, request: "Request") -> Stop:
    """Return what makes the record that a join has ended."""

    def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
        waited = round(request.waited * 1e9) if request.by_user else 0  # of others, the span begins when they are sent
        response = getattr(error, "response", response)
        return ClientJoinStop(start, origin, now, outcome, response, _reason_of(error), waited)

    return stop


def leave_stop(start: ClientLeaveStart) -> Stop:
    """Return what makes the record that a leave has ended, of the word for how that was."""
    outcomes: dict[str | None, Outcome] = {"leave_timeout": "timeout", "leave_lost": "lost"}

    def stop(origin: Origin, now: int, outcome: Outcome, how: str | None, error: BaseException | None) -> Record:
        reason = how if how in outcomes else _reason_of(error)
        return ClientLeaveStop(start, origin, now, outcomes.get(how, outcome), None, reason)

    return stop


def push_stop(start: ClientPushStart, push: "Call") -> Stop:
    """Return what makes the record that a push has ended."""

    def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
        status = "ok" if error is None else getattr(error, "status", None)
        sent = push.ref is not None and (status is not None or getattr(error, "sent", push.may_be_sent))
        result = getattr(error, "response", response), _reason_of(error), sent, _waited(push)
        return push_end(start, origin, now, outcome, push.ref, status, *result)

    return stop


def send_stop(start: ClientSendStart, send: "Call") -> Stop:
    """Return what makes the record that a send has ended."""

    def stop(origin: Origin, now: int, outcome: Outcome, _: Any, error: BaseException | None) -> Record:
        return ClientSendStop(start, origin, now, outcome, send.ref, _reason_of(error), _waited(send))

    return stop


def _waited(call: "Call") -> int:
    """Return the nanoseconds that a call waited to be queued, or has waited in vain."""
    return round((trio.current_time() - call.began if call.ref is None else call.waited) * 1e9)
