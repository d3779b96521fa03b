"""Joins, leaves and pushes of those who do not wait for the answer: it goes to a tap, or to a function."""

from collections.abc import Callable
from typing import Any

import trio

from ..protocol import Message
from ..protocol.message import JOIN
from ..protocol.transitions import check_join
from ..telemetry import ClientLeaveStart, ClientPushStart
from ..telemetry.bus import SpanPoint
from .membership import Membership
from .operations import leave_soon, leave_stop, push_stop, queue_push, start_recovery, until_left
from .replies import Teller
from .spans import end_span, opening

__all__ = ["request_join", "request_leave", "request_push"]


async def request_join(membership: Membership) -> None:
    """Join as soon as there is a connection, and try again by the back-off; returns when that is under way.

    Raises:
        AlreadyJoined: the topic is held; one that is being left is waited for.
        ConnectionLost: there will be no connection any more.
        SerializationError: the payload is not a JSON value.
    """
    session = membership.session
    if not callable(membership.payload):
        # What can never be sent is better said here than with every attempt.
        check_join(membership.payload)
        session.serializer.encode(Message("1", "1", membership.topic, JOIN, membership.payload))
    await membership.claim()
    membership.await_connection()
    if session.connection is not None and session.connection.is_open:
        start_recovery(membership, 0.0, "lost")
        await trio.lowlevel.checkpoint()  # that task begins first, so that joins are sent in the order of asking


async def request_leave(membership: Membership) -> None:
    """Leave, and return when that is asked for."""
    await trio.lowlevel.checkpoint()
    session = membership.session
    point = session.telemetry.span(ClientLeaveStart.name[:-1])
    if point.active:
        start = ClientLeaveStart(*opening(session), membership.topic, {})
        point.start.emit(start)
        leave_soon(membership, session.options.leave_timeout)
        if membership.status == "leaving":
            session.start_task(_end_leave, membership, point, start)
        else:
            end_span(session, point, start, leave_stop(start), result="ok")
    else:
        leave_soon(membership, session.options.leave_timeout)


@trio.lowlevel.enable_ki_protection
async def _end_leave(membership: Membership, point: SpanPoint, start: ClientLeaveStart) -> None:
    try:
        outcome = await until_left(membership)
    except trio.Cancelled as error:
        end_span(membership.session, point, start, leave_stop(start), error=error)
        raise
    end_span(membership.session, point, start, leave_stop(start), result=outcome)


async def request_push(
    membership: Membership,
    event: str,
    payload: Any,
    timeout: float | None,
    tell: Callable[[str, Any, Exception | None], None],
) -> str:
    """Push, and return the ref when that is queued; raises as `Channel.push` does until then.

    Parameters:
        tell: called once with the ref, the response and the error, one of which is None, when the push has ended.
    """
    session, point = membership.session, membership.session.push_point
    refs: list[str] = []
    start: ClientPushStart | None = None

    def told(response: Any, error: Exception | None) -> None:
        if start is not None:
            end_span(session, point, start, push_stop(start, refs), result=response, error=error)
        tell(refs[0], response, error)

    await trio.lowlevel.checkpoint()
    if point.active:
        start = ClientPushStart(*opening(session), membership.topic, event, payload)
        point.start.emit(start)
    try:
        _, pending = await queue_push(membership, event, payload, timeout, Teller(told))
    except BaseException as error:
        if start is not None:
            end_span(session, point, start, push_stop(start, refs), error=error)
        raise
    refs.append(pending.ref)
    return pending.ref
