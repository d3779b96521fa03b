"""What holds of `handle` whatever happens, on lives that Hypothesis draws; `CheckedConnection` has the checks."""

import copy
from collections.abc import Iterator

import pytest
from hypothesis import event, given, strategies as st
from tests.drawing import examples
from tests.protocol.checked import CheckedConnection
from tests.protocol.json_texts import json_texts

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    CloseConnection,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Options,
    PushMessage,
    SendHeartbeat,
    TransportClosed,
    TransportOpened,
    handle,
)
from slipstream_trio.testing.strategies import inputs, options

pytestmark = pytest.mark.once

TOPICS = st.sampled_from(["room", "other", "phoenix"])
RAW = json_texts() | st.binary()
UNSENDABLE = st.sampled_from([{}, b"bytes", "\ud800"])
COMMANDS: st.SearchStrategy[Input] = st.one_of(
    st.builds(JoinTopic, st.just(0.0), TOPICS, UNSENDABLE, st.none()),
    st.builds(PushMessage, TOPICS, st.just("ev"), UNSENDABLE),
    st.builds(LeaveTopic, st.just(0.0), TOPICS, st.none()),
    st.just(SendHeartbeat(0.0)),
    st.just(CloseConnection()),
)


def opened(chosen: Options) -> CheckedConnection:
    """Return a connection that is open."""
    connection = CheckedConnection(chosen)
    connection.feed(TransportOpened(0.0, (), "ws://localhost/socket/websocket" if chosen.url is None else None))
    return connection


def lived(data: st.DataObject, connection: CheckedConnection, now: float = 0.0) -> Iterator[Input]:
    """Let a connection live, and give its inputs; some frames have nothing to do with what went before."""
    for _ in range(data.draw(st.integers(12, 40))):
        if connection.state.status == "closed":
            return
        stray = data.draw(st.integers(0, 7)) == 7
        drawn = FrameReceived(now, data.draw(RAW)) if stray else data.draw(inputs(connection.state, now))
        now = getattr(drawn, "now", now)
        for built in connection.feed(drawn).built_events:
            event(type(built).__name__)
        yield drawn


def end(connection: CheckedConnection) -> None:
    if connection.state.status != "closed":
        connection.feed(TransportClosed(1006))
    connection.finish()


@examples(100)
@given(options(), st.data())
def test_every_life_keeps_the_invariants(chosen: Options, data: st.DataObject) -> None:
    connection = opened(chosen)
    assert [*lived(data, connection)]
    end(connection)


@examples(40)
@given(options(), st.data())
def test_a_state_is_all_that_the_future_depends_on(chosen: Options, data: st.DataObject) -> None:
    connection = opened(chosen)
    now = max(getattr(drawn, "now", 0.0) for drawn in lived(data, connection))
    state = copy.deepcopy(connection.state)
    for drawn in lived(data, connection, now):
        state = handle(state, drawn).state
        assert state == connection.state
    assert copy.deepcopy(state) == state


@examples(40)
@given(options(), st.lists(COMMANDS, min_size=1, max_size=8), st.data())
def test_a_command_is_handled_or_refused_and_changes_nothing_then(
    chosen: Options, commands: list[Input], data: st.DataObject
) -> None:
    connection = opened(chosen)
    assert [*lived(data, connection)]
    for command in commands:
        before = connection.state
        hopeless = isinstance(command, PushMessage) and command.topic not in before.joins
        unsendable = getattr(command, "payload", {}) != {}
        try:
            connection.feed(command)
        except (ProtocolError, SerializationError):
            assert before.status != "open" or hopeless or unsendable
            assert connection.state is before


def test_a_connection_that_only_ends_keeps_the_invariants() -> None:
    connection = opened(Options(url="ws://s/socket/websocket", heartbeat_interval=None))
    end(connection)
    assert (connection.ledger.ends, connection.ledger.sent) == (1, [])
