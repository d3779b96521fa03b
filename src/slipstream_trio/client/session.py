"""What lies behind a `Socket`: the connection of the moment, the topics, and who waits for what."""

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from weakref import WeakKeyDictionary

import trio

from ..errors import ConnectionLost, ConnectTimeout
from ..protocol import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Disconnect,
    Event,
    FrameRejected,
    HeartbeatAcknowledged,
    Message,
    MessageDropped,
    MessageReceived,
    Options,
    ReplyReceived,
    SendHeartbeat,
    Serializer,
    State,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinSucceeded,
    TopicLeft,
)
from ..telemetry import (
    ClientConnectStart,
    ClientConnectStop,
    ClientPushStart,
    GapOpened,
    MessageDiscarded,
    Origin,
    Outcome,
    ReconnectScheduled,
    ReplyOrphaned,
    Telemetry,
)
from ..telemetry.bus import Point, SpanPoint
from ..telemetry.span import exception_record
from ..transport import Connector
from .buffer import Crowd
from .configuration import Configuration
from .connection import Connection
from .spans import moment, opening, outcome_of
from .status import Status, StatusLog
from .tap import SocketTap
from .timer import Timer
from .waiter import Waiter

if TYPE_CHECKING:
    from .membership import Membership

__all__ = ["Session"]

logger: Final = logging.getLogger("slipstream_trio")


