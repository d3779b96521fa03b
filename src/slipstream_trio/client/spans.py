"""Telemetry of what a client does: spans around its operations, and the single events of a socket."""

import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, TypeVar, final

import trio

from .. import errors
from ..protocol import Frame, Message, State
from ..telemetry import Origin, Outcome, Record, SpanStart, Telemetry, records
from ..telemetry.bus import Point, SpanPoint
from ..telemetry.span import exception_record

if TYPE_CHECKING:
    from .buffer import Consumer, Overflow

FRAME_SHOWN: Final = 256
"""Characters or bytes of a malformed frame that telemetry shows."""

OVERFLOW_INTERVAL: Final = 10.0
"""Seconds between two records of an overflow that lasts."""

logger: Final = logging.getLogger("slipstream_trio")

T = TypeVar("T")
P = ParamSpec("P")

First = tuple[Any, Origin, int, Outcome]
"""What the records that end spans begin with: the start, the ids then, the monotonic time, the outcome."""

Stop = Callable[[First, Any, BaseException | None], Record]
"""Makes the record that ends a span, of what its operation returned or raised."""

_OUTCOMES: dict[type[BaseException], tuple[Outcome, str | None]] = {
    errors.AlreadyJoined: ("error", "already_joined"),
    errors.JoinError: ("error", "refused"),
    errors.PushError: ("error", None),  # its status tells
    errors.ConnectTimeout: ("timeout", "timeout"),
    errors.ConnectError: ("error", "connect_failed"),
    errors.JoinTimeout: ("timeout", "timeout"),
    errors.PushTimeout: ("timeout", "timeout"),
    errors.ConnectionLost: ("lost", "lost"),  # with a reason of its own
    errors.ChannelClosed: ("lost", "lost"),
    trio.Cancelled: ("cancelled", "cancelled"),
}


def outcome_of(error: BaseException) -> Outcome | None:
    """Return how an operation ended that raised `error`; None if code of the user's or ours failed."""
    return next((outcome for kind, (outcome, _) in _OUTCOMES.items() if isinstance(error, kind)), None)


def reason_of(error: BaseException | None) -> str | None:
    """Return why an operation did not succeed, in a word."""
    if isinstance(error, errors.ConnectionLost | errors.ChannelClosed):
        return error.reason
    return next((reason for kind, (_, reason) in _OUTCOMES.items() if isinstance(error, kind)), None)


@final
class Emitter:
    """Emits what a socket and its channels do, under the ids of the connection of the moment."""

    def __init__(self, telemetry: Telemetry, socket_id: str) -> None:
        self.telemetry: Telemetry = telemetry
        self.origin: Origin = Origin(None, None, socket_id, 0)  # the socket's id alone, before a connection
        self.connect: SpanPoint = telemetry.span(records.ClientConnectStart.name[:-1])
        self.join: SpanPoint = telemetry.span(records.ClientJoinStart.name[:-1])
        self.leave: SpanPoint = telemetry.span(records.ClientLeaveStart.name[:-1])
        self.push: SpanPoint = telemetry.span(records.ClientPushStart.name[:-1])
        self.send: SpanPoint = telemetry.span(records.ClientSendStart.name[:-1])
        self._rejected = 0  # frames that are not logged
        self._log_at = -math.inf

    def is_heard(self, kind: type[Record]) -> bool:
        """Tell whether anybody listens to single events of a kind."""
        return bool(self._point(kind).handlers)

    def _point(self, kind: Any) -> Point:
        return self.telemetry.point(kind.name)  # every class of records has one

    def utc_now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(self.telemetry.time_ns() / 1e9, UTC)

    def attempt(self, state: State, number: int) -> "Span":
        """Follow a new connection, and begin the span of the attempt to open it."""
        self.origin = Origin(state.connection_id, state.trace_id, state.socket_id, state.generation)

        def stop(first: First, headers: tuple[tuple[str, str], ...], _: BaseException | None) -> Record:
            return records.ClientConnectStop(*first, headers)

        span = Span(self, self.connect, stop, records.ClientConnectStart, state.options, number)
        span.begin()
        return span

    def emit(
        self, kind: Callable[Concatenate[Origin, int, int, P], Record], *fields: P.args, **named: P.kwargs
    ) -> None:
        """Emit a single event of a kind that has `fields`."""
        point = self._point(kind)
        if point.handlers:
            telemetry = self.telemetry
            point.emit(kind(self.origin, telemetry.time_ns(), telemetry.monotonic_ns(), *fields, **named))

    def dropped(
        self, direction: Literal["in", "out"], message: Message | None, reason: str, frame: Frame | None = None
    ) -> None:
        """Emit that a message, or a malformed frame (then there is none), is dropped."""
        _, ref, topic, event, _ = message or (None, None, None, None, None)
        cut = None if frame is None else frame[:FRAME_SHOWN]
        self.emit(records.MessageDiscarded, direction, topic, event, ref, reason, cut)

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


