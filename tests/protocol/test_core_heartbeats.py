"""Heartbeats: one at a time, no answer ends the connection. `test_core_liveness` has the rest."""

import attrs
import pytest
from tests.protocol import wire
from tests.protocol.core import Core, only, sent

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    CloseTransport,
    FrameReceived,
    HeartbeatAcknowledged,
    ReplyReceived,
    SendFrame,
    SendHeartbeat,
    TimerTicked,
    TopicJoinFailed,
    handle,
    next_deadline,
)

OK = {"status": "ok", "response": {}}
TIMED_OUT = CloseTransport(1000, "heartbeat_timeout")


def test_a_heartbeat_is_due_an_interval_after_the_opening_and_not_before() -> None:
    core = Core(heartbeat_interval=30.0)
    assert next_deadline(core.state) == 30.0
    assert core.tick(29.9).return_ == ()
    assert sent(core.tick(30.0)) == (None, "1", "phoenix", "heartbeat", {})
    assert core.state.heartbeat_ref == "1"


def test_the_answer_to_a_heartbeat_gives_the_round_trip_and_the_next_ones_time() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(31.0)  # a second late
    assert next_deadline(core.state) == 51.0
    core.now = 33.5
    assert only(core.reply("1", "phoenix")) == HeartbeatAcknowledged("1", 2.5)
    assert core.state.heartbeat_ref is None
    assert next_deadline(core.state) == 61.0


def test_a_heartbeat_whose_answer_took_longer_than_the_interval_is_followed_at_once() -> None:
    core = Core(heartbeat_interval=10.0, heartbeat_timeout=60.0)
    core.tick(10.0)
    core.now = 45.0
    core.reply("1", "phoenix")
    assert next_deadline(core.state) == 45.0
    assert sent(core.tick(45.0)).ref == "2"


def test_an_answer_with_an_error_is_an_answer() -> None:
    core = Core()
    ref = core.heartbeat()
    assert only(core.reply(ref, "phoenix", status="error")) == HeartbeatAcknowledged(ref, 0.0)


def test_a_state_made_by_hand_may_not_know_when_its_heartbeat_was_sent() -> None:
    core = Core(heartbeat_interval=30.0)
    ref = core.heartbeat()
    unknown = attrs.evolve(core.state, heartbeat_sent_at=None)
    transition = handle(unknown, FrameReceived(7.0, wire.text(None, ref, "phoenix", "phx_reply", OK)))
    assert only(transition) == HeartbeatAcknowledged(ref, 0.0)
    assert transition.state.heartbeat_deadline == 37.0


def test_a_heartbeat_is_answered_once() -> None:
    core = Core()
    ref = core.heartbeat()
    core.reply(ref, "phoenix")
    again = core.receive_idle(None, ref, "phoenix", "phx_reply", OK)
    assert only(again) == ReplyReceived("phoenix", ref, "ok", {})


@pytest.mark.parametrize(("ref", "topic"), [("1", "room"), ("2", "phoenix"), ("", "phoenix")])
def test_a_reply_with_another_ref_or_on_another_topic_is_no_answer(ref: str, topic: str) -> None:
    core = Core()
    assert core.heartbeat() == "1"
    assert only(core.receive_idle(None, ref, topic, "phx_reply", OK)) == ReplyReceived(topic, ref, "ok", {})
    assert core.state.heartbeat_ref == "1"


def test_a_malformed_answer_is_no_answer() -> None:
    core = Core()
    core.heartbeat()
    core.receive_idle(None, "1", "phoenix", "phx_reply", {})
    assert core.state.heartbeat_ref == "1"


def test_a_ping_is_a_heartbeat() -> None:
    core = Core(heartbeat_timeout=20.0)
    transition = core.feed(SendHeartbeat(5.0))
    assert sent(transition) == (None, "1", "phoenix", "heartbeat", {})
    assert core.state.heartbeat_sent_at == 5.0
    assert core.state.heartbeat_deadline == 25.0
    core.reply("1", "phoenix")
    assert (core.state.heartbeat_ref, core.state.heartbeat_sent_at) == (None, 5.0)


