"""Channels that users write, in the manner of `Phoenix.Channel`."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs

from ...protocol.message import Message
from .presence import ChannelPresence

if TYPE_CHECKING:
    from .connection import Connection
    from .process import Process

__all__ = ["Channel", "JoinRefused", "NoReply", "Outcome", "Reply", "Stop"]


@attrs.frozen
class Reply:
    """Return it from `handle_in` to answer a push: `{:reply, {status, response}, socket}`.

    Attributes:
        response: a JSON value, or `bytes` for a binary frame.
        status: "ok", "error" or any other string.
    """

    response: Any = attrs.field(factory=dict)
    status: str = "ok"


@attrs.frozen
class NoReply:
    """Return it from `handle_in` to leave a push unanswered: `{:noreply, socket}`; None does the same."""


@attrs.frozen
class Stop:
    """Return it from `handle_in` to end the channel: `{:stop, reason, reply, socket}`.

    Attributes:
        reason: "normal" and "shutdown" close the channel (phx_close); all others crash it (phx_error).
        reply: the answer to the push, sent before that.
    """

    reason: str = "normal"
    reply: Reply | None = None


Outcome = Reply | NoReply | Stop | None
"""The results of `handle_in`."""


class JoinRefused(Exception):
    """Raised by `join` to refuse: `{:error, response}`.

    Attributes:
        response: a JSON value, such as {"reason": "unauthorized"}.
    """

    def __init__(self, response: Any = None) -> None:
        super().__init__(response)
        self.response: Any = {} if response is None else response


class Channel:
    """A client's channel on the server: subclass it, as one would `use Phoenix.Channel`.

    Each join makes a new instance. It handles its messages one at a time, in order, while other channels
    handle theirs. An exception crashes the channel (phx_error), never its socket.

        class Echo(Channel):
            async def handle_in(self, event, payload, ref):
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
            `Reply`, `NoReply` (or None), or `Stop`.

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
        await self.socket.send(self.socket.wire.encode(message))

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
        await self.socket.send(self.socket.wire.encode_reply(self.join_ref, ref, self.topic, status, response))

    async def broadcast(self, event: str, payload: Any = None) -> None:
        """Send a message to all channels of this topic, this one included; otherwise as `push`.

        A client that reads too slowly loses its connection, and does not slow down others.
        """
        await self._publish(event, payload)

    async def broadcast_from(self, event: str, payload: Any = None) -> None:
        """Send a message to all channels of this topic but this one; otherwise as `broadcast`."""
        await self._publish(event, payload, exclude=self._process)

    async def _publish(self, event: str, payload: Any, exclude: "Process | None" = None) -> None:
        self._process.check_joined()
        await self.socket.outbox.gauge.wait_room()
        await self.socket.server.publish(self.topic, event, {} if payload is None else payload, exclude=exclude)

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run an async function beside the channel; it ends with the channel, and crashes it by raising."""
        self._process.spawn(function, *args)

    def stop(self, reason: str = "normal") -> None:
        """End the channel once it has handled the messages so far; see `Stop` for the reasons."""
        self._process.post(Stop(reason))

    def bind(self, process: "Process", join: Message) -> None:
        """Give the channel its process; for the server alone."""
        self._process, self.socket = process, process.connection
        self.topic = join.topic
        self.join_ref = join.ref if join.join_ref is None else join.join_ref
        self.assigns = dict(self.socket.assigns)
        self.presence = ChannelPresence(self.socket.server.presence, process)
