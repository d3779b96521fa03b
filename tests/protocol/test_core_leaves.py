"""Leaves: complete at the end of the join, whatever becomes of their own reply."""

import pytest
from tests.protocol.core import Core, only, sent

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    JoinTopic,
    LeaveTopic,
    Message,
    MessageDropped,
    MessageReceived,
    PushMessage,
    ReplyReceived,
    TopicJoinClosed,
    TopicJoinSucceeded,
    TopicLeft,
    next_deadline,
)

OK = {"status": "ok", "response": {}}


def test_a_leave_is_sent_with_the_joins_ref_as_join_ref() -> None:
    core = Core(heartbeat_interval=None)
    join = core.joined()
    transition = core.feed(LeaveTopic(3.0, "room", 5.0))
    assert sent(transition) == (join, "2", "room", "phx_leave", {})
    assert transition.built_events == ()
    assert core.state.leaves == {"room": "2"}
    assert core.state.current_ref == 2
    assert next_deadline(core.state) == 8.0


def test_a_leave_is_complete_at_the_close_of_its_join_and_not_at_its_reply() -> None:
    core = Core()
    join = core.joined()
    leave = core.leave()
    assert core.receive_idle(join, leave, "room", "phx_reply", OK).built_events == ()
    assert only(core.receive(join, join, "room", "phx_close", {})) == TopicLeft("room", join, "left")
    assert not core.state.joins
    assert not core.state.leaves
    assert not core.state.leave_deadlines


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_leave_is_complete_without_a_reply_when_the_channel_ends_or_crashes(event: str) -> None:
    core = Core()
    join = core.joined()
    core.leave()
    assert only(core.receive(join, join, "room", event, {})) == TopicLeft("room", join, "left")


def test_a_leaves_reply_after_the_close_is_a_reply_to_nobody() -> None:
    core = Core()
    join = core.joined()
    leave = core.leave()
    core.receive(join, join, "room", "phx_close", {})
    assert only(core.receive_idle(join, leave, "room", "phx_reply", OK)) == ReplyReceived("room", leave, "ok", {})


def test_a_leave_answered_with_an_error_is_complete() -> None:
    core = Core()
    join = core.joined()
    leave = core.leave()
    transition = core.reply(leave, status="error")
    assert only(transition) == TopicLeft("room", join, "left")
    payload = {"status": "error", "response": {}}
    assert transition.message == Message(None, leave, "room", "phx_reply", payload)
    assert core.state.joins == {}


def test_a_reply_with_a_leaves_ref_on_another_topic_is_not_the_leaves() -> None:
    core = Core()
    core.joined()
    leave = core.leave()
    stray = core.receive_idle(None, leave, "other", "phx_reply", {"status": "error", "response": {}})
    assert only(stray) == ReplyReceived("other", leave, "error", {})


def test_leaving_a_topic_that_is_not_joined_sends_nothing_and_is_complete_at_once() -> None:
    core = Core()
    assert only(core.feed_idle(LeaveTopic(0.0, "room", 5.0))) == TopicLeft("room", None, "left")


def test_leaving_twice_sends_one_leave() -> None:
    core = Core()
    core.joined()
    core.leave()
    assert core.feed_idle(LeaveTopic(1.0, "room", 99.0)).built_events == ()


def test_a_leave_times_out_at_its_deadline_and_the_topic_is_free() -> None:
    core = Core()
    join = core.joined()
    leave = core.leave(timeout=5.0)
    assert core.tick(4.99).built_events == ()
    transition = core.tick(5.0)
    assert only(transition) == TopicLeft("room", join, "timeout")
    assert not core.state.joins
    assert not core.state.leaves
    assert not core.state.leave_deadlines
    core.receive_idle(join, leave, "room", "phx_reply", OK)
    late = only(core.receive_idle(join, join, "room", "phx_close", {}))
    assert isinstance(late, MessageDropped)
    assert late.reason == "not_joined"


