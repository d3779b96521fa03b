"""What lies behind a `Socket`: the connection of the moment, the topics, and who waits for what."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import trio

from ..errors import ConnectionLost
from ..protocol import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Event,
    FrameRejected,
    HeartbeatAcknowledged,
    Message,
    MessageDropped,
    MessageReceived,
    Options,
    PushMessage,
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
    MessageDiscarded,
    Origin,
    Outcome,
    ReplyOrphaned,
    Telemetry,
)
from ..telemetry.span import exception_record
from ..transport import Connector
from .buffer import Buffer
from .configuration import Configuration
from .connection import Connection
from .spans import moment, opening
from .timer import Timer
from .waiter import Waiter

if TYPE_CHECKING:
    from .membership import Membership

__all__ = ["Session", "Status"]

Status = Literal["connecting", "connected", "reconnecting", "closing", "closed"]

logger: Final = logging.getLogger("slipstream_trio")


class Session:
    """The inside of a socket. Knows its connection and its memberships; neither knows the other.

    Attributes:
        status: what `Socket.status` shows.
        memberships: topic to membership: joining, joined or leaving.
        connection: the connection of the moment, or the last one.
        error: why the session has ended for good, None while it has not, or if that was asked for.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration: Configuration = configuration
        self.telemetry: Telemetry = configuration.telemetry
        self.options: Options = configuration.options()
        self.connector: Connector = configuration.chosen_connector()
        self.serializer: Serializer = configuration.chosen_serializer()
        self.socket_id: str = self.telemetry.ids.span_id()
        self.timer: Timer = Timer(self._due)
        self.status: Status = "connecting"
        self.memberships: dict[str, Membership] = {}
        self.connection: Connection | None = None
        self.crowded: Buffer | None = None
        self.error: ConnectionLost | None = None
        self.on_end: Callable[[], object] = lambda: None
        self.opened: trio.Event = trio.Event()
        self._no_connection = Origin(None, None, self.socket_id, 0)
        self._pings: list[Waiter] = []
        self._connecting: ClientConnectStart | None = None
        self._connect_point = self.telemetry.span(ClientConnectStart.name[:-1])
        self._orphaned = self.telemetry.point(ReplyOrphaned.name)
        self._discarded = self.telemetry.point(MessageDiscarded.name)

    # What others ask

    @property
    def origin(self) -> Origin:
        """The ids of the connection of the moment."""
        return self._no_connection if self.connection is None else self.connection.origin

    def open_connection(self) -> Connection:
        """Return the connection, which is open; raises `ConnectionLost` if it is not."""
        connection = self.connection
        if connection is None or not connection.is_open or self.status == "closing":
            raise self.lost()
        return connection

    def lost(self) -> ConnectionLost:
        """Return a new exception that tells how the connection ended."""
        if self.error is not None:
            return ConnectionLost(self.error.reason, self.error.code)
        return ConnectionLost("closed_by_client")

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

    def push_due(self, deadline: float) -> None:
        """See to it that pushes are looked at, at `deadline`."""
        self.timer.arm(deadline)

    # What the supervisor says

    def begin(self, trace_id: str | None, attempt: int, generation: int) -> Connection:
        """Return the connection for another attempt."""
        ids = self.telemetry.ids
        state = State(
            connection_id=ids.span_id(),
            trace_id=trace_id or ids.trace_id(),
            socket_id=self.socket_id,
            generation=generation,
            options=self.options,
        )
        self.connection = Connection(
            state, serializer=self.serializer, telemetry=self.telemetry, owner=self, timer=self.timer
        )
        if self._connect_point.active:
            self._connecting = ClientConnectStart(*opening(self), self.options, attempt)
            self._connect_point.start.emit(self._connecting)
        return self.connection

    async def leave_all(self, *, wait: bool) -> None:
        """Leave all topics, and perhaps wait until that is confirmed."""
        self.status = "closing"
        for membership in list(self.memberships.values()):
            membership.leave_soon(self.options.leave_timeout)
        while wait and self.memberships:
            await next(iter(self.memberships.values())).changed()

    def end(self) -> None:
        """End for good: waiters first, then the body."""
        self.status = "closed"
        self.opened.set()
        self.on_end()

    def end_attempt(self, outcome: Outcome, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Emit that an attempt to connect is over."""
        start, self._connecting = self._connecting, None
        if start is not None:
            now = self.telemetry.monotonic_ns()
            self._connect_point.stop.emit(ClientConnectStop(start, self.origin, now, outcome, headers))

    # What the connection reports

    def fail(self, error: BaseException) -> None:
        """Tell everybody who waits that a bug has ended the connection."""
        start, self._connecting = self._connecting, None
        if start is not None:
            self._connect_point.exception.emit(exception_record(self.telemetry, start, self.origin, error))
        if self.error is None:
            self.error = ConnectionLost("internal_error")
            self._fail_waiters("internal_error", None)

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

    def _join_succeeded(self, event: TopicJoinSucceeded) -> None:
        self.memberships[event.topic].accepted(event.response)

    def _join_failed(self, event: TopicJoinFailed) -> None:
        self.memberships[event.topic].refused(event.reason, event.response)

    def _join_closed(self, event: TopicJoinClosed) -> None:
        # A channel that is left while the connection closes is given up at once, and its end is nobody's.
        if event.topic in self.memberships:
            self.memberships[event.topic].closed(event.reason)

    def _left(self, event: TopicLeft) -> None:
        self.memberships[event.topic].left(event.reason)

    def _heartbeat_acknowledged(self, event: HeartbeatAcknowledged) -> None:
        for waiter in self._pings:
            waiter.succeed(event.round_trip)

    def _frame_rejected(self, event: FrameRejected) -> None:
        logger.warning("connection %s: a frame was rejected: %s", self.origin.connection_id, event.reason)
        self._discard("in", None, event.reason)

    def _message_dropped(self, event: MessageDropped) -> None:
        self._discard("in", event.message, event.reason)

    def _connection_opened(self, event: ConnectionOpened) -> None:
        self.status = "connected"
        self.end_attempt("ok", event.response_headers)
        self.opened.set()

    def _connection_failed(self, event: ConnectionFailed) -> None:
        self.end_attempt("cancelled" if event.reason == "cancelled" else "error", event.headers)

    def _reply_received(self, reply: ReplyReceived) -> None:
        assert self.connection is not None
        pushes = self.connection.pushes
        if pushes.settle(reply.ref, reply.status, reply.response):
            return
        why = pushes.was_abandoned(reply.ref)
        if why is not None and self._orphaned.handlers:
            self._orphaned.emit(ReplyOrphaned(*moment(self), reply.topic, reply.ref, reply.status, reply.response, why))

    def _discard(self, direction: Literal["in", "out"], message: Message | None, reason: str) -> None:
        if self._discarded.handlers:
            _, ref, topic, event, _ = message or (None, None, None, None, None)
            self._discarded.emit(MessageDiscarded(*moment(self), direction, topic, event, ref, reason))

    def _connection_closed(self, event: ConnectionClosed) -> None:
        if event.reason != "closed_by_client":
            self.error = ConnectionLost(event.reason, event.code)
        self._fail_waiters(event.reason, event.code)

    def _fail_waiters(self, reason: str, code: int | None) -> None:
        connection = self.connection
        if connection is None:
            return
        for push in connection.outbox.left_over():
            if isinstance(push, PushMessage):
                self._discard("out", Message(None, None, push.topic, push.event, None), reason)
        connection.pushes.fail_all(reason, code, connection.outbox.taken)
        for waiter in self._pings:
            waiter.fail(ConnectionLost(reason, code))
        for membership in list(self.memberships.values()):
            membership.lost()

    def _due(self, now: float) -> float:
        connection = self.connection
        assert connection is not None
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