def test_a_ping_with_an_outstanding_heartbeat_sends_nothing() -> None:
    core = Core()
    core.feed(SendHeartbeat(5.0))
    assert core.feed_idle(SendHeartbeat(6.0)).built_events == ()
    core.now = 7.0
    assert only(core.reply("1", "phoenix")) == HeartbeatAcknowledged("1", 2.0)


def test_at_most_one_heartbeat_is_outstanding() -> None:
    core = Core(heartbeat_interval=10.0, heartbeat_timeout=100.0)
    core.tick(10.0)
    for now in (20.0, 30.0, 109.9):
        transition = core.feed_idle(TimerTicked(now))
        assert transition.built_events == ()


def test_no_answer_closes_the_connection_with_its_reason() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    assert core.tick(49.9).return_ == ()
    transition = core.tick(50.0)
    assert transition.return_ == (TIMED_OUT,)
    assert transition.built_events == ()
    assert (core.state.status, core.state.close_reason) == ("closing", "heartbeat_timeout")
    assert next_deadline(core.state) is None
    with pytest.raises(ProtocolError, match="closing, not open"):
        core.feed(SendHeartbeat(50.0))


def test_the_heartbeat_of_a_lost_line_keeps_its_deadline() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    core.feed(TimerTicked(51.0, heartbeat_written=29.0))
    assert (core.state.status, core.state.heartbeat_deadline) == ("closing", 50.0)


def test_the_answer_after_a_slow_join_gives_the_whole_round_trip() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    join = core.join("slow", timeout=None)
    core.tick(30.0)
    assert core.tick(50.0).return_ == ()
    core.now = 55.0
    core.reply(join, "slow")
    assert only(core.reply("2", "phoenix")) == HeartbeatAcknowledged("2", 25.0)


def test_the_deadline_is_not_extended_once_the_join_is_answered() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    core.joined()
    assert core.tick(50.0).return_ == (TIMED_OUT,)


def test_a_join_that_is_being_left_does_not_extend_the_deadline() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.tick(30.0)
    core.join(timeout=None)
    core.leave(timeout=None)
    assert core.tick(50.0).return_ == (TIMED_OUT,)


def test_one_tick_does_all_that_is_due() -> None:
    core = Core(heartbeat_interval=30.0)
    join = core.join("slow", timeout=10.0)
    left = core.joined("room")
    core.leave("room", timeout=20.0)
    transition = core.tick(30.0)
    assert [type(event).__name__ for event in transition.built_events] == ["TopicJoinFailed", "TopicLeft"]
    assert transition.built_events[0] == TopicJoinFailed("slow", join, "timeout", None)
    assert getattr(transition.built_events[1], "ref", None) == left
    sent_events = [wire.parse(effect.frame).event for effect in transition.return_ if isinstance(effect, SendFrame)]
    assert sent_events == ["phx_leave", "heartbeat"]


def test_without_an_interval_no_heartbeat_is_sent() -> None:
    core = Core(heartbeat_interval=None)
    assert next_deadline(core.state) is None
    assert core.feed_idle(TimerTicked(1e9)).built_events == ()


def test_without_an_interval_a_ping_still_works_and_nothing_follows_it() -> None:
    core = Core(heartbeat_interval=None, heartbeat_timeout=20.0)
    core.heartbeat()
    assert next_deadline(core.state) == 20.0
    core.reply("1", "phoenix")
    assert next_deadline(core.state) is None


@pytest.mark.parametrize("interval", [45.0, None])
def test_without_a_timeout_an_answer_is_awaited_for_half_a_minute(interval: float | None) -> None:
    core = Core(heartbeat_interval=interval, heartbeat_timeout=None)
    core.now = 45.0
    core.heartbeat()
    assert next_deadline(core.state) == 75.0
    assert core.tick(74.9).return_ == ()
    assert core.tick(75.0).return_ == (TIMED_OUT,)


def test_v1_heartbeats_are_sent_and_acknowledged() -> None:
    core = Core(vsn="1.0.0")
    assert sent(core.feed(SendHeartbeat(0.0))) == (None, "1", "phoenix", "heartbeat", {})
    frame = wire.text_v1("1", "phoenix", "phx_reply", OK)
    assert only(core.feed(FrameReceived(1.0, frame))) == HeartbeatAcknowledged("1", 1.0)
