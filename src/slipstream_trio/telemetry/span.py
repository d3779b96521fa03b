"""Spans: pairs of records around something that takes time."""

import traceback
from collections.abc import Callable
from typing import Final

from ..errors import ConnectionLost, ProtocolError
from ..lean import lean
from ..protocol import Frame, Input, Message, Serializer, State, Transition, handle, is_plain
from ..protocol.transitions import receive
from . import records
from .bus import SpanPoint, Telemetry

handle_start: Final = lean(records.HandleStart)
handle_stop: Final = lean(records.HandleStop)
push_start: Final = lean(records.ClientPushStart)
push_end: Final = lean(records.ClientPushStop)


def exception_record(
    telemetry: Telemetry, start: records.SpanStart, origin: records.Origin, error: BaseException
) -> records.SpanException:
    """Return the record of a span whose code raised `error`."""
    told = type(error).__name__, str(error), "".join(traceback.format_exception(error))
    return records.SpanException(start, origin, telemetry.monotonic_ns(), *told)


class ConnectionSpans:
    """The spans of one connection: its life, and each input that it handles.

    A span is emitted whole or not at all: if nobody listened at its start, `start_connect` returns None, and
    `stop_connect` of None does nothing; `handled` is called only if somebody listens.
    """

    __slots__ = ("_connect", "_origin", "_telemetry", "handle")

    def __init__(self, telemetry: Telemetry, origin: records.Origin) -> None:
        self._telemetry = telemetry
        self._origin = origin
        self._connect = telemetry.span(records.ConnectStart.name[:-1])
        self.handle: SpanPoint = telemetry.span(records.HandleStart.name[:-1])

    def start_connect(self, state: State) -> records.ConnectStart | None:
        """Emit the beginning of the connection's life."""
        if not self._connect.active:
            return None
        telemetry = self._telemetry
        start = records.ConnectStart(self._origin, telemetry.time_ns(), telemetry.monotonic_ns(), state)
        self._connect.start.emit(start)
        return start

    def stop_connect(
        self,
        start: records.ConnectStart | None,
        state: State,
        lost: ConnectionLost,
        heard: float | None = None,
        received: float | None = None,
    ) -> None:
        """Emit the end of the connection's life, and how it was lost."""
        if start is not None:
            now, how = self._telemetry.monotonic_ns(), (lost.ended_by, lost.code, lost.message)
            self._connect.stop.emit(records.ConnectStop(start, now, state, lost.reason, *how, heard, received))

    def fail_connect(self, start: records.ConnectStart | None, error: BaseException) -> None:
        """Emit the end of the connection's life by a bug."""
        if start is not None:
            self._connect.exception.emit(exception_record(self._telemetry, start, self._origin, error))

    def handled(
        self,
        given: Input,
        state: State,
        serializer: Serializer,
        core: Callable[[State, Input, Serializer], Transition] = handle,
    ) -> tuple[records.HandleStart, Transition]:
        """Let the core handle an input, after the record of its start; what it raises is emitted, and raised."""
        telemetry = self._telemetry
        start = handle_start(
            self._origin, telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns(), given, state, None
        )
        try:
            self.handle.start.emit(start)
            return start, core(state, given, serializer)
        except BaseException as error:
            self.handle.exception.emit(exception_record(telemetry, start, self._origin, error))
            raise

    def received(
        self, frame: Frame, now: float, state: State, serializer: Serializer
    ) -> tuple[records.HandleStart, Transition | Message]:
        """Do as `handled` for a frame; where a message is just delivered, return that: the connection's shortcut."""
        telemetry = self._telemetry
        start = handle_start(
            self._origin, telemetry.ids.span_id(), telemetry.time_ns(), telemetry.monotonic_ns(), frame, state, now
        )
        try:
            self.handle.start.emit(start)
            message = serializer.decode(frame)
            plain = is_plain(state, message)
            return start, message if plain else receive(state, message, start.raw_message, serializer)
        except ProtocolError:
            return start, handle(state, start.raw_message, serializer)  # which tells what is wrong with it
        except BaseException as error:
            self.handle.exception.emit(exception_record(telemetry, start, self._origin, error))
            raise

    def stop_handle(self, start: records.HandleStart, came_to: Transition | Message) -> None:
        """Emit what the handling of an input came to."""
        self.handle.stop.emit(handle_stop(start, self._telemetry.monotonic_ns(), came_to))
