"""When a line is lost: nothing is heard after a heartbeat was written, or writing makes no progress.

A connection is alive as long as something is heard, whatever it is: an answer may wait behind a large message. And it
may be silent, or read nothing, for a good reason, which is a join: while the server works one off, it does nothing
else. Only one join can be that reason, the one whose turn it is, and only if it was sent before the heartbeat, or
before writing stood still. A dead line answers no join, so the turn stays where it is: that bounds how long joins can
delay the verdict, whatever is sent or retried meanwhile.
"""

import math
from typing import Final

from .topics import Topics, Turns

LIMIT: Final = 30.0  # seconds for a heartbeat's answer where the options have none: of a `ping` without them, too

# The multiple of the limit for which a join may hold up the verdict, from what was last heard. The first of them is the
# time up to the heartbeat, where that is longer: a line may be silent for so long anyway.
LONGEST_HOLD: Final = 4


def end_of_turn(topics: Topics, turns: Turns) -> float | None:
    """Return when the turn of the join that may hold up a verdict ends: infinity without a limit, None for no join."""
    if not turns.first or turns.by_timeout:
        return None
    pending = topics.pending_join(turns.topic, turns.first)
    if pending is None or pending.rejoin == "again":
        return None  # that an overdue one is in the past already, is what its deadline says
    return math.inf if pending.deadline is None else pending.deadline


def held_up(deadline: float, end: float, limit: float, since: float, heard: float | None) -> float:
    """Return a deadline that a join holds up to the end of its turn, but not longer than `LONGEST_HOLD` allows."""
    heard = since if heard is None else heard
    longest = max(heard + LONGEST_HOLD * limit, since + (LONGEST_HOLD - 1) * limit)
    return max(deadline, min(end, longest))


def write_deadline(topics: Topics, turns: Turns, limit: float, since: float, heard: float | None) -> float:
    """Return when a line is lost on which writing has made no progress since a time."""
    end = end_of_turn(topics, turns)
    if end is None or (turns.began is not None and turns.began > since):
        return since + limit
    return held_up(since + limit, end, limit, since, heard)
