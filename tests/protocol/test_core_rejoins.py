"""Rejoins: one that takes longer keeps its turn, and one that has failed is made again."""

import pytest
from tests.protocol.core import Core, leaves_of, only

from slipstream_trio.protocol import (
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
    next_deadline,
)


def test_a_rejoin_that_takes_longer_is_reported_once_and_its_late_answer_counts() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    assert core.state.rejoins == {"a": "first"}
    transition = core.tick(5.0)
    assert only(transition) == TopicJoinOverdue("a", ref)
    assert (core.state.joins, core.state.rejoins, core.state.turns) == ({"a": ref}, {"a": "overdue"}, {ref: "a"})
    assert core.state.join_deadlines == {"a": 5.0}
    assert next_deadline(core.state) == 100.0
    assert core.tick(50.0).built_events == ()
    assert only(core.reply(ref, "a")) == TopicJoinSucceeded("a", ref, {})
    assert (core.state.turns, core.state.rejoins, core.state.failed_rejoins) == ({}, {}, {})


def test_a_late_refusal_of_a_rejoin_counts() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    core.tick(5.0)
    assert only(core.reply(ref, "a", status="error")) == TopicJoinFailed("a", ref, "refused", {})
    assert (core.state.turns, core.state.failed_rejoins) == ({}, {"a": ref})


def test_a_rejoin_that_is_overdue_fails_when_something_sent_later_is_answered() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    core.tick(5.0)
    heartbeat = core.heartbeat()
    transition = core.reply(heartbeat, "phoenix")
    assert [type(event).__name__ for event in transition.built_events] == ["TopicJoinFailed", "HeartbeatAcknowledged"]
    assert transition.built_events[0] == TopicJoinFailed("a", ref, "timeout", None)
    assert leaves_of(transition) == [(ref, "a")]
    assert (core.state.joins, core.state.turns, core.state.failed_rejoins) == ({}, {}, {"a": ref})


def test_a_rejoin_that_was_passed_over_before_its_limit_fails_at_it() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    core.reply(core.heartbeat(), "phoenix")
    assert core.state.joins == {"a": ref}
    transition = core.tick(5.0)
    assert transition.built_events == (TopicJoinFailed("a", ref, "timeout", None),)
    assert leaves_of(transition) == [(ref, "a")]


def test_a_rejoin_that_is_overdue_can_be_left_by_its_user() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    core.tick(5.0)
    leave = core.leave("a", timeout=None)
    transition = core.receive(ref, leave, "a", "phx_reply", {"status": "ok", "response": {}})
    assert transition.built_events == ()
    assert core.state.turns == {}
    assert only(core.receive(ref, ref, "a", "phx_close", {})) == TopicLeft("a", ref, "left")


def test_many_rejoins_of_a_slow_server_each_have_their_whole_time() -> None:
    core = Core(heartbeat_interval=1000.0)
    refs = [core.rejoin(f"room:{n}", timeout=10.0) for n in range(100)]
    for n, ref in enumerate(refs):
        core.tick((n + 1) * 9.0)
        assert only(core.reply(ref, f"room:{n}")) == TopicJoinSucceeded(f"room:{n}", ref, {})
    assert core.state.current_ref == 100


def test_while_the_connection_closes_nothing_is_sent_for_a_rejoin_that_is_overdue() -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    core.tick(5.0)
    heartbeat = core.heartbeat()
    core.close()
    assert core.reply(heartbeat, "phoenix").return_ == ()
    assert core.state.joins == {"a": ref}


def test_a_rejoin_whose_limit_comes_while_the_connection_closes_ends_with_it() -> None:
    core = Core()
    ref = core.rejoin("a", timeout=5.0)
    rejoins = dict(core.state.rejoins)
    core.close()
    core.tick(5.0)
    assert (core.state.joins, core.state.join_deadlines, core.state.rejoins) == ({"a": ref}, {"a": None}, rejoins)


def ends_of_rejoins(core: Core, ref: str, how: str) -> Transition:
    """End the rejoin of topic a in one of the ways that it can fail."""
    match how:
        case "refused":
            return core.reply(ref, "a", status="error")
        case "timeout":
            core.tick(core.now + 5.0)
            return core.reply(core.heartbeat(), "phoenix")
        case _:
            return core.receive(ref, ref, "a", how, {})


@pytest.mark.parametrize("how", ["refused", "timeout", "phx_close", "phx_error"])
def test_a_rejoin_that_follows_a_failed_one_is_made_again(how: str) -> None:
    core = Core(heartbeat_interval=100.0)
    ref = core.rejoin("a", timeout=5.0)
    ends_of_rejoins(core, ref, how)
    assert core.state.failed_rejoins == {"a": ref}
    again = core.rejoin("a", timeout=5.0)
    assert (core.state.rejoins, core.state.failed_rejoins) == ({"a": "again"}, {})
    core.reply(again, "a")
    core.rejoin("a", timeout=5.0)
    assert core.state.rejoins == {"a": "first"}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_the_end_of_a_channel_that_was_joined_is_no_failed_rejoin(event: str) -> None:
    core = Core()
    for ref in (core.joined("a"), core.join("a")):
        core.receive(ref, ref, "a", event, {})
        assert core.state.failed_rejoins == {}


@pytest.mark.parametrize("what", ["join", "leave"])
def test_what_the_user_does_with_a_topic_forgets_that_a_rejoin_failed(what: str) -> None:
    core = Core()
    other = core.joined("b")
    ends_of_rejoins(core, core.rejoin("a", timeout=5.0), "refused")
    if what == "join":
        core.reply(core.join("a"), "a", status="error")
    else:
        assert only(core.leave_nothing("a")) == TopicLeft("a", None, "left")
    assert (core.state.joins, core.state.failed_rejoins) == ({"b": other}, {})
    core.rejoin("a")
    assert core.state.rejoins == {"a": "first"}
