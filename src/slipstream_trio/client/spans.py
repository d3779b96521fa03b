"""Spans of what a client does: emitted in the caller's task, around its operation."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

from ..errors import (
    AlreadyJoined,
    ChannelClosed,
    ConnectError,
    ConnectionLost,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
)
from ..telemetry import Origin, Outcome, Record, SpanStart, Telemetry
from ..telemetry.bus import SpanPoint
from ..telemetry.span import exception_record

__all__ = ["Emitter", "moment", "observed", "opening", "outcome_of"]

T = TypeVar("T")

_OUTCOMES: dict[type[BaseException], Outcome] = {
    AlreadyJoined: "error",
    JoinError: "error",
    PushError: "error",
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
    stop: Callable[[Origin, int, Outcome, T | None, BaseException | None], Record],
) -> T:
    """Await `operation` inside of a span.

    Parameters:
        start: the record to begin with.
        stop: makes the record to end with, of the ids then, the monotonic time, the outcome, the result and the error.
    """
    telemetry = emitter.telemetry
    point.start.emit(start)
    try:
        result = await operation
    except BaseException as error:
        outcome = outcome_of(error)
        if outcome is None:
            point.exception.emit(exception_record(telemetry, start, emitter.origin, error))
        else:
            point.stop.emit(stop(emitter.origin, telemetry.monotonic_ns(), outcome, None, error))
        raise
    point.stop.emit(stop(emitter.origin, telemetry.monotonic_ns(), "ok", result, None))
    return result
