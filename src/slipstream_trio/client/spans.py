"""Spans of what a client does: emitted in the caller's task, around its operation."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

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
from ..telemetry import Origin, Outcome, Record, SpanStart, Telemetry
from ..telemetry.bus import SpanPoint
from ..telemetry.span import exception_record

__all__ = ["Emitter", "Stop", "end_span", "moment", "observed", "opening", "outcome_of"]

T = TypeVar("T")

Stop = Callable[[Origin, int, Outcome, Any, BaseException | None], Record]
"""Makes the record to end a span with, of the ids then, the monotonic time, the outcome, the result and the error."""

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


class Emitter(Protocol):
    """Who has a bus, and knows the ids of the present."""

    @property
    def telemetry(self) -> Telemetry:
        """The bus."""
        ...

    @property
    def origin(self) -> Origin:
        """The ids of the present."""
        ...


def moment(emitter: Emitter) -> tuple[Origin, int, int]:
    """Return what the record of a single event begins with: ids, system time, monotonic time."""
    telemetry = emitter.telemetry
    return emitter.origin, telemetry.time_ns(), telemetry.monotonic_ns()


def opening(emitter: Emitter) -> tuple[Origin, str, int, int]:
    """Return what the record of a span's start begins with: ids, a new span id, system time, monotonic time."""
    telemetry = emitter.telemetry
    return emitter.origin, telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns()


def outcome_of(error: BaseException) -> Outcome | None:
    """Return how an operation ended that raised `error`; None if code of the user's or ours failed."""
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome
    return None


async def observed(
    emitter: Emitter,
    point: SpanPoint,
    start: SpanStart,
    operation: Awaitable[T],
    stop: Stop,
) -> T:
    """Await `operation` inside of a span.

    Parameters:
        start: the record to begin with.
        stop: makes the record to end with.
    """
    point.start.emit(start)
    try:
        result = await operation
    except BaseException as error:
        end_span(emitter, point, start, stop, error=error)
        raise
    end_span(emitter, point, start, stop, result=result)
    return result


def end_span(
    emitter: Emitter,
    point: SpanPoint,
    start: SpanStart,
    stop: Stop,
    *,
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    """Emit the end of a span, a stop or an exception, for what its operation returned or raised."""
    telemetry = emitter.telemetry
    outcome = "ok" if error is None else outcome_of(error)
    if outcome is not None:
        point.stop.emit(stop(emitter.origin, telemetry.monotonic_ns(), outcome, result, error))
    elif error is not None:
        point.exception.emit(exception_record(telemetry, start, emitter.origin, error))
