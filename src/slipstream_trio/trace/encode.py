"""Encoding of telemetry records as lines of a recording; `schema` describes them."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from attrs import asdict, define, field

from ..protocol import Frame, FrameReceived, Message, PushMessage, ReplyReceived, SendFrame, State
from ..telemetry import ConnectStart, EventName, HandleStart, HandleStop, Origin, Record
from .redact import Redactor
from .schema import encode_line, missing_line
from .values import FIELDS, HOW, TAG, changes_of, encoded, field_of, fields_of, plain_text, remember

MOST_CONNECTIONS: Final = 4096  # so many are remembered; a forgotten one is written in full when it comes again
CONNECT_START: Final = ConnectStart.name
HANDLE_STOP: Final = HandleStop.name
RECORDED: Final[tuple[EventName, ...]] = (
    *(("slipstream", "client"), ("slipstream", "telemetry"), CONNECT_START[:-1]),
    *(HANDLE_STOP, (*HANDLE_STOP[:-1], "exception")),
)
"""The beginnings of the names of what is recorded: everything but the starts of handles, which their ends have."""

INPUT: Final = {TAG: "@input"}

BUILT_IN: Final = frozenset({"v1", "v2"})  # serializers whose messages readers of a recording can decode again
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


@define(eq=False)
class Encoder:
    """Makes lines of records, in the order in which they come."""

    redactor: Redactor
    alive: dict[str, None] = field(factory=dict, init=False)  # connections whose start was written, and whose end not
    _seen: dict[str, None] = field(factory=dict, init=False)
    _written: dict[str | None, Written] = field(factory=dict, init=False)
    _open: set[str] = field(factory=set, init=False)
    _whole: tuple[State | None, dict[str, Any]] = field(default=(None, {}), init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def lines(self, record: Any) -> bytes:
        """Return the lines of a record of a bus: of the end of a handle two, as that of its start is left to it."""
        start = getattr(record, "start", None)
        if type(start) is not HandleStart:
            return self.encode(record)
        written = self._written.get(start.origin.connection_id)
        if type(record) is HandleStop and written and (quick := handled_lines(record, written, self._is_harmless)):
            return quick
        return self.encode(start) + self.encode(record)

    def encode(self, record: Any) -> bytes:
        """Return the line of a record, with its line feed; two lines, where the first tells what is missing."""
        before = self.notice(record)
        last, (ids, written), line = record.name[-1], self._ids(record.origin), _head(record)
        line |= ids
        if last == "start":
            self._open.add(record.span_id)
        elif last in ("stop", "exception") and record.span_id not in self._open:  # its start is elsewhere: it has that
            start_ids, of_start = self._ids(record.start.origin)
            line["start"] = {**_head(record.start), **start_ids, **self._details(record.start, of_start)}
        else:
            self._open.discard(record.span_id)
        text = plain_text(record.details())
        if text is not None and not self.redactor.suspicious(text.decode()):
            return b"%b%b,%b\n" % (before, encode_line(line)[:-1], text[1:])
        return before + encode_line({**line, **self._details(record, written)}) + b"\n"

    def notice(self, record: Record) -> bytes:
        """Note which connections there are, also where nothing is written; returns the line, if any, to write first."""
        name, connection_id = record.name, record.origin.connection_id
        if connection_id is None or name[1] != "connection":
            return b""
        begins = name == CONNECT_START
        if name[2] == "connect" and not begins:
            self.alive.pop(connection_id, None)
        elif begins or connection_id not in self._seen:
            remember(self._seen, connection_id, None, MOST_CONNECTIONS)
            self.alive[connection_id] = None
            if not begins:
                return missing_line(None, "began_before", connection_id)
        return b""

    # The parts of a line

    def _ids(self, origin: Origin) -> tuple[dict[str, Any], Written]:
        """Return the ids, and what is written of the connection."""
        connection_id = origin.connection_id
        written, short = self._written.get(connection_id), {"connection_id": connection_id}
        if written and written.lines < FULL_EVERY and (written.origin is origin or written.origin == origin):
            written.lines += 1
            return short, written
        renewed = Written(origin, encode_line(short)[1:-1], decodes=written is not None and written.decodes)
        if connection_id is not None:
            remember(self._written, connection_id, renewed, MOST_CONNECTIONS)
        return asdict(origin), renewed

    def _state(self, state: State, written: Written) -> Any:
        before = written.state
        if state is before:
            return written.number
        written.state = state
        written.number += 1
        if before is None:
            if state is not self._whole[0]:
                self._whole = state, fields_of(state, self.redactor)
            return {"n": written.number, **self._whole[1]}
        return {"n": written.number, "from": written.number - 1, **changes_of(before, state, self.redactor)}

    def _details(self, record: Any, written: Written) -> dict[str, Any]:
        details = record.details()
        if record.name == HANDLE_STOP:
            return self._came_to(record.start.details()["raw_message"], written, details)
        return {key: self._value(HOW.get(key), value, written, details) for key, value in details.items()}

    def _value(self, how: str | None, value: Any, written: Written, details: Mapping[str, Any]) -> Any:
        redactor = self.redactor
        if how == "state":
            return self._state(value, written)
        if how == "raw_message":
            serializer = details["state"].options.serializer
            shown = self._object(value, serializer, {})
            if type(value) is FrameReceived:
                written.decodes = serializer in BUILT_IN and shown["frame"] != {TAG: "redacted"}
            return shown
        if how == "frame":  # it is malformed: hidden, if there may be a secret in it
            return None if value is None else encoded(redactor.frame(value, "v2"), redactor)
        if how == "text" and "stacktrace" in details:
            how = "error"  # where there is a traceback, the reason is an exception's text
        return field_of(value, how, redactor)

    # Handles

    def _is_harmless(self, frame: Frame) -> bool:
        """Tell whether there is nothing to hide in a frame, nor anything that JSON needs a `$` for."""
        return type(frame) is str and frame.isascii() and not self.redactor.suspicious(frame)

    def _came_to(self, given: Any, written: Written, details: Mapping[str, Any]) -> dict[str, Any]:
        message, built, state = details["message"], details["built_events"], details["end_state"]
        serializer, shared = state.options.serializer, {id(given): INPUT}
        if built and type(message) is Message and message is not given:
            payload = message.payload
            response = payload.get("response") if type(payload) is dict else None
            for name, its in (("@message", message), ("@payload", payload), ("@response", response)):
                if type(its) in (dict, list, bytes, Message):  # which are told by their identity
                    shared[id(its)] = {TAG: name}
        decodes = written.decodes and type(message) is Message
        shown = INPUT if message is given else without_payload(message) if decodes else encoded(message, self.redactor)
        return {
            "message": shown,
            "built_events": [self._object(event, serializer, shared) for event in built],
            "return": [self._object(effect, serializer, {}) for effect in details["return"]],
            "end_state": self._state(state, written),
        }

    def _object(self, value: Any, serializer: str, shared: Mapping[int, Any]) -> Any:
        """Return an input, an event or an effect; of an event, what is the message, or in it, is not written again."""
        kind, redactor = type(value), self.redactor
        if kind not in FIELDS:
            return encoded(value, redactor)
        shown: dict[str, Any] = {TAG: kind.__name__}
        for name, how in FIELDS[kind].items():
            its = getattr(value, name)
            if id(its) in shared:
                shown[name] = shared[id(its)]
            elif how == "frame":
                shown[name] = encoded(redactor.frame(its, serializer, sent=kind is SendFrame), redactor)
            else:
                shown[name] = field_of(its, how, redactor)
        return shown


def _head(record: Any) -> dict[str, Any]:
    span = {} if record.span_id is None else {"span_id": record.span_id}
    return {"name": " ".join(record.name), **span, **record.measurements}


def records_of(record: Record) -> int:
    """Return how many records are written with one of a bus: of a handle's end two."""
    return 2 if type(getattr(record, "start", None)) is HandleStart else 1


# The lines of handled messages, pushes and replies, put together in a fraction of the time that the rest takes


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
    join_ref, ref, topic, name, _ = message
    shown = encode_line(without_payload(message)) if ref is not None else _broadcast(join_ref, topic, name)
    given = _FRAME % (encode_line(now), encode_line(frame))
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
