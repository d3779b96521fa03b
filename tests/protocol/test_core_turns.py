"""Turns: the time of a join runs from its turn, and what is answered shows what was worked off before.

Hypothesis holds the turns of every script against a plain list: `Ledger` has it.
"""

from collections.abc import Callable
from typing import Any

import pytest
from tests.protocol import wire
from tests.protocol.core import Core, leaves_of, only

from slipstream_trio.protocol import (
    Event,
    FrameReceived,
    JoinTopic,
    Message,
    ReplyReceived,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    Transition,
    handle,
    is_plain,
    next_deadline,
)
from slipstream_trio.protocol.transitions import plain_reply

OK = {"status": "ok", "response": {}}


def test_the_time_of_a_join_runs_at_once_if_no_other_is_unanswered() -> None:
    core = Core()
    core.now = 2.0
    core.join("a", timeout=10.0)
    assert core.state.turns == {"1": "a"}
    assert (core.state.turn_began, core.state.join_deadlines, core.state.join_timeouts) == (2.0, {"a": 12.0}, {})


def test_the_time_of_a_join_runs_from_the_answer_to_the_one_before() -> None:
    core = Core(heartbeat_interval=None)
    first = core.join("a", timeout=10.0)
    core.join("b", timeout=10.0)
    assert (core.state.join_deadlines, core.state.join_timeouts) == ({"a": 10.0, "b": None}, {"b": 10.0})
    core.now = 7.0
    core.reply(first, "a")
    assert (core.state.join_deadlines, core.state.join_timeouts) == ({"b": 17.0}, {})
    assert (core.state.turns, core.state.turn_began, core.state.unanswered) == ({"2": "b"}, 7.0, 1)
    assert next_deadline(core.state) == 17.0


def test_an_explicit_deadline_runs_whosever_turn_it_is() -> None:
    core = Core()
    core.join("a", timeout=None)
    second = core.join("b", timeout=None, deadline=5.0)
    transition = core.tick(5.0)
    assert transition.built_events == (TopicJoinFailed("b", second, "timeout", None),)
    assert leaves_of(transition) == [(second, "b")]
    assert core.state.turns == {"1": "a", "2": "b"}


@pytest.mark.parametrize(("timeout", "deadline", "limit"), [(10.0, 4.0, 4.0), (3.0, 4.0, 3.0), (None, 4.0, 4.0)])
def test_of_two_limits_the_earlier_one_counts(timeout: float | None, deadline: float, limit: float) -> None:
    core = Core()
    core.join("a", timeout=timeout, deadline=deadline)
    assert core.state.join_deadlines == {"a": limit}
    assert core.state.join_timeouts == {}


def test_a_join_of_the_users_that_times_out_keeps_its_turn_until_it_is_answered() -> None:
    core = Core(heartbeat_interval=100.0)
    first, second = core.join("a", timeout=5.0), core.join("b", timeout=5.0)
    assert core.tick(5.0).built_events == (TopicJoinFailed("a", first, "timeout", None),)
    assert (core.state.turns, core.state.join_deadlines) == ({first: "a", second: "b"}, {"b": None})
    assert core.state.failed_rejoins == {}
    core.now = 8.0
    assert only(core.reply(first, "a")) == ReplyReceived("a", first, "ok", {})
    assert (core.state.turns, core.state.join_deadlines) == ({second: "b"}, {"b": 13.0})


@pytest.mark.parametrize("later", ["heartbeat", "join", "push", "leave"])
def test_an_answer_to_what_was_sent_later_ends_the_turn(later: str) -> None:
    core = Core(heartbeat_interval=100.0)
    core.joined("room")
    core.join("slow", timeout=5.0)
    core.tick(5.0)
    core.now = 6.0
    send: dict[str, Callable[[], str]] = {
        "heartbeat": core.heartbeat,
        "join": lambda: core.join("x"),
        "push": core.push,
        "leave": core.leave,
    }
    ref = send[later]()
    waiting = core.join("next", timeout=5.0)
    assert core.state.unanswered == (3 if later == "join" else 2)
    topic = {"heartbeat": "phoenix", "join": "x"}.get(later, "room")
    core.reply(ref, topic)
    assert core.state.turns == {waiting: "next"}
    assert core.state.join_deadlines == {"next": 11.0}