class Session:
    """The inside of a socket. Knows its connection and its memberships; neither knows the other.

    Attributes:
        statuses: what `Socket.status` shows, and its changes.
        memberships: topic to membership: joining, joined or leaving.
        channels: all memberships that somebody has, those that hold no topic included, in the order of their making.
        connection: the connection of the moment, or the last one.
        error: why the session has ended for good, None while it has not, or if that was asked for.
        asked_to_end: "closed_by_client" or "disconnected", once that is asked for.
        shown: the connection whose ids and state the socket shows: the last that was open.
        opened: set when the first connection is open, or there will be none.
        finished: set when everything has ended.
        tap: who is told of connections as they come and go, None if nobody is.
    """

    def __init__(self, configuration: Configuration, tap: SocketTap | None = None) -> None:
        self.configuration: Configuration = configuration
        self.tap = tap
        self.telemetry: Telemetry = configuration.telemetry
        self.options: Options = configuration.options()
        self.connector: Connector = configuration.chosen_connector()
        self.serializer: Serializer = configuration.chosen_serializer()
        self.socket_id: str = self.telemetry.ids.span_id()
        self.timer: Timer = Timer(self._due)
        self.statuses: StatusLog = StatusLog()
        self.memberships: dict[str, Membership] = {}
        self.channels: WeakKeyDictionary[Membership, None] = WeakKeyDictionary()
        self.connection: Connection | None = None
        self.crowded: Crowd | None = None
        self.error: BaseException | None = None
        self.asked_to_end: str | None = None
        self.on_end: Callable[[], object] = lambda: None
        self.abort: Callable[[], object] = lambda: None
        self.nursery: trio.Nursery | None = None
        self.opened: trio.Event = trio.Event()
        self.finished: trio.Event = trio.Event()
        self.shown: Connection | None = None
        self.gap_point: Point = self.telemetry.point(GapOpened.name)
        self.push_point: SpanPoint = self.telemetry.span(ClientPushStart.name[:-1])
        self._random = random.Random()  # noqa: S311 - for jitter
        self._last: ConnectionLost | None = None
        self._no_connection = Origin(None, None, self.socket_id, 0)
        self._pings: list[Waiter] = []
        self._connecting: ClientConnectStart | None = None
        self._connect_point = self.telemetry.span(ClientConnectStart.name[:-1])
        self._orphaned = self.telemetry.point(ReplyOrphaned.name)
        self._scheduled = self.telemetry.point(ReconnectScheduled.name)
        self._discarded = self.telemetry.point(MessageDiscarded.name)

    # What others ask

    @property
    def origin(self) -> Origin:
        """The ids of the connection of the moment."""
        return self._no_connection if self.connection is None else self.connection.origin

    @property
    def status(self) -> Status:
        """What `Socket.status` shows."""
        return self.statuses.now

    def open_connection(self) -> Connection:
        """Return the connection, which is open; raises `ConnectionLost` if it is not."""
        connection = self.connection
        if connection is None or not connection.is_open or self.status == "closing":
            raise self.lost()
        return connection

    def check_usable(self) -> None:
        """Raise `ConnectionLost` if there will be no connection any more."""
        if self.status in ("closing", "closed"):
            raise self.lost()

    def lost(self) -> ConnectionLost:
        """Return a new exception that tells how the connection ended."""
        if self.asked_to_end is not None:
            return ConnectionLost(self.asked_to_end)
        if self._last is not None:
            return ConnectionLost(self._last.reason, self._last.code)
        return ConnectionLost("connect_failed")

    async def until_open(self) -> Connection:
        """Wait until the connection is open; raises `ConnectionLost` if it never will be."""
        while True:
            self.check_usable()
            if self.status == "connected" and self.connection is not None and self.connection.is_open:
                return self.connection
            await self.statuses.changed()

    async def disconnect(self) -> None:
        """Close the connection for good, and wait until that is done."""
        await trio.lowlevel.checkpoint()
        if self.status not in ("closing", "closed"):
            self.asked_to_end = "disconnected"
            self.statuses.set("closing")
            self.close_connection(self.deadline())
        await self.finished.wait()

    def deadline(self) -> float:
        """Return by when everything has to be closed that is being closed from now on."""
        timeout = self.options.close_timeout
        return math.inf if timeout is None else trio.current_time() + timeout

    def close_connection(self, deadline: float) -> None:
        """Close the connection, or stop trying to have one."""
        connection = self.connection
        if connection is not None and connection.state.status in ("open", "closing"):
            connection.close(1000, self.asked_to_end or "closed_by_client", deadline)
        else:
            self.abort()

    def start_task(self, task: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Run an async function in the socket's own nursery."""
        assert self.nursery is not None
        self.nursery.start_soon(task, *arguments)

    def draw(self) -> float:
        """Return a random number from 0 to 1."""
        return self._random.random()

    def utc_now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(self.telemetry.time_ns() / 1e9, UTC)

    async def ping(self) -> float:
        """Wait for the answer to a heartbeat; returns the round trip in seconds."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = Waiter()
        self.open_connection().handle(SendHeartbeat(trio.current_time()))
        self._pings.append(waiter)
        try:
            round_trip: float = await waiter.wait()
        finally:
            self._pings.remove(waiter)
        return round_trip

    # What the supervisor says

    def begin(self, trace_parent: str | None, attempt: int, generation: int) -> Connection:
        """Return the connection for another attempt."""
        ids = self.telemetry.ids
        state = State(
            connection_id=ids.span_id(),
            trace_id=ids.trace_id() if trace_parent is None else trace_parent[3:35],
            socket_id=self.socket_id,
            generation=generation,
            options=self.options,
            trace_parent=trace_parent,
        )
        self.connection = Connection(
            state, serializer=self.serializer, telemetry=self.telemetry, owner=self, timer=self.timer
        )
        if self._connect_point.active:
            self._connecting = ClientConnectStart(*opening(self), self.options, attempt)
            self._connect_point.start.emit(self._connecting)
        return self.connection

    def reconnect_scheduled(self, disconnect: Disconnect, delay: float, attempt: int) -> None:
        """Tell that another attempt follows."""
        self.statuses.set("reconnecting" if self.shown is not None else "connecting")
        if self._scheduled.handlers:
            self._scheduled.emit(
                ReconnectScheduled(*moment(self), delay, attempt, disconnect.reason, disconnect.code, disconnect.status)
            )

    def settle(self) -> None:
        """End for good: settle those who wait."""
        self.statuses.set("closed")
        for membership in list(self.memberships.values()):
            membership.lost()
        for membership in list(self.channels):
            membership.end_streams()

    def end(self) -> None:
        """Let the body know that the end has come."""
        self.opened.set()
        self.finished.set()
        if self.asked_to_end is None:
            self.on_end()
        if self.tap is not None:
            self.tap.finished(self.error)

    # What the connection reports

    def deliver(self, message: Message) -> None:
        """Give a message to its channel."""
        membership = self.memberships.get(message.topic)
        if membership is not None:
            crowded = membership.deliver(message)
            if crowded is not None:
                self.crowded = crowded

    def handle_event(self, event: Event) -> None:
        """Do what an event of the connection calls for."""
        self._REACTIONS[type(event)](self, event)

    def _message_received(self, event: MessageReceived) -> None:
        self.deliver(event.message)

    # A topic that is left while the connection closes is given up at once, and what still comes is nobody's.

    def _join_succeeded(self, event: TopicJoinSucceeded) -> None:
        if event.topic in self.memberships:
            self.memberships[event.topic].accepted(event.response)

    def _join_failed(self, event: TopicJoinFailed) -> None:
        if event.topic in self.memberships:
            self.memberships[event.topic].refused(event.reason, event.response)

    def _join_closed(self, event: TopicJoinClosed) -> None:
        if event.topic in self.memberships:
            self.memberships[event.topic].closed(event.reason)

    def _left(self, event: TopicLeft) -> None:
        if event.topic in self.memberships:
            self.memberships[event.topic].left(event.reason)

    def _heartbeat_acknowledged(self, event: HeartbeatAcknowledged) -> None:
        for waiter in self._pings:
            waiter.succeed(event.round_trip)

    def _frame_rejected(self, event: FrameRejected) -> None:
        self.frame_rejected(event.reason)

    def _message_dropped(self, event: MessageDropped) -> None:
        self.discard("in", event.message, event.reason)

    def _connection_opened(self, event: ConnectionOpened) -> None:
        self.shown = self.connection
        self.statuses.set("connected")
        self._end_attempt("ok", event.response_headers)
        self.opened.set()
        if self.tap is not None:
            self.tap.opened()
        for membership in list(self.memberships.values()):
            membership.connection_opened()

    def _connection_failed(self, event: ConnectionFailed) -> None:
        assert self.connection is not None
        failure, mistake = self.connection.failure, self.connection.option_error
        error = mistake or failure
        if mistake is not None and not (isinstance(mistake, ConnectTimeout) and mistake.option is not None):
            self._fail_attempt(mistake)
        else:
            outcome = "cancelled" if error is None else outcome_of(error) or "error"
            self._end_attempt(outcome, event.headers)
        if error is not None and self.tap is not None:
            self.tap.closed(error)

    def frame_rejected(self, reason: str) -> None:
        """Tell that a frame, or what was in it, is not what it should be."""
        logger.warning("connection %s: a frame was rejected: %s", self.origin.connection_id, reason)
        self.discard("in", None, reason)

    def _reply_received(self, reply: ReplyReceived) -> None:
        assert self.connection is not None
        pushes = self.connection.pushes
        if pushes.settle(reply.ref, reply.status, reply.response):
            return
        why = pushes.was_abandoned(reply.ref)
        if why is not None and self._orphaned.handlers:
            self._orphaned.emit(ReplyOrphaned(*moment(self), reply.topic, reply.ref, reply.status, reply.response, why))

    def discard(self, direction: Literal["in", "out"], message: Message | None, reason: str) -> None:
        """Tell that a message, or what cannot be read as one, is dropped."""
        if self._discarded.handlers:
            _, ref, topic, event, _ = message or (None, None, None, None, None)
            self._discarded.emit(MessageDiscarded(*moment(self), direction, topic, event, ref, reason))

    def _connection_closed(self, event: ConnectionClosed) -> None:
        if self.asked_to_end is None:
            self.statuses.set("closing" if self.configuration.reconnect is None else "reconnecting")
        self._fail_waiters(event.reason, event.code)
        if self.tap is not None:
            self.tap.closed(self.lost())

    def fail(self, error: BaseException) -> None:
        """Tell everybody who waits that a bug has ended the connection."""
        self._fail_attempt(error)
        self.error = self.error or error
        self._fail_waiters("internal_error", None)

    def _end_attempt(self, outcome: Outcome, headers: tuple[tuple[str, str], ...] = ()) -> None:
        start, self._connecting = self._connecting, None
        if start is not None:
            now = self.telemetry.monotonic_ns()
            self._connect_point.stop.emit(ClientConnectStop(start, self.origin, now, outcome, headers))

    def _fail_attempt(self, error: BaseException) -> None:
        start, self._connecting = self._connecting, None
        if start is not None:
            self._connect_point.exception.emit(exception_record(self.telemetry, start, self.origin, error))

    def _fail_waiters(self, reason: str, code: int | None) -> None:
        self._last = ConnectionLost(reason, code)
        connection = self.connection
        if connection is None:
            return
        for note in connection.outbox.left_over():
            if note is not None:
                ref, push = note
                self.discard("out", Message(None, ref, push.topic, push.event, None), reason)
        connection.pushes.fail_all(reason, code, connection.outbox.taken)
        for waiter in self._pings:
            waiter.fail(ConnectionLost(reason, code))
        for membership in list(self.memberships.values()):
            membership.connection_lost()

    def _due(self, now: float) -> float:
        connection = self.connection
        if connection is None:
            return math.inf
        deadline = connection.tick(now)
        pushes = connection.pushes.expire(now)
        return pushes if deadline is None else min(deadline, pushes)

    _REACTIONS: ClassVar[Mapping[type, Callable[[Any, Any], None]]] = {
        MessageReceived: _message_received,
        ReplyReceived: _reply_received,
        TopicJoinSucceeded: _join_succeeded,
        TopicJoinFailed: _join_failed,
        TopicJoinClosed: _join_closed,
        TopicLeft: _left,
        HeartbeatAcknowledged: _heartbeat_acknowledged,
        FrameRejected: _frame_rejected,
        MessageDropped: _message_dropped,
        ConnectionOpened: _connection_opened,
        ConnectionFailed: _connection_failed,
        ConnectionClosed: _connection_closed,
    }
