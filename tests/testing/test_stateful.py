"""The machine finds nothing in the core, finds what is wrong in broken ones, and is extended by subclassing."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from tests.drawing import examples
from tests.protocol import checked
from tests.protocol.checked import CheckedConnection, CheckedMachine
from tests.protocol.ledger import Ledger, check_state

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    CloseConnection,
    ConnectionClosed,
    Event,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    Options,
    PushMessage,
    ReplyReceived,
    SendFrame,
    Serializer,
    TimerTicked,
    TopicJoinSucceeded,
    Transition,
    TransportClosed,
    TransportOpened,
    handle,
)
from slipstream_trio.protocol.message import JOIN
from slipstream_trio.protocol.topics import Topics
from slipstream_trio.telemetry import Record
from slipstream_trio.testing import stateful
from slipstream_trio.testing.server.wire import Wire
from slipstream_trio.testing.stateful import ConnectionMachine, CoreConnection, ServerModel
from slipstream_trio.testing.strategies import opening_state

pytestmark = pytest.mark.once

QUIETLY = settings(
    max_examples=200,
    stateful_step_count=30,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


TestConnections = CheckedMachine.TestCase
TestConnections.settings = settings(examples(20), stateful_step_count=30)


# What it finds

Handle = Callable[..., Transition]


def forgets_an_end(state: Any, given: Input, serializer: Serializer) -> Transition:
    transition = handle(state, given, serializer)
    ended = isinstance(given, FrameReceived) and len(transition.state.joins) < len(state.joins)
    return attrs.evolve(transition, state=state) if ended else transition


def takes_a_ref_again(state: Any, given: Input, serializer: Serializer) -> Transition:
    transition = handle(state, given, serializer)
    if not isinstance(given, PushMessage):
        return transition
    return attrs.evolve(transition, state=attrs.evolve(transition.state, current_ref=state.current_ref))


def changes_in_place(state: Any, given: Input, serializer: Serializer) -> Transition:
    transition = handle(state, given, serializer)
    if isinstance(given, TimerTicked) and state.joins:
        object.__setattr__(state, "topics", Topics())
    return transition


def answers_to_frames(state: Any, given: Input, serializer: Serializer) -> Transition:
    transition = handle(state, given, serializer)
    extra = (SendFrame('[null,"99","phoenix","heartbeat",{}]', "99"),) if isinstance(given, FrameReceived) else ()
    return attrs.evolve(transition, return_=(*transition.return_, *extra))


def sends_garbage(state: Any, given: Input, serializer: Serializer) -> Transition:
    transition = handle(state, given, serializer)
    garbage = tuple(SendFrame("[]", effect.ref) for effect in transition.return_ if isinstance(effect, SendFrame))
    return attrs.evolve(transition, return_=garbage)


def lets_errors_out(state: Any, given: Input, serializer: Serializer) -> Transition:
    if isinstance(given, FrameReceived):
        serializer.decode(given.frame)
    return handle(state, given, serializer)


def never_times_out(state: Any, given: Input, serializer: Serializer) -> Transition:
    if isinstance(given, TimerTicked) and state.status == "open":
        return Transition(state, given)
    return handle(state, given, serializer)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (forgets_an_end, "joins are .*, but the refs of those alive"),
        # Seen where the ref is taken again, or, before that, where the core does not know the ref of an answer.
        (takes_a_ref_again, "is not above .*, which was sent before|turns are .*, but the joins"),
        (changes_in_place, "changed in place"),
        (answers_to_frames, "a frame makes the client send something"),
        (sends_garbage, "a frame is sent that a server cannot read"),
        (lets_errors_out, "FrameReceived raised ProtocolError"),
        (never_times_out, "something is still due"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_machine_finds_what_is_wrong_in_a_core(
    broken: Handle, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stateful, "handle", broken)
    monkeypatch.setattr(checked, "handle", broken)
    with pytest.raises(AssertionError, match=problem):
        run_state_machine_as_test(CheckedMachine, settings=QUIETLY)


def test_a_shortcut_that_does_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "is_plain", lambda state, message: True)
    with pytest.raises(AssertionError, match="is_plain"):
        run_state_machine_as_test(CheckedMachine, settings=QUIETLY)


def test_a_core_that_stumbles_over_what_it_changed_in_place_is_told_what_it_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stateful, "handle", changes_in_place)
    connection = CheckedConnection()
    connection.feed(TransportOpened(0.0))
    connection.feed(JoinTopic(0.0, "room:1", {}, 1.0))
    with pytest.raises(AssertionError, match="changed in place"):
        connection.feed(TimerTicked(1.0))
    assert connection.failed


# What a user adds


class CounterMachine(ConnectionMachine):
    """A client that adds numbers to a counter of the server's, which answers with the total."""

    topics = ("counter:1",)

    def __init__(self) -> None:
        super().__init__()
        self.pushed: dict[str, int] = {}
        self.total = 0
        self.acknowledged = 0

    @precondition(lambda self: self.is_joined("counter:1"))
    @rule(amount=st.integers(1, 9))
    def add(self, amount: int) -> None:
        self.pushed[self.push("counter:1", "add", {"amount": amount})] = amount

    def response_to(self, request: Message, status: str, response: Any) -> tuple[str, Any]:
        if request.event != "add":
            return status, response
        if request in self.server.requests:  # an answer that is given again counts nothing
            self.total += request.payload["amount"]
        return "ok", {"total": self.total}

    def on_event(self, event: Event) -> None:
        if isinstance(event, ReplyReceived) and event.ref in self.pushed and event.status == "ok":
            self.acknowledged += self.settle(event.ref)

    def settle(self, ref: str) -> int:
        return self.pushed.pop(ref)

    def on_end(self) -> None:
        self.pushed.clear()

    @invariant()
    def what_was_acknowledged_was_counted(self) -> None:
        assert self.acknowledged <= self.total


