"""The two lines of a plain message, without the detours of `encode`: nearly all lines of a busy recording are these.

They are the same lines; tests hold the one against the other.
"""

from typing import Final

from ..telemetry import HandleStart, HandleStop
from .lines import encode_line

__all__ = ["quick_start", "quick_stop"]

_START: Final = (
    b'{"name":"slipstream connection handle start","connection_id":%b,"span_id":%b,"system_time":%d,'
    b'"monotonic_time":%d,"raw_message":{"$":"FrameReceived","now":%b,"frame":%b},"state":%d}\n'
)
_STOP: Final = (
    b'{"name":"slipstream connection handle stop","connection_id":%b,"span_id":%b,"duration":%d,"monotonic_time":%d,'
    b'"message":%b,"built_events":[{"$":"MessageReceived","message":{"$":"@message"}}],"return":[],"end_state":%d}\n'
)


def quick_start(record: HandleStart, state: int) -> bytes:
    """Return the line of the start of handling a text frame, in a state that has this number."""
    encode, given = encode_line, record.raw_message
    return _START % (
        encode(record.origin.connection_id),
        encode(record.span_id),
        record.system_time,
        record.monotonic_time,
        encode(given.now),
        encode(given.frame),
        state,
    )


def quick_stop(record: HandleStop, state: int) -> bytes:
    """Return the line of the end of handling a frame that is just delivered, and leaves the state as it is."""
    encode, start = encode_line, record.start
    join_ref, ref, topic, event, _ = record.transition.message
    message = {"$": "Message", "join_ref": join_ref, "ref": ref, "topic": topic, "event": event}
    return _STOP % (
        encode(start.origin.connection_id),
        encode(start.span_id),
        record.monotonic_time - start.monotonic_time,
        record.monotonic_time,
        encode(message),
        state,
    )
