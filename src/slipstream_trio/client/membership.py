"""A topic on a socket: joining, leaving, pushing, and where its messages go."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout, PushTimeout
from ..protocol import JoinTopic, LeaveTopic, Message, PushMessage, SendFrame
from ..telemetry import BufferOverflowed, Outcome
from .buffer import Buffer
from .connection import Connection
from .pushes import PendingPush
from .session import Session
from .spans import moment
from .waiter import Waiter

__all__ = ["ChannelStatus", "Membership"]

ChannelStatus = Literal["closed", "joining", "joined", "leaving", "errored"]

_LEAVE_OUTCOMES: Final[Mapping[str, Outcome]] = {"leave_timeout": "timeout", "lost": "lost"}


class Membership:
    """The inside of a channel.

    ```
    closed ── join ──> joining ── reply ok ──> joined ── leave ──> leaving ── phx_close ──> closed
      ^                  │ refused, timeout, cancelled (is left)     (crashed: errored)
      └──────────────────┘
    ```

    Attributes:
        topic: the topic.
        status: as above.
        join_ref: the ref of the latest join.
        join_response: the answer to it.
        reason: why it is not joined, where it is not.
        buffer: what waits for those who iterate over the channel.
    """

    def __init__(self, session: Session, topic: str) -> None:
        self.session: Session = session
        self.topic: str = topic
        self.status: ChannelStatus = "closed"
        self.join_ref: str | None = None
        self.join_response: Any = None
        self.reason: str = "not_joined"
        self.buffer: Buffer = self._new_buffer("channel")
        self._join: Waiter | None = None
        self._join_timeout: float | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._subscribed: dict[str | None, list[Buffer]] = {}

    # What tasks do

    async def join(self, payload: Any, timeout: float | None) -> Any:
        """Join with this payload; see `Channel.join`."""
        session = self.session
        waiter = await self._claim()
        try:
            while not waiter.settled and not (outbox := session.open_connection().outbox).has_room:
                await outbox.room()
            if not waiter.settled:
                self._submit_join(session.open_connection(), payload, timeout)
            return await waiter.wait()
        except BaseException:
            if self._join is waiter and self.status == "joining":
                self.leave_soon(session.options.leave_timeout)
            raise
        finally:
            if self._join is waiter:
                self._join = None

    async def leave(self, timeout: float | None) -> Outcome:
        """Leave, and wait until that is confirmed, or is not in time, or the connection ends."""
        await trio.lowlevel.checkpoint()
        self.leave_soon(timeout)
        waited = False
        while self.status == "leaving":
            waited = True
            await self._changed.park()
        return _LEAVE_OUTCOMES.get(self.reason, "ok") if waited else "ok"

    def leave_soon(self, timeout: float | None) -> None:
        """Ask to leave, and do not wait."""
        connection = self.session.connection
        if self.status not in ("joining", "joined"):
            return
        if self._join is not None:
            self._join.fail(ChannelClosed(self.topic, "left"))
        if self.join_ref is None or connection is None or not connection.is_open:
            self._end("closed", "left")
        else:
            self._change("leaving", "left")
            connection.handle(LeaveTopic(trio.current_time(), self.topic, timeout))

    async def push(
        self, event: str, payload: Any, timeout: float | None, queued: Callable[[str], object] | None = None
    ) -> Any:
        """Push, and wait for the reply; `queued` is told the ref."""
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        connection = self._ready()
        if connection is None:
            try:
                with trio.fail_at(deadline):
                    connection = await self._until_ready()
            except trio.TooSlowError:
                assert timeout is not None
                raise PushTimeout(self.topic, event, timeout) from None
        push = self._submit_push(connection, event, payload, timeout, deadline)
        if queued is not None:
            queued(push.ref)
        try:
            return await push.waiter.wait()
        except trio.Cancelled:
            connection.pushes.abandon(push, "cancelled")
            raise

    async def send(self, event: str, payload: Any) -> None:
        """Push, and return when it is queued."""
        await trio.lowlevel.checkpoint()
        connection = self._ready() or await self._until_ready()
        push = PushMessage(self.topic, event, payload)
        connection.handle(push, note=push)

    def subscribe(self, events: tuple[str, ...], limit: int) -> tuple[Buffer, Callable[[], None]]:
        """Return a buffer that gets these events (all, if there are none), and what ends that."""
        buffer = self._new_buffer("subscription", limit)
        keys: tuple[str | None, ...] = tuple(dict.fromkeys(events)) or (None,)
        for key in keys:
            self._subscribed.setdefault(key, []).append(buffer)

        def end() -> None:
            for key in keys:
                self._subscribed[key].remove(buffer)
                if not self._subscribed[key]:
                    del self._subscribed[key]

        return buffer, end

    # What the connection reports

    def deliver(self, message: Message) -> Buffer | None:
        """Buffer a message; returns a buffer that is more than half full."""
        self.buffer.put(message)
        crowded = self.buffer if self.buffer.crowded else None
        if self._subscribed:
            for key in (None, message.event):
                for buffer in self._subscribed.get(key, ()):
                    buffer.put(message)
                    crowded = buffer if buffer.crowded else crowded
        return crowded

    def accepted(self, response: Any) -> None:
        """The join was accepted."""
        self.join_response = response
        self._change("joined", "")
        if self._join is not None:
            self._join.succeed(response)

    def refused(self, reason: Literal["refused", "timeout"], response: Any) -> None:
        """The join was refused, or not answered in time."""
        self._end("closed", "join_refused" if reason == "refused" else "join_timeout")
        if self._join is not None:
            if reason == "refused":
                self._join.fail(JoinError(self.topic, response))
            else:
                self._join.fail(JoinTimeout(self.topic, self._join_timeout or 0.0))

    def closed(self, reason: Literal["closed", "crashed", "replaced"]) -> None:
        """The server ended the channel."""
        self._end("errored" if reason == "crashed" else "closed", reason)
        if self._join is not None:
            self._join.fail(ChannelClosed(self.topic, reason))

    def left(self, reason: Literal["left", "timeout"]) -> None:
        """The leave is complete."""
        self._end("closed", "left" if reason == "left" else "leave_timeout")

    def lost(self) -> None:
        """The connection has ended for good."""
        session = self.session
        self._end("closed", "lost" if session.error is not None else "left")
        if self._join is not None:
            self._join.fail(session.lost())

    # Inside

    async def _claim(self) -> Waiter:
        """Take the topic on this socket, when a leave of it that is under way is complete."""
        await trio.lowlevel.checkpoint()
        memberships = self.session.memberships
        while True:
            self.session.open_connection()
            holder = memberships.get(self.topic)
            if holder is None:
                break
            if holder.status != "leaving":
                raise AlreadyJoined(self.topic)
            await holder.changed()
        memberships[self.topic] = self
        self.join_ref = None
        self._join = Waiter()
        self._change("joining", "")
        return self._join

    async def changed(self) -> None:
        """Wait for the next change of `status`."""
        await self._changed.park()

    @trio.lowlevel.enable_ki_protection
    def _submit_join(self, connection: Connection, payload: Any, timeout: float | None) -> None:
        self._join_timeout = timeout
        for buffer in self._buffers():
            buffer.open()
        transition = connection.handle(JoinTopic(trio.current_time(), self.topic, payload, timeout))
        self.join_ref = transition.state.joins[self.topic]

    @trio.lowlevel.enable_ki_protection
    def _submit_push(
        self, connection: Connection, event: str, payload: Any, timeout: float | None, deadline: float
    ) -> PendingPush:
        transition = connection.handle(PushMessage(self.topic, event, payload))
        sent = transition.return_[0]
        assert isinstance(sent, SendFrame)
        push = PendingPush(self.topic, event, sent.ref, connection.outbox.number, timeout, Waiter())
        connection.pushes.add(push, deadline)
        if deadline < math.inf:
            self.session.push_due(deadline)
        return push

    def _ready(self) -> Connection | None:
        """Return the connection if a push can be made now, None if it has to wait; raises if it never can."""
        if self.status == "joined":
            connection = self.session.open_connection()
            return connection if connection.outbox.has_room else None
        if self.status == "joining":
            return None
        raise self._closed_error()

    async def _until_ready(self) -> Connection:
        while True:
            connection = self._ready()
            if connection is not None:
                return connection
            if self.status == "joining":
                await self._changed.park()
            else:
                await self.session.open_connection().outbox.room()

    def _end(self, status: ChannelStatus, reason: str) -> None:
        connection = self.session.connection
        assert connection is not None
        del self.session.memberships[self.topic]
        connection.pushes.fail_topic(self.topic, reason)
        self._change(status, reason)
        end = self._end_of_stream()
        for buffer in self._buffers():
            buffer.close(end)

    def _buffers(self) -> Iterator[Buffer]:
        yield self.buffer
        for buffers in self._subscribed.values():
            yield from buffers

    def _end_of_stream(self) -> Callable[[], BaseException]:
        if self.reason == "crashed":
            return lambda: ChannelClosed(self.topic, "crashed")
        if self.reason == "lost":
            return self.session.lost
        return StopAsyncIteration

    def _closed_error(self) -> Exception:
        if self.reason == "lost":
            return self.session.lost()
        return ChannelClosed(self.topic, self.reason)

    def _change(self, status: ChannelStatus, reason: str) -> None:
        self.status = status
        self.reason = reason
        self._changed.unpark_all()
        assert self.session.connection is not None
        self.session.connection.outbox.reconsider()

    def _new_buffer(self, consumer: Literal["channel", "subscription"], limit: int | None = None) -> Buffer:
        session = self.session
        size = session.configuration.buffer if limit is None else limit
        point = session.telemetry.point(BufferOverflowed.name)

        def overflowed() -> None:
            if point.handlers:
                policy = session.configuration.overflow
                point.emit(BufferOverflowed(*moment(session), self.topic, policy, size, consumer))

        return Buffer(self.topic, size, overflowed)