def test_the_answer_to_the_leave_of_a_join_that_timed_out_ends_its_turn() -> None:
    core = Core()
    core.join("a", timeout=5.0)
    core.tick(5.0)
    core.receive("1", "2", "a", "phx_reply", OK)
    assert (core.state.turns, core.state.turn_began) == ({}, None)


@pytest.mark.parametrize("ref", ["99", "0", "01", "", "x", "9" * 5000, "٣"])
def test_a_reply_to_what_was_never_sent_ends_no_turn(ref: str) -> None:
    core = Core()
    core.join("a")
    core.receive_idle(None, ref, "room", "phx_reply", OK)
    assert core.state.turns == {"1": "a"}


def test_a_reply_about_another_topic_is_not_the_answer_to_the_join_but_to_those_before() -> None:
    core = Core()
    core.join("a")
    core.join("b")
    core.receive(None, "2", "elsewhere", "phx_reply", OK)
    assert core.state.turns == {"2": "b"}


def test_a_frame_that_is_rejected_ends_no_turn() -> None:
    core = Core()
    core.join("a")
    core.heartbeat()
    core.receive_idle(None, "2", "phoenix", "phx_reply", {})
    assert core.state.turns == {"1": "a"}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_the_end_of_a_channel_whose_join_is_pending_ends_its_turn(event: str) -> None:
    core = Core()
    first, second = core.join("a"), core.join("b")
    core.receive(first, first, "a", event, {})
    assert core.state.turns == {second: "b"}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_the_end_of_a_channel_that_was_joined_before_ends_no_turn(event: str) -> None:
    core = Core()
    joined, second = core.joined("a"), core.join("b")
    core.receive(joined, joined, "a", event, {})
    assert core.state.turns == {second: "b"}


def test_a_refusal_ends_the_turn() -> None:
    core = Core()
    first, second = core.join("a"), core.join("b")
    core.now = 3.0
    core.reply(first, "a", status="error")
    assert (core.state.turns, core.state.turn_began) == ({second: "b"}, 3.0)


def test_a_pending_join_that_is_left_keeps_its_turn_until_the_leave_is_answered() -> None:
    core = Core()
    first, second = core.join("a"), core.join("b")
    leave = core.leave("a")
    assert core.state.turns == {first: "a", second: "b"}
    core.receive(first, leave, "a", "phx_reply", OK)
    # The leave was sent after both.
    assert core.state.turns == {}


def test_a_pending_join_that_is_replaced_keeps_its_turn_until_it_is_answered() -> None:
    core = Core()
    old, new = core.join("a"), core.join("a")
    assert core.state.turns == {old: "a", new: "a"}
    assert core.state.join_deadlines == {"a": None}
    core.now = 4.0
    core.receive(None, old, "a", "phx_reply", OK)
    assert (core.state.turns, core.state.join_deadlines) == ({new: "a"}, {"a": 14.0})


def test_a_join_that_is_passed_over_stays_pending_until_its_limit() -> None:
    core = Core(heartbeat_interval=100.0)
    first, second = core.join("a", timeout=10.0), core.join("b", timeout=8.0)
    core.now = 3.0
    core.reply(core.heartbeat(), "phoenix")
    assert (core.state.turns, core.state.unanswered) == ({}, 0)
    assert core.state.join_deadlines == {"a": 10.0, "b": 11.0}
    assert core.tick(10.0).built_events == (TopicJoinFailed("a", first, "timeout", None),)
    assert only(core.reply(second, "b")) == TopicJoinSucceeded("b", second, {})


