"""Channels that users write, in the manner of `Phoenix.Channel`, the life of each, and the way of messages to them."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ...errors import SerializationError
from ...protocol.message import CLOSE, ERROR, HEARTBEAT, JOIN, LEAVE, PHOENIX, Frame, Message
from .presence import ChannelPresence

if TYPE_CHECKING:
    from .connection import Connection
    from .mount import Mount


@attrs.frozen
class Reply:
    """Return it from `handle_in` to answer a push: `{:reply, {status, response}, socket}`.

    `response` is a JSON value, or `bytes` for a binary frame; `status` is "ok", "error" or any other string.
    """

    response: Any = attrs.field(factory=dict)
    status: str = "ok"


@attrs.frozen
class Stop:
    """Return it from `handle_in` to end the channel: `{:stop, reason, reply, socket}`.

    The reasons "normal" and "shutdown" close it (phx_close); all others crash it (phx_error). `reply` is sent before.
    """

    reason: str = "normal"
    reply: Reply | None = None


Outcome = Reply | Stop | None
"""The results of `handle_in`; None leaves a push unanswered: `{:noreply, socket}`."""

_CRASH: Final = Stop("crash")
_UNMATCHED: Final = {"reason": "unmatched topic"}


class JoinRefused(Exception):
    """Raised by `join` to refuse with a JSON value, such as {"reason": "unauthorized"}: `{:error, response}`."""

    def __init__(self, response: Any = None) -> None:
        super().__init__(response)
        self.response: Any = {} if response is None else response


class Channel:
    """A client's channel on the server: subclass it, as one would `use Phoenix.Channel`.

    Each join makes a new instance. It handles its messages one at a time, in order, while other channels
    handle theirs. An exception crashes the channel (phx_error), never its socket.

        class Echo(Channel):
            async def handle_in(self, event, payload, ref):
                await self.broadcast("echoed", payload)
                return Reply(payload)

    Attributes:
        topic: the topic, "room:1" for example.
        join_ref: the ref of the join, as the client sent it: its join_ref, or its ref where that is null.
        socket: the connection that the channel is on, which Phoenix calls the socket.
        assigns: the channel's own values, at first a copy of the socket's.
        presence: tracks presences of this topic, and lists them.
    """

    topic: str
    join_ref: Any
    socket: "Connection"
    assigns: dict[str, Any]
    presence: ChannelPresence
    _process: "Process"

    async def join(self, payload: Any) -> Any:  # noqa: ARG002 - for subclasses
        """Decide about a join: the default lets everyone in.

        As in Phoenix, the whole socket waits for it: heartbeats and other channels too.

        Parameters:
            payload: the join's payload.

        Returns:
            The response, a JSON value; None is {}.

        Raises:
            JoinRefused: to refuse. Any other exception refuses with {"reason": "join crashed"}.
        """
        return {}

    async def after_join(self) -> None:
        """Run right after the join's reply, before any message: Phoenix's `send(self(), :after_join)`."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        """Handle a message from the client.

        Parameters:
            event: the event.
            payload: a JSON value, or `bytes` from a binary frame.
            ref: for `reply`, to answer later.

        Returns:
            `Reply`, `Stop`, or None for no reply.

        Raises:
            NotImplementedError: the default, which crashes the channel, as an event without a clause does.
        """
        raise NotImplementedError(f"{type(self).__name__} does not handle {event!r}")

    async def push(self, event: str, payload: Any = None) -> None:
        """Send the client a message; waits while its outbox is full.

        Parameters:
            event: the event.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.

        Raises:
            SerializationError: it cannot be encoded.
            RuntimeError: the channel is not joined (yet: see `after_join`).
        """
        self._process.check_joined()
        message = Message(self.join_ref, None, self.topic, event, {} if payload is None else payload)
        await self.socket.send_raw(self.socket.wire.encode(message))

    async def reply(self, ref: Any, response: Any = None, status: str = "ok") -> None:
        """Answer a push, now or later, once or more often.

        Parameters:
            ref: the `ref` that `handle_in` got.
            response: a JSON value, or `bytes` for a binary frame; None is {}.
            status: "ok", "error" or any other string.

        Raises:
            SerializationError: it cannot be encoded.
            RuntimeError: the channel is not joined.
        """
        self._process.check_joined()
        response = {} if response is None else response
        await self.socket.send_raw(self.socket.wire.encode_reply(self.join_ref, ref, self.topic, status, response))

    async def broadcast(self, event: str, payload: Any = None) -> None:
        """Send a message to all channels of this topic, this one included; otherwise as `push`.

        A client that reads too slowly loses its connection, and does not slow down others.
        """
        await self._publish(event, payload)

    async def broadcast_from(self, event: str, payload: Any = None) -> None:
        """Send a message to all channels of this topic but this one; otherwise as `broadcast`."""
        await self._publish(event, payload, exclude=self)

    async def _publish(self, event: str, payload: Any, *, exclude: "Channel | None" = None) -> None:
        self._process.check_joined()
        await self.socket.outbox.gauge.wait_room()
        await self.socket.server.broadcast(self.topic, event, payload, exclude=exclude)

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run an async function beside the channel; it ends with the channel, and crashes it by raising."""
        self._process.tasks.start_soon(function, *args)

    def stop(self, reason: str = "normal") -> None:
        """End the channel once it has handled the messages so far; see `Stop` for the reasons."""
        self._process.post(Stop(reason))

    def bind(self, process: "Process", join: Message) -> None:
        """Give the channel its process; for the server alone."""
        self._process, self.socket = process, process.connection
        self.topic = join.topic
        self.join_ref = join.ref if join.join_ref is None else join.join_ref
        self.assigns = dict(self.socket.assigns)
        self.presence = ChannelPresence(process)