@final
class Span:
    """The span of an operation, if somebody listens as this is made: it begins and ends once.

    `make` makes the record of its start, with `fields`; `stop` that of its end, with the outcome that `judge` tells by
    what the operation raised: None if code failed.
    """

    __slots__ = ("_begun", "_emitter", "_judge", "_point", "_start", "_stop")

    def __init__(
        self,
        emitter: Emitter,
        point: SpanPoint,
        stop: Stop,
        make: Callable[..., SpanStart],
        *fields: Any,
        judge: Callable[[BaseException], Outcome | None] = outcome_of,
    ) -> None:
        self._emitter, self._point, self._stop, self._judge = emitter, point, stop, judge
        self._begun = False
        self._start: SpanStart | None = None
        if point.active:
            telemetry = emitter.telemetry
            times = telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns()
            self._start = make(emitter.origin, *times, *fields)

    @property
    def is_open(self) -> bool:
        """Whether its end is to be emitted."""
        return self._start is not None

    async def around(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Begin, unless that was done, call and await `operation`, and end."""
        self.begin()
        try:
            result = await operation()
        except BaseException as error:
            self.end(error=error)
            raise
        self.end(result)
        return result

    # An interrupt between two handlers, or between a span's end and its record, would leave a span that never ends.

    @trio.lowlevel.enable_ki_protection
    def begin(self) -> None:
        """Emit the start."""
        if self._start is not None and not self._begun:
            self._begun = True
            self._point.start.emit(self._start)

    @trio.lowlevel.enable_ki_protection
    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Emit the end, a stop or an exception, for what the operation returned or raised."""
        outcome = "ok" if error is None else self._judge(error)
        if outcome is not None:
            self.stop(outcome, result, error)
        elif error is not None:
            self.fail(error)

    def stop(self, outcome: Outcome, result: Any = None, error: BaseException | None = None) -> None:
        """Emit the end, with an outcome."""
        start, self._start = self._start, None
        if start is not None:
            emitter = self._emitter
            now = emitter.telemetry.monotonic_ns()
            self._point.stop.emit(self._stop((start, emitter.origin, now, outcome), result, error))

    def fail(self, error: BaseException) -> None:
        """Emit the end, as code raised an error."""
        start, self._start = self._start, None
        if start is not None:
            emitter = self._emitter
            self._point.exception.emit(exception_record(emitter.telemetry, start, emitter.origin, error))


@final
class Episode:
    """The times in which a consumer's buffer loses messages: told when one begins, now and then, and when it ends."""

    __slots__ = ("_buffer", "_dropped", "_emitter", "_told_at")

    def __init__(self, emitter: Emitter, topic: str, policy: "Overflow", size: int, consumer: "Consumer") -> None:
        self._emitter = emitter
        self._buffer = (topic, policy, size, consumer)
        self._dropped = 0
        self._told_at = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it is told of one that has not ended."""
        return self._dropped > 0

    def drop(self) -> None:
        """Take note of a message that is dropped."""
        self._dropped += 1
        now = trio.current_time()
        if self._dropped == 1 or now - self._told_at >= OVERFLOW_INTERVAL:
            self._told_at = now
            phase: Literal["began", "lasts"] = "began" if self._dropped == 1 else "lasts"
            self._emitter.emit(records.BufferOverflowed, *self._buffer, phase, self._dropped)

    def end(self) -> None:
        """Take note that the consumer has caught up, or that its stream has ended."""
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._emitter.emit(records.BufferOverflowed, *self._buffer, "ended", dropped)
