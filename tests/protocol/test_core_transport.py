"""The transport's opening and end, what fits which status, and what `Transition` and `State` are."""

import json

import attrs
import pytest
from tests.protocol.core import Core, only, opening_state

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    CloseConnection,
    CloseTransport,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    EndedBy,
    HeartbeatAcknowledged,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    MessageReceived,
    PushMessage,
    ReplyReceived,
    SendHeartbeat,
    State,
    Step,
    TimerTicked,
    TopicJoinFailed,
    TopicJoinSucceeded,
    TopicLeft,
    TransportClosed,
    TransportFailed,
    TransportOpened,
    handle,
    next_deadline,
)

LATE = TimerTicked(1e9)

COMMANDS: list[Input] = [
    JoinTopic(0.0, "room", {}, 10.0),
    LeaveTopic(0.0, "room", 5.0),
    PushMessage("room", "ev", {}),
    SendHeartbeat(0.0),
    CloseConnection(),
]


def closing() -> Core:
    core = Core()
    core.joined()
    core.feed(CloseConnection())
    return core


def closed() -> Core:
    core = Core()
    core.joined()
    core.feed(TransportClosed(1000))
    return core


def test_an_opened_transport_opens_the_connection_with_its_headers() -> None:
    core = Core(opened=False)
    headers = (("server", "bandit"),)
    assert only(core.feed(TransportOpened(1.0, headers))) == ConnectionOpened(headers)
    assert core.state.status == "open"
    assert core.state.current_ref == 0


def test_a_refused_upgrade_fails_the_connection() -> None:
    core = Core(opened=False)
    headers = (("retry-after", "5"),)
    event = only(core.feed(TransportFailed("refused", 429, headers, "Too many requests")))
    assert event == ConnectionFailed("refused", 429, headers, "Too many requests")
    assert core.state.status == "closed"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            1000,
            "closed_by_server",
        ),  # also after a graceful stop: it does not mean that the client is unwanted
        (1001, "closed_by_server"),
        (1002, "closed_by_server"),
        (1005, "closed_by_server"),
        (1011, "closed_by_server"),
        (1012, "closed_by_server"),
        (4000, "closed_by_server"),
        (1006, "lost"),
    ],
)
def test_an_end_that_nobody_asked_for_is_the_servers_or_a_loss(code: int, reason: str) -> None:
    core = Core()
    core.joined()
    assert only(core.feed(TransportClosed(code, "bye"))) == ConnectionClosed(reason, code, "bye")
    assert (core.state.status, core.state.close_reason) == ("closed", reason)


@pytest.mark.parametrize("code", [1000, 1001, 1006])
def test_an_end_that_was_asked_for_has_the_reason_that_was_given(code: int) -> None:
    core = Core()
    transition = core.feed(CloseConnection(4001, "disconnected"))
    assert transition.return_ == (CloseTransport(4001, ""),)  # the reason is ours, not the wire's
    assert transition.built_events == ()
    assert core.state.status == "closing"
    assert only(core.feed(TransportClosed(code))) == ConnectionClosed("disconnected", code, "")


def test_closing_is_by_the_client_with_1000_unless_told_otherwise() -> None:
    core = Core()
    assert core.feed(CloseConnection()).return_ == (CloseTransport(1000, ""),)
    assert only(core.feed(TransportClosed(1000))) == ConnectionClosed("closed_by_client", 1000, "")


def test_a_heartbeat_timeout_is_the_reason_of_the_end_that_follows() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    core.tick(50.0)
    assert only(core.feed(TransportClosed(1006))) == ConnectionClosed("heartbeat_timeout", 1006, "")


def test_a_transport_may_end_before_it_was_opened() -> None:
    core = Core(opened=False)
    assert only(core.feed(TransportClosed(1006))) == ConnectionClosed("lost", 1006, "")


ENDS = [
    # code, told of who ended it, told of the reason; then what is told
    (1000, None, None, "closed_by_server", "server"),
    (1012, None, None, "closed_by_server", "server"),
    (1006, None, None, "lost", "network"),
    (1006, "server", None, "closed_by_server", "server"),
    (1000, "network", None, "lost", "network"),
    (1006, "client", None, "closed_by_client", "client"),
    (1002, "client", "protocol_error", "protocol_error", "client"),
    (1009, None, "message_too_big", "message_too_big", "client"),
    (3410, "server", "session_gone", "session_gone", "server"),
    (1006, None, "lost", "lost", "network"),
]


