"""The verdict that a line is lost: a function of what was heard and what was written.

A connection is alive as long as something is heard, whatever it is: an answer may wait behind a large message. And it
may be silent for a good reason, which is a join: while the server works one off, it answers nothing else. Only one join
can be that reason, the one whose turn it is, and only if it was sent before the heartbeat. A dead line answers no join,
so the turn stays where it is: that bounds how long joins can delay the verdict, whatever is sent or retried meanwhile.
"""

import math
from typing import Final

from .commands import TimerTicked
from .options import Options
from .state import Heartbeat

__all__ = ["heartbeat_limit", "is_write_blocked", "verdict_at"]

LIMIT: Final = 30.0
"""Seconds for the answer to a heartbeat where the options have no limit: a `ping` without heartbeats, too."""

LONGEST_HOLD: Final = 4
"""The multiple of the limit for which a join may hold up the verdict, from what was last heard.

The first of them is the time up to the heartbeat, where that is longer: a line may be silent for so long anyway.
"""


def heartbeat_limit(options: Options) -> float:
    """Return the seconds within which a heartbeat has to be answered, or anything else to be heard."""
    return LIMIT if options.heartbeat_timeout is None else options.heartbeat_timeout


def is_write_blocked(tick: TimerTicked, options: Options) -> bool:
    """Tell whether what is to be written has made no progress for too long, with a heartbeat outstanding or not."""
    blocked, limit = tick.write_blocked_since, options.heartbeat_timeout
    return blocked is not None and limit is not None and blocked + limit <= tick.now


def verdict_at(heartbeat: Heartbeat, tick: TimerTicked, limit: float, hold: float | None) -> float:
    """Return when the line is lost, if nothing is heard before that; it is lost if that is not after the tick.

    `hold` is the end of the turn of the join that may hold this up, infinity where it has none; None: no join may.
    """
    sent_at = tick.now if heartbeat.sent_at is None else heartbeat.sent_at
    blocked = math.inf if tick.write_blocked_since is None else tick.write_blocked_since + limit
    if tick.heartbeat_written is None and blocked < math.inf:
        return blocked
    written = sent_at if tick.heartbeat_written is None else tick.heartbeat_written
    answer = limit + (written if tick.heard is None else max(written, tick.heard))
    if hold is not None:
        heard = sent_at if tick.heard is None else tick.heard
        longest = max(heard + LONGEST_HOLD * limit, sent_at + (LONGEST_HOLD - 1) * limit)
        answer = max(answer, min(hold, longest))
    return min(answer, blocked)
