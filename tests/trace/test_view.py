"""What records say as lines of history: those that the demo itself does not bring about."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from slipstream_trio.protocol import (
    FrameReceived,
    Input,
    JoinTopic,
    Options,
    SendHeartbeat,
    State,
    TimerTicked,
    Transition,
    TransportOpened,
    handle,
)
from slipstream_trio.telemetry import (
    BufferOverflowed,
    ClientCallbackStart,
    ClientCallbackStop,
    ClientPushStart,
    ClientPushStop,
    GapOpened,
    HandlerFailed,
    HandleStart,
    HandleStop,
    MessageDiscarded,
    Origin,
    ReconnectScheduled,
    Record,
    RejoinScheduled,
    SpanException,
)
from slipstream_trio.trace.text import Secrets
from slipstream_trio.trace.view import Line, describe

ORIGIN = Origin("c" * 16, "d" * 32, "e" * 16, 1)
EMPTY = State(
    connection_id="c" * 16, trace_id="d" * 32, socket_id="e" * 16, generation=1, options=Options(url="ws://localhost/")
)


def after(*inputs: Input) -> State:
    state = handle(EMPTY, TransportOpened(0.0)).state
    for given in inputs:
        state = handle(state, given).state
    return state


def line_of(state: State, given: Input) -> Line:
    start = HandleStart(ORIGIN, "a" * 16, 0, 1_000, given, state)
    line = describe(HandleStop(start, 3_000, handle(state, given)))
    assert line is not None
    assert line.took == 2_000
    return line


def frame(join_ref: Any, ref: Any, topic: str, event: str, payload: str = "{}") -> FrameReceived:
    quoted = ["null" if value is None else f'"{value}"' for value in (join_ref, ref, topic, event)]
    return FrameReceived(1.0, f"[{','.join(quoted)},{payload}]")


JOINED = after(JoinTopic(0.0, "t", {}, 5.0), frame("1", "1", "t", "phx_reply", '{"status":"ok","response":{}}'))


@pytest.mark.parametrize(
    ("state", "given", "shown"),
    [
        (JOINED, frame("0", None, "t", "e"), {"what": "dropped", "status": "outdated_join_ref", "mood": "bad"}),
        (JOINED, frame(None, None, "u", "e"), {"what": "dropped", "status": "not_joined", "topic": "u"}),
        (JOINED, frame("1", "1", "t", "phx_close"), {"what": "closed", "mood": "bad", "event": "phx_close"}),
        (JOINED, frame("1", "7", "t", "phx_reply"), {"what": "bad frame", "mood": "bad"}),
        (JOINED, frame("1", "7", "t", "phx_reply", "3"), {"what": "bad frame", "mood": "bad"}),
        (JOINED, JoinTopic(1.0, "t", {"token": "x"}, None), {"what": "join", "direction": "out", "note": "ref 2"}),
        (JOINED, TimerTicked(1.0), {"what": "timer", "direction": "here", "note": ""}),
        (JOINED, TimerTicked(60.0), {"what": "heartbeat", "direction": "out", "note": "ref 2"}),
        (
            after(JoinTopic(0.0, "t", {}, 5.0)),
            TimerTicked(6.0),
            {"what": "timer", "direction": "out", "note": "ref 2, topic_join_failed t"},
        ),
        (
            after(JoinTopic(0.0, "t", {}, 5.0, rejoin=True)),
            TimerTicked(6.0),
            {"what": "timer", "direction": "here", "mood": "bad", "note": "topic_join_overdue t"},
        ),
        (
            after(JoinTopic(0.0, "t", {}, 0.2, rejoin=True), TimerTicked(0.5), SendHeartbeat(1.0)),
            frame(None, "2", "phoenix", "phx_reply", '{"status":"ok","response":{}}'),
            {"what": "heartbeat", "mood": "bad", "note": "ref 2 round trip 0.00 µs, the join of t timed out"},
        ),
        (after(SendHeartbeat(0.0)), SendHeartbeat(1.0), {"what": "heartbeat", "note": "one is outstanding"}),
    ],
)
def test_a_handled_input_is_shown_as_one_line(state: State, given: Input, shown: dict[str, Any]) -> None:
    line = line_of(state, given)
    assert {name: getattr(line, name) for name in shown} == shown


def test_what_happens_once() -> None:
    records: list[tuple[Record, str, str]] = [
        (MessageDiscarded(ORIGIN, 0, 5, "out", "t", "e", None, "lost"), "dropped", "out"),
        (BufferOverflowed(ORIGIN, 0, 5, "t", "raise", 8, "channel"), "overflow", "here"),
        (HandlerFailed(ORIGIN, 0, 5, "mine", ("a",), "ValueError: no", "…"), "handler", "here"),
    ]
    for record, what, direction in records:
        line = describe(record)
        assert line is not None
        assert (line.what, line.direction, line.took) == (what, direction, None)


def test_an_overflow_whose_count_a_damaged_recording_lacks() -> None:
    ended: Any = BufferOverflowed(ORIGIN, 0, 5, "t", "raise", 8, "channel", "ended", None)  # type: ignore[arg-type]
    line = describe(ended)
    assert line is not None
    assert line.note == "the channel's buffer of 8 is full: ended, 0 dropped"


PUSH = ClientPushStart(ORIGIN, "b" * 16, 0, 5, "t", "e", {})


def test_a_span_that_raised() -> None:
    line = describe(SpanException(PUSH, ORIGIN, 9, "ValueError", "the secret\n", "…"), Secrets.of(["the secret"]))
    assert line is not None
    assert (line.what, line.status, line.detail(), line.took) == (
        "client push",
        "raised",
        "ValueError: [redacted]\\n",
        4,
    )


def test_a_push_that_was_never_sent() -> None:
    line = describe(ClientPushStop(PUSH, ORIGIN, 9, "timeout", None, None, None))
    assert line is not None
    assert (line.status, line.mood, line.detail()) == ("timeout", "bad", "never sent {}")


def test_starts_have_no_line() -> None:
    assert describe(PUSH) is None


@attrs.frozen
class Novelty(Record):
    """A record of a later version."""

    name: tuple[str, ...]
    origin = ORIGIN
    measurements = {"monotonic_time": 7}  # noqa: RUF012 - a stand-in
    metadata: dict[str, Any] = attrs.field(factory=dict)


def test_records_that_are_not_known_are_shown_by_their_name() -> None:
    line = describe(Novelty(("slipstream", "client", "novelty")))
    assert line is not None
    assert line.what == "client novelty"
    assert describe(Novelty(("slipstream", "client", "wait", "start"))) is None


def test_recoveries_say_how_long_and_why() -> None:
    began, ended = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    records: list[tuple[Record, dict[str, Any]]] = [
        (
            GapOpened(ORIGIN, 0, 5, "t", "reconnected", began, ended, 1_200),
            {"what": "gap", "topic": "t", "status": "reconnected", "note": "2.500 s, 1,200 dropped"},
        ),
        (
            ReconnectScheduled(ORIGIN, 0, 5, 0.25, 3, "lost", 1006, None),
            {"what": "reconnect", "status": "lost", "note": "attempt 3 in 0.250 s, after 1006"},
        ),
        (
            ReconnectScheduled(ORIGIN, 0, 5, 0.25, 3, "no connection to localhost", None, None),
            {
                "what": "reconnect",
                "status": "connect_failed",
                "note": "attempt 3 in 0.250 s, after no connection to localhost",
            },
        ),
        (
            MessageDiscarded(ORIGIN, 0, 5, "in", None, None, None, "not JSON: at character 22"),
            {"what": "dropped", "status": "malformed", "note": "not JSON: at character 22"},
        ),
        (
            ReconnectScheduled(ORIGIN, 0, 5, 1.0, 1, "refused", None, 503),
            {"what": "reconnect", "status": "refused", "note": "attempt 1 in 1.000 s, after 503"},
        ),
        (
            RejoinScheduled(ORIGIN, 0, 5, "t", 1.0, 1, "crashed"),
            {"what": "rejoin", "topic": "t", "status": "crashed", "note": "attempt 1 in 1.000 s"},
        ),
    ]
    for record, shown in records:
        line = describe(record)
        assert line is not None
        assert {name: getattr(line, name) for name in shown} == shown
        assert line.mood == "bad"


def test_callbacks_are_called_by_their_name() -> None:
    start = ClientCallbackStart(ORIGIN, "b" * 16, 0, 5, "Lobby", "handle_message", ())
    line = describe(ClientCallbackStop(start, ORIGIN, 9, "ok", None))
    assert line is not None
    assert (line.what, line.status, line.note) == ("handle_message", "ok", "Lobby.handle_message")


def test_a_frame_that_a_recording_hides_has_a_line() -> None:
    state = after(JoinTopic(0.0, "t", {}, None))
    hidden: Any = object()
    start = HandleStart(ORIGIN, "a" * 16, 0, 5, FrameReceived(1.0, hidden), state)
    line = describe(HandleStop(start, 9, Transition(state, None)))
    assert line is not None
    assert (line.what, line.direction, line.detail()) == ("frame", "in", "")


def test_a_payload_is_shown_in_brief_and_without_secrets() -> None:
    line = Line("push", note="ref 1", payload={"token": "hunter22", "long": "x" * 99})
    assert line.detail(Secrets.of(["hunter22"]), 47) == 'ref 1 {"token":"[redacted]","long":"xxxxxxxxxxxxxxxx…'
    assert Line("push", payload=None).detail() == "null"
    assert Line("push").detail() == ""
