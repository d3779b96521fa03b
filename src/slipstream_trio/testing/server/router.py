"""Messages to channels, joins and leaves, as Phoenix.Socket routes them."""

from typing import TYPE_CHECKING, Any, Final

import trio

from ...errors import SerializationError
from ...protocol.message import CLOSE, HEARTBEAT, JOIN, LEAVE, PHOENIX, Frame, Message
from .channel import Process

if TYPE_CHECKING:
    from .connection import Connection
    from .mount import Mount

UNMATCHED: Final = {"reason": "unmatched topic"}
TOO_MANY: Final = {"reason": "too many channels joined"}


class Router:
    """The channels of one connection."""

    def __init__(self, connection: "Connection", mount: "Mount") -> None:
        self.processes: dict[str, Process] = {}
        self._connection = connection
        self._mount = mount
        self._replaced: Process | None = None
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
            self._reply(None, message, "error", UNMATCHED)
        elif self._belongs(message, process):
            await self._deliver(process, message)

    def answer_join(self, process: Process, ref: Any, status: str, response: Any) -> None:
        """Send the answer to a join, and release the frames held back for it."""
        wire = self._connection.wire
        try:
            answer = wire.encode_reply(process.join_ref, ref, process.topic, status, response)
        except SerializationError as error:
            # Encoding this answer is the socket's work, not the channel's: it costs the socket.
            self._connection.server.report(f"the response to a join of {process.topic!r} is not JSON", error)
            self._connection.close(1011)
            return
        if status == "ok":
            self.processes[process.topic] = process
            self._connection.server.pubsub.subscribe(process)
        self._connection.put(answer, ahead=True)
        if self._replaced is not None:
            self._connection.put(self.control_frame(self._replaced, CLOSE, {}), ahead=True)
            self._replaced = None
        self._connection.outbox.release()

    def control_frame(self, process: Process, event: str, payload: Any) -> Frame:
        """Return the frame of a phx_close or phx_error, whose ref is the join_ref."""
        message = Message(process.join_ref, process.join_ref, process.topic, event, payload)
        return self._connection.wire.encode(message)

    def forget(self, process: Process) -> None:
        """Drop a channel that has ended."""
        if self.processes.get(process.topic) is process:
            del self.processes[process.topic]
        self._connection.server.pubsub.unsubscribe(process)
        process.channel.presence.end()

    def ended(self) -> None:
        """Do nothing: the processes end by themselves."""

    async def _deliver(self, process: Process, message: Message) -> None:
        if self._last is not None and self._last is not process and self._last.mailbox:
            # Trio wakes two channels in random order. With a head start for the first, handlers that wait for
            # nothing answer in the order of their messages, run after run.
            await trio.lowlevel.checkpoint()
        self._last = process
        process.post(message)

    async def _join(self, message: Message, old: Process | None) -> None:
        if old is not None:
            # The old channel ends first, but its phx_close follows the answer to the new join.
            self._replaced = old
            old.cancel()
            await old.done.wait()
        limit = self._mount.max_channels
        factory = self._mount.channel_for(message.topic) if type(message.topic) is str else None
        if factory is None:
            self._reply(None, message, "error", UNMATCHED)
        elif limit is not None and len(self.processes) >= limit:
            self._reply(message.join_ref, message, "error", TOO_MANY)
        else:
            # A socket sends nothing while a channel joins.
            self._connection.outbox.hold()
            process = Process(self._connection, factory(), message)
            self._connection.start(process)
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
