"""The lines of handled messages, pushes and replies, put together in a fraction of the time that `encode` takes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from attrs import define

from ..protocol import Frame, Message, PushMessage, ReplyReceived, SendFrame, State
from ..telemetry import HandleStop, Origin
from .lines import encode_line
from .values import TAG

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by readers of a recording."""

FULL_EVERY: Final = 256  # lines of a connection, after which its ids and its state are written in full again

_FRAME: Final = b'{"$":"FrameReceived","now":%b,"frame":%b}'

# Both lines of an input, in a state that was written before; and what came of it.
_BOTH: Final = (
    b'{"name":"slipstream connection handle start",%b,"span_id":"%b","system_time":%d,"monotonic_time":%d,'
    b'"raw_message":%b,"state":%d}\n'
    b'{"name":"slipstream connection handle stop",%b,"span_id":"%b","duration":%d,"monotonic_time":%d,"message":%b}\n'
)
_RECEIVED: Final = b'%b,"built_events":[%b],"return":[],"end_state":%d'
_DELIVERED: Final = b'{"$":"MessageReceived","message":{"$":"@message"}}'
_PUSHED: Final = b'{"$":"@input"},"built_events":[],"return":[%b],"end_state":{"n":%d,"from":%d,"current_ref":%d}'


@define(eq=False)
class Written:
    """The latest lines written of a connection."""

    origin: Origin
    short: bytes  # what stands for its ids in its next lines
    lines: int = 0  # how many were written since it was written in full
    state: State | None = None  # the latest, and its number
    number: int = 0
    decodes: bool = False  # whether the message of the latest handle can be decoded from its frame by a reader
    now: tuple[float, bytes] = (0.0, b"0.0")  # the latest time of a frame, which many have, and its text


def handled_lines(stop: HandleStop, written: Written, is_harmless: Callable[[Frame], bool]) -> bytes | None:
    """Return both lines of a message, a reply or a push with nothing to hide; None where there is more to write."""
    start, state = stop.start, stop.start.state
    if written.origin is not start.origin or written.state is not state or written.lines > FULL_EVERY - 2:
        return None
    if state.identity.options.serializer not in BUILT_IN:  # not by the flat name, which takes longer
        return None
    received = start.frame
    if received is None:
        return _pushed_lines(stop, written, is_harmless)
    (now, frame), message, event = received, stop.delivered, _DELIVERED
    if message is None:
        made = stop.transition
        reply = made.built_events[0] if made.state is state and len(made.built_events) == 1 else None
        if type(reply) is not ReplyReceived:
            return None
        response = {TAG: "@response"} if type(reply.response) in (dict, list) else reply.response
        told = {TAG: "ReplyReceived", "topic": reply.topic, "ref": reply.ref, "status": reply.status}
        message, event = made.message, encode_line({**told, "response": response})
    if not is_harmless(frame):
        return None
    if now is not written.now[0]:
        written.now = now, encode_line(now)
    join_ref, ref, topic, name, _ = message
    shown = encode_line(without_payload(message)) if ref is not None else _broadcast(join_ref, topic, name)
    given = _FRAME % (written.now[1], encode_line(frame))
    return _both(stop, written, given, _RECEIVED % (shown, event, written.number))


def _pushed_lines(stop: HandleStop, written: Written, is_harmless: Callable[[Frame], bool]) -> bytes | None:
    """Return both lines of a push; it changes nothing of a state but the ref."""
    made, push = stop.transition, stop.start.raw_message
    if type(push) is not PushMessage:
        return None
    effect, number = made.return_[0], written.number
    assert isinstance(effect, SendFrame)
    if not is_harmless(effect.frame) or '"$"' in effect.frame:
        return None
    given = {TAG: "PushMessage", "topic": push.topic, "event": push.event, "payload": push.payload}
    sent = encode_line({TAG: "SendFrame", "frame": effect.frame, "ref": effect.ref})
    came_to = _PUSHED % (sent, number + 1, number, made.state.current_ref)
    lines = _both(stop, written, encode_line(given), came_to)
    written.state, written.number = made.state, number + 1
    return lines


def _both(stop: HandleStop, written: Written, given: bytes, came_to: bytes) -> bytes:
    start = stop.start
    ids, span_id, began, now = written.short, start.span_id.encode(), start.monotonic_time, stop.monotonic_time
    written.lines += 2
    return _BOTH % (
        ids, span_id, start.system_time, began, given, written.number, ids, span_id, now - began, now, came_to
    )  # fmt: skip


def without_payload(message: Message) -> dict[str, Any]:
    """Return a message as it is written where its payload is decoded again from its frame."""
    join_ref, ref, topic, event, _ = message
    return {TAG: "Message", "join_ref": join_ref, "ref": ref, "topic": topic, "event": event}


@lru_cache(maxsize=4096)
def _broadcast(join_ref: str | None, topic: str, event: str) -> bytes:
    """Return a message without a ref: there are few such on a connection, and they come often."""
    return encode_line(without_payload(Message(join_ref, None, topic, event, None)))
