"""What holds of `handle` whatever happens, on scripts that Hypothesis writes. `scripts.py` has the checks."""

import copy
from typing import Any

import pytest
from hypothesis import event, given
from tests.drawing import examples
from tests.protocol.scripts import Act, Raw, opened, options, scripts

from slipstream_trio.protocol import TransportClosed

pytestmark = pytest.mark.once


@examples(100)
@given(options, scripts)
def test_every_script_keeps_the_invariants(chosen: dict[str, Any], script: list[Act | Raw]) -> None:
    run = opened(chosen)
    run.play(script)
    for life in run.seen:
        event(life)


@examples(40)
@given(options, scripts)
def test_the_same_script_gives_an_equal_state(chosen: dict[str, Any], script: list[Act | Raw]) -> None:
    runs = [opened(chosen), opened(chosen)]
    for run in runs:
        run.play(script)
    first, second = (run.core.state for run in runs)
    assert first == second
    assert copy.deepcopy(first) == first
    assert runs[0].sent == runs[1].sent


@examples(40)
@given(options, scripts, scripts)
def test_a_state_is_all_that_the_future_depends_on(
    chosen: dict[str, Any], before: list[Act | Raw], after: list[Act | Raw]
) -> None:
    first = opened(chosen)
    for act in before:
        if isinstance(act, Act):
            first.feed(first.given(act))
    second = first.fork()
    for run in (first, second):
        run.play(after)
    assert first.core.state == second.core.state
    assert first.sent == second.sent
    assert first.core.state.status == "closed"


def test_a_connection_that_only_ends_keeps_the_invariants() -> None:
    run = opened({"heartbeat_interval": None})
    run.feed(TransportClosed(1000))
    assert (run.ends, run.sent) == (1, [])
