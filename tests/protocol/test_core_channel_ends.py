"""The end of a channel, and which messages are a channel's: join_ref filtering, and names that mislead."""

import pytest
from tests.protocol import wire
from tests.protocol.core import Core, only

from slipstream_trio.protocol import (
    RESERVED_EVENTS,
    FrameReceived,
    FrameRejected,
    Message,
    MessageDropped,
    MessageReceived,
    TopicJoinClosed,
)


@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ("phx_close", {}, "closed"),
        ("phx_error", {"reason": "channel_crash"}, "crashed"),  # since 1.8.10
        ("phx_error", {}, "crashed"),  # before
    ],
)
@pytest.mark.parametrize("pending", [False, True])
def test_a_join_ends_at_the_close_or_error_with_its_ref(
    event: str, payload: object, reason: str, pending: bool
) -> None:
    core = Core()
    ref = core.join() if pending else core.joined()
    closed = only(core.receive(ref, ref, "room", event, payload))
    assert isinstance(closed, TopicJoinClosed)
    assert (closed.topic, closed.ref, closed.reason, closed.payload) == ("room", ref, reason, payload)
    assert not core.state.joins
    assert not core.state.join_deadlines


def test_a_close_is_matched_by_ref_as_v1_has_no_join_ref() -> None:
    core = Core(vsn="1.0.0")
    ref = core.join()
    core.receive_frame(wire.text_v1(ref, "room", "phx_reply", {"status": "ok", "response": {}}))
    event = only(core.receive_frame(wire.text_v1(ref, "room", "phx_error", {"reason": "channel_crash"})))
    assert event == TopicJoinClosed("room", ref, "crashed", {"reason": "channel_crash"})


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_the_end_of_one_channel_leaves_the_others(event: str) -> None:
    core = Core()
    room, other = core.joined("room"), core.joined("other")
    core.receive(room, room, "room", event, {})
    assert core.state.joins == {"other": other}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_an_end_with_this_joins_ref_on_another_topic_is_not_this_joins(event: str) -> None:
    core = Core()
    room, other = core.joined("room"), core.joined("other")
    dropped = only(core.receive_idle(room, room, "other", event, {}))
    assert isinstance(dropped, MessageDropped)
    assert core.state.joins == {"room": room, "other": other}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
@pytest.mark.parametrize("payload", [{}, {"status": "ok", "response": {}}])
def test_an_end_on_a_topic_that_is_not_joined_is_dropped(event: str, payload: object) -> None:
    message = Message("1", "1", "room", event, payload)
    assert only(Core().receive_idle(*message)) == MessageDropped(message, "not_joined")


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_channel_ends_once(event: str) -> None:
    core = Core()
    ref = core.joined()
    core.receive(ref, ref, "room", event, {})
    for late in ("phx_close", "phx_error"):
        assert isinstance(only(core.receive_idle(ref, ref, "room", late, {})), MessageDropped)


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize("payload", [{}, None, {"status": "ok", "response": {}}])
def test_an_applications_own_event_with_a_reserved_name_and_a_null_ref_is_a_message(
    name: str, broadcast: bool, payload: object
) -> None:
    core = Core()
    join_ref = core.joined()
    message = Message(None if broadcast else join_ref, None, "room", name, payload)
    assert only(core.receive_idle(*message)) == MessageReceived(message)
    assert core.state.joins == {"room": join_ref}


@pytest.mark.parametrize("name", ["phx_close", "phx_error", "phx_reply"])
def test_an_applications_own_event_ends_no_leave_and_no_pending_join(name: str) -> None:
    core = Core()
    core.joined("left")
    core.leave("left")
    core.join("pending")
    for topic in ("left", "pending"):
        message = Message(None, None, topic, name, {})
        assert only(core.receive_idle(*message)) == MessageReceived(message)


@pytest.mark.parametrize("payload", [{"n": 1}, None, "string payload", [1, 2], 5, True])
def test_messages_of_the_current_join_and_broadcasts_are_received(payload: object) -> None:
    core = Core()
    ref = core.joined()
    for join_ref in (ref, None):
        message = Message(join_ref, None, "room", "ev", payload)
        assert only(core.receive_idle(*message)) == MessageReceived(message)


def test_binary_pushes_and_broadcasts_are_received() -> None:
    core = Core()
    ref = core.joined()
    pushed = core.feed_idle(FrameReceived(0.0, wire.binary_push(ref, "room", "ev", b"\x00\xff")))
    assert only(pushed) == MessageReceived(Message(ref, None, "room", "ev", b"\x00\xff"))
    broadcast = core.feed_idle(FrameReceived(0.0, wire.binary_broadcast("room", "ev", b"")))
    assert only(broadcast) == MessageReceived(Message(None, None, "room", "ev", b""))
    stale = core.feed_idle(FrameReceived(0.0, wire.binary_push("77", "room", "ev", b"")))
    assert only(stale) == MessageDropped(Message("77", None, "room", "ev", b""), "outdated_join_ref")


def test_messages_of_another_join_are_dropped() -> None:
    core = Core()
    old = core.joined()
    new = core.joined_again()
    for join_ref in (old, "77", ""):
        message = Message(join_ref, None, "room", "ev", {})
        assert only(core.receive_idle(*message)) == MessageDropped(message, "outdated_join_ref")
    assert core.state.joins == {"room": new}


def test_messages_of_a_topic_that_is_not_joined_are_dropped() -> None:
    core = Core()
    ref = core.joined("room")
    for join_ref in (ref, None):
        message = Message(join_ref, None, "other", "ev", {})
        assert only(core.receive_idle(*message)) == MessageDropped(message, "not_joined")


def test_a_join_ref_that_is_a_number_is_not_the_string() -> None:
    core = Core()
    assert core.joined() == "1"
    event = only(core.receive_idle(1, None, "room", "ev", {}))
    assert event == FrameRejected("join_ref is int, not a string or null")


def test_a_message_with_a_ref_that_is_no_answer_is_received() -> None:
    core = Core()
    ref = core.joined()
    message = Message(ref, "5", "room", "phx_join", {})
    assert only(core.receive_idle(*message)) == MessageReceived(message)
