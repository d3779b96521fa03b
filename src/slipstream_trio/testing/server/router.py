"""Messages to channels, joins and leaves, as Phoenix.Socket routes them."""

from typing import TYPE_CHECKING, Any, Final

import trio

from ...protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message
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