def test_a_leave_without_a_timeout_waits_for_ever() -> None:
    core = Core(heartbeat_interval=None)
    core.joined()
    core.leave(timeout=None)
    assert next_deadline(core.state) is None
    assert core.tick(1e9).built_events == ()


def test_a_pending_join_that_is_left_can_neither_succeed_nor_time_out() -> None:
    core = Core()
    join = core.join(timeout=3.0)
    leave = core.leave(timeout=5.0)
    assert core.tick(4.0).built_events == ()
    accepted = core.receive(join, join, "room", "phx_reply", OK)
    assert only(accepted) == ReplyReceived("room", join, "ok", {})
    core.receive_idle(join, leave, "room", "phx_reply", OK)
    assert only(core.receive(join, join, "room", "phx_close", {})) == TopicLeft("room", join, "left")


def test_a_pending_join_that_is_left_and_then_refused_is_left() -> None:
    core = Core()
    join = core.join()
    leave = core.leave()
    refused = core.receive(None, join, "room", "phx_reply", {"status": "error", "response": {"reason": "no"}})
    assert only(refused) == TopicLeft("room", join, "left")
    assert not core.state.joins
    assert not core.state.leaves
    # The server answers the leave of a topic that is not joined with ok, and closes nothing.
    assert only(core.receive_idle(join, leave, "room", "phx_reply", OK)) == ReplyReceived("room", leave, "ok", {})
    assert core.tick(99.0).built_events == ()


def test_a_join_after_a_leave_replaces_it_and_the_old_channels_end_touches_nothing() -> None:
    core = Core()
    old = core.joined()
    leave = core.leave(timeout=5.0)
    transition = core.feed(JoinTopic(0.0, "room", {}, 60.0))
    assert transition.built_events == (TopicJoinClosed("room", old, "replaced", None),)
    new = core.state.joins["room"]
    assert not core.state.leaves
    assert not core.state.leave_deadlines
    assert only(core.receive(new, new, "room", "phx_reply", OK)) == TopicJoinSucceeded("room", new, {})
    assert isinstance(only(core.receive_idle(old, old, "room", "phx_close", {})), MessageDropped)
    assert only(core.receive_idle(old, leave, "room", "phx_reply", OK)) == ReplyReceived("room", leave, "ok", {})
    assert core.tick(20.0).built_events == ()  # the old leave's deadline is gone
    assert core.state.joins == {"room": new}


def test_a_topic_can_be_joined_again_after_it_was_left() -> None:
    core = Core()
    old = core.joined()
    core.leave()
    core.receive(old, old, "room", "phx_close", {})
    transition = core.feed(JoinTopic(0.0, "room", {}, 10.0))
    assert transition.built_events == ()
    new = core.state.joins["room"]
    assert only(core.reply(new)) == TopicJoinSucceeded("room", new, {})


def test_a_channel_that_is_being_left_still_pushes_and_receives() -> None:
    core = Core()
    join = core.joined()
    before = core.push()
    core.leave()
    assert sent(core.feed(PushMessage("room", "msg", {}))).join_ref == join
    assert only(core.reply(before)) == ReplyReceived("room", before, "ok", {})
    assert isinstance(only(core.receive_idle(join, None, "room", "tick", {})), MessageReceived)


def test_a_push_on_a_channel_that_was_left_raises() -> None:
    core = Core()
    join = core.joined()
    core.leave()
    core.receive(join, join, "room", "phx_close", {})
    before = core.state
    with pytest.raises(ProtocolError, match="'room', which is not joined"):
        core.feed(PushMessage("room", "msg", {}))
    assert core.state is before


def test_leaving_one_topic_keeps_the_others() -> None:
    core = Core()
    room, other = core.joined("room"), core.joined("other")
    core.leave("other", timeout=9.0)
    core.leave("room")
    core.receive(room, room, "room", "phx_close", {})
    assert core.state.joins == {"other": other}
    assert core.state.leaves.keys() == {"other"}
