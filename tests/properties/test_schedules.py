"""Whatever goes wrong, once the server calms down, every channel is where it belongs, and nobody waits in vain."""

import trio
import trio.testing
from hypothesis import event, example, given
from tests.drawing import examples
from tests.peers import unbalanced
from tests.properties.schedules import Act, Outcome, Schedule, follow, schedules

from slipstream_trio import Backoff
from slipstream_trio.trace import verify

SPINNING = {"rejoin": Backoff((0,))}


def run(schedule: Schedule) -> Outcome:
    return trio.run(follow, schedule, clock=trio.testing.MockClock(autojump_threshold=0))


@given(schedules())
@examples(80)
@example(Schedule([[Act("join")]], [Act("drop", after=1)]))
@example(Schedule([[Act("join")]], [Act("drop", after=1)], {"reconnect": None}))
@example(Schedule([[Act("join"), Act("push", value="drop"), Act("leave")]]))
@example(Schedule([[Act("join"), Act("push", value="crash"), Act("leave", after=0.3)]]))
@example(Schedule([[Act("join"), Act("disconnect", after=1.1)]], [Act("drop", after=1)]))
@example(
    Schedule([[Act("join")]], [Act("joins", value=["refuse"] * 3), Act("drop", after=1)], {"rejoin": Backoff((0,))})
)
def test_in_the_end_everything_is_where_it_belongs(schedule: Schedule) -> None:
    outcome = run(schedule)
    for record in outcome.records:
        if record.name[:2] == ("slipstream", "client") and "outcome" in record.metadata:
            event(f"{record.name[2]} {record.metadata['outcome']}")
        elif record.name[-1] not in ("start", "stop"):
            event(" ".join(record.name[1:]))
    event(f"raised: {type(outcome.raised[0].exceptions[0]).__name__ if outcome.raised else 'nothing'}")  # type: ignore[attr-defined]
    assert outcome.wrong == []
    assert verify(outcome.records) == []
    assert unbalanced(outcome.records) == []
