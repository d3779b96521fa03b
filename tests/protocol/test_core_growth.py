"""An input costs its own topic's share, however many topics there are: counted in calls, so that it holds anywhere."""

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest

from slipstream_trio.protocol import (
    FrameReceived,
    JoinTopic,
    LeaveTopic,
    MessageReceived,
    Options,
    PushMessage,
    SendFrame,
    SendHeartbeat,
    State,
    TimerTicked,
    TopicJoinFailed,
    handle,
    next_deadline,
)
from slipstream_trio.protocol.draft import MOST_AT_A_TICK
from slipstream_trio.protocol.topics import Heap


def with_topics(count: int, *, pending: bool, limit: float | None = 1.0) -> State:
    topics = [f"room:{n}" for n in range(count)]
    return State(
        connection_id="1" * 16,
        trace_id="1" * 32,
        socket_id="1" * 16,
        generation=1,
        options=Options(url="ws://x"),
        status="open",
        joins={topic: str(n + 1) for n, topic in enumerate(topics)},
        join_deadlines=dict.fromkeys(topics, limit) if pending else {},
        current_ref=count,
        heartbeat_deadline=100.0,
    )


def calls(function: Callable[[], Any]) -> int:
    """Return how many functions are called, Python's and C's."""
    counted = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    function()  # what is made once is made
    gc.disable()  # a collection calls what pytest's plugins have asked for
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted


def reply(number: int) -> FrameReceived:
    text = f'["{number}","{number}","room:{number - 1}","phx_reply",{{"status":"ok","response":{{}}}}]'
    return FrameReceived(0.5, text)


INPUTS: dict[str, tuple[bool, Any]] = {
    "join": (True, JoinTopic(0.5, "new", {}, 10.0)),
    "join with a deadline": (True, JoinTopic(0.5, "new", {}, None, 0.7)),
    "join again": (True, JoinTopic(0.5, "room:50", {}, 10.0)),
    "reply": (True, reply(1)),
    "late reply": (True, reply(20)),
    "refusal": (True, FrameReceived(0.5, '["1","1","room:0","phx_reply",{"status":"error","response":{}}]')),
    "leave": (False, LeaveTopic(0.5, "room:50", 5.0)),
    "leave of a pending join": (True, LeaveTopic(0.5, "room:50", 5.0)),
    "close": (False, FrameReceived(0.5, '["51","51","room:50","phx_close",{}]')),
    "crash": (True, FrameReceived(0.5, '["1","1","room:0","phx_error",{}]')),
    "push": (False, PushMessage("room:50", "ev", {})),
    "message": (False, FrameReceived(0.5, '["51",null,"room:50","ev",{}]')),
    "heartbeat": (True, SendHeartbeat(0.5)),
    "tick": (False, TimerTicked(0.5)),
    "tick with all due": (True, TimerTicked(2.0)),
}


@pytest.mark.parametrize("what", INPUTS)
def test_an_input_costs_the_same_with_ten_thousand_topics_as_with_some(what: str) -> None:
    pending, given = INPUTS[what]
    small, large = with_topics(300, pending=pending), with_topics(10_000, pending=pending)
    few, many = (calls(partial(handle, state, given)) for state in (small, large))
    assert many <= 1.3 * few


def test_a_join_costs_the_same_with_ten_thousand_leaves_as_with_some() -> None:
    costs = []
    for count in (300, 10_000):
        state = with_topics(count, pending=False)
        leaves = {topic: str(count + n) for n, topic in enumerate(state.joins)}
        state = attrs.evolve(state, leaves=leaves, leave_deadlines=dict.fromkeys(leaves, 9.0))
        costs.append(calls(partial(handle, state, JoinTopic(0.5, "new", {}, None, 0.7))))
    few, many = costs
    assert many <= 1.3 * few


def test_the_next_deadline_costs_the_same_with_ten_thousand_topics() -> None:
    for pending in (True, False):
        few, many = (
            calls(partial(next_deadline, state))
            for state in (with_topics(10, pending=pending), with_topics(10_000, pending=pending))
        )
        assert many <= few


def test_a_tick_handles_a_part_of_what_is_due_and_the_next_is_due_at_once() -> None:
    state = with_topics(1000, pending=True)
    told: list[str] = []
    sent = 0
    for _ in range(4):
        assert next_deadline(state) == 1.0
        transition = handle(state, TimerTicked(2.0))
        assert len(transition.built_events) <= MOST_AT_A_TICK == 256
        told += [event.topic for event in transition.built_events if isinstance(event, TopicJoinFailed)]
        sent += sum(isinstance(effect, SendFrame) for effect in transition.return_)
        state = transition.state
    assert told == [f"room:{n}" for n in range(1000)]
    assert sent == 1000
    assert state.joins == {}
    assert next_deadline(state) == 100.0


def test_a_heartbeat_that_is_due_is_sent_though_more_is_due_than_a_tick_handles() -> None:
    state = with_topics(1000, pending=True)
    transition = handle(state, TimerTicked(100.0))
    assert transition.state.heartbeat_ref == str(1000 + MOST_AT_A_TICK + 1)


def nodes(heap: Heap) -> int:
    return 0 if heap is None else 1 + nodes(heap[2]) + nodes(heap[3])


def test_topics_that_come_and_go_leave_nothing_behind() -> None:
    # One that is there all the time has the earliest deadline, so the others' are not found on top of the heap.
    state = handle(with_topics(0, pending=False), JoinTopic(0.0, "stays", {}, None, 1.0)).state
    state = handle(state, FrameReceived(0.0, '["1","1","t","phx_reply",{"status":"ok","response":{}}]')).state
    for n in range(2, 2000, 2):
        state = handle(state, JoinTopic(0.0, f"room:{n - 1}", {}, None, 9.0)).state
        state = handle(state, reply(n)).state
        state = handle(state, LeaveTopic(0.0, f"room:{n - 1}", 9.0)).state
        state = handle(state, FrameReceived(0.0, f'["{n}","{n}","room:{n - 1}","phx_close",{{}}]')).state
        topics = state.topics
        size = 0 if topics.heap is None else topics.heap[0]
        assert size == nodes(topics.heap) <= 2 * (len(topics.pending) + len(topics.leaving)) + 64
    assert (state.joins, state.leaves, state.turns) == ({"stays": "1"}, {}, {})
    assert next_deadline(state) == 1.0


def test_a_message_on_a_joined_topic_leaves_the_very_state() -> None:
    state = with_topics(10, pending=False)
    transition = handle(state, FrameReceived(0.5, '["3",null,"room:2","ev",{}]'))
    assert transition.state is state
    assert isinstance(transition.built_events[0], MessageReceived)
