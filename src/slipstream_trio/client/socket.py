"""A socket: what `connect` gives to its user, and its state."""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import TYPE_CHECKING, Any, final
from weakref import ref

import trio

from ..errors import ConfigurationError, ConnectionLost, ConnectTimeout
from ..protocol import Frame, Input, Message, SendHeartbeat, State, events
from ..protocol.message import check_topic
from ..protocol.presence import PRESENCE_EVENTS
from ..protocol.serializer import KeptPayload, guarded
from .buffer import LIGHT, ByteLimit, Overflow
from .channel import Channel
from .configuration import DEFAULT, Configuration, Timeout
from .connection import Connection
from .join import Joins
from .join_request import Joined
from .push import Pushes
from .spans import Emitter, outcome_of
from .status import Block, Lifecycle, Result, Status, StatusChanges, again, block
from .stream import Streams, Subscription, check_names, checked_bounds
from .timer import Exits, Timer
from .turn import begun, finished

if TYPE_CHECKING:
    from .buffer import Backlog
    from .connect import Supervisor


@final
class Socket:
    """A connection to a Phoenix server, and the channels on it: what `connect` gives."""

    def __init__(self, configuration: Configuration, supervisor: "Supervisor") -> None:
        telemetry = configuration.telemetry
        self._configuration = configuration
        self._options = configuration.options()
        self._serializer = guarded(configuration.chosen_serializer())
        self._emitter = Emitter(telemetry, telemetry.ids.span_id())
        self._supervisor = supervisor
        # From a topic to its channel: joining, joined, leaving, or to be joined again.
        self._channels: dict[str, Channel] = {}
        # All channels that somebody has, also those that hold no topic: their streams end with the socket.
        self._known: dict[ref[Channel], None] = {}  # a weak dictionary would take 700 bytes more
        self._forget = self._known.pop  # one object for all of them
        self._byte_limit = ByteLimit(configuration.buffer_bytes, self._buffers)
        self._pushes = Pushes(self)
        self._joins = Joins(self)
        self._exits = Exits(self)
        self._timer = Timer(self)
        self._listeners: dict[Streams, tuple[str, ...]] = {}  # and the topics of each; those with `*` are beginnings
        self._pings: list[Result[float]] = []
        self._unsettled: Iterator[object] = iter(())  # what the end of a connection has left to tell
        self._connection: Connection | None = None  # of the moment, or the last
        self._shown: Connection | None = None  # the last that was open
        self._lifecycle = Lifecycle(self.socket_id)

    def __repr__(self) -> str:
        return f"<Socket {self.socket_id} {self.status}>"

    def join(
        self, topic: str, payload: Any = None, *, timeout: Timeout = DEFAULT
    ) -> AbstractAsyncContextManager[Channel]:
        """Join a topic for the time of an `async with` block, and leave it then.

        When the block is left by an exception or a cancellation, the leave is sent but not waited for.

        Parameters:
            topic: the topic, such as "room:lobby".
            payload: the join's payload, a JSON value, or a (sync or async) function that returns it; None is {}.
            timeout: seconds to wait for the answer, None for ever; by default `join_timeout`.

        Raises:
            SerializationError: the topic is not a string.
            SlipstreamError: what `Channel.join` raises.
        """
        return Block(f"socket.join({topic!r}) as channel", Joined(self.channel(topic, payload), timeout))

    def channel(self, topic: str, payload: Any = None) -> Channel:
        """Return a channel that is not joined yet: subscribe on it first, then `await channel.join()`.

        Parameters:
            topic: the topic.
            payload: as with `join`.

        Raises:
            SerializationError: the topic is not a string.
        """
        check_topic(topic)
        self._exits.end()
        channel = Channel(self, topic, {} if payload is None else payload)
        self._known[ref(channel, self._forget)] = None
        if self.status == "closed":
            channel._end_streams()  # nothing will ever come
        return channel

    @trio.lowlevel.enable_ki_protection
    async def ping(self) -> float:
        """Send a heartbeat, or take the one that is outstanding, and wait for the answer.

        Returns the round trip in seconds.

        Raises:
            ConnectionLost: the connection has ended, or ends before the answer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._connection
        if connection is None or not self._is_connected:
            if connection is not None and connection.state.status == "closing" and self._lifecycle.asked is None:
                raise ConnectionLost(connection.state.close_reason or "lost")  # the end itself is not known yet
            raise self._lifecycle.lost()
        answer: Result[float] = Result()
        connection.handle(SendHeartbeat(trio.current_time()))
        self._pings.append(answer)
        try:
            return await answer.wait()
        finally:
            self._pings.remove(answer)

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self) -> None:
        """Close the connection for good: streams end, pushes raise `ConnectionLost`, the block's body runs on."""
        await trio.lowlevel.checkpoint()
        if self.status not in ("closing", "closed"):
            self._lifecycle.ask_to_end("disconnected")
            self._supervisor.close(self._supervisor.close_deadline())
        await self._supervisor.until_finished()

    def reconnect(self) -> None:
        """Connect anew at once, such as when the network has changed.

        A connection is closed (1000) and replaced, a wait for the next attempt is ended, and the delays begin anew; an
        attempt that is under way goes on. Channels are joined again, as after any loss.

        Raises:
            ConnectionLost: the socket is closing or closed, or `reconnect` is None.
        """
        self._check_usable()
        if self._configuration.reconnect is None:
            raise ConnectionLost("reconnect is None")
        self._supervisor.reconnect()

    @block("socket.listen(…) as messages")
    @trio.lowlevel.enable_ki_protection  # or an interrupt might leave readers without an end
    async def listen(
        self, *topics: str, buffer: int | None = None, overflow: Overflow | None = None
    ) -> AsyncIterator[Subscription]:
        """Get messages on topics that are not joined, such as Absinthe's documents, for the time of a block.

        Messages of a topic that this socket has joined, or joins, go to its channel alone. After each reconnect the
        stream has a gap: the server has forgotten what it sent such messages for.

        Parameters:
            topics: their names; with `*` at the end, all that begin so.
            buffer: how many messages wait; by default the option.
            overflow: what happens when there are more; by default the option.

        Raises:
            ConfigurationError: there is no topic, or an argument cannot be used.
        """
        check_names("topics", topics)
        if not topics:
            raise ConfigurationError("topics", "at least one, such as '__absinthe__:doc:*'")
        bounds = checked_bounds(buffer, overflow, self._configuration.buffer, self._configuration.overflow)
        streams = Streams(", ".join(topics), *bounds, self._emitter, self._byte_limit)
        if self.status == "closed":
            streams.close(self._lifecycle.of_streams)
        self._listeners[streams] = topics
        try:
            yield Subscription(streams.buffer)
        finally:
            del self._listeners[streams]
            streams.close(self._lifecycle.of_streams)

    async def wait_connected(self) -> None:
        """Wait until the socket is connected.

        Raises:
            ConnectionLost: it never will be.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check_usable()
            if self._is_connected:
                return
            await self._lifecycle.changes.next()

    def status_changes(self) -> StatusChanges:
        """Iterate over the status of now, and every one that follows, up to "closed"."""
        return StatusChanges(self._lifecycle)

    @property
    def status(self) -> Status:
        """One of "connecting", "connected", "reconnecting", "closing", "closed"."""
        return self._lifecycle.status

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of the answer to the connection's upgrade, names in lower case; what was secret is masked."""
        return () if self._shown is None else self._shown.response_headers

    @property
    def state(self) -> State:
        """The state of the connection; while there is none, that of the last one. So are the ids."""
        connection = self._shown or self._connection
        if connection is None:
            raise RuntimeError("there is no connection yet: await wait_connected() first")
        return connection.state

    @property
    def socket_id(self) -> str:
        """The socket's id, 16 hex digits."""
        return self._emitter.origin.socket_id

    @property
    def connection_id(self) -> str:
        """The connection's id, 16 hex digits."""
        return self.state.connection_id

    @property
    def trace_id(self) -> str:
        """The id of the connection's trace, 32 hex digits."""
        return self.state.trace_id

    @property
    def generation(self) -> int:
        """The number of the connection on this socket, from 1."""
        return self.state.generation

    @property
    def _is_connected(self) -> bool:
        """Whether commands can be given now."""
        return self.status == "connected" and self._connection is not None and self._connection.is_open

    @property
    def _is_lost(self) -> bool:
        """Whether the connection of the moment has ended: where channels are many, some are not told yet."""
        return self._connection is None or self._connection.has_ended

    def _check_usable(self) -> None:
        """Raise `ConnectionLost` if there will be no connection any more."""
        if self.status in ("closing", "closed"):
            raise self._lifecycle.lost()

    @property
    def _received_at(self) -> float:
        assert self._connection is not None
        return self._connection.received

    def _kept(self, topic: str, event: str, payload: Any) -> KeptPayload:
        return KeptPayload(Message(None, None, topic, event, payload), self._serializer)

    def _begin(self, state: State, attempt: int) -> Connection:
        self._connection = connection = Connection(self, state, attempt)
        return connection

    async def _ended(self) -> None:
        """End for good: settle all that is waited for."""
        self._lifecycle.become("closed")
        streams = map(Channel._end_streams, self._all_channels())
        await finished(chain(self._unsettled, self._joins.socket_ended(), streams))
        for listening in self._listeners:
            listening.close(self._lifecycle.of_streams)

    def _all_channels(self) -> list[Channel]:
        return [channel for known in list(self._known) if (channel := known()) is not None]

    def _buffers(self) -> Iterator["Backlog"]:
        listening = (streams.buffer for streams in self._listeners)
        return chain(listening, *(channel._buffers() for channel in self._all_channels()))

    def _deliver(self, message: Message, frame: Frame) -> "Backlog | None":
        """Give a message to its channel; returns a backlog of it that is more than half full."""
        channel = self._channels.get(message[2])
        if channel is None:
            return None
        if channel._put is not None and len(frame) <= LIGHT and message[3] not in PRESENCE_EVENTS:
            return channel._put(message)
        return channel._deliver(message, frame)

    def _handle_event(self, event: events.Event, given: Input) -> None:
        """Do what an event of the connection calls for, which `given` has led to."""
        match event:
            case events.MessageReceived():
                pass  # the connection delivers it, by its shortcut
            case events.ReplyReceived():
                self._pushes.reply_received(event)
            case events.HeartbeatAcknowledged():
                for answer in self._pings:
                    answer.succeed(event.round_trip)
            case events.FrameRejected():
                self._emitter.rejected(event.reason, getattr(given, "frame", None))
            case events.MessageDropped():
                self._message_dropped(event, len(getattr(given, "frame", "")))
            case events.ConnectionOpened():
                self._connection_opened(event)
            case events.ConnectionFailed():
                self._connection_failed(event)
            case events.ConnectionClosed():
                self._connection_closed(event)
            case _:  # of a topic, as type checkers prove
                self._joins.handle_event(event)

    def _message_dropped(self, dropped: events.MessageDropped, size: int) -> None:
        """Give a message that no channel takes, of so many bytes, to the listeners; tell of one that none takes."""
        message, took = dropped.message, False
        if message.join_ref is None and message.ref is None and message.topic not in self._channels:
            for streams, topics in self._listeners.items():
                beginnings = tuple(each[:-1] for each in topics if each.endswith("*"))
                if message.topic in topics or message.topic.startswith(beginnings):
                    streams.buffer.put_sized(message, size)
                    took = True
        if not took:
            self._emitter.dropped("in", message, dropped.reason)

    def _connection_opened(self, event: events.ConnectionOpened) -> None:
        assert self._connection is not None
        self._shown = self._connection
        self._lifecycle.become("connected")
        self._connection.attempt.stop("ok", event.response_headers)
        self._lifecycle.connection_opened()
        if (runner := self._supervisor.runner) is not None:
            runner.opened()
        for streams in self._listeners:
            streams.resumed()
        self._joins.connection_opened()

    def _connection_failed(self, event: events.ConnectionFailed) -> None:
        connection = self._connection
        assert connection is not None
        failure, mistake = connection.failure, connection.option_error
        error = mistake or failure
        if mistake is not None and not (isinstance(mistake, ConnectTimeout) and mistake.option is not None):
            connection.attempt.fail(mistake)
        else:
            outcome = "cancelled" if error is None else outcome_of(error)
            connection.attempt.stop(outcome or "error", event.headers)
        if error is not None and (runner := self._supervisor.runner) is not None:
            runner.closed(error)

    def _connection_closed(self, event: events.ConnectionClosed) -> None:
        if self._lifecycle.asked is None:
            self._lifecycle.become("closing" if self._configuration.reconnect is None else "reconnecting")
        self._settle(ConnectionLost(event.reason, event.code, event.message, event.ended_by), self._tell_runner())

    def _tell_runner(self) -> Iterator[None]:
        """Tell a callback client that the connection has ended, when all that it owed is settled."""
        if (runner := self._supervisor.runner) is not None:
            runner.closed(self._lifecycle.lost())
        yield

    def _failed(self, error: BaseException) -> None:
        """Settle all that is waited for, as a bug has ended the connection; no event tells of it."""
        self._lifecycle.fail(error)
        if self._connection is not None and self._lifecycle.last.reason != "internal_error":  # it was told already
            self._connection.attempt.fail(error)
            self._settle(ConnectionLost("internal_error"))

    def _settle(self, lost: ConnectionLost, *then: Iterator[None]) -> None:
        """Tell everybody who waits for a connection that it has ended: pushes first, then channels; then go on."""
        connection = self._connection
        assert connection is not None
        self._lifecycle.connection_lost(lost)
        self._emitter.log_rejected()
        for message in connection.writer.left_over():
            self._emitter.dropped("out", message, lost.reason)
        for answer in self._pings:
            answer.fail(again(lost))  # as every task is raised its own
        for streams in self._listeners:
            streams.lost("reconnected", self._received_at)
        self._joins.connection_ended(connection)
        pushes = self._pushes.connection_ended(lost, connection.writer.taken)
        self._unsettled = chain(pushes, self._joins.connection_lost(), *then)
        begun(self._unsettled)

    def _tick(self, now: float) -> float:
        """Do what is due; returns when that is to be asked next (infinity: never)."""
        if self._connection is None:
            return math.inf
        self._joins.pump()
        deadline = self._connection.tick(now)
        return math.inf if deadline is None else deadline