class Process:
    """One channel from its join to its end: its mailbox, its task, its background tasks."""

    def __init__(self, connection: "Connection", channel: Channel, join: Message, replaced: "Process | None") -> None:
        self.connection: Connection = connection
        self.topic: str = join.topic
        # By this the socket knows the channel, in the join's answer and at its end; where it is null, the channel's own
        # `join_ref` is the join's ref, as in Phoenix.
        self.join_ref: Any = join.join_ref
        self.channel: Channel = channel
        self.mailbox: deque[Message | Stop] = deque()  # what waits to be handled
        self.settled: trio.Event = trio.Event()
        self.done: trio.Event = trio.Event()
        channel.bind(self, join)
        self._join_message = join
        self._replaced = replaced  # the channel of this topic that the join has ended
        self._joined = False
        self._arrived = trio.lowlevel.ParkingLot()
        self.scope: trio.CancelScope = trio.CancelScope()  # cancelling it ends the channel silently
        self.tasks: trio.Nursery  # which refuses new ones when the channel has ended

    async def run(self) -> None:
        """Live from the join to the end; raises nothing but `trio.Cancelled`."""
        end: Stop | None = None
        try:
            with self.scope:
                async with trio.open_nursery() as self.tasks:
                    if await self._join():
                        end = await self._loop()
                    self.tasks.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - an exception of the user's crashes the channel
            self.connection.server.report(f"channel {self.topic!r} crashed", group)
            end = _CRASH
        finally:
            self._finish(end)

    def check_joined(self) -> None:
        """Raise RuntimeError unless the channel is joined."""
        if not self._joined:
            way_out = "override after_join to act right after the join, and do nothing with a channel that has ended"
            raise RuntimeError(f"{self.topic!r} is not joined: {way_out}")

    def post(self, item: Message | Stop) -> None:
        """Put a message, or the channel's end, into the mailbox."""
        self.mailbox.append(item)
        self._arrived.unpark_all()

    async def _join(self) -> bool:
        try:
            response = await self.channel.join(self._join_message.payload)
        except JoinRefused as refusal:
            self._settle("error", refusal.response)
        except Exception as error:  # noqa: BLE001 - an exception of the user's crashes the join
            self.connection.server.report(f"the join of {self.topic!r} crashed", error)
            self._settle("error", {"reason": "join crashed"})
        else:
            self._joined = True
            self._settle("ok", {} if response is None else response)
        return self._joined

    def _settle(self, status: str, response: Any) -> None:
        """Send the answer to the join, and release the frames held back for it."""
        connection = self.connection
        try:
            answer = connection.wire.encode_reply(self.join_ref, self._join_message.ref, self.topic, status, response)
        except SerializationError as error:
            # Encoding this answer is the socket's work, not the channel's: it costs the socket.
            connection.server.report(f"the response to a join of {self.topic!r} is not JSON", error)
            connection.close(1011)
        else:
            if status == "ok":
                connection.router.processes[self.topic] = self
                connection.server.pubsub.subscribe(self)
            connection.put(answer, ahead=True)
            if self._replaced is not None:
                # It ended first, but its phx_close follows the answer to the new join.
                connection.put(self._replaced.control_frame(CLOSE, {}), ahead=True)
            connection.outbox.release()
        self.settled.set()

    def control_frame(self, event: str, payload: Any) -> Frame:
        """Return the frame of a phx_close or phx_error, whose ref is the join_ref."""
        return self.connection.wire.encode(Message(self.join_ref, self.join_ref, self.topic, event, payload))

    async def _loop(self) -> Stop:
        await self.channel.after_join()
        while True:
            while self.mailbox:
                item = self.mailbox.popleft()
                stop = item if isinstance(item, Stop) else await self._handle(item)
                if stop is not None:
                    return stop
            await self._arrived.park()

    async def _handle(self, message: Message) -> Stop | None:
        if message.event == LEAVE:
            await self.channel.reply(message.ref)
            return Stop("shutdown")
        if type(message.event) is not str:
            raise TypeError(f"the event must be a string, not {message.event!r}")
        outcome: Outcome = await self.channel.handle_in(message.event, message.payload, message.ref)
        stop = outcome if isinstance(outcome, Stop) else None
        reply = outcome if stop is None else stop.reply
        if isinstance(reply, Reply):
            await self.channel.reply(message.ref, reply.response, reply.status)
        elif reply is not None:
            raise TypeError(f"handle_in returned {outcome!r}, not a Reply, Stop or None")
        return stop

    def _finish(self, end: Stop | None) -> None:
        self.mailbox.clear()
        if not self.settled.is_set() and end is _CRASH:
            self._settle("error", {"reason": "join crashed"})
        elif self._joined and end is not None and not self.scope.cancel_called:
            crash = dict(self.connection.server.release.crash_payload)
            event, payload = (CLOSE, {}) if end.reason in ("normal", "shutdown") else (ERROR, crash)
            self.connection.put(self.control_frame(event, payload))
        self._joined = False
        if self.connection.router.processes.get(self.topic) is self:
            del self.connection.router.processes[self.topic]
        self.connection.server.pubsub.unsubscribe(self)
        self.channel.presence.end()
        self.settled.set()
        self.done.set()