class HastyMachine(CounterMachine):
    def settle(self, ref: str) -> int:
        return self.pushed[ref]  # a second reply counts again


class TestCounter(CounterMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(examples(10), stateful_step_count=20)


class PrivateMachine(ConnectionMachine):
    """A server that lets nobody in."""

    def response_to(self, request: Message, status: str, response: Any) -> tuple[str, Any]:
        return ("error", {"reason": "private"}) if request.event == JOIN else (status, response)


def test_a_server_that_refuses_joins_refuses_all() -> None:
    machine = PrivateMachine()
    machine.configure(opening_state().options)
    machine.join_accepted("room:a", {}, {})
    assert not machine.is_joined("room:a")
    assert machine.state.joins == {}
    machine.teardown()


def test_a_subclass_finds_a_bug_of_an_application() -> None:
    machine = HastyMachine()
    machine.configure(opening_state().options)
    machine.join_accepted("counter:1", {}, {})
    machine.add(5)
    machine.answer(0, "ok", {})
    machine.what_was_acknowledged_was_counted()
    machine.answer(1, "ok", {})  # the same message again
    with pytest.raises(AssertionError, match=r"assert 10 <= 5"):
        machine.what_was_acknowledged_was_counted()


def test_what_a_subclass_says_of_a_connections_end_is_all_that_is_told() -> None:
    class Complaining(ConnectionMachine):
        def on_event(self, event: Event) -> None:
            assert not isinstance(event, ConnectionClosed), "told by the subclass"

    machine = Complaining()
    machine.configure(Options(url="ws://s/socket/websocket"))
    with pytest.raises(AssertionError, match="told by the subclass"):
        machine.feed(TransportClosed(1000))
    machine.teardown()


def test_a_machine_between_two_connections_says_so() -> None:
    machine = ConnectionMachine()
    assert not machine.is_joined("room:a")
    with pytest.raises(RuntimeError, match="guard the rule with a precondition"):
        machine.feed(TimerTicked(0.0))


def test_a_machine_by_hand_connects_joins_pushes_and_ends() -> None:
    machine = ConnectionMachine()
    machine.configure(opening_state().options)
    machine.join_accepted("room:a", {}, {})
    assert machine.is_joined("room:a")
    assert machine.push("room:a", "ev", {}) == "2"
    machine.answer(0, "ok", {})
    assert machine.server.answered[-1] == Message("1", "2", "room:a", "ev", {})
    machine.feed(LeaveTopic(machine.now, "room:a", 5.0))
    assert not machine.is_joined("room:a")
    machine.feed(TimerTicked(5.0))
    assert (machine.now, dict(machine.state.joins)) == (5.0, {})
    first = machine.state.connection_id
    machine.feed(CloseConnection(1000))
    machine.feed(TransportClosed(1000))
    assert machine.connection is None
    machine.connect()
    assert machine.state.connection_id != first
    assert machine.state.generation == 2
    machine.teardown()


def test_two_machines_with_the_same_rules_have_the_same_telemetry() -> None:
    def told() -> list[str]:
        machine, records = ConnectionMachine(), list[Record]()
        with machine.telemetry.listen(records.append):
            machine.configure(opening_state().options)
            machine.join_accepted("room:a", {}, {})
            machine.feed(TimerTicked(30.0))
            machine.teardown()
        return [f"{record.name} {record.measurements} {record.metadata}" for record in records]

    assert len(told()) > 8
    assert told() == told()


# Its parts


def test_a_connection_that_checks_itself_raises_what_a_command_raises() -> None:
    connection = CoreConnection()
    connection.feed(TransportOpened(0.0))
    with pytest.raises(ProtocolError, match="not joined"):
        connection.feed(PushMessage("room", "ev", {}))
    connection.feed(TransportClosed(1000))
    connection.finish()


def test_a_connection_that_has_not_ended_is_not_finished() -> None:
    connection = CheckedConnection()
    connection.feed(TransportOpened(0.0))
    with pytest.raises(AssertionError, match="the connection ended 0 times"):
        connection.finish()


def test_a_ledger_says_what_cannot_be_true() -> None:
    state = handle(opening_state(), TransportOpened(0.0)).state
    given = FrameReceived(0.0, "[]")
    settled = Transition(state, given, (TopicJoinSucceeded("room", "7", {}),))
    assert Ledger().note(given, settled)[0] == "the join 7 is joined now, but None before"


def test_a_state_that_cannot_be_is_told() -> None:
    state = handle(opening_state(), TransportOpened(0.0)).state
    assert check_state(state) == []
    for wrong, problem in (
        ({"join_deadlines": {"a": None}}, "pending"),
        ({"leaves": {"a": "2"}, "leave_deadlines": {"a": None}}, "not in joins"),
        (
            {
                "joins": {"a": "1"},
                "join_deadlines": {"a": None},
                "leaves": {"a": "2"},
                "leave_deadlines": {"a": None},
            },
            "at once",
        ),
        ({"turn_began": 1.0}, "nobody's"),
        ({"turns": {"1": "a"}}, "has not begun"),
        (
            {"joins": {"a": "1"}, "join_deadlines": {"a": None}, "join_timeouts": {"a": 5.0}},
            "is not running",
        ),
        ({"heartbeat_ref": "1", "heartbeat_deadline": 1.0}, "never sent"),
        ({"heartbeat_ref": "1", "heartbeat_sent_at": 0.0, "heartbeat_deadline": None}, "deadline"),
    ):
        (found,) = check_state(attrs.evolve(state, **wrong))
        assert problem in found


def test_a_model_of_a_server_replies_before_it_ends_the_join_that_was_replaced() -> None:
    server = ServerModel(Wire())
    connection = CoreConnection()
    connection.feed(TransportOpened(0.0))
    for _ in range(2):
        (effect,) = connection.feed(JoinTopic(0.0, "room", {}, None)).return_
        assert isinstance(effect, SendFrame)
        server.receive(effect.frame)
    assert len(server.answer(server.requests[0], "ok", {})) == 1
    frames = [Wire().decode(frame) for frame in server.answer(server.requests[0], "ok", {})]
    assert [(message.event, message.ref) for message in frames] == [("phx_reply", "2"), ("phx_close", "1")]
    assert server.channels == {"room": "2"}
