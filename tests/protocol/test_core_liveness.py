"""Liveness: a line is lost when nothing is heard after a heartbeat was written; one join may hold that up a while."""

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st
from tests.drawing import examples
from tests.protocol.core import Core, opening_state

from slipstream_trio.protocol import (
    CloseTransport,
    FrameReceived,
    JoinTopic,
    LeaveTopic,
    PushMessage,
    SendHeartbeat,
    State,
    TimerTicked,
    TransportOpened,
    handle,
    next_deadline,
)

LOST = CloseTransport(1000, "heartbeat_timeout")


def beating(**options: Any) -> Core:
    """Return a connection whose heartbeat was sent at 30 s, and is to be looked after at 50 s."""
    core = Core(**{"heartbeat_interval": 30.0, "heartbeat_timeout": 20.0} | options)
    core.tick(30.0)
    return core


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ({}, None),
        ({"heard": 10.0}, None),
        ({"heard": 10.0, "heartbeat_written": 30.0}, None),
        ({"heartbeat_written": 31.0}, 51.0),
        ({"heard": 45.0, "heartbeat_written": 30.0}, 65.0),
        ({"heard": 45.0}, 65.0),
        ({"heard": 29.0, "heartbeat_written": 42.0}, 62.0),
        ({"heard": 49.9, "heartbeat_written": 42.0}, 69.9),
        ({"write_blocked_since": 31.0}, 51.0),
        ({"write_blocked_since": 30.0}, None),
        ({"write_blocked_since": 31.0, "heard": 49.0}, 51.0),
        ({"write_blocked_since": 45.0, "heartbeat_written": 30.0}, None),
        ({"write_blocked_since": 45.0, "heartbeat_written": 30.0, "heard": 48.0}, 65.0),
        ({"write_blocked_since": 29.0, "heartbeat_written": 30.0, "heard": 48.0}, None),
    ],
)
def test_the_verdict_follows_from_what_was_heard_and_written(line: dict[str, float], verdict: float | None) -> None:
    core = beating()
    transition = core.tick(50.0, **line)
    assert transition.return_ == (() if verdict else (LOST,))
    assert next_deadline(core.state) == verdict
    assert core.state.close_reason == (None if verdict else "heartbeat_timeout")
    if verdict:
        assert core.state.heartbeat_deadline == verdict
        assert core.tick(verdict - 0.01, **line).return_ == ()
        assert core.tick(verdict, **line).return_ == (LOST,)


def test_a_line_on_which_nothing_can_be_written_is_lost_without_a_heartbeat() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    assert core.tick(25.0, write_blocked_since=5.1).return_ == ()
    assert core.tick(25.0, write_blocked_since=5.0).return_ == (LOST,)


@pytest.mark.parametrize("interval", [None, 30.0])
def test_a_line_on_which_nothing_can_be_written_is_looked_after_when_it_is_lost(interval: float | None) -> None:
    core = Core(heartbeat_interval=interval, heartbeat_timeout=20.0)
    assert next_deadline(core.state, heard=4.0, write_blocked_since=5.0) == 25.0
    assert next_deadline(core.state, heard=24.0, write_blocked_since=5.0) == 25.0
    assert next_deadline(core.state, write_blocked_since=11.0) == (interval or 31.0)
    core.join("room", timeout=15.0)
    assert next_deadline(core.state, write_blocked_since=5.0) == 15.0
    assert core.tick(25.0, write_blocked_since=5.0).return_[-1] == LOST
    assert next_deadline(core.state, write_blocked_since=5.0) is None  # it is lost already