@pytest.mark.parametrize("way", ["left", "replaced", "timed out"])
def test_a_turn_may_come_to_a_join_that_nobody_waits_for(way: str) -> None:
    core = Core(heartbeat_interval=100.0)
    first, second = core.join("a", timeout=None), core.join("b", timeout=None, deadline=4.0)
    match way:
        case "left":
            core.leave("b")
        case "replaced":
            core.join("b")
        case _:
            core.tick(4.0)
    core.now = 5.0
    core.reply(first, "a")
    assert (next(iter(core.state.turns)), core.state.turn_began) == (second, 5.0)


# Without heartbeats nothing else might ever end a turn


def silent() -> Core:
    return Core(heartbeat_interval=None)


def test_without_heartbeats_the_turn_passes_on_when_a_join_times_out() -> None:
    core = silent()
    first, second = core.join("a", timeout=5.0), core.join("b", timeout=5.0)
    assert core.tick(5.0).built_events == (TopicJoinFailed("a", first, "timeout", None),)
    assert (core.state.turns, core.state.turn_began, core.state.turn_by_timeout) == ({second: "b"}, 5.0, True)
    assert core.tick(10.0).built_events == (TopicJoinFailed("b", second, "timeout", None),)
    assert (core.state.turns, core.state.turn_by_timeout) == ({}, False)


def test_without_heartbeats_the_turn_skips_joins_that_were_given_up_before_it_was_theirs() -> None:
    core = silent()
    core.join("a", timeout=5.0)
    core.join("b", timeout=None, deadline=3.0)
    last = core.join("c", timeout=5.0)
    core.tick(3.0)
    assert list(core.state.turns) == ["1", "2", "3"]
    core.tick(5.0)
    assert (core.state.turns, core.state.join_deadlines) == ({last: "c"}, {"c": 10.0})


def test_without_heartbeats_the_turn_skips_a_join_that_was_replaced_by_one_that_is_being_left() -> None:
    core = silent()
    core.join("a", timeout=5.0)
    core.join("b", timeout=None)
    last = core.join("b", timeout=None)
    core.leave("b", timeout=None)
    core.tick(5.0)
    assert core.state.turns == {last: "b"}


def test_without_heartbeats_a_leave_that_times_out_ends_the_turn_of_its_join() -> None:
    core = silent()
    core.join("a", timeout=None)
    last = core.join("b", timeout=5.0)
    core.leave("a", timeout=2.0)
    assert core.state.unanswered == 2
    core.tick(2.0)
    assert (core.state.turns, core.state.join_deadlines) == ({last: "b"}, {"b": 7.0})


def test_without_heartbeats_a_join_that_is_being_left_keeps_its_turn_whatever_else_times_out() -> None:
    core = Core(heartbeat_interval=None)
    core.joined("old")
    core.join("left", timeout=50.0)
    core.join("next", timeout=10.0)
    core.leave("left", timeout=40.0)
    core.leave("old", timeout=5.0)
    core.tick(5.0)
    assert set(core.state.leaves) == {"left"}
    assert (core.state.turns, core.state.join_deadlines) == ({"2": "left", "3": "next"}, {"next": None})


def test_without_heartbeats_a_join_that_is_replaced_has_no_turn_any_more() -> None:
    core = silent()
    core.join("a", timeout=None)
    core.now = 3.0
    new = core.join("a", timeout=5.0)
    assert (core.state.turns, core.state.join_deadlines) == ({new: "a"}, {"a": 8.0})


def test_without_heartbeats_a_rejoin_that_is_overdue_loses_its_turn_and_its_answer_counts() -> None:
    core = silent()
    first, second = core.rejoin("a", timeout=5.0), core.rejoin("b", timeout=5.0)
    assert only(core.tick(5.0)) == TopicJoinOverdue("a", first)
    assert (core.state.turns, core.state.joins) == ({second: "b"}, {"a": first, "b": second})
    core.now = 7.0
    assert only(core.reply(first, "a")) == TopicJoinSucceeded("a", first, {})
    assert only(core.reply(second, "b")) == TopicJoinSucceeded("b", second, {})


