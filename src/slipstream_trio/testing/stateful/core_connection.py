"""A connection of the pure core with its telemetry, whose trace is verified as it grows."""

from ...errors import ConnectionLost, ProtocolError, SerializationError
from ...protocol import FrameReceived, Input, Options, Serializer, State, Transition, handle, serializer_for
from ...telemetry import Origin, Record, Telemetry
from ...telemetry.span import ConnectionSpans
from ...trace import Verifier
from ..deterministic import deterministic_telemetry

__all__ = ["CoreConnection"]


class CoreConnection:
    """One connection of the pure core, with the telemetry that a real one emits. It does no I/O.

    Parameters:
        options: the connection's options; None: the defaults.
        telemetry: the bus; None: one with deterministic ids and clock.
        serializer: None: the built-in one of the options' vsn.
        socket_id: of the socket that it serves; None: a new one.
        generation: the number of this connection on that socket.

    Attributes:
        state: the connection's state.
        failed: whether a check has failed, after which the connection is of no more use.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        telemetry: Telemetry | None = None,
        serializer: Serializer | None = None,
        socket_id: str | None = None,
        generation: int = 1,
    ) -> None:
        bus = deterministic_telemetry() if telemetry is None else telemetry
        chosen = Options(url="ws://localhost:4000/socket/websocket") if options is None else options
        connection_id, trace_id, socket_id = bus.ids.span_id(), bus.ids.trace_id(), socket_id or bus.ids.span_id()
        self.state: State = State(
            connection_id=connection_id, trace_id=trace_id, socket_id=socket_id, generation=generation, options=chosen
        )
        self.failed: bool = False
        self._serializer = serializer_for(chosen.vsn) if serializer is None else serializer
        self._bus = bus
        self._spans = ConnectionSpans(bus, Origin(connection_id, trace_id, socket_id, generation))
        self._verifier = Verifier()
        self._violations: list[str] = []
        bus.attach(f"core-connection-{connection_id}", (), self._observe, prefix=True, connection_id=connection_id)
        self._connect = self._spans.start_connect(self.state)

    def feed(self, given: Input) -> Transition:
        """Handle an input.

        Raises:
            AssertionError: the trace breaks an invariant, or a frame raised an error.
            ProtocolError: the input does not fit the state.
            SerializationError: a command cannot be sent.
        """
        before = self.state
        try:
            span, transition = self._spans.handled(given, before, self._serializer, handle)
        except Exception as error:
            if isinstance(error, ProtocolError | SerializationError) and not isinstance(given, FrameReceived):
                raise
            self.failed = True
            raise AssertionError(f"{type(given).__name__} raised {type(error).__name__}: {error}") from error
        self._spans.stop_handle(span, transition)
        self.state = transition.state
        self._raise([*self.check(before, given, transition), *self._violations])
        return transition

    def check(self, before: State, given: Input, transition: Transition) -> list[str]:  # noqa: ARG002
        """Return the problems of a transition; for subclasses, which may check more than the trace."""
        return []

    def finish(self) -> None:
        """Check the whole trace, once the connection has ended, and detach from the telemetry.

        Raises:
            AssertionError: the trace breaks an invariant.
        """
        self._spans.stop_connect(self._connect, self.state, ConnectionLost(self.state.close_reason or "failed"))
        self._bus.detach(f"core-connection-{self.state.connection_id}")
        self._raise([*self._violations, *map(str, self._verifier.finish())])

    def _observe(self, record: Record) -> None:
        self._violations.extend(map(str, self._verifier.feed(record)))

    def _raise(self, wrong: list[str]) -> None:
        if wrong:
            self.failed = True
            raise AssertionError("; ".join(wrong))