@pytest.mark.parametrize(
    ("join", "heard", "deadline"),
    [
        ({"timeout": 23.9}, None, 25.0),
        ({"timeout": 31.0}, None, 32.0),
        ({"timeout": 31.0}, 20.0, 32.0),
        ({"timeout": None}, None, 85.0),
        ({"timeout": None}, 2.0, 82.0),
        ({"timeout": None}, -100.0, 65.0),
        ({"timeout": None}, 20.0, 100.0),
        ({"timeout": None, "now": 5.0}, None, 85.0),
        ({"timeout": None, "now": 5.1}, None, 25.0),
        ({"timeout": None, "deadline": 70.0}, None, 70.0),
    ],
)
def test_the_join_whose_turn_it_is_may_hold_up_that_nothing_can_be_written(
    join: dict[str, Any], heard: float | None, deadline: float
) -> None:
    core = Core(heartbeat_interval=None, heartbeat_timeout=20.0)
    core.now = join.get("now", 1.0)
    core.join("room", **{name: value for name, value in join.items() if name != "now"})
    for number in range(8):
        core.join(f"next:{number}", timeout=None)
    due, line = 0.0, {"write_blocked_since": 5.0} | ({} if heard is None else {"heard": heard})
    while core.state.status == "open":
        due = next_deadline(core.state, **line) or 0.0
        assert due > core.now
        core.tick(due - 0.01, **line)
        assert core.state.status == "open"
        core.tick(due, **line)
    assert (due, core.state.close_reason) == (deadline, "heartbeat_timeout")


def test_an_overdue_rejoin_makes_no_line_lost_sooner() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.rejoin(timeout=15.0)
    core.tick(15.0, write_blocked_since=5.0)
    assert core.state.turns == {"1": "room"}
    assert next_deadline(core.state, write_blocked_since=5.0) == 25.0


def test_without_a_timeout_only_an_outstanding_heartbeat_that_cannot_be_written_loses_the_line() -> None:
    core = Core(heartbeat_interval=None, heartbeat_timeout=None)
    assert core.tick(500.0, write_blocked_since=0.0).return_ == ()
    core.heartbeat()
    assert core.tick(529.0, write_blocked_since=0.0).return_ == ()
    assert core.tick(530.0, write_blocked_since=500.5).return_ == ()
    assert core.tick(530.5, write_blocked_since=500.5).return_ == (LOST,)


def test_a_state_made_by_hand_may_not_know_when_its_heartbeat_was_sent() -> None:
    core = beating()
    core.state = attrs.evolve(core.state, heartbeat_sent_at=None, heartbeat_deadline=50.0)
    transition = handle(core.state, TimerTicked(50.0))
    assert (transition.return_, next_deadline(transition.state)) == ((), 70.0)


def test_a_line_that_is_lost_sends_no_heartbeat() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    assert core.tick(30.0, write_blocked_since=5.0).return_ == (LOST,)


# The join whose turn it is


def held_by(*joins: dict[str, Any], heard: float | None = None, **options: Any) -> float | None:
    """Return the deadline of a heartbeat of 30 s that comes after these joins; None if the line is lost at 50 s."""
    core = Core(**{"heartbeat_interval": 30.0, "heartbeat_timeout": 20.0} | options)
    for n, join in enumerate(joins):
        core.now = join.pop("now", 29.0)
        core.join(f"room:{n}", **join)
    core.tick(30.0)
    core.tick(50.0, heard=heard)
    return core.state.heartbeat_deadline if core.state.status == "open" else None


@pytest.mark.parametrize(
    ("join", "heard", "deadline"),
    [
        ({"timeout": 5.0}, None, None),
        ({"timeout": 21.0}, None, None),
        ({"timeout": 31.0}, None, 60.0),
        ({"timeout": None}, None, 110.0),
        ({"timeout": 500.0}, None, 110.0),
        ({"timeout": None, "deadline": 70.0}, None, 70.0),
        ({"timeout": 50.0, "deadline": 70.0}, None, 70.0),
        ({"timeout": None}, 10.0, 90.0),
        ({"timeout": None}, 5.0, 90.0),
        ({"timeout": 31.0}, 10.0, 60.0),
        ({"timeout": None}, 49.0, 129.0),
        ({"timeout": 31.0}, 45.0, 65.0),
        ({"timeout": 31.0, "rejoin": True}, None, 60.0),
    ],
)
def test_the_join_whose_turn_it_is_may_hold_up_the_verdict(
    join: dict[str, Any], heard: float | None, deadline: float | None
) -> None:
    assert held_by(join, heard=heard) == deadline


