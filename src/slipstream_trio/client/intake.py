"""The way of received frames: from the transport to the core, and from there to the buffers of channels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ..errors import ProtocolError
from ..protocol import Frame, FrameReceived, Message, is_plain
from ..protocol.presence import PRESENCE_EVENTS
from ..protocol.transitions import plain_reply
from .turn import FRAMES_A_LOOK, Backlog, catch_up

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["take_in"]


async def take_in(connection: "Connection", frames: Sequence[Frame]) -> None:
    """Handle frames that have come just now.

    A burst is a loop of these lines: where nobody watches, messages are just put into buffers.
    """
    watched, turn, socket = connection._spans.handle, connection._turn, connection._socket
    channels, decode = socket._channels, socket._serializer.decode
    now, patient, unseen = connection.received, True, FRAMES_A_LOOK
    light = socket._byte_limit.all_light(frames)
    turn.begin()
    for frame in frames:
        if watched.active:
            crowded = connection.take_in_watched(frame, now)
        else:
            try:
                message = decode(frame)
            except ProtocolError:
                connection.handle(FrameReceived(now, frame))
                crowded = None
            else:
                join_ref, ref, topic, event, _ = message
                channel = channels.get(topic) if light and ref is None and event not in PRESENCE_EVENTS else None
                if (
                    channel is not None
                    and channel._put is not None
                    and (join_ref is None or join_ref == channel._join_ref)
                ):
                    crowded = channel._put(message)
                else:
                    crowded = _take_in_other(connection, message, frame, now)
                    unseen -= 3
        unseen -= 1
        if crowded is not None and patient:
            patient, now = await catch_up(crowded), trio.current_time()
        elif unseen <= 0:
            unseen = FRAMES_A_LOOK
            if turn.is_over():
                await turn.let_others_run()
                now = trio.current_time()


def _take_in_other(connection: "Connection", message: Message, frame: Frame, now: float) -> Backlog | None:
    """Handle what is not just put into one buffer; returns a backlog that is crowded by it."""
    if (reply := plain_reply(connection._state, message)) is not None:
        connection._socket._pushes.reply_received(reply)
    elif is_plain(connection._state, message):
        return connection._socket._deliver(message, frame)
    else:
        connection.handle(FrameReceived(now, frame), decoded=message)
    return None
