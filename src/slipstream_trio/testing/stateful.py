"""A state machine over the pure core, for Hypothesis to run: the invariants of a connection always hold.

A user's subclass adds the rules of an application's own protocol. It needs the extra `testing`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from attrs import asdict, define, field

from .. import protocol
from ..errors import ConnectionLost, ProtocolError, SerializationError
from ..errors.base import lacks
from ..protocol import Frame, Message, handle
from ..protocol.message import CLOSE, JOIN, LEAVE
from ..telemetry import Origin, Record, Telemetry
from ..telemetry.span import ConnectionSpans
from ..trace import Verifier
from .deterministic import SequentialIds, SteppingClock, deterministic_telemetry
from .server.wire import Wire

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

    from .strategies import inputs, json_payloads, opening_state, options, statuses
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__ = ["ConnectionMachine", "CoreConnection", "ServerModel"]

_MOSTLY_OK: Final = st.sampled_from(["ok", "ok", "ok", "error"]) | statuses()
_JSON: Final = json_payloads()

# These depend on the machine, which hypothesis gives to a strategy as its runner.
_TOPICS: Final[st.SearchStrategy[str]] = st.runner().flatmap(lambda machine: st.sampled_from(machine.topics))
_INPUTS: Final[st.SearchStrategy[protocol.Input]] = st.runner().flatmap(
    lambda machine: inputs(machine.state, machine.now, topic=_TOPICS, answers=False)
)


def _is_open(machine: Any) -> bool:
    return machine.connection is not None and machine.state.status == "open"


class CoreConnection:
    """One connection of the pure core, with the telemetry that a real one emits. It does no I/O.

    Parameters:
        options: the connection's options; None: the defaults.
        telemetry: the bus; None: one with deterministic ids and clock.
        socket_id: of the socket that it serves; None: a new one.
        generation: the number of this connection on that socket.

    Attributes:
        state: the connection's state.
        failed: whether a check has failed, after which the connection is of no more use.
    """

    def __init__(
        self,
        options: protocol.Options | None = None,
        *,
        telemetry: Telemetry | None = None,
        socket_id: str | None = None,
        generation: int = 1,
    ) -> None:
        self._bus = bus = deterministic_telemetry() if telemetry is None else telemetry
        chosen = opening_state(options).options
        origin = Origin(bus.ids.span_id(), bus.ids.trace_id(), socket_id or bus.ids.span_id(), generation)
        self.state: protocol.State = protocol.State(**asdict(origin), options=chosen)
        self.failed: bool = False
        self._serializer = protocol.serializer_for(chosen.vsn)
        self._spans = ConnectionSpans(bus, origin)
        self._verifier = Verifier()
        self._violations: list[str] = []

        def observe(record: Record) -> None:
            self._violations.extend(map(str, self._verifier.feed(record)))

        its = origin.connection_id
        bus.attach(f"core-connection-{its}", (), observe, prefix=True, connection_id=its)
        self._connect = self._spans.start_connect(self.state)

    def feed(self, given: protocol.Input) -> protocol.Transition:
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
            if isinstance(error, ProtocolError | SerializationError) and not isinstance(given, protocol.FrameReceived):
                raise
            self.failed = True
            raise AssertionError(f"{type(given).__name__} raised {type(error).__name__}: {error}") from error
        self._spans.stop_handle(span, transition)
        self.state = transition.state
        self._raise([*self.check(before, given, transition), *self._violations])
        return transition

    def check(self, before: protocol.State, given: protocol.Input, transition: protocol.Transition) -> list[str]:  # noqa: ARG002
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

    def _raise(self, wrong: list[str]) -> None:
        if wrong:
            self.failed = True
            raise AssertionError("; ".join(wrong))


@define
class ServerModel:
    """A server that a test drives: it answers in any order, also twice.

    Attributes:
        wire: the server's side of the serializer.
        requests: the client's messages that are not answered, in order of arrival.
        answered: those that are, in order of their answers.
        channels: topic to join_ref, of the joins that it has accepted and not ended.
    """

    wire: Wire
    requests: list[Message] = field(factory=list)
    answered: list[Message] = field(factory=list)
    channels: dict[str, str] = field(factory=dict)

    def receive(self, frame: Frame) -> Message:
        """Read a frame of the client's; returns its message, with None for the empty refs of a binary one."""
        message = self.wire.decode(frame)
        message = message._replace(join_ref=message.join_ref or None, ref=message.ref or None)
        self.requests.append(message)
        return message

    def answer(self, request: Message, status: str, response: Any) -> list[Frame]:
        """Answer a request, also again; returns the reply, and the frames behind it.

        A join that is accepted ends an older one of its topic, after the reply. Behind a leave comes its join's end.
        """
        frames = [self.wire.encode_reply(request.join_ref, request.ref, request.topic, status, response)]
        if request not in self.requests:
            return frames
        self.requests.remove(request)
        self.answered.append(request)
        accepted, current = request.event == JOIN and status == "ok", self.channels.get(request.topic)
        if current is not None and (accepted or (request.event == LEAVE and request.join_ref == current)):
            del self.channels[request.topic]
            frames.append(self.wire.encode(Message(current, current, request.topic, CLOSE, {})))
        if accepted:
            self.channels[request.topic] = str(request.join_ref)
        return frames


