"""A Hypothesis state machine over the pure core: a client, its server and time, by rules that users can add to."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ... import protocol
from ...protocol.message import CLOSE, ERROR
from ...telemetry import Telemetry
from ..deterministic import SequentialIds, SteppingClock
from ..server.wire import Wire
from ..strategies import close_codes, events, frames, json_scalars, options, statuses
from .core_connection import CoreConnection
from .server_model import ServerModel

__all__ = ["ConnectionMachine"]

_WAITS: Final = st.sampled_from([0.0, 0.001, 0.5, 1.0, 7.0, 30.0])
_TIMEOUTS: Final = st.sampled_from([10.0, 1.0, 5.0, None])
_LIMITS: Final = st.sampled_from([None, None, 1.0, 10.0])
_MOSTLY_OK: Final = st.sampled_from(["ok", "ok", "ok", "error"]) | statuses()

_JSON: Final = st.sampled_from([{}, {"n": 1}, {"body": "hi"}]) | st.dictionaries(
    st.text(max_size=4), json_scalars(), max_size=2
)
_PUSHED: Final = _JSON | st.sampled_from([None, [1], "text", b"", b"data"]) | json_scalars() | st.binary(max_size=20)

# These depend on the machine, which hypothesis gives to a strategy as its runner.
_TOPICS: Final[st.SearchStrategy[str]] = st.runner().flatmap(lambda machine: st.sampled_from(machine.topics))
_JOINED: Final[st.SearchStrategy[str]] = st.runner().flatmap(
    lambda machine: st.sampled_from(sorted(machine.state.joins))
)
_SERVED: Final[st.SearchStrategy[str]] = st.runner().flatmap(
    lambda machine: st.sampled_from(sorted(machine.server.channels))
)

_FRAMES: Final = {vsn: frames(vsn, topic=_TOPICS) for vsn in ("1.0.0", "2.0.0")}
_STRAY: Final[st.SearchStrategy[protocol.Frame]] = st.runner().flatmap(lambda machine: _FRAMES[machine.server.wire.vsn])


def _is_open(machine: Any) -> bool:
    return machine.connection is not None and machine.state.status == "open"


def _is_up(machine: Any) -> bool:
    return machine.connection is not None and machine.state.status in ("open", "closing")


class ConnectionMachine(RuleBasedStateMachine):
    """One socket's connections, one after the other: a client, its server, and time.

    Its rules join, leave, push, beat and close; answer in any order, twice, or never; push, broadcast, crash and close
    channels; send frames of channels that are gone, and malformed ones; let time pass; cut the connection,
    and open the next. After each, everything that `CoreConnection` checks must hold.

    A subclass adds rules for an application's own protocol. It calls `feed`, `push` and `deliver`, and overrides
    `on_event`, `on_request`, `on_end` and `response_to`:

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
        heard: the time of the last frame of the server on this connection, None before the first.
        telemetry: the bus of all connections, with deterministic ids and clock.
    """

    topics: ClassVar[tuple[str, ...]] = ("room:a", "room:b", "phoenix")
    connection_type: ClassVar[type[CoreConnection]] = CoreConnection

    def __init__(self) -> None:
        super().__init__()
        self.now: float = 0.0
        self.heard: float | None = None
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
        """Let the connection handle an input; its frames go to the server, its events to `on_event`.

        Raises:
            RuntimeError: between two connections.
            AssertionError: the trace breaks an invariant.
            ProtocolError: the input does not fit the state.
            SerializationError: a command cannot be sent.
        """
        transition = self._current.feed(given)
        for effect in transition.return_:
            if isinstance(effect, protocol.SendFrame):
                self.on_request(self.server.receive(effect.frame))
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
            self.heard = self.now
            self.feed(protocol.FrameReceived(self.now, frame))

    def is_joined(self, topic: str) -> bool:
        """Tell whether the topic's join has been accepted, and is not being left, on an open connection."""
        if not _is_open(self):
            return False
        state = self.state
        return topic in state.joins and topic not in state.join_deadlines and topic not in state.leaves

    def on_event(self, event: protocol.Event) -> None:
        """Called with every event of the connection; does nothing. For subclasses to override."""

    def on_request(self, message: protocol.Message) -> None:
        """Called with every message to the server; does nothing. For subclasses to override."""

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

    # The client

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
        self.heard = None
        self.connection = self.connection_type(
            self.options, telemetry=self.telemetry, socket_id=self._socket_id, generation=self._generation
        )
        self.server = ServerModel(Wire(self.state.options.vsn))
        opened = protocol.TransportOpened(self.now, (("upgrade", "websocket"),))
        self.feed(protocol.TransportFailed("refused", refusal) if refusal else opened)

    @precondition(_is_open)
    @rule(topic=_TOPICS, payload=_JSON, timeout=_TIMEOUTS, limit=_LIMITS, rejoin=st.booleans())
    def join(
        self, topic: str, payload: Any, timeout: float | None, limit: float | None = None, *, rejoin: bool = False
    ) -> None:
        """Join a topic, also one that is joined; `limit` is in seconds from now, whosever turn it is."""
        deadline = None if limit is None else self.now + limit
        self.feed(protocol.JoinTopic(self.now, topic, payload, timeout, deadline, rejoin))

    @precondition(_is_open)
    @rule(topic=_TOPICS, payload=_JSON, response=_JSON)
    def join_accepted(self, topic: str, payload: Any, response: Any) -> None:
        """Join a topic, and be answered at once: accepted, unless `response_to` has it otherwise."""
        self.feed(protocol.JoinTopic(self.now, topic, payload, 10.0))
        request = self.server.requests[-1]
        self.deliver(self.server.answer(request, *self.response_to(request, "ok", response)))

    @precondition(_is_open)
    @rule(topic=_TOPICS, timeout=_TIMEOUTS)
    def leave(self, topic: str, timeout: float | None) -> None:
        """Leave a topic, also one that is not joined."""
        self.feed(protocol.LeaveTopic(self.now, topic, timeout))

    @precondition(lambda self: _is_open(self) and self.state.joins)
    @rule(topic=_JOINED, event=events(), payload=_PUSHED)
    def push_something(self, topic: str, event: str, payload: Any) -> None:
        """Push on a topic that is joined, being joined or being left."""
        if type(payload) is bytes and self.state.options.vsn.startswith("1."):
            payload = None
        self.push(topic, event, payload)

    @precondition(_is_open)
    @rule()
    def beat(self) -> None:
        """Send a heartbeat, unless one is outstanding."""
        self.feed(protocol.SendHeartbeat(self.now))

    # The server

    @precondition(lambda self: _is_up(self) and (self.server.requests or self.server.answered))
    @rule(which=st.integers(0, 50), status=_MOSTLY_OK, response=_JSON)
    def answer(self, which: int, status: str, response: Any) -> None:
        """Answer one of the client's messages: one that is not answered, or, seldom, one that was."""
        messages = [*self.server.requests, *self.server.answered[-2:]]
        request = messages[which % len(messages)]
        self.deliver(self.server.answer(request, *self.response_to(request, status, response)))

    @precondition(lambda self: _is_up(self) and self.server.channels)
    @rule(topic=_SERVED, event=events(), payload=_JSON)
    def server_pushes(self, topic: str, event: str, payload: Any) -> None:
        """Push from a channel."""
        self.deliver(self.server.push(topic, event, payload))

    @precondition(_is_up)
    @rule(topic=_TOPICS, event=events(reserved=True), payload=_JSON)
    def server_broadcasts(self, topic: str, event: str, payload: Any) -> None:
        """Broadcast on a topic; the event may be named as one of the protocol's own."""
        self.deliver(self.server.broadcast(topic, event, payload))

    @precondition(lambda self: _is_up(self) and self.server.channels)
    @rule(topic=_SERVED, event=st.sampled_from([CLOSE, ERROR]))
    def server_ends_channel(self, topic: str, event: str) -> None:
        """Let a channel stop, or crash."""
        self.deliver(self.server.end(topic, event))

    @precondition(lambda self: _is_up(self) and self.server.ended)
    @rule(which=st.integers(0, 50), event=st.sampled_from([CLOSE, ERROR, "late"]))
    def server_sends_of_an_older_join(self, which: int, event: str) -> None:
        """Send something of a join that is over."""
        topic, join_ref = self.server.ended[-1 - which % len(self.server.ended)]
        ref = None if event == "late" else join_ref
        self.deliver([self.server.wire.encode(protocol.Message(join_ref, ref, topic, event, {}))])

    @precondition(_is_up)
    @rule(frame=_STRAY)
    def server_sends_anything(self, frame: protocol.Frame) -> None:
        """Send an unrelated frame, or a malformed one."""
        self.deliver([frame])

    # Time, and the end

    @rule(seconds=_WAITS)  # always possible, so that a machine never runs out of rules
    def wait(self, seconds: float) -> None:
        """Let time pass, and the timer tick if there is a connection."""
        self._wait_until(self.now + seconds)

    @precondition(lambda self: _is_open(self) and protocol.next_deadline(self.state) is not None)
    @rule()
    def wait_for_deadline(self) -> None:
        """Let time pass until the next deadline."""
        self._wait_until(max(self.now, protocol.next_deadline(self.state) or 0.0))

    @precondition(_is_up)
    @rule(code=close_codes(), asked=st.booleans())
    def end(self, code: int, *, asked: bool) -> None:
        """Ask for the connection's end, or end its transport; 1006 is an end without a close frame."""
        if asked and self.state.status == "open":
            self.feed(protocol.CloseConnection(code))
        else:
            self.feed(protocol.TransportClosed(code))

    # Invariants

    @invariant()
    def what_is_joined_was_accepted(self) -> None:
        """Compare the joins of the client with those that the server got."""
        if self.connection is not None:
            asked = {(message.topic, message.join_ref) for message in (*self.server.requests, *self.server.answered)}
            strange = set(self.state.joins.items()) - asked
            if strange:
                raise AssertionError(f"joins that the server was never asked for: {strange}")

    def teardown(self) -> None:
        """End the connection that is left, and check its whole trace."""
        # If it is closed already, a subclass raised, and that error counts.
        if self.connection is not None and not self.connection.failed and self.state.status != "closed":
            self.feed(protocol.TransportClosed(1006))

    # Inside

    @property
    def _current(self) -> CoreConnection:
        if self.connection is None:
            raise RuntimeError("not connected at present: guard the rule with a precondition")
        return self.connection

    def _wait_until(self, now: float) -> None:
        self.clock.advance(now - self.now)
        self.now = now
        if self.connection is not None:
            self.feed(protocol.TimerTicked(now, self.heard))
