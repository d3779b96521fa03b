"""A channel: what its user holds, and its state."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, final

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..errors import ChannelClosed, ProtocolError, SerializationError
from ..protocol import Frame, Message
from ..protocol.message import JOIN, check_join, checked_push
from ..protocol.presence import PRESENCE_EVENTS
from .buffer import Backlog, Buffer, Gap, Overflow
from .configuration import DEFAULT, Timeout, checked_size, chosen
from .join_request import Departure, Joining, join, leave
from .presence import ChannelPresence
from .push import Call, send, settled
from .status import Changes, block
from .stream import Stream, Streams, Subscription

if TYPE_CHECKING:
    from .callbacks.inbox import ChannelBacklog
    from .connection import Connection
    from .socket import Socket

ChannelStatus = Literal["closed", "joining", "joined", "leaving", "errored"]


@final
class Channel:
    """A topic on a socket. It survives reconnects and crashes: it is joined again, as `rejoin` says.

    Iterate over it for its messages: `async for message in channel`. Tasks that do share its messages; `subscribe`
    gives a stream of its own. Its messages are buffered from the join on. Iteration ends when the channel is left or
    the server closes it.

    ```
    closed ─ join ─> joining ─ ok ─> joined ─ leave ─> leaving ─ phx_close ─> closed
      ^                │               │ phx_error, or the connection is lost
      │   refused,     │               v
      └── timeout ─────┴─ rejoin ── errored ─ given up, left ─> closed
    ```
    """

    __slots__ = (  # as those of `Buffer`
        *("_backlog", "_changed", "_consumer", "_given_payload", "_join_ref", "_join_response", "_joining", "_left_by"),
        *("_payload", "_put", "_reason", "_socket", "_status", "_streams", "_topic", "_unanswered"),
        "__weakref__",
    )

    def __init__(self, socket: "Socket", topic: str, payload: Any) -> None:
        configuration, emitter = socket._configuration, socket._emitter
        self._socket = socket
        self._topic = topic
        self._given_payload = self._payload = payload
        self._status: ChannelStatus = "closed"
        self._reason = "not_joined"
        self._join_ref: str | None = None
        self._join_response: Any = None
        self._unanswered = False  # whether its latest join is not answered, also while it is left again
        self._joining = Joining()
        self._left_by: Departure = "left"  # how the latest leave ended; the next join may have begun since
        self._streams = Streams(topic, configuration.buffer, configuration.overflow, emitter, socket._byte_limit)
        self._backlog: ChannelBacklog | None = None
        self._consumer: Backlog | None = None  # the buffer, once there is something for it
        self._changed = Changes()
        self._put: Callable[[Message], Backlog | None] | None = None

    if not TYPE_CHECKING:

        def __aenter__(self, *_: object) -> Coroutine[Any, Any, "Channel"]:
            raise TypeError("await channel.join(), or write `async with socket.join(topic) as channel:`")

        __aexit__ = __aenter__

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self.status}>"

    @property
    def topic(self) -> str:
        """The topic."""
        return self._topic

    @property
    def status(self) -> ChannelStatus:
        """One of "closed", "joining", "joined", "leaving", "errored" (it waits to be joined again, or has crashed)."""
        return "errored" if self._status == "joined" and self._socket._is_lost else self._status

    @property
    def join_ref(self) -> str | None:
        """The ref of the latest join; None before the first."""
        return self._join_ref

    @property
    def join_response(self) -> Any:
        """The server's answer to the latest join."""
        return self._join_response

    @property
    def last_gap(self) -> Gap | None:
        """The latest place where messages may be missing, None if there was none."""
        return self._streams.last_gap

    @property
    def dropped(self) -> int:
        """The number of messages that did not fit into the channel's own buffer so far."""
        return self._streams.dropped

    async def join(self, *, timeout: Timeout = DEFAULT) -> Any:
        """Join the topic; returns the server's answer.

        A cancelled join is taken back: the topic is left. A topic that is being left is waited for.

        Parameters:
            timeout: seconds to wait for the answer, None for ever; by default `join_timeout`.

        Raises:
            ConfigurationError: `timeout` must be seconds above 0.
            AlreadyJoined: this socket holds the topic.
            JoinError: the server refused.
            JoinTimeout: it did not answer in time.
            ChannelClosed: the channel ended, or another task left it, before the answer.
            ConnectionLost: the connection ended first.
            SerializationError: the payload is not a JSON value.
        """
        return await join(self, timeout)

    async def leave(self, *, timeout: Timeout = DEFAULT) -> None:
        """Leave the topic, and wait until the server has confirmed that.

        Does nothing if it is not joined. Pushes that are not answered by then raise `ChannelClosed`.

        Parameters:
            timeout: seconds to wait, None for ever; by default `leave_timeout`. Nothing is raised when they are over.

        Raises:
            ConfigurationError: `timeout` must be seconds above 0.
        """
        await leave(self, chosen(timeout, self._socket._options.leave_timeout))

    def leave_soon(self) -> None:
        """Send the leave, without waiting for anything; for clean-up in code that must not await."""
        self._socket._joins.leave_soon(self, self._socket._options.leave_timeout)

    @enable_ki_protection
    async def push(self, event: str, payload: Any = None, *, timeout: Timeout = DEFAULT) -> Any:
        """Push a message, and wait for the reply; returns the response of a reply that is "ok".

        A push that is made while the channel is being joined waits for that. A push that is cancelled before it is
        queued was never sent; after that it may have been, and its reply is dropped. It never leaves half a frame.

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` (a `bytearray`, a `memoryview`) for a binary frame; None is {}.
            timeout: seconds to wait for the reply, None for ever; by default `push_timeout`.

        Raises:
            ValueError: the event is one of the protocol's, such as "phx_leave".
            ConfigurationError: `timeout` must be seconds above 0.
            PushError: the reply's status is not "ok".
            PushTimeout: no reply came in time.
            ChannelClosed: the channel is not joined, or ended before the reply.
            ConnectionLost: the connection ended before the reply.
            SerializationError: the event is not a string, or the payload not a JSON value; nothing was sent.
        """
        payload = checked_push(event, payload)
        call = Call(self, event, chosen(timeout, self._socket._options.push_timeout))
        if self._socket._emitter.push.active:
            return await call.span(payload).around(partial(settled, call, payload))
        await checkpoint_if_cancelled()
        call.queue(payload)
        await call.settling()  # here, as a coroutine for this would be one more for each push in flight
        return call.result.get()

    async def send(self, event: str, payload: Any = None) -> None:
        """Push a message whose reply, if there is one, is of no interest; returns when it is queued.

        If the connection ends before it is written, telemetry says so (`message_dropped`).

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes` (a `bytearray`, a `memoryview`) for a binary frame; None is {}.

        Raises:
            ValueError: the event is one of the protocol's, such as "phx_leave".
            ChannelClosed: the channel is not joined.
            ConnectionLost: the connection has ended.
            SerializationError: the event is not a string, or the payload not a JSON value; nothing was sent.
        """
        await send(self, event, checked_push(event, payload))

    async def receive(self) -> Message:
        """Return the next message, as iteration does.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; the next call goes on after them.
            ChannelClosed: the channel has ended.
            JoinError: joining it again was refused, and given up.
            ConnectionLost: the connection ended for good.
        """
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise self._closed_error() from None

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the channel's messages; see `Subscription.__anext__` for what it raises."""
        return self._own_buffer()

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._own_buffer().__anext__()

    def stream(self) -> Stream:
        """Iterate over the channel's messages, and the gaps where some may be missing.

        It is another view of the channel's own stream: tasks that iterate over either share the messages.
        """
        return Stream(self._own_buffer())

    @block("channel.subscribe(…) as messages")
    async def subscribe(
        self, *events: str, buffer: int | None = None, overflow: Overflow | None = None
    ) -> AsyncIterator[Subscription]:
        """Get these events in a separate buffer, for the time of an `async with` block.

        It sees what arrives after it opened, however often the topic is joined anew; to miss nothing, open it on
        `socket.channel(topic)`, then `join`. The channel's own stream sees these messages too.

        Parameters:
            events: their names; none means all.
            buffer: how many messages wait; by default what `connect` was told.
            overflow: what happens when there are more; by default what `connect` was told.

        Raises:
            ConfigurationError: an event is not a string, or `buffer` or `overflow` cannot be used.
        """
        with self._streams.subscribe(events, buffer, overflow, self._choose_put) as messages:
            if self._socket.status == "closed":
                messages.close(StopAsyncIteration)  # nothing will ever come
            yield Subscription(messages)

    @block("channel.presence() as presence")
    async def presence(self, *, buffer: int = 1024) -> AsyncIterator[ChannelPresence]:
        """Follow who is there, for the time of an `async with` block.

        Presences are tracked from the join on, so nothing is missed before this is called.

        Parameters:
            buffer: how many changes wait for iteration over it.

        Raises:
            ConfigurationError: `buffer` is not at least 1.
        """
        checked_size("buffer", buffer)
        with self._streams.presences(self._socket).follow(buffer) as presence:
            if self._socket.status == "closed":
                presence.close()
            yield presence

    def _own_buffer(self) -> Buffer:
        if self._backlog is not None:
            raise RuntimeError("the messages of a Client's channel go to handle_message; or use subscribe()")
        return self._streams.buffer

    def _buffers(self) -> Iterable["Backlog"]:
        return self._streams.made() if self._backlog is None else (self._backlog, *self._streams.made())

    def _tell(self, backlog: "ChannelBacklog") -> None:
        self._backlog = self._consumer = backlog
        self._choose_put()

    def _deliver(self, message: Message, frame: Frame) -> "Backlog | None":
        """Give a message to the streams; returns a buffer that is more than half full."""
        if message[3] in PRESENCE_EVENTS:
            try:
                self._streams.presences(self._socket).received(message, frame)
            except ProtocolError as error:
                self._socket._emitter.rejected(error.problem, frame)
        if self._unanswered:
            # A broadcast for an earlier join, or for one whose answer is lost, would hide what is missing before it.
            self._socket._emitter.dropped("in", message, "joining")
            return None
        if self._consumer is None:
            self._consumer = self._streams.buffer
            self._choose_put()
        crowded = self._consumer.put_sized(message, len(frame))
        return self._streams.put_subscribed(message, len(frame)) or crowded

    def _choose_put(self) -> None:
        """Let the connection put messages where they go, while `_deliver` would do nothing else."""
        plain = self._status == "joined" and not self._streams.subscribed
        self._put = self._consumer.put if plain and self._consumer is not None else None

    def _put_all(self, messages: Sequence[Message]) -> bool:
        """Put small messages where `_put` puts one, if they fit there well; tells whether they do."""
        return isinstance(self._consumer, Buffer) and self._consumer.put_all(messages)

    def _open_connection(self) -> "Connection | None":
        """Return the connection if the channel can send on it, None if it has to wait; raises if it never will."""
        socket = self._socket
        if self._status == "joined":
            if (connection := socket._connection) is not None and connection.is_open:
                return connection
        elif self._status not in ("joining", "errored") or not self._is_held:
            raise self._closed_error()
        socket._check_usable()
        return None

    def _closed_error(self) -> Exception:
        """Return what a push raises now."""
        if self._reason == "lost" or self._socket._lifecycle.asked == "disconnected":
            return self._socket._lifecycle.lost()
        return ChannelClosed(self._topic, self._reason)

    @property
    def _is_held(self) -> bool:
        return self._socket._channels.get(self._topic) is self

    def _keep_payload(self) -> None:
        """Fix the payload as it is now; a function is asked for it at each join."""
        if not callable(self._given_payload):
            try:
                check_join(self._topic, self._given_payload)
                self._payload = self._socket._kept(self._topic, JOIN, self._given_payload)
            except SerializationError as error:
                error.with_traceback(None)  # its way through the core helps no user
                raise

    def _claimed(self) -> None:
        self._join_ref = None
        self._unanswered = True
        self._become("joining")

    def _begin_join(self) -> None:
        self._unanswered = True
        self._streams.open()
        self._become("joining")

    def _sent(self, join_ref: str) -> None:
        self._join_ref = join_ref

    def _accepted(self, response: Any) -> None:
        self._unanswered = False
        self._join_response = response
        self._become("joined")
        if self._backlog is not None:
            self._backlog.joined(response)
        gap = self._streams.resumed()
        if gap is not None and self._backlog is not None:
            self._backlog.gap(gap)

    def _lost(self, reason: Literal["reconnected", "rejoined"]) -> None:
        self._streams.lost(reason, self._socket._received_at)

    def _end_left(self, by: Departure) -> None:
        """End, as the user has asked for it."""
        self._left_by = by
        self._forget_losses()
        self._end("closed", by)
        if self._backlog is not None:
            self._backlog.left()

    def _end(self, status: ChannelStatus, reason: str, error: Exception | None = None) -> None:
        """End: give the topic back, fail pushes, end streams."""
        del self._socket._channels[self._topic]
        self._socket._pushes.fail_channel(self, reason)
        self._become(status, reason)
        self._streams.close(self._socket._lifecycle.of_channel(self._topic, reason, error))

    def _end_streams(self) -> None:
        """End what has not ended: the socket has, and nothing will ever come for a topic that is not joined."""
        self._streams.close(self._socket._lifecycle.of_streams)

    def _tell_closed(self, reason: Exception) -> None:
        """Tell the callback client that the channel has ended, or could not be joined; it may be joined again."""
        if self._backlog is not None:
            self._backlog.closed(reason)

    def _become(self, status: ChannelStatus, reason: str = "") -> None:
        self._status = status
        self._reason = reason
        self._choose_put()
        self._changed.tell()
        if status == "joined":
            self._socket._pushes.admit(self)
        elif status != "joining" and (status != "errored" or not self._is_held):
            self._socket._pushes.fail_line(self)

    def _forget_losses(self) -> None:
        """Miss nothing that the user gave up; that a join is taken back gives up nothing."""
        if self._status in ("joined", "errored"):
            self._streams.forget()
