"""Telemetry of what a client does: spans around its operations, and the single events of a socket."""

import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
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
from ..protocol import Disconnect, Message, Options, ReplyReceived
from ..telemetry import (
    BufferOverflowed,
    ClientConnectStart,
    ClientConnectStop,
    ClientJoinStart,
    ClientLeaveStart,
    ClientPushStart,
    GapOpened,
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
from ..telemetry.span import exception_record

if TYPE_CHECKING:
    from .buffer import Gap, Overflow

__all__ = ["Attempt", "Emitter", "Stop", "outcome_of"]

logger: Final = logging.getLogger("slipstream_trio")

T = TypeVar("T")

Stop = Callable[[Origin, int, Outcome, Any, BaseException | None], Record]
"""Makes the record that ends a span, of the ids then, the monotonic time, the outcome, the result and the error."""

_OUTCOMES: dict[type[BaseException], Outcome] = {
    AlreadyJoined: "error",
    JoinError: "error",
    PushError: "error",
    ConnectTimeout: "timeout",
    ConnectError: "error",
    JoinTimeout: "timeout",
    PushTimeout: "timeout",
    ConnectionLost: "lost",
    ChannelClosed: "lost",
    trio.Cancelled: "cancelled",
}


def outcome_of(error: BaseException) -> Outcome | None:
    """Return how an operation ended that raised `error`; None if code of the user's or ours failed."""
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome
    return None


@final
class Emitter:
    """Emits what a socket and its channels do, under the ids of the connection of the moment.

    Parameters:
        telemetry: the bus.
        socket_id: the socket's id.

    Attributes:
        telemetry: the bus.
        origin: the ids of the connection of the moment; without a connection, the socket's alone.
        connect: where the spans of attempts to connect are emitted; likewise `join`, `leave` and `push`.
    """

    def __init__(self, telemetry: Telemetry, socket_id: str) -> None:
        self.telemetry: Telemetry = telemetry
        self.origin: Origin = Origin(None, None, socket_id, 0)
        self.connect: SpanPoint = telemetry.span(ClientConnectStart.name[:-1])
        self.join: SpanPoint = telemetry.span(ClientJoinStart.name[:-1])
        self.leave: SpanPoint = telemetry.span(ClientLeaveStart.name[:-1])
        self.push: SpanPoint = telemetry.span(ClientPushStart.name[:-1])
        self._gap = telemetry.point(GapOpened.name)
        self._overflow = telemetry.point(BufferOverflowed.name)
        self._discarded = telemetry.point(MessageDiscarded.name)
        self._orphaned = telemetry.point(ReplyOrphaned.name)
        self._reconnect = telemetry.point(ReconnectScheduled.name)
        self._rejoin = telemetry.point(RejoinScheduled.name)
        self._rejected = 0  # frames that are not logged
        self._log_at = -math.inf

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

    def overflow(
        self, topic: str, policy: "Overflow", size: int, consumer: Literal["channel", "subscription", "client"]
    ) -> None:
        """Emit that a consumer's buffer of `size` messages has begun to lose some."""
        if self._overflow.handlers:
            self._overflow.emit(BufferOverflowed(*self._moment(), topic, policy, size, consumer))

    def dropped(self, direction: Literal["in", "out"], message: Message | None, reason: str) -> None:
        """Emit that a message, or what cannot be read as one (None), is dropped."""
        if self._discarded.handlers:
            _, ref, topic, event, _ = message or (None, None, None, None, None)
            self._discarded.emit(MessageDiscarded(*self._moment(), direction, topic, event, ref, reason))

    def rejected(self, reason: str) -> None:
        """Tell that a frame, or its payload, is malformed; log it at most once a second, as there may be a flood."""
        self.dropped("in", None, reason)
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
        self, point: SpanPoint, start: SpanStart, operation: Callable[[], Awaitable[T]], stop: Stop
    ) -> T:
        """Call and await `operation` inside of a span.

        Parameters:
            point: where it is emitted.
            start: the record to begin with.
            operation: what to call.
            stop: makes the record to end with.
        """
        self.begin_span(point, start)
        try:
            result = await operation()
        except BaseException as error:
            self.end_span(point, start, stop, error=error)
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
    ) -> None:
        """Emit the end of a span, a stop or an exception, for what its operation returned or raised."""
        outcome = "ok" if error is None else outcome_of(error)
        if outcome is not None:
            point.stop.emit(stop(self.origin, self.telemetry.monotonic_ns(), outcome, result, error))
        elif error is not None:
            point.exception.emit(exception_record(self.telemetry, start, self.origin, error))

    def _moment(self) -> tuple[Origin, int, int]:
        """Return how the record of a single event begins: ids, system time, monotonic time."""
        return self.origin, self.telemetry.time_ns(), self.telemetry.monotonic_ns()


@final
class Attempt:
    """The span of an attempt to connect; it ends once.

    Parameters:
        emitter: emits it.
        start: how it began; None if nobody observes it.
    """

    def __init__(self, emitter: Emitter, start: ClientConnectStart | None) -> None:
        self._emitter = emitter
        self._start = start

    def ended(self, outcome: Outcome, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Emit how it ended."""
        start, self._start = self._start, None
        emitter = self._emitter
        if start is not None:
            now = emitter.telemetry.monotonic_ns()
            emitter.connect.stop.emit(ClientConnectStop(start, emitter.origin, now, outcome, headers))

    def failed(self, error: BaseException) -> None:
        """Emit that code raised an error."""
        start, self._start = self._start, None
        emitter = self._emitter
        if start is not None:
            emitter.connect.exception.emit(exception_record(emitter.telemetry, start, emitter.origin, error))
