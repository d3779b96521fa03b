"""A connection's state: everything that its next step depends on, and nothing else."""

from collections.abc import Mapping
from typing import Literal

import attrs
from attrs import frozen

from .options import Options

__all__ = ["State", "Status", "next_deadline"]

Status = Literal["opening", "open", "closing", "closed"]


@frozen(kw_only=True)
class State:
    """The state of one connection, compared by value.

    Its mappings are never changed in place. Deadlines are seconds on the inputs' clock; None means no limit.

    Attributes:
        connection_id: 16 hex digits, never used by another connection.
        trace_id: 32 hex digits, that of every span of the connection.
        socket_id: 16 hex digits, that of the socket which the connection serves.
        generation: the number of this connection on its socket, from 1.
        trace_parent: the W3C traceparent that gave it its trace_id, None where the trace is its own.
        options: what it was configured with.
        status: "opening", "open", "closing" (a close was asked for) or "closed".
        joins: topic to join_ref, of joins pending and accepted.
        join_deadlines: topic to deadline, of the joins that are pending.
        leaves: topic to the leave's ref, until the leave is complete.
        leave_deadlines: topic to deadline, likewise.
        heartbeat_ref: the ref of the outstanding heartbeat, None if there is none.
        heartbeat_sent_at: when the latest heartbeat was sent.
        heartbeat_deadline: when the next heartbeat is due, or the answer to the outstanding one.
        current_ref: the last ref that was taken.
        close_reason: why a close was asked for, None if it was not.
    """

    connection_id: str
    trace_id: str
    socket_id: str
    generation: int
    options: Options
    trace_parent: str | None = None
    status: Status = "opening"
    joins: Mapping[str, str] = attrs.field(factory=dict)
    join_deadlines: Mapping[str, float | None] = attrs.field(factory=dict)
    leaves: Mapping[str, str] = attrs.field(factory=dict)
    leave_deadlines: Mapping[str, float | None] = attrs.field(factory=dict)
    heartbeat_ref: str | None = None
    heartbeat_sent_at: float | None = None
    heartbeat_deadline: float | None = None
    current_ref: int = 0
    close_reason: str | None = None


def next_deadline(state: State) -> float | None:
    """Return when the next `TimerTicked` is due, on the inputs' clock; None if none is."""
    if state.status != "open":
        return None
    deadlines = [*state.join_deadlines.values(), *state.leave_deadlines.values(), state.heartbeat_deadline]
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
