"""A connection of the pure core that checks itself: after every input, everything that must hold."""

from ...errors import ConnectionLost, ProtocolError, SerializationError
from ...protocol import (
    STATE_FIELDS,
    FrameReceived,
    Input,
    Message,
    MessageReceived,
    Options,
    Serializer,
    State,
    Transition,
    handle,
    is_plain,
    serializer_for,
)
from ...protocol.transitions import receive
from ...telemetry import Origin, Record, Telemetry
from ...telemetry.span import ConnectionSpans
from ...trace import Verifier
from ..deterministic import deterministic_telemetry
from .ledger import Ledger, check_state

__all__ = ["CoreConnection"]


class CoreConnection:
    """One connection of the pure core, with the telemetry that a real one emits. It does no I/O.

    Every input is handled twice and must do the same; the state before it must not change; the state after it must be
    sound and agree with all that was seen before; and the trace must keep its invariants.

    Parameters:
        options: the connection's options; None: the defaults.
        telemetry: the bus; None: one with deterministic ids and clock.
        serializer: None: the built-in one of the options' vsn.
        socket_id: of the socket that it serves; None: a new one.
        generation: the number of this connection on that socket.

    Attributes:
        state: the connection's state.
        ledger: what was seen of it.
        failed: whether something did not hold; there is no use in going on then.
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
        origin = Origin(bus.ids.span_id(), bus.ids.trace_id(), socket_id or bus.ids.span_id(), generation)
        assert origin.connection_id is not None
        assert origin.trace_id is not None
        self.state: State = State(
            connection_id=origin.connection_id,
            trace_id=origin.trace_id,
            socket_id=origin.socket_id,
            generation=generation,
            options=chosen,
        )
        self.ledger: Ledger = Ledger()
        self.failed: bool = False
        self._serializer = serializer_for(chosen.vsn) if serializer is None else serializer
        self._bus = bus
        self._spans = ConnectionSpans(bus, origin)
        self._verifier = Verifier()
        self._violations: list[str] = []
        bus.attach(f"core-connection-{origin.connection_id}", (), self._observe, prefix=True)
        self._connect = self._spans.start_connect(self.state)

    def feed(self, given: Input) -> Transition:
        """Handle an input.

        Raises:
            AssertionError: something does not hold that must; the message says what.
            ProtocolError: the input does not fit the state.
            SerializationError: a command cannot be sent.
        """
        before = self.state
        # It shares no mapping with the state, being made of all that this shows; all else in it is frozen.
        snapshot = State(**{name: getattr(before, name) for name in STATE_FIELDS})
        transition = self._handled(given)
        wrong = ["the state before the input was changed in place"] if before != snapshot else []
        # Of the copy, as a core that changes states in place would stumble over what it has done.
        if handle(snapshot, given, self._serializer) != transition:
            wrong.append("the same input does something else when it is handled again")
        if transition.message is not given and not isinstance(transition.message, Message):
            wrong.append(f"the transition shows neither a message nor its input, but {transition.message!r}")
        if isinstance(given, FrameReceived) and isinstance(transition.message, Message):
            wrong += _shortcut(before, given, transition.message, transition, self._serializer)
        self.state = transition.state
        self._raise([*wrong, *check_state(self.state), *self.ledger.note(given, transition), *self._violations])
        return transition

    def finish(self) -> None:
        """Check the whole trace, once the connection has ended, and let go of the telemetry.

        Raises:
            AssertionError: the connection did not end once, or its trace breaks an invariant.
        """
        wrong = [] if self.ledger.ends == 1 else [f"the connection ended {self.ledger.ends} times"]
        self._spans.stop_connect(self._connect, self.state, ConnectionLost(self.state.close_reason or "failed"))
        self._bus.detach(f"core-connection-{self.state.connection_id}")
        self._raise([*wrong, *self._violations, *map(str, self._verifier.finish())])

    def _handled(self, given: Input) -> Transition:
        try:
            span, transition = self._spans.handled(given, self.state, self._serializer, handle)
        except Exception as error:
            if isinstance(error, ProtocolError | SerializationError) and not isinstance(given, FrameReceived):
                raise
            self.failed = True
            raise AssertionError(f"{type(given).__name__} raised {type(error).__name__}: {error}") from error
        self._spans.stop_handle(span, transition)
        return transition

    def _observe(self, record: Record) -> None:
        if record.metadata.get("connection_id") == self.state.connection_id:
            self._violations.extend(map(str, self._verifier.feed(record)))

    def _raise(self, wrong: list[str]) -> None:
        if wrong:
            self.failed = True
            raise AssertionError("; ".join(wrong))


def _shortcut(
    state: State, given: FrameReceived, message: Message, transition: Transition, serializer: Serializer
) -> list[str]:
    """Return what is wrong with the runtime's shortcuts around `handle` for a message."""
    wrong = []
    if receive(state, message, given, serializer) != transition:
        wrong.append("receive() does something else than handle()")
    plain = transition.state is state and transition == Transition(state, message, (MessageReceived(message),))
    if is_plain(state, message) != plain:
        wrong.append(f"is_plain() is {not plain} of a message that is {'' if plain else 'not '}just delivered")
    return wrong