def test_without_heartbeats_a_rejoin_that_is_overdue_fails_when_something_sent_later_is_answered() -> None:
    core = silent()
    first, second, third = (core.rejoin(topic, timeout=5.0) for topic in "abc")
    core.tick(5.0)
    core.tick(10.0)
    assert core.state.turns == {third: "c"}
    transition = core.reply(third, "c")
    assert transition.built_events == (
        TopicJoinFailed("a", first, "timeout", None),
        TopicJoinFailed("b", second, "timeout", None),
        TopicJoinSucceeded("c", third, {}),
    )
    assert leaves_of(transition) == [(first, "a"), (second, "b")]


def test_without_heartbeats_a_join_that_is_sent_later_changes_no_turn_that_has_begun() -> None:
    core = silent()
    first, second = core.rejoin("a", timeout=5.0), core.rejoin("b", timeout=50.0)
    core.tick(5.0)
    core.now = 7.0
    third = core.rejoin("c")
    assert (core.state.turns, core.state.turn_began) == ({second: "b", third: "c"}, 5.0)
    assert core.state.turn_by_timeout is True
    assert core.reply(second, "b").built_events == (
        TopicJoinFailed("a", first, "timeout", None),
        TopicJoinSucceeded("b", second, {}),
    )


# Shortcuts


@pytest.mark.parametrize("event", ["phx_reply", "phx_close", "phx_error"])
def test_what_may_end_a_turn_is_not_plain(event: str) -> None:
    core = Core()
    core.joined("room")
    core.join("slow")
    message = wire.parse(wire.text("1", "2", "room", event, OK))
    assert not is_plain(core.state, message)


def test_the_reply_to_a_push_takes_the_shortcut_while_no_join_or_leave_is_unanswered() -> None:
    core = Core()
    core.joined("room")
    message = Message(None, core.push(), "room", "phx_reply", OK)
    assert plain_reply(core.state, message) == ReplyReceived("room", "2", "ok", {})
    core.leave("room")
    assert plain_reply(core.state, message) is None


def test_a_join_says_what_it_is_by_position_and_by_name() -> None:
    whole = JoinTopic(1.0, "room", {}, 10.0, 20.0, rejoin=True)
    assert whole == JoinTopic(1.0, "room", {}, 10.0, 20.0, True)
    assert (JoinTopic(1.0, "room", {}, 10.0).deadline, JoinTopic(1.0, "room", {}, 10.0).rejoin) == (None, False)


def test_a_replaced_join_is_told_before_its_answer_comes() -> None:
    core = Core()
    core.join("a")
    transition = core.feed(JoinTopic(0.0, "a", {}, 1.0))
    told: tuple[Event, ...] = (TopicJoinClosed("a", "1", "replaced", None),)
    assert transition.built_events == told


def test_turns_of_thousands_are_worked_off_in_order() -> None:
    core = silent()
    refs = [core_join(core, f"t{n}") for n in range(1000)]
    assert list(core.state.turns) == refs
    for n, ref in enumerate(refs):
        frame = wire.text(None, ref, f"t{n}", "phx_reply", OK)
        transition = handle_quickly(core, FrameReceived(float(n), frame))
        assert transition.built_events == (TopicJoinSucceeded(f"t{n}", ref, {}),)
        assert core.state.unanswered == 999 - n
    assert core.state.turns == {}


def core_join(core: Core, topic: str) -> str:
    handle_quickly(core, JoinTopic(0.0, topic, {}, 5000.0))
    return str(core.state.current_ref)


def handle_quickly(core: Core, given: Any) -> Transition:
    """Handle an input without the checks that look at all topics."""
    transition = handle(core.state, given, core.serializer)
    core.state = transition.state
    return transition
