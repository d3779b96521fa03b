"""The lines of handled messages, pushes and replies, put together in a fraction of the time that `encode` takes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from attrs import define

from ..protocol import Frame, Message, PushMessage, ReplyReceived, SendFrame, State, Transition
from ..telemetry import HandleStart, HandleStop, Origin
from .lines import encode_line
from .values import TAG

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by readers of a recording."""

FULL_EVERY: Final = 256  # lines of a connection, after which its ids and its state are written in full again

LONGEST_WAITING: Final = 4096
"""Characters of a frame whose lines may be made later: it is kept as long."""

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
    """The latest lines written of a connection.

    Attributes:
        origin: its ids.
        short: what stands for them in its next lines.
        lines: the number of lines since it was written in full.
        state: the latest state, and its `number`.
        decodes: whether the message of that handle can be decoded from its frame by a reader.
        now: the latest time of a frame, which many have, and its text.
    """

    origin: Origin
    short: bytes
    lines: int = 0
    state: State | None = None
    number: int = 0
    decodes: bool = False
    now: tuple[float, bytes] = (0.0, b"0.0")

    def suits(self, start: HandleStart) -> bool:
        """Tell whether no more is to be written than what happens to the connection."""
        return self.origin is start.origin and self.state is start.state and self.lines <= FULL_EVERY - 2


def can_wait(stop: HandleStop) -> bool:
    """Tell whether a handle is that of a short text, and no more came of it than a message or a reply."""
    start = stop.start
    received = start.frame
    if received is None or type(received[1]) is not str or len(received[1]) > LONGEST_WAITING:
        return False
    if stop.delivered is None and _reply(stop.transition, start.state) is None:
        return False
    return start.state.identity.options.serializer in BUILT_IN  # not by the flat name, which takes longer


def _reply(made: Transition, state: State) -> ReplyReceived | None:
    if made.state is not state or len(made.built_events) != 1:
        return None
    event = made.built_events[0]
    return event if type(event) is ReplyReceived else None


def received_lines(stop: HandleStop, written: Written) -> bytes | None:
    """Return both lines of a harmless frame that could wait; None where there is more to write."""
    start, message = stop.start, stop.delivered
    if not written.suits(start):
        return None
    now, frame = start.frame  # type: ignore[misc] # it has one
    if now is not written.now[0]:
        written.now = now, encode_line(now)
    event = _DELIVERED
    if message is None:
        made = stop.transition
        reply = made.built_events[0]
        assert isinstance(reply, ReplyReceived)
        message, event = made.message, _replied(reply)
    join_ref, ref, topic, name, _ = message
    shown = encode_line(without_payload(message)) if ref is not None else _broadcast(join_ref, topic, name)
    return _both(
        stop, written, _FRAME % (written.now[1], encode_line(frame)), _RECEIVED % (shown, event, written.number)
    )


def _replied(reply: ReplyReceived) -> bytes:
    response = {TAG: "@response"} if type(reply.response) in (dict, list) else reply.response
    shown = {TAG: "ReplyReceived", "topic": reply.topic, "ref": reply.ref, "status": reply.status}
    return encode_line({**shown, "response": response})


def pushed_lines(stop: HandleStop, written: Written, is_harmless: Callable[[Frame], bool]) -> bytes | None:
    """Return both lines of a push, of which nothing is to be hidden; it changes nothing of a state but the ref."""
    start, made = stop.start, stop.transition
    push, state = start.raw_message, start.state
    if type(push) is not PushMessage or not written.suits(start) or state.identity.options.serializer not in BUILT_IN:
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