@pytest.mark.parametrize(("code", "by", "reason", "told", "told_by"), ENDS)
def test_an_end_that_nobody_asked_for_says_who_ended_it(
    code: int, by: EndedBy | None, reason: str | None, told: str, told_by: EndedBy
) -> None:
    core = Core()
    transition = core.feed(TransportClosed(code, "bye", by, reason))
    assert only(transition) == ConnectionClosed(told, code, "bye", told_by)
    assert core.state.close_reason == told


@pytest.mark.parametrize(("code", "by", "reason", "_", "__"), ENDS)
def test_an_end_that_was_asked_for_is_the_clients_whatever_the_transport_says(
    code: int, by: EndedBy | None, reason: str | None, _: str, __: EndedBy
) -> None:
    core = Core()
    core.feed(CloseConnection(1000, "reconnect"))
    assert only(core.feed(TransportClosed(code, "", by, reason))) == ConnectionClosed("reconnect", code, "", "client")


@pytest.mark.parametrize(("code", "by", "reason", "_", "__"), ENDS)
def test_a_heartbeat_that_is_not_answered_is_the_networks(
    code: int, by: EndedBy | None, reason: str | None, _: str, __: EndedBy
) -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    core.tick(50.0)
    event = only(core.feed(TransportClosed(code, "", by, reason)))
    assert event == ConnectionClosed("heartbeat_timeout", code, "", "network")


@pytest.mark.parametrize(
    ("reason", "by"),
    [
        ("closed_by_server", "server"),
        ("lost", "network"),
        ("heartbeat_timeout", "network"),
        ("closed_by_client", "client"),
        ("protocol_error", "client"),
        ("disconnected", "client"),
    ],
)
def test_an_end_of_which_only_the_reason_is_known_tells_who_ended_it(reason: str, by: EndedBy) -> None:
    assert ConnectionClosed(reason, 1000, "").ended_by == by


def test_a_transport_ends_once() -> None:
    core = closed()
    with pytest.raises(ProtocolError, match=r"^the transport of a closed connection cannot end again$"):
        core.feed(TransportClosed(1000))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("status", ["opening", "closing", "closed"])
def test_a_command_on_a_connection_that_is_not_open_raises_and_leaves_the_state(command: Input, status: str) -> None:
    core = {"opening": lambda: Core(opened=False), "closing": closing, "closed": closed}[status]()
    before = core.state
    with pytest.raises(ProtocolError, match=f"{type(command).__name__} on a connection that is {status}, not open"):
        core.feed(command)
    assert core.state is before


@pytest.mark.parametrize("given", [TransportOpened(0.0), TransportFailed("refused", 403)])
def test_a_connection_is_opened_once(given: Input) -> None:
    for core in (Core(), closing(), closed()):
        before = core.state
        with pytest.raises(ProtocolError, match=f"^{type(given).__name__} on a connection .* not opening$"):
            core.feed(given)
        assert core.state is before


def test_nothing_falls_due_on_a_connection_that_is_not_open() -> None:
    for core in (Core(opened=False), closing(), closed()):
        assert core.feed_idle(LATE).built_events == ()


def test_joins_do_not_fall_due_while_closing() -> None:
    core = Core()
    core.join("first", timeout=1.0)
    core.join("second", timeout=1.0)
    core.feed(CloseConnection())
    transition = core.feed(LATE)
    assert (transition.built_events, transition.return_) == ((), ())
    assert next_deadline(transition.state) is None
    assert core.feed_idle(LATE).built_events == ()


def test_leaves_fall_due_while_closing() -> None:
    core = Core()
    core.join("pending", timeout=1.0)
    room = core.joined("room")
    core.feed(LeaveTopic(0.0, "room", 5.0))
    core.feed(CloseConnection())
    assert core.feed(TimerTicked(4.9)).built_events == ()
    assert next_deadline(core.state) == 5.0
    assert only(core.feed(TimerTicked(5.0))) == TopicLeft("room", room, "timeout")
    assert core.state.status == "closing"