class ConnectionMachine(RuleBasedStateMachine):
    """One socket's connections, one after the other: a client, its server, and time.

    Its rules open a connection, join, answer in any order, twice, or never, and let anything else happen that
    `inputs` draws: the client leaves, pushes, beats and closes; the server pushes, broadcasts, crashes and closes
    channels, sends frames of channels that are gone, and malformed ones; time passes; the connection is cut. After
    each, everything that `CoreConnection` checks must hold.

    A subclass adds rules for an application's own protocol. It calls `feed`, `push` and `deliver`, and overrides
    `on_event`, `on_end` and `response_to`:

        class Counter(ConnectionMachine):
            topics = ("counter:1",)

            def response_to(self, request, status, response):
                return "ok", {"total": self.count(request)}

        TestCounter = Counter.TestCase

    Attributes:
        topics: the topics that the rules join and push on; at least one.
        connection_type: makes the connections.
        connection: the current connection, None between two.
        server: the model of its server.
        now: the time, in seconds; it never goes back.
        telemetry: the bus of all connections, with deterministic ids and clock.
    """

    topics: ClassVar[tuple[str, ...]] = ("room:a", "room:b", "phoenix")
    connection_type: ClassVar[type[CoreConnection]] = CoreConnection

    def __init__(self) -> None:
        super().__init__()
        self.now: float = 0.0
        self.clock: SteppingClock = SteppingClock()
        self.telemetry: Telemetry = Telemetry(
            ids=SequentialIds(), time_ns=self.clock.time_ns, monotonic_ns=self.clock.monotonic_ns
        )
        self.options: protocol.Options | None = None
        self.connection: CoreConnection | None = None
        self.server: ServerModel = ServerModel(Wire())
        self._socket_id = self.telemetry.ids.span_id()
        self._generation = 0

    # For subclasses

    @property
    def state(self) -> protocol.State:
        """The state of the current connection.

        Raises:
            RuntimeError: between two connections.
        """
        return self._current.state

    def feed(self, given: protocol.Input) -> protocol.Transition:
        """Let the connection handle an input, at its time; its frames go to the server, its events to `on_event`.

        Raises:
            RuntimeError: between two connections.
            AssertionError: the trace breaks an invariant.
            ProtocolError: the input does not fit the state.
            SerializationError: a command cannot be sent.
        """
        now = max(self.now, getattr(given, "now", self.now))
        self.clock.advance(now - self.now)
        self.now = now
        transition = self._current.feed(given)
        for effect in transition.return_:
            if isinstance(effect, protocol.SendFrame):
                self.server.receive(effect.frame)
        for event in transition.built_events:
            self.on_event(event)
        if transition.state.status == "closed":
            connection, self.connection = self._current, None
            connection.finish()
            self.on_end()
        return transition

    def push(self, topic: str, event: str, payload: Any) -> str:
        """Push on a joined topic; returns the push's ref. Raises what `feed` raises."""
        (effect,) = self.feed(protocol.PushMessage(topic, event, payload)).return_
        assert isinstance(effect, protocol.SendFrame)
        return effect.ref

    def deliver(self, frames: Iterable[protocol.Frame]) -> None:
        """Let frames of the server's arrive, in order, now. Raises what `feed` raises."""
        for frame in frames:
            self.feed(protocol.FrameReceived(self.now, frame))

    def is_joined(self, topic: str) -> bool:
        """Tell whether the topic's join has been accepted, and is not being left, on an open connection."""
        if not _is_open(self):
            return False
        state = self.state
        return topic in state.joins and topic not in state.join_deadlines and topic not in state.leaves

    def on_event(self, event: protocol.Event) -> None:
        """Called with every event of the connection; does nothing. For subclasses to override."""

    def on_end(self) -> None:
        """Called when a connection has ended, after its last event; does nothing. For subclasses to override."""

    def response_to(self, request: protocol.Message, status: str, response: Any) -> tuple[str, Any]:  # noqa: ARG002
        """Return status and response of an answer; for subclasses with answers of their own.

        Parameters:
            request: the client's message: a join, a push, a leave or a heartbeat.
            status: the status that was drawn.
            response: the response that was drawn.
        """
        return status, response

    @initialize(chosen=options())
    def configure(self, chosen: protocol.Options) -> None:
        """Choose the options of all connections, and open the first."""
        self.options = chosen
        self.connect()

    @precondition(lambda self: self.connection is None)
    @rule(refusal=st.sampled_from([None, None, None, 403, 503]))
    def connect(self, refusal: int | None = None) -> None:
        """Open the next connection; the server may refuse the upgrade with an HTTP status."""
        self._generation += 1
        self.connection = self.connection_type(
            self.options, telemetry=self.telemetry, socket_id=self._socket_id, generation=self._generation
        )
        self.server = ServerModel(Wire(self.state.options.vsn))
        opened = protocol.TransportOpened(self.now, (("upgrade", "websocket"),))
        self.feed(protocol.TransportFailed("refused", refusal) if refusal else opened)

    @precondition(_is_open)
    @rule(topic=_TOPICS, payload=_JSON, response=_JSON)
    def join_accepted(self, topic: str, payload: Any, response: Any) -> None:
        """Join a topic, and be answered at once: accepted, unless `response_to` has it otherwise."""
        self.feed(protocol.JoinTopic(self.now, topic, payload, 10.0))
        request = self.server.requests[-1]
        self.deliver(self.server.answer(request, *self.response_to(request, "ok", response)))

    @precondition(lambda self: self.connection is not None and (self.server.requests or self.server.answered))
    @rule(which=st.integers(0, 50), status=_MOSTLY_OK, response=_JSON)
    def answer(self, which: int, status: str, response: Any) -> None:
        """Answer one of the client's messages: one that is not answered, or, seldom, one that was."""
        messages = [*self.server.requests, *self.server.answered[-2:]]
        request = messages[which % len(messages)]
        self.deliver(self.server.answer(request, *self.response_to(request, status, response)))

    @precondition(lambda self: self.connection is not None)
    @rule(given=_INPUTS)
    def go_on(self, given: protocol.Input) -> None:
        """Let anything happen on the connection but an answer."""
        self.feed(given)

    @invariant()
    def what_is_joined_was_accepted(self) -> None:
        """Compare the joins of the client with those that the server got."""
        if self.connection is not None:
            asked = {(message.topic, message.join_ref) for message in (*self.server.requests, *self.server.answered)}
            if strange := self.state.joins.items() - asked:
                raise AssertionError(f"joins that the server was never asked for: {strange}")

    def teardown(self) -> None:
        """End the connection that is left, and check its whole trace."""
        # If it is closed already, a subclass raised, and that error counts.
        if self.connection is not None and not self.connection.failed and self.state.status != "closed":
            self.feed(protocol.TransportClosed(1006))

    @property
    def _current(self) -> CoreConnection:
        if self.connection is None:
            raise RuntimeError("not connected at present: guard the rule with a precondition")
        return self.connection