def test_the_joins_that_wait_for_their_turn_hold_nothing() -> None:
    full = [{"timeout": 100.0} for _ in range(8)]
    assert held_by({"timeout": 31.0}, *full) == held_by({"timeout": 31.0}) == 60.0


def test_a_join_that_was_sent_after_the_heartbeat_holds_nothing() -> None:
    core = beating()
    core.now = 31.0
    core.join(timeout=None)
    assert core.tick(50.0).return_ == (LOST,)


def test_a_join_that_timed_out_holds_nothing() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.join(timeout=30.0)
    core.join("next", timeout=None)
    core.tick(30.0)
    assert core.state.turns == {"1": "room", "2": "next"}
    assert core.tick(50.0).return_ == (LOST,)


def test_a_rejoin_that_is_overdue_holds_nothing() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.rejoin(timeout=25.0)
    core.tick(25.0)
    core.tick(30.0)
    assert core.tick(50.0).return_ == (LOST,)


@pytest.mark.parametrize("way", ["left", "replaced"])
def test_a_join_that_nobody_waits_for_holds_nothing(way: str) -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.join(timeout=None)
    core.tick(30.0)
    if way == "left":
        core.leave(timeout=None)
    else:
        core.join(timeout=None)
    assert core.tick(50.0).return_ == (LOST,)


def test_a_rejoin_that_is_made_again_holds_nothing() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.reply(core.rejoin(timeout=None), status="error")
    core.rejoin(timeout=None)
    core.tick(30.0)
    assert core.tick(50.0).return_ == (LOST,)


def test_a_join_whose_turn_began_by_a_timeout_holds_nothing() -> None:
    core = Core(heartbeat_interval=None, heartbeat_timeout=20.0)
    core.join("a", timeout=10.0)
    core.join("b", timeout=None)
    core.tick(10.0)
    core.heartbeat()
    assert core.state.turns == {"2": "b"}
    assert core.tick(30.0).return_ == (LOST,)


def test_what_was_held_up_is_looked_after_in_time_again_once_the_join_is_answered() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    slow = core.join("slow", timeout=None)
    core.join("next", timeout=None)
    core.tick(30.0)
    core.tick(50.0)
    assert next_deadline(core.state) == 110.0
    core.now = 55.0
    core.reply(slow, "slow")
    assert next_deadline(core.state) == 75.0
    # The next one has its turn now, and was sent before the heartbeat.
    assert core.tick(75.0, heard=55.0).return_ == ()
    assert next_deadline(core.state) == 135.0


@pytest.mark.parametrize("way", ["left", "replaced"])
def test_what_was_held_up_is_looked_after_in_time_again_once_nobody_waits(way: str) -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.join(timeout=None)
    core.tick(30.0)
    core.tick(50.0)
    core.now = 60.0
    if way == "left":
        core.leave(timeout=None)
    else:
        core.join(timeout=None)
    assert next_deadline(core.state) == 80.0


def test_a_push_while_the_verdict_is_held_up_changes_nothing_of_it() -> None:
    core = Core(heartbeat_interval=30.0, heartbeat_timeout=20.0)
    core.joined("room")
    core.join("slow", timeout=None)
    core.tick(30.0)
    core.tick(50.0)
    core.now = 51.0
    core.push()
    core.join("third", timeout=None)
    assert next_deadline(core.state) == 110.0


# Properties


