"""A topic on a socket: its status, and what happens to it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

import trio

from ..errors import AlreadyJoined, ChannelClosed, JoinError, JoinTimeout, ProtocolError
from ..protocol import Message, Presence, PresenceChange, rejoin_delay
from ..protocol.presence import PRESENCE_EVENTS
from .buffer import Crowd, Gap
from .session import Session
from .streams import Streams
from .waiter import Waiter

__all__ = ["ChannelStatus", "Membership"]

ChannelStatus = Literal["closed", "joining", "joined", "leaving", "errored"]

Departure = Literal["left", "leave_timeout", "leave_lost"]


class PresenceListener(Protocol):
    """Who follows the presences of a channel."""

    def update(self, presence: Presence, changes: tuple[PresenceChange, ...]) -> None:
        """Take in what is known now, and what has changed."""
        ...

    def close(self) -> None:
        """The channel has ended."""
        ...


class Membership:
    """The inside of a channel: what it is, and what the connection and the session tell it.

    What tasks do with it (join, push, leave, recover) is in `operations`.

    ```
    closed ─ join ─> joining ─ ok ─> joined ─ leave ─> leaving ─ phx_close ─> closed
      ^                │               │ phx_error, or the connection is lost
      │   refused,     │               v
      └── timeout ─────┴─ rejoin ── errored ─ given up, left ─> closed
    ```

    Parameters:
        recover: starts a task that rejoins, after so many seconds, because of such an ending.

    Attributes:
        topic: the topic.
        payload: the join's payload, or a function that returns it.
        status: as above.
        reason: why it is not joined, where it is not.
        left_by: how the latest leave ended; whoever waited for it may run after the next join has begun.
        join_ref: the ref of the latest join.
        join_response: the answer to it.
        attempt: who claimed it last; see `claim`.
        joining: who waits for the answer to the join that is under way.
        recovery: the scope of the task that rejoins, while there is one.
        step: how many rejoins there were since it last went well.
        streams: where its messages go.
        presence: who is there.
    """

    def __init__(
        self, session: Session, topic: str, payload: Any, recover: Callable[["Membership", float, str], None]
    ) -> None:
        self.session: Session = session
        self.topic: str = topic
        self.payload: Any = payload
        self.status: ChannelStatus = "closed"
        self.reason: str = "not_joined"
        self.left_by: Departure = "left"
        self.join_ref: str | None = None
        self.join_response: Any = None
        self.attempt: object = None
        self.joining: Waiter | None = None
        self.join_timeout: float | None = None
        self.recovery: trio.CancelScope | None = None
        self.step: int = 0
        self.presence: Presence = Presence()
        self.streams: Streams = Streams(session, topic)
        self._recover = recover
        self._refusal: JoinError | None = None
        self._joined_at = 0.0
        self._missing_since: tuple[Literal["reconnected", "rejoined"], datetime] | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._presence_listeners: list[PresenceListener] = []
        session.channels[self] = None

    @property
    def is_held(self) -> bool:
        """Whether the socket holds this membership for its topic."""
        return self.session.memberships.get(self.topic) is self

    async def changed(self) -> None:
        """Wait for the next change of `status`."""
        await self._changed.park()

    async def until_left(self) -> bool:
        """Wait while the topic is being left; returns whether it was."""
        waited = False
        while self.status == "leaving":
            waited = True
            await self.changed()
        return waited

    async def claim(self) -> object:
        """Take the topic on this socket, when a leave of it that is under way is complete.

        Returns a token: `attempt` is the same for as long as nobody else claims it.
        """
        await trio.lowlevel.checkpoint()
        memberships = self.session.memberships
        while True:
            self.session.check_usable()
            holder = memberships.get(self.topic)
            if holder is None:
                break
            if holder.status != "leaving":
                raise AlreadyJoined(self.topic)
            await holder.changed()
        memberships[self.topic] = self
        self.attempt = attempt = object()
        self.join_ref = None
        self.step = 0
        self._change("joining", "")
        return attempt

    def begin_join(self, waiter: Waiter, timeout: float | None) -> None:
        """Take note of a join that is sent now."""
        self.joining = waiter
        self.join_timeout = timeout
        self.presence = self.presence.rejoined()
        for listener in self._presence_listeners:
            listener.update(self.presence, ())
        self.streams.open()
        self._change("joining", "")

    def await_connection(self) -> None:
        """Be joined with the next connection."""
        self._change("errored", "lost")

    def begin_leave(self) -> None:
        """Take note of a leave that is sent now."""
        self._forget_what_is_missing()
        self._change("leaving", "left")

    def end(self, status: ChannelStatus, reason: str) -> None:
        """End: give the topic back, fail pushes, end streams."""
        session = self.session
        if self.is_held:
            del session.memberships[self.topic]
        if self.recovery is not None:
            self.recovery.cancel()
        self._fail_pushes(reason)
        self._change(status, reason)
        self.streams.close(self._end_of_stream())
        for listener in self._presence_listeners:
            listener.close()

    def end_streams(self) -> None:
        """End what has not ended: the socket has, and nothing will ever come for a topic that is not joined."""
        self.streams.close_open(StopAsyncIteration if self.session.error is None else self.session.lost)
        for listener in self._presence_listeners:
            listener.close()

    def end_left(self, reason: Departure) -> None:
        """End, as the user has asked for it."""
        self._forget_what_is_missing()
        self.left_by = reason
        self.end("closed", reason)
        if self.streams.tap is not None:
            self.streams.tap.left()

    # Messages

    def deliver(self, message: Message) -> Crowd | None:
        """Give a message to the streams; returns a buffer that is more than half full."""
        if message.event in PRESENCE_EVENTS:
            self._presence_received(message)
        if self.status == "joining":  # a broadcast for an earlier join; it would hide what is missing between the two
            self.session.discard("in", message, "joining")
            return None
        return self.streams.put(message)

    def listen_to_presence(self, listener: PresenceListener) -> Callable[[], None]:
        """Let `listener` follow the presences; returns what ends that."""
        self._presence_listeners.append(listener)
        return lambda: self._presence_listeners.remove(listener)

    # What the connection reports

    def accepted(self, response: Any) -> None:
        """The join was accepted."""
        self.join_response = response
        self._joined_at = trio.current_time()
        self._change("joined", "")
        if self.streams.tap is not None:
            self.streams.tap.joined(response)
        self._mark_gap()
        self._settle_join(None, response)

    def refused(self, reason: Literal["refused", "timeout"], response: Any) -> None:
        """The join was refused, or not answered in time."""
        error: JoinError | JoinTimeout
        if reason == "refused":
            error = self._refusal = JoinError(self.topic, response)
        else:
            error = JoinTimeout(self.topic, self.join_timeout or 0.0)
        self._join_failed(f"join_{reason}")
        self._settle_join(error)
        self.tell_closed(error)

    def closed(self, reason: Literal["closed", "crashed", "replaced"]) -> None:
        """The server ended the channel."""
        if self.joining is not None:
            self._join_failed(reason)
            self._settle_join(ChannelClosed(self.topic, reason))
            self.tell_closed(ChannelClosed(self.topic, reason))
            return
        self._fail_pushes(reason)
        self._missing_since = ("rejoined", self.session.utc_now())
        self._update_step()
        delay = rejoin_delay(reason, self.session.configuration.rejoin, self.step, self.session.draw())
        if delay is None:
            self.end("errored" if reason == "crashed" else "closed", reason)
        else:
            self._change("errored", reason)
            self._recover(self, delay, reason)
        self.tell_closed(ChannelClosed(self.topic, reason))

    def left(self, reason: Literal["left", "timeout"]) -> None:
        """The leave is complete."""
        self.end_left("left" if reason == "left" else "leave_timeout")

    # What the session reports

    def connection_lost(self) -> None:
        """The connection has ended, and another one may come."""
        if self.status == "leaving":
            self.end_left("left" if self.session.asked_to_end is not None else "leave_lost")
        elif self.joining is not None:
            self._join_failed("lost")
            self._settle_join(self.session.lost())
        elif self.status == "joined":
            self._update_step()
            self._missing_since = ("reconnected", self.session.utc_now())
            self._change("errored", "lost")
        if self.recovery is not None:
            self.recovery.cancel()
            self.recovery = None

    def connection_opened(self) -> None:
        """There is another connection."""
        if self.status == "joining":
            self._changed.unpark_all()
        elif self.status == "errored":
            self._recover(self, 0.0, "lost")

    def lost(self) -> None:
        """There will be no other connection."""
        self.end("closed", "lost" if self.session.error is not None else "left")
        self._settle_join(self.session.lost())

    def payload_failed(self) -> None:
        """What to join again with could not be had."""
        self._change("errored", "payload_failed")

    def give_up(self) -> None:
        """Rejoining is of no use."""
        self.end("closed", self.reason)

    def tell_closed(self, reason: Exception) -> None:
        """Tell the tap that the channel has ended, or could not be joined; it may be joined again."""
        if self.streams.tap is not None:
            self.streams.tap.closed(reason)

    # Inside

    def closed_error(self) -> Exception:
        """Return what a push raises now."""
        if self.reason == "lost" or self.session.asked_to_end == "disconnected":
            return self.session.lost()
        return ChannelClosed(self.topic, self.reason)

    def _join_failed(self, reason: str) -> None:
        if self.recovery is not None:
            self._change("errored", reason)
        else:
            self.end("closed", reason)

    def _update_step(self) -> None:
        backoff = self.session.configuration.rejoin
        if backoff is not None:
            self.step = backoff.step_after(self.step, trio.current_time() - self._joined_at)

    def _settle_join(self, error: Exception | None, response: Any = None) -> None:
        waiter, self.joining = self.joining, None
        if waiter is not None and error is None:
            waiter.succeed(response)
        elif waiter is not None and error is not None:
            waiter.fail(error)

    def _fail_pushes(self, reason: str) -> None:
        if self.session.connection is not None:
            self.session.connection.pushes.fail_topic(self.topic, reason)

    def _forget_what_is_missing(self) -> None:
        """What is missed after a leave is of the user's own accord; that a join is taken back is no leave."""
        if self.status in ("joined", "errored"):
            self._missing_since = None

    def _mark_gap(self) -> None:
        if self._missing_since is None:
            return
        (reason, since), self._missing_since = self._missing_since, None
        self.streams.mark(Gap(reason, since, self.session.utc_now()))

    def _presence_received(self, message: Message) -> None:
        try:
            self.presence, changes = self.presence.received(message.event, message.payload)
        except ProtocolError as error:
            self.session.frame_rejected(error.problem)
            return
        for listener in list(self._presence_listeners):
            listener.update(self.presence, changes)

    def _end_of_stream(self) -> Callable[[], BaseException]:
        refusal = self._refusal
        if self.reason == "join_refused" and refusal is not None:
            return lambda: JoinError(refusal.topic, refusal.response)
        if self.reason in ("crashed", "join_timeout", "payload_failed"):
            reason = self.reason
            return lambda: ChannelClosed(self.topic, reason)
        if self.reason == "lost":
            return self.session.lost
        return StopAsyncIteration

    def _change(self, status: ChannelStatus, reason: str) -> None:
        self.status = status
        self.reason = reason
        self._changed.unpark_all()
        if self.session.connection is not None:
            self.session.connection.outbox.reconsider()