def test_what_arrives_while_closing_is_still_told() -> None:
    core = Core()
    room, pending = core.joined("room"), core.join("pending")
    push, heartbeat = core.push(), core.heartbeat()
    core.feed(CloseConnection())
    message = Message(room, None, "room", "ev", {})
    assert only(core.receive_idle(*message)) == MessageReceived(message)
    assert only(core.reply(push)) == ReplyReceived("room", push, "ok", {})
    assert only(core.reply(pending, "pending")) == TopicJoinSucceeded("pending", pending, {})
    assert only(core.reply(heartbeat, "phoenix")) == HeartbeatAcknowledged(heartbeat, 0.0)
    assert core.state.status == "closing"


def test_the_reason_of_a_close_outlives_what_arrives_until_the_end() -> None:
    core = Core()
    pending = core.join("pending")
    core.feed(CloseConnection(1000, "enough"))
    core.reply(pending, "pending")
    assert core.state.close_reason == "enough"
    end = only(core.feed(TransportClosed(1000)))
    assert isinstance(end, ConnectionClosed)
    assert end.reason == "enough"


@pytest.mark.parametrize(
    "given",
    [
        *COMMANDS,
        LeaveTopic(0.0, "elsewhere", None),
        LeaveTopic(0.0, "left", None),
        TransportOpened(0.0),
        TransportFailed("refused", 403),
        TransportClosed(1000),
        TimerTicked(0.0),
        TimerTicked(30.0),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_transition_shows_the_input_itself(given: Input) -> None:
    core = Core(opened=False)
    if isinstance(given, TransportOpened | TransportFailed):
        assert core.feed(given).message is given
        assert core.feed(TimerTicked(0.0)).message == TimerTicked(0.0)
        return
    core.feed(TransportOpened(0.0))
    core.joined("room")
    core.joined("left")
    core.leave("left")
    assert core.feed(given).message is given


def test_a_transition_shows_the_decoded_message() -> None:
    core = Core()
    transition = core.receive_idle(None, None, "room", "ev", {"n": 1})
    assert transition.message == Message(None, None, "room", "ev", {"n": 1})
    assert isinstance(transition.message, Message)


def test_a_transitions_steps_are_its_events_as_plain_data() -> None:
    core = Core()
    ref = core.join(timeout=1.0)
    transition = core.tick(1.0)
    assert transition.built_events == (TopicJoinFailed("room", ref, "timeout", None),)
    fields = {"topic": "room", "ref": ref, "reason": "timeout", "response": None}
    assert transition.event == (Step("topic_join_failed", fields),)
    step = core.receive_idle("9", None, "room", "ev", {"n": [1]}).event[0]
    message = Message("9", None, "room", "ev", {"n": [1]})
    assert step == Step("message_dropped", {"message": message, "reason": "not_joined"})


def test_a_transition_without_events_has_no_steps() -> None:
    assert Core().feed(SendHeartbeat(0.0)).event == ()


def test_states_are_compared_by_value() -> None:
    first, second = Core(), Core()
    for core in (first, second):
        core.joined("a")
        core.join("b")
        core.leave("a")
        core.heartbeat()
    assert first.state == second.state
    assert first.state is not second.state
    first.push("b")
    assert first.state != second.state


def test_a_push_changes_the_current_ref_and_nothing_else() -> None:
    core = Core()
    for topic in ("room", "left"):
        core.joined(topic)
    core.join("pending")
    core.leave("left")
    core.heartbeat()
    # No state that is open has a close_reason, but it would be kept.
    state = attrs.evolve(core.state, close_reason="as it was", trace_parent="00-trace-parent-01")
    transition = handle(state, PushMessage("room", "ev", {}))
    assert transition.state == attrs.evolve(state, current_ref=state.current_ref + 1)


def test_a_state_and_its_options_cannot_be_changed() -> None:
    state = opening_state()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        state.status = "open"  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        state.options.vsn = "1.0.0"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("vsn", "join"),
    [
        ("2.0.0", ["1", "1", "room", "phx_join", {}]),
        ("2.0.5", ["1", "1", "room", "phx_join", {}]),
        (
            "1.0.0",
            {"join_ref": "1", "ref": "1", "topic": "room", "event": "phx_join", "payload": {}},
        ),
    ],
)
def test_without_a_serializer_the_one_of_the_options_vsn_is_taken(vsn: str, join: object) -> None:
    state: State = handle(opening_state(vsn=vsn), TransportOpened(0.0)).state
    (effect,) = handle(state, JoinTopic(0.0, "room", {}, None)).return_
    assert json.loads(getattr(effect, "frame", "")) == join
