"""Joins: pending, accepted, refused, timed out, replaced."""

from typing import Any

import pytest
from tests.protocol.core import Core, only, sent, sent_ref

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    JoinTopic,
    MessageDropped,
    MessageReceived,
    PushMessage,
    ReplyReceived,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinSucceeded,
    next_deadline,
)

OK = {"status": "ok", "response": {}}


def test_a_join_is_sent_with_its_ref_as_join_ref_and_is_pending_until_its_deadline() -> None:
    core = Core(heartbeat_interval=None)
    transition = core.feed(JoinTopic(3.0, "room", {"a": [1, None]}, 10.0))
    assert sent(transition) == ("1", "1", "room", "phx_join", {"a": [1, None]})
    assert transition.built_events == ()
    assert core.state.joins == {"room": "1"}
    assert core.state.join_deadlines == {"room": 13.0}
    assert next_deadline(core.state) == 13.0


@pytest.mark.parametrize("payload", [None, [1, 2], "str", 5, True])
def test_a_join_takes_any_json_payload(payload: Any) -> None:
    assert sent(Core().feed(JoinTopic(0.0, "room", payload, None))).payload == payload


def test_a_join_with_a_binary_payload_is_refused_as_the_server_would_close_the_connection() -> None:
    core = Core()
    before = core.state
    problem = "a join's payload is JSON: Phoenix closes the connection on a binary join"
    with pytest.raises(SerializationError, match=rf"^at payload: {problem} \(in 'phx_join' of 'room'\)$"):
        core.feed(JoinTopic(0.0, "room", b"abc", None))
    assert core.state is before


def test_an_accepted_join_succeeds_with_the_response() -> None:
    core = Core(heartbeat_interval=None)
    ref = core.join()
    event = only(core.reply(ref, response={"users": 3}))
    assert event == TopicJoinSucceeded("room", ref, {"users": 3})
    assert core.state.joins == {"room": ref}
    assert core.state.join_deadlines == {}
    assert next_deadline(core.state) is None


def test_a_join_is_matched_by_ref_and_not_by_join_ref() -> None:
    core = Core()
    ref = core.join()
    stray = core.receive_idle(ref, "99", "room", "phx_reply", OK)
    assert only(stray) == ReplyReceived("room", "99", "ok", {})
    assert "room" in core.state.join_deadlines
    assert only(core.receive("77", ref, "room", "phx_reply", OK)) == TopicJoinSucceeded("room", ref, {})


def test_a_reply_with_a_joins_ref_on_another_topic_does_not_settle_the_join() -> None:
    core = Core()
    ref = core.join("room")
    assert only(core.receive_idle(None, ref, "other", "phx_reply", OK)) == ReplyReceived("other", ref, "ok", {})
    assert "room" in core.state.join_deadlines


@pytest.mark.parametrize("status", ["error", "custom", "OK", ""])
@pytest.mark.parametrize("join_ref", ["1", None])
def test_a_join_answered_with_anything_but_ok_is_refused(status: str, join_ref: str | None) -> None:
    core = Core()
    ref = core.join()
    response = {"reason": "unmatched topic"}
    event = only(core.receive(join_ref, ref, "room", "phx_reply", {"status": status, "response": response}))
    assert event == TopicJoinFailed("room", ref, "refused", response)
    assert core.state.joins == {}
    assert core.state.join_deadlines == {}
    with pytest.raises(ProtocolError, match="not joined"):
        core.feed(PushMessage("room", "msg", {}))


def test_a_refused_join_keeps_the_other_channels() -> None:
    core = Core()
    other = core.joined("other")
    pending = core.join("pending")
    core.reply(core.join("room"), status="error")
    assert core.state.joins == {"other": other, "pending": pending}
    assert core.state.join_deadlines.keys() == {"pending"}


def test_a_refused_topic_can_be_joined_again() -> None:
    core = Core()
    core.reply(core.join(), status="error")
    again = core.join()
    assert only(core.reply(again)) == TopicJoinSucceeded("room", again, {})


def test_a_join_succeeds_once_and_a_second_reply_is_a_reply_to_nobody() -> None:
    core = Core()
    ref = core.joined()
    for status in ("ok", "error"):
        again = core.receive_idle(ref, ref, "room", "phx_reply", {"status": status, "response": {}})
        assert only(again) == ReplyReceived("room", ref, status, {})
    assert core.state.joins == {"room": ref}


def test_a_join_times_out_at_its_deadline_and_not_before() -> None:
    core = Core()
    ref = core.join(timeout=10.0)
    before = core.state
    early = core.tick(9.99)
    assert early.built_events == ()
    assert early.state is before
    assert core.tick(10.0).built_events == (TopicJoinFailed("room", ref, "timeout", None),)
    assert core.state.joins == {}
    assert core.tick(11.0).built_events == ()