class Router:
    """The channels of one connection: it routes messages to them, joins and leaves, as Phoenix.Socket does."""

    def __init__(self, connection: "Connection", mount: "Mount") -> None:
        self.processes: dict[str, Process] = {}
        self._connection = connection
        self._mount = mount
        self._last: Process | None = None

    async def handle(self, message: Message) -> None:
        """Route one message; returns when the next may be routed: after a join's answer."""
        # The topic may be any JSON value, also a list, which is not hashable.
        process = self.processes.get(message.topic) if type(message.topic) is str else None
        if message.topic == PHOENIX and message.event == HEARTBEAT:
            self._reply(None, message, "ok", {})
        elif message.event == JOIN:
            await self._join(message, process)
        elif process is None and message.event == LEAVE:
            self._reply(message.join_ref, message, "ok", {})
        elif process is None:
            self._reply(None, message, "error", _UNMATCHED)
        elif self._belongs(message, process):
            if self._last is not None and self._last is not process and self._last.mailbox:
                # Trio wakes two channels in random order. With a head start for the first, handlers that wait for
                # nothing answer in the order of their messages, run after run.
                await trio.lowlevel.checkpoint()
            self._last = process
            process.post(message)

    def ended(self) -> None:
        """Do nothing: the processes end by themselves."""

    async def _join(self, message: Message, old: Process | None) -> None:
        if old is not None:
            old.scope.cancel()
            await old.done.wait()
        limit = self._mount.max_channels
        factory = self._mount.channel_for(message.topic) if type(message.topic) is str else None
        if factory is None:
            self._reply(None, message, "error", _UNMATCHED)
        elif limit is not None and len(self.processes) >= limit:
            self._reply(message.join_ref, message, "error", {"reason": "too many channels joined"})
        else:
            # A socket sends nothing while a channel joins.
            self._connection.outbox.hold()
            process = Process(self._connection, factory(), message, old)
            self._connection.living.start_soon(process.run)
            await process.settled.wait()

    def _belongs(self, message: Message, process: Process) -> bool:
        """Whether a message has the join_ref of its channel, as far as this version of Phoenix looks."""
        release = self._connection.server.release
        if not release.drops_stale_pushes and message.event != LEAVE:
            return True
        # Serializer 1.0.0 has null everywhere. Where both may be null, one of them passes for any (`socket.ex`).
        either = message.join_ref if release.accepts_null_join_ref else process.join_ref
        # Equality as on the wire: 1 is neither "1" nor true.
        same = type(message.join_ref) is type(process.join_ref) and bool(message.join_ref == process.join_ref)
        return either is None or same

    def _reply(self, join_ref: Any, message: Message, status: str, response: Any) -> None:
        connection = self._connection
        connection.put(connection.wire.encode_reply(join_ref, message.ref, message.topic, status, response))
