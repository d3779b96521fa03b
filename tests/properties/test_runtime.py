"""Whatever a server and a user do, the trace of a connection keeps its invariants."""

import trio
import trio.testing
from hypothesis import event, example, given
from tests.drawing import examples
from tests.peers import unbalanced
from tests.properties.scripts import TOPICS, Play, Script, Step, play, scripts

from slipstream_trio.telemetry import ClientJoinStop, ClientLeaveStop, ClientPushStop, ConnectStop
from slipstream_trio.testing.scripted import Act, ServerScript
from slipstream_trio.trace import verify


def run(script: Script) -> Play:
    return trio.run(play, script, clock=trio.testing.MockClock(autojump_threshold=0))


@given(scripts())
@examples(80)
@example(Script([[Step("join")]]))
@example(Script([[Step("join"), Step("push")]], ServerScript(pushes=[[Act("close", 1012)]])))
@example(Script([[Step("join"), Step("push")]], ServerScript(pushes=[[Act("drop")]]), cancel_after=30))
@example(Script([[Step("join")]], garbage=(1, b"\x00")))
@example(Script([[Step("join"), Step("push")]], acting_handler=((), 1, TOPICS)))
@example(
    Script(
        [[Step("join"), Step("sleep", value=7.0)]],
        ServerScript(joins=["crash_after", "crash_after"]),
        acting_handler=(("slipstream", "connection", "handle", "start"), 4, TOPICS),
    )
)
def test_every_trace_keeps_its_invariants(script: Script) -> None:
    played = run(script)
    for record in played.records:
        if isinstance(record, ConnectStop):
            event(f"the connection ended: {record.termination_reason}")
        elif isinstance(record, ClientJoinStop | ClientLeaveStop | ClientPushStop):
            event(f"{record.name[2]} {record.outcome}")
        elif record.name[-1] not in ("start", "stop"):
            event(" ".join(record.name[1:]))
    assert script.failing_handler is not None or not [record for record in played.records if "failure" in record.name]
    assert verify(played.records) == []
    assert unbalanced(played.records) == []
    ids = {
        (record.metadata["connection_id"], record.metadata["trace_id"])
        for record in played.records
        if record.name[1] == "connection"
    }
    assert len({trace_id for _, trace_id in ids}) == len({connection_id for connection_id, _ in ids}) == len(ids)


@given(scripts())
@examples(30)
@example(
    Script(
        [[Step("join", "room:a")], [Step("join", "room:b")]],
        acting_handler=(("slipstream", "connection", "handle", "stop"), 4, ("room:a",)),
        garbage=(1, b"G\xb9\xae\x0c"),
    )
)
def test_a_failing_handler_is_reported_and_changes_nothing(script: Script) -> None:
    failures = [
        record for record in run(script).records if record.name == ("slipstream", "telemetry", "handler", "failure")
    ]
    assert len(failures) <= (0 if script.failing_handler is None else 1)
