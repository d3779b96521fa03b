"""Spans: pairs of records around something that takes time."""

import traceback
from typing import Final

from ..lean import lean
from ..protocol import Input, State, Transition
from .bus import SpanPoint, Telemetry
from .records import ConnectStart, ConnectStop, HandleStart, HandleStop, Origin, SpanException, SpanStart

__all__ = ["ConnectionSpans", "exception_record"]

handle_start: Final = lean(HandleStart)
handle_stop: Final = lean(HandleStop)


def exception_record(telemetry: Telemetry, start: SpanStart, origin: Origin, error: BaseException) -> SpanException:
    """Return the record of a span whose code raised `error`."""
    return SpanException(
        start,
        origin,
        telemetry.monotonic_ns(),
        type(error).__name__,
        str(error),
        "".join(traceback.format_exception(error)),
    )


class ConnectionSpans:
    """The spans of one connection: its life, and each input that it handles.

    A span is emitted whole or not at all: if nobody listened at its start, `start_connect` returns None, and
    `stop_connect` of None does nothing; `new_handle` is called only if somebody listens.

    Parameters:
        telemetry: the bus.
        origin: the connection's ids.
    """

    def __init__(self, telemetry: Telemetry, origin: Origin) -> None:
        self._telemetry = telemetry
        self._origin = origin
        self._connect = telemetry.span(ConnectStart.name[:-1])
        self.handle: SpanPoint = telemetry.span(HandleStart.name[:-1])

    def start_connect(self, state: State) -> ConnectStart | None:
        """Emit the beginning of the connection's life."""
        if not self._connect.active:
            return None
        telemetry = self._telemetry
        start = ConnectStart(self._origin, telemetry.time_ns(), telemetry.monotonic_ns(), state)
        self._connect.start.emit(start)
        return start

    def stop_connect(self, start: ConnectStart | None, state: State, reason: str) -> None:
        """Emit the end of the connection's life."""
        if start is not None:
            self._connect.stop.emit(ConnectStop(start, self._telemetry.monotonic_ns(), state, reason))

    def fail_connect(self, start: ConnectStart | None, error: BaseException) -> None:
        """Emit the end of the connection's life by a bug."""
        if start is not None:
            self._connect.exception.emit(exception_record(self._telemetry, start, self._origin, error))

    def new_handle(self, given: Input, state: State) -> HandleStart:
        """Return the record that begins the handling of an input, to be emitted at `handle.start` if that is active."""
        telemetry = self._telemetry
        return handle_start(
            self._origin, telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns(), given, state
        )

    def stop_handle(self, start: HandleStart, transition: Transition) -> None:
        """Emit what the handling of an input came to."""
        self.handle.stop.emit(handle_stop(start, self._telemetry.monotonic_ns(), transition))

    def fail_handle(self, start: HandleStart, error: BaseException) -> None:
        """Emit that an input could not be handled."""
        self.handle.exception.emit(exception_record(self._telemetry, start, self._origin, error))