def test_a_join_that_timed_out_is_left_as_the_server_may_yet_accept_it() -> None:
    core = Core()
    ref = core.join(timeout=10.0)
    message = sent(core.tick(10.0))
    assert message == (ref, "2", "room", "phx_leave", {})
    assert core.state.current_ref == 2
    assert core.state.leaves == {}


def test_a_late_ok_to_a_join_that_timed_out_joins_nothing() -> None:
    core = Core()
    ref = core.join(timeout=10.0)
    leave = sent_ref(core.tick(10.0))
    late = core.receive(ref, ref, "room", "phx_reply", OK)
    assert only(late) == ReplyReceived("room", ref, "ok", {})
    welcome = only(core.receive_idle(ref, None, "room", "welcome", {}))
    assert isinstance(welcome, MessageDropped)
    assert only(core.receive_idle(ref, leave, "room", "phx_reply", OK)) == ReplyReceived("room", leave, "ok", {})
    close = only(core.receive_idle(ref, ref, "room", "phx_close", {}))
    assert isinstance(close, MessageDropped)
    assert core.state.joins == {}


def test_what_comes_late_for_a_join_that_timed_out_never_touches_the_next_join() -> None:
    core = Core()
    old = core.join(timeout=10.0)
    leave = sent_ref(core.tick(10.0))
    new = core.join()
    core.receive(old, old, "room", "phx_reply", OK)  # which ends its turn
    pending = core.state
    core.receive_idle(old, leave, "room", "phx_reply", OK)
    core.receive_idle(old, old, "room", "phx_close", {})
    assert core.state is pending
    assert core.state.joins == {"room": new}
    assert only(core.reply(new)) == TopicJoinSucceeded("room", new, {})


def test_a_join_without_a_timeout_waits_for_ever() -> None:
    core = Core(heartbeat_interval=None)
    core.join(timeout=None)
    assert core.state.join_deadlines == {"room": None}
    assert next_deadline(core.state) is None
    assert core.tick(1e9).built_events == ()


def test_several_joins_time_out_in_one_tick_each_with_its_own_leave() -> None:
    core = Core()
    first, second, third = (
        core.join("a", timeout=None, deadline=5.0),
        core.join("b", timeout=None, deadline=6.0),
        core.join("c", timeout=None, deadline=9.0),
    )
    transition = core.tick(6.0)
    assert transition.built_events == (
        TopicJoinFailed("a", first, "timeout", None),
        TopicJoinFailed("b", second, "timeout", None),
    )
    assert [effect.ref for effect in transition.return_ if hasattr(effect, "ref")] == ["4", "5"]
    assert core.state.joins == {"c": third}


def test_a_join_of_a_joined_topic_replaces_the_join() -> None:
    core = Core()
    old = core.joined()
    transition = core.feed(JoinTopic(0.0, "room", {}, 10.0))
    assert transition.built_events == (TopicJoinClosed("room", old, "replaced", None),)
    new = sent_ref(transition)
    assert core.state.joins == {"room": new}
    assert only(core.reply(new)) == TopicJoinSucceeded("room", new, {})


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
@pytest.mark.parametrize("answered", [False, True])
def test_the_end_of_an_old_join_never_touches_the_new_one(event: str, answered: bool) -> None:
    core = Core()
    old = core.joined()
    new = core.join()
    if answered:  # the usual order: the new join's ok arrives first
        core.reply(new)
    dropped = only(core.receive_idle(old, old, "room", event, {}))
    assert isinstance(dropped, MessageDropped)
    assert dropped.reason == "outdated_join_ref"
    assert core.state.joins == {"room": new}
    assert ("room" in core.state.join_deadlines) is not answered


def test_a_pending_join_that_is_replaced_cannot_succeed_any_more() -> None:
    core = Core()
    old = core.join()
    transition = core.feed(JoinTopic(0.0, "room", {}, 10.0))
    assert transition.built_events == (TopicJoinClosed("room", old, "replaced", None),)
    assert only(core.receive(old, old, "room", "phx_reply", OK)) == ReplyReceived("room", old, "ok", {})
    new = core.state.joins["room"]
    assert only(core.reply(new)) == TopicJoinSucceeded("room", new, {})


def test_a_rejoin_has_a_deadline_of_its_own() -> None:
    core = Core(heartbeat_interval=None)
    core.join(timeout=10.0)
    core.now = 8.0
    new = core.join(timeout=10.0)
    assert core.tick(10.0).built_events == ()
    assert core.tick(18.0).built_events == (TopicJoinFailed("room", new, "timeout", None),)


def test_a_broadcast_on_the_topic_of_a_pending_join_is_received() -> None:
    core = Core()
    core.join()
    event = only(core.receive_idle(None, None, "room", "presence_diff", {"joins": {}, "leaves": {}}))
    assert isinstance(event, MessageReceived)


def test_a_topic_of_5000_bytes_can_be_joined() -> None:
    core = Core()
    topic = "room:" + "ä" * 2500
    ref = core.joined(topic)
    assert core.state.joins == {topic: ref}
