"""What tasks do with a membership: join, leave, push, send, and rejoin, each in its telemetry span."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import trio

from ..errors import ChannelClosed, ConnectionLost, JoinError, JoinTimeout, PushTimeout
from ..protocol import JoinTopic, LeaveTopic, PushMessage, SendFrame, rejoin_delay
from ..telemetry import (
    ClientJoinStart,
    ClientJoinStop,
    ClientLeaveStart,
    ClientLeaveStop,
    ClientPushStart,
    ClientPushStop,
    Origin,
    Outcome,
    Record,
    RejoinScheduled,
)
from .connection import Connection
from .handshake import ask
from .membership import Membership
from .pushes import PendingPush, Settlement
from .spans import Stop, moment, observed, opening
from .waiter import Waiter

__all__ = [
    "join",
    "leave",
    "leave_soon",
    "leave_stop",
    "push",
    "push_stop",
    "queue_push",
    "recover",
    "send",
    "start_recovery",
    "until_left",
]

logger: Final = logging.getLogger("slipstream_trio")

_LEAVE_OUTCOMES: Final[Mapping[str, Outcome]] = {"leave_timeout": "timeout", "leave_lost": "lost"}

# Join


async def join(membership: Membership, timeout: float | None) -> Any:
    """Join for the first time; see `Channel.join`."""
    params = await ask(membership.payload)
    return await _observed_join(membership, params, _first_join(membership, params, timeout))


async def _observed_join(membership: Membership, params: Any, joining: Any) -> Any:
    session = membership.session
    point = session.telemetry.span(ClientJoinStart.name[:-1])
    if not point.active:
        return await joining
    start = ClientJoinStart(*opening(session), membership.topic, params)

    def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
        return ClientJoinStop(start, origin, now, outcome, getattr(error, "response", response))

    return await observed(session, point, start, joining, stop)


async def _first_join(membership: Membership, params: Any, timeout: float | None) -> Any:
    attempt = await membership.claim()
    deadline = math.inf if timeout is None else trio.current_time() + timeout
    try:
        try:
            with trio.fail_at(deadline):
                connection = await _until_room(membership)
        except trio.TooSlowError:
            raise JoinTimeout(membership.topic, timeout or 0.0) from None
        left = None if timeout is None else max(0.0, deadline - trio.current_time())
        return await _submit_join(membership, connection, params, left, timeout).wait()
    except BaseException:
        # Cancelled, perhaps just before the answer came, or not sent; if the connection told the end, nothing is left.
        if membership.attempt is attempt:
            leave_soon(membership, membership.session.options.leave_timeout)
        raise


async def _until_room(membership: Membership) -> Connection:
    session, attempt = membership.session, membership.attempt
    while True:
        session.check_usable()
        if membership.attempt is not attempt or membership.status != "joining":
            raise membership.closed_error()
        connection = session.connection
        if connection is None or not connection.is_open:
            await membership.changed()
        elif connection.outbox.has_room:
            return connection
        else:
            await connection.outbox.room()


@trio.lowlevel.enable_ki_protection
def _submit_join(
    membership: Membership, connection: Connection, params: Any, left: float | None, timeout: float | None
) -> Waiter:
    """Send a join that has so many seconds left, of those that it was given."""
    waiter = Waiter()
    # First, as a handler of telemetry may leave the topic while the join is being handled.
    membership.begin_join(waiter, timeout)
    try:
        transition = connection.handle(JoinTopic(trio.current_time(), membership.topic, params, left))
    except BaseException:
        membership.joining = None
        raise
    membership.join_ref = transition.state.joins[membership.topic]
    return waiter


# Rejoin


def start_recovery(membership: Membership, delay: float, ending: str) -> None:
    """Start a task that rejoins."""
    membership.recovery = trio.CancelScope()
    membership.session.start_task(recover, membership, membership.recovery, delay, ending)


@trio.lowlevel.enable_ki_protection
async def recover(membership: Membership, scope: trio.CancelScope, delay: float | None, ending: str) -> None:
    """Rejoin after `delay` seconds, and again by the back-off, until that succeeds or is of no use."""
    session = membership.session
    try:
        with scope:
            while delay is not None:
                if ending != "lost":
                    _announce(membership, delay, ending)
                    await trio.sleep(delay)
                    membership.step += 1
                outcome = await _rejoin(membership)
                if outcome is None:
                    return
                await trio.lowlevel.checkpoint_if_cancelled()  # what ends the recovery has settled the rest
                ending = outcome
                delay = rejoin_delay(ending, session.configuration.rejoin, membership.step, session.draw())
            membership.give_up()
    finally:
        if membership.recovery is scope:
            membership.recovery = None


async def _rejoin(membership: Membership) -> str | None:
    """Return how a rejoin failed; None if it did not, or if the next connection will see to it."""
    try:
        params = await ask(membership.payload)
    except Exception as error:  # noqa: BLE001 - the user's function; what it raises says nothing of this channel
        return await _payload_failed(membership, error)
    try:
        await _observed_join(membership, params, _again(membership, params))
    except JoinError:
        return "refused"
    except JoinTimeout:
        return "timeout"
    except ChannelClosed as closed:
        return closed.reason
    except ConnectionLost:
        return None
    except Exception as error:  # noqa: BLE001 - a payload that cannot be sent
        return await _payload_failed(membership, error)
    return None


async def _payload_failed(membership: Membership, error: Exception) -> str:
    """Tell that there is nothing to join with; the next attempt may do better."""
    logger.error(
        "socket %s: the payload for rejoining %r failed",
        membership.session.socket_id,
        membership.topic,
        exc_info=error,
    )
    await trio.lowlevel.checkpoint_if_cancelled()
    membership.payload_failed()
    membership.tell_closed(error)
    return "payload_failed"


async def _again(membership: Membership, params: Any) -> Any:
    await trio.lowlevel.checkpoint_if_cancelled()  # it may have been left before this task could run
    session = membership.session
    timeout = session.options.join_timeout
    return await _submit_join(membership, session.open_connection(), params, timeout, timeout).wait()


def _announce(membership: Membership, delay: float, ending: str) -> None:
    session = membership.session
    point = session.telemetry.point(RejoinScheduled.name)
    if point.handlers:
        point.emit(RejoinScheduled(*moment(session), membership.topic, delay, membership.step + 1, ending))


# Leave


async def leave(membership: Membership, timeout: float | None) -> None:
    """Leave, and wait until that is confirmed or given up."""
    session = membership.session
    point = session.telemetry.span(ClientLeaveStart.name[:-1])
    leaving = _leave(membership, timeout)
    if not point.active:
        await leaving
        return
    start = ClientLeaveStart(*opening(session), membership.topic, {})
    await observed(session, point, start, leaving, leave_stop(start))


def leave_stop(start: ClientLeaveStart) -> Stop:
    """Return what makes the record that a leave has ended."""

    def stop(origin: Origin, now: int, outcome: Outcome, how: Outcome | None, _: BaseException | None) -> Record:
        return ClientLeaveStop(start, origin, now, how or outcome, None)

    return stop


async def _leave(membership: Membership, timeout: float | None) -> Outcome:
    await trio.lowlevel.checkpoint()
    leave_soon(membership, timeout)
    return await until_left(membership)


async def until_left(membership: Membership) -> Outcome:
    """Wait until a leave that was asked for is complete, or given up; returns how it ended."""
    waited = await membership.until_left()
    return _LEAVE_OUTCOMES.get(membership.left_by, "ok") if waited else "ok"


@trio.lowlevel.enable_ki_protection
def leave_soon(membership: Membership, timeout: float | None) -> None:
    """Ask to leave, and do not wait; a channel that is not joined just ends.

    Handlers of telemetry may call it, whatever is being handled.
    """
    if not membership.is_held or membership.status == "leaving":
        return
    connection = membership.session.connection
    joining, membership.joining = membership.joining, None
    if connection is not None and connection.is_open and _is_joined(membership, connection, joining):
        membership.begin_leave()
        if membership.recovery is not None:
            membership.recovery.cancel()
        connection.submit(LeaveTopic(trio.current_time(), membership.topic, timeout))
    else:
        membership.end_left("left")
    if joining is not None:
        joining.fail(ChannelClosed(membership.topic, "left"))


def _is_joined(membership: Membership, connection: Connection, joining: Waiter | None) -> bool:
    """Tell whether there is a join to leave: in the state, or about to be, as it is being handled."""
    return membership.topic in connection.state.joins or (connection.handling and joining is not None)


# Push


async def push(membership: Membership, event: str, payload: Any, timeout: float | None) -> Any:
    """Push, and wait for the reply; see `Channel.push`."""
    session = membership.session
    if not session.push_point.active:
        return await _push(membership, event, payload, timeout, None)
    start = ClientPushStart(*opening(session), membership.topic, event, payload)
    refs: list[str] = []
    pushing = _push(membership, event, payload, timeout, refs)
    return await observed(session, session.push_point, start, pushing, push_stop(start, refs))


def push_stop(start: ClientPushStart, refs: list[str]) -> Stop:
    """Return what makes the record that a push has ended; `refs` has its ref, once there is one."""

    def stop(origin: Origin, now: int, outcome: Outcome, response: Any, error: BaseException | None) -> Record:
        ref = refs[0] if refs else None
        status = "ok" if error is None else getattr(error, "status", None)
        return ClientPushStop(start, origin, now, outcome, ref, status, getattr(error, "response", response))

    return stop


async def _push(membership: Membership, event: str, payload: Any, timeout: float | None, refs: list[str] | None) -> Any:
    waiter = Waiter()
    connection, pending = await queue_push(membership, event, payload, timeout, waiter)
    if refs is not None:
        refs.append(pending.ref)
    try:
        return await waiter.wait()
    except (trio.Cancelled, KeyboardInterrupt):
        connection.pushes.abandon(pending, "cancelled")
        raise


async def queue_push(
    membership: Membership, event: str, payload: Any, timeout: float | None, settlement: Settlement
) -> tuple[Connection, PendingPush]:
    """Queue a push when the channel is joined and there is room; its reply goes to `settlement`."""
    await trio.lowlevel.checkpoint_if_cancelled()
    deadline = math.inf if timeout is None else trio.current_time() + timeout
    connection = _ready(membership)
    if connection is None:
        try:
            with trio.fail_at(deadline):
                connection = await _until_ready(membership)
        except trio.TooSlowError:
            raise PushTimeout(membership.topic, event, timeout or 0.0) from None
    message = PushMessage(membership.topic, event, payload)
    return connection, _submit_push(membership, connection, message, timeout, deadline, settlement=settlement)


async def send(membership: Membership, event: str, payload: Any) -> None:
    """Push, and return when it is queued."""
    await trio.lowlevel.checkpoint()
    connection = _ready(membership) or await _until_ready(membership)
    message = PushMessage(membership.topic, event, payload)
    connection.handle(message, note=message)


@trio.lowlevel.enable_ki_protection
def _submit_push(
    membership: Membership,
    connection: Connection,
    message: PushMessage,
    timeout: float | None,
    deadline: float,
    *,
    settlement: Settlement,
) -> PendingPush:
    number = connection.outbox.number + 1
    sent = connection.handle(message).return_[0]
    assert isinstance(sent, SendFrame)
    pending = PendingPush(message.topic, message.event, sent.ref, number, timeout, settlement)
    connection.pushes.add(pending, deadline)
    if deadline < math.inf:
        membership.session.timer.arm(deadline)
    return pending


def _ready(membership: Membership) -> Connection | None:
    """Return the connection if a push can be made now, None if it has to wait; raises if it never can."""
    if membership.status == "joined":
        connection = membership.session.connection
        assert connection is not None
        if connection.is_open:
            return connection if connection.outbox.has_room else None
        membership.session.check_usable()
        return None
    if membership.is_held and membership.status in ("joining", "errored"):
        membership.session.check_usable()
        return None
    raise membership.closed_error()


async def _until_ready(membership: Membership) -> Connection:
    while True:
        connection = _ready(membership)
        if connection is not None:
            return connection
        current = membership.session.connection
        if membership.status == "joined" and current is not None and current.is_open:
            await current.outbox.room()
        else:
            await membership.changed()