class Life:
    """A connection of which only the client's side does anything: time, and what its users ask for."""

    def __init__(self, *, interval: float, timeout: float) -> None:
        self.state: State = opening_state(heartbeat_interval=interval, heartbeat_timeout=timeout)
        self.now = self.heard = 0.0
        self.feed(TransportOpened(0.0))

    def feed(self, given: Any) -> None:
        self.state = handle(self.state, given).state

    def run_until(self, now: float) -> None:
        """Tick at each deadline, as the timer does."""
        while self.state.status == "open":
            deadline = next_deadline(self.state)
            if deadline is None or deadline > now:
                break
            self.now = max(self.now, deadline)
            self.feed(TimerTicked(self.now, self.heard))
        self.now = max(self.now, now)

    def act(self, what: str, topic: str, timeout: float | None) -> None:
        now, joined = self.now, topic in self.state.joins
        match what:
            case "join" | "rejoin":
                self.feed(JoinTopic(now, topic, {}, timeout, rejoin=what == "rejoin"))
            case "limited":
                self.feed(JoinTopic(now, topic, {}, None, None if timeout is None else now + timeout))
            case "leave":
                self.feed(LeaveTopic(now, topic, timeout))
            case "push" if joined:
                self.feed(PushMessage(topic, "ev", {}))
            case "beat":
                self.feed(SendHeartbeat(now))

    def hear(self) -> None:
        """Hear a broadcast, which settles nothing."""
        self.heard = self.now
        self.feed(FrameReceived(self.now, '[null,null,"elsewhere","ev",{}]'))


WAITS = st.sampled_from([0.0, 0.1, 1.0, 5.0, 10.0])
ACTS = st.tuples(
    WAITS,
    st.sampled_from(["join", "join", "rejoin", "limited", "leave", "push", "beat"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([1.0, 10.0, 60.0, None, 1000.0]),
)


@examples(200)
@given(st.sampled_from([5.0, 30.0]), st.sampled_from([3.0, 30.0]), st.lists(ACTS, max_size=60))
def test_a_dead_line_is_noticed_in_time_whatever_is_asked_for(
    interval: float, timeout: float, acts: list[tuple[float, str, str, float | None]]
) -> None:
    life = Life(interval=interval, timeout=timeout)
    # A heartbeat is sent an interval after the line died at the latest, and held up no longer than 4 times the timeout.
    limit = max(interval + 3 * timeout, 4 * timeout)
    for wait, what, topic, seconds in acts:
        life.run_until(life.now + wait)
        if life.state.status == "open":
            life.act(what, topic, seconds)
    life.run_until(limit)
    assert life.state.status == "closing"
    assert life.now <= max(limit, sum(act[0] for act in acts)) + 1e-6  # sums of floats depend on their order
    assert life.state.heartbeat_deadline is not None
    assert life.state.heartbeat_deadline <= limit


@examples(200)
@given(
    st.sampled_from([5.0, 30.0]),
    st.sampled_from([3.0, 30.0]),
    st.lists(st.tuples(st.floats(0.0, 2.9), ACTS), min_size=5, max_size=60),
)
def test_a_line_on_which_something_is_heard_is_never_lost(
    interval: float, timeout: float, acts: list[tuple[float, tuple[float, str, str, float | None]]]
) -> None:
    life = Life(interval=interval, timeout=timeout)
    for wait, (_, what, topic, seconds) in acts:
        life.run_until(life.now + wait)
        assert life.state.status == "open"
        life.hear()
        life.act(what, topic, seconds)


@examples(100)
@given(st.sampled_from([None, 3.0]), st.integers(0, 12), st.sampled_from([7.0, 10.0, 29.0, None]))
def test_a_dead_line_with_many_joins_is_noticed_as_fast_as_with_one(
    heard: float | None, more: int, timeout: float | None
) -> None:
    def noticed(joins: int) -> float:
        life = Life(interval=30.0, timeout=10.0)
        for n in range(joins):
            life.act("rejoin", f"room:{n}", timeout)
        if heard is not None:
            life.run_until(heard)
            life.hear()
        while life.state.status == "open":
            life.run_until(next_deadline(life.state) or 0.0)
        return life.now

    assert noticed(1 + more) == noticed(1)
